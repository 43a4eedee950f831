//! Which of its two layouts the tensors of type 42 have: blocks of 64 weights in 18 bytes, which are llama.cpp's, or
//! of 128 in 34, as PrismML's fork wrote them before.
//!
//! Nothing in a file says it but the room that its tensors have, from one offset to the next. All tensors of a file have
//! the same layout; where both would fit, which takes a padding longer than the difference, it is llama.cpp's.

use crate::error::{Fault, Quoted};
use crate::format::align_up;
use crate::reader::TensorInfo;
use crate::types::GgmlType;

/// Gives the tensors of type 42 the layout that fits them. `offset_fields` says where each tensor's offset stands in the
/// file, `available` how many bytes of data there are.
pub(crate) fn tell_apart(
    tensors: &mut [TensorInfo],
    offset_fields: &[u64],
    alignment: u64,
    available: u64,
) -> Result<(), Fault> {
    let narrow: Vec<usize> = (0..tensors.len()).filter(|i| tensors[*i].ty == GgmlType::Q2_0).collect();
    if narrow.is_empty() {
        return Ok(());
    }
    let mut offsets: Vec<u64> = tensors.iter().map(|tensor| tensor.offset).collect();
    offsets.sort_unstable();
    // The room of a tensor, and whether another one follows it.
    let room = |tensor: &TensorInfo| {
        let next = offsets.partition_point(|offset| *offset <= tensor.offset);
        let end = offsets.get(next).copied().unwrap_or(available).min(available);
        (end.saturating_sub(tensor.offset), next < offsets.len())
    };
    let Some(first) = narrow.iter().copied().find(|i| tensors[*i].nbytes > room(&tensors[*i]).0) else {
        return Ok(());
    };
    // Those of blocks of 128 fill their room but for the padding.
    let wide = |tensor: &TensorInfo| {
        let nbytes = GgmlType::Q2_0_G128.checked_nbytes(&tensor.dims).ok()?;
        let (room, followed) = room(tensor);
        let padded = align_up(nbytes, alignment)?;
        let fits = if followed { room == padded } else { (nbytes..=padded).contains(&room) };
        fits.then_some(nbytes)
    };
    let Some(lengths) = narrow.iter().map(|i| wide(&tensors[*i])).collect::<Option<Vec<u64>>>() else {
        let tensor = &tensors[first];
        let wide = GgmlType::Q2_0_G128
            .checked_nbytes(&tensor.dims)
            .map_or_else(|expected| format!("needs {expected}"), |nbytes| format!("takes {nbytes} bytes"));
        return Err(Fault::new(
            offset_fields[first],
            format_args!("tensor[{first}] {} offset", Quoted(&tensor.name)),
            format_args!("{} with room for {} bytes of data", tensor.offset, room(tensor).0),
            format_args!(
                "room for a Q2_0 tensor {:?}: in blocks of 64 weights it takes {} bytes, in blocks of 128, which all \
                 tensors of the type would have to fill, it {wide} (is the file truncated?)",
                tensor.dims, tensor.nbytes
            ),
        ));
    };
    for (i, nbytes) in narrow.into_iter().zip(lengths) {
        (tensors[i].ty, tensors[i].nbytes) = (GgmlType::Q2_0_G128, nbytes);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::{GgmlType, Gguf, Metadata, TensorSpec, Writer};

    /// A file of two matrices of 512 by 8 and a vector between them.
    fn file(ty: GgmlType) -> Vec<u8> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.gguf");
        let spec =
            |name: &str, dims: &[u64], ty| TensorSpec { name: name.to_string(), dims: dims.to_vec(), ty };
        let specs = vec![spec("a", &[512, 8], ty), spec("b", &[3], GgmlType::F32), spec("c", &[512, 8], ty)];
        let mut writer = Writer::create(&path, &Metadata::new(), specs).unwrap();
        let bytes = vec![1u8; ty.nbytes(&[512, 8]).unwrap() as usize];
        writer.write_tensor("a", &bytes).unwrap();
        writer.write_tensor("b", &[0; 12]).unwrap();
        writer.write_tensor("c", &bytes).unwrap();
        writer.finish().unwrap();
        std::fs::read(&path).unwrap()
    }

    #[test]
    fn the_length_tells_the_layout() {
        for (ty, bytes) in [(GgmlType::Q2_0, 1152), (GgmlType::Q2_0_G128, 1088)] {
            let gguf = Gguf::from_bytes(file(ty)).unwrap();
            for name in ["a", "c"] {
                let info = gguf.tensor(name).unwrap();
                assert_eq!((info.ty, info.nbytes), (ty, bytes));
                assert_eq!(gguf.data(info), vec![1; bytes as usize]);
            }
        }
    }

    #[test]
    fn a_length_that_fits_neither_is_refused_with_both() {
        // The padding at the end may be missing, a byte more may not: then the first tensor's length fits no blocks of
        // 64, or the last one's no blocks of 128.
        let narrow = file(GgmlType::Q2_0);
        let error = Gguf::from_bytes(narrow[..narrow.len() - 1].to_vec()).unwrap_err().to_string();
        assert!(
            error.contains("`c`") && error.contains("1152 bytes") && error.contains("1088 bytes"),
            "{error}"
        );
        let wide = file(GgmlType::Q2_0_G128);
        let error = Gguf::from_bytes(wide[..wide.len() - 1].to_vec()).unwrap_err().to_string();
        assert!(
            error.contains("`a`") && error.contains("1152 bytes") && error.contains("1088 bytes"),
            "{error}"
        );
    }
}
