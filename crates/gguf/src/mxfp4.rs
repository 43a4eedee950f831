//! Type 39: MXFP4 in llama.cpp and ik_llama.cpp, TL2 in bitnet.cpp, whose bytes are tiles of a build's own kernels.
//!
//! Nothing in a file says which of the two it is but the room that its tensors have, from one offset to the next: TL2 takes
//! less than half of what MXFP4 takes. A file of TL2 is refused by what it is.

use crate::error::{Fault, Quoted};
use crate::reader::TensorInfo;
use crate::types::GgmlType;

/// Whether every tensor of type 39 has the room that MXFP4 takes. `offset_fields` says where each tensor's offset stands in
/// the file, `available` how many bytes of data there are.
pub(crate) fn check(tensors: &[TensorInfo], offset_fields: &[u64], available: u64) -> Result<(), Fault> {
    if !tensors.iter().any(|tensor| tensor.ty == GgmlType::MXFP4) {
        return Ok(());
    }
    let mut offsets: Vec<u64> = tensors.iter().map(|tensor| tensor.offset).collect();
    offsets.sort_unstable();
    for (i, tensor) in tensors.iter().enumerate().filter(|(_, tensor)| tensor.ty == GgmlType::MXFP4) {
        let next = offsets.partition_point(|offset| *offset <= tensor.offset);
        let end = offsets.get(next).copied().unwrap_or(available).min(available);
        let room = end.saturating_sub(tensor.offset);
        if tensor.nbytes > room {
            return Err(Fault::new(
                offset_fields[i],
                format_args!("tensor[{i}] {} offset", Quoted(&tensor.name)),
                format_args!("{} with room for {room} bytes of data", tensor.offset),
                format_args!(
                    "room for the {} bytes that MXFP4, type 39 of llama.cpp, takes for {:?} (is the file truncated, or is \
                     this TL2, type 39 of bitnet.cpp? Then convert the model again to I2_S, TQ1_0 or TQ2_0)",
                    tensor.nbytes, tensor.dims
                ),
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::{GgmlType, Gguf, Metadata, TensorSpec, Writer};

    fn file() -> Vec<u8> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.gguf");
        let spec =
            |name: &str| TensorSpec { name: name.to_string(), dims: vec![256, 8], ty: GgmlType::MXFP4 };
        let mut writer = Writer::create(&path, &Metadata::new(), vec![spec("a"), spec("b")]).unwrap();
        let bytes = vec![1u8; GgmlType::MXFP4.nbytes(&[256, 8]).unwrap() as usize];
        writer.write_tensor("a", &bytes).unwrap();
        writer.write_tensor("b", &bytes).unwrap();
        writer.finish().unwrap();
        std::fs::read(&path).unwrap()
    }

    #[test]
    fn the_length_tells_it_from_tl2() {
        let whole = file();
        let gguf = Gguf::from_bytes(whole.clone()).unwrap();
        let info = gguf.tensor("b").unwrap();
        assert_eq!((info.ty, info.nbytes), (GgmlType::MXFP4, 256 * 8 / 32 * 17));
        // TL2 takes about 1.67 bits a weight: the second tensor would begin sooner, the data end sooner.
        for missing in [1, 700] {
            let error = Gguf::from_bytes(whole[..whole.len() - missing].to_vec()).unwrap_err().to_string();
            assert!(
                error.contains("`b`") && error.contains("TL2") && error.contains("1088 bytes"),
                "{error}"
            );
        }
    }
}
