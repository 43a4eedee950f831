//! A safetensors file in pieces, to be written with a fault.

use std::fs;
use std::path::Path;

use serde_json::{Map, Value, json};

use crate::Round;

/// A tensor: name, type, shape, bytes.
#[derive(Clone, PartialEq)]
pub(crate) struct Tensor {
    pub(crate) name: String,
    pub(crate) dtype: String,
    pub(crate) shape: Vec<usize>,
    pub(crate) bytes: Vec<u8>,
}

/// The tensors of a file, in the order of its header.
pub(crate) fn read(path: &Path) -> Vec<Tensor> {
    let file = fs::read(path).unwrap();
    let length = u64::from_le_bytes(file[..8].try_into().unwrap()) as usize;
    let header: Map<String, Value> = serde_json::from_slice(&file[8..8 + length]).unwrap();
    let data = &file[8 + length..];
    let place = |entry: &Value, i: usize| entry["data_offsets"][i].as_u64().unwrap() as usize;
    header
        .iter()
        .filter(|(name, _)| *name != "__metadata__")
        .map(|(name, entry)| Tensor {
            name: name.clone(),
            dtype: entry["dtype"].as_str().unwrap().to_string(),
            shape: entry["shape"].as_array().unwrap().iter().map(|n| n.as_u64().unwrap() as usize).collect(),
            bytes: data[place(entry, 0)..place(entry, 1)].to_vec(),
        })
        .collect()
}

/// A file of tensors.
pub(crate) fn file(tensors: &[Tensor]) -> Vec<u8> {
    let (mut header, mut data) = (Map::new(), Vec::new());
    for tensor in tensors {
        let begin = data.len();
        data.extend_from_slice(&tensor.bytes);
        let entry =
            json!({"dtype": tensor.dtype, "shape": tensor.shape, "data_offsets": [begin, data.len()]});
        header.insert(tensor.name.clone(), entry);
    }
    let header = Value::Object(header).to_string();
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &data].concat()
}

/// Faults that a safetensors file may have as such, whatever is in it. `load` gets the bytes of the file.
pub(crate) fn broken_files(
    round: &mut Round,
    name: &str,
    whole: &[u8],
    mut load: impl FnMut(&[u8]) -> Result<String, String>,
) {
    let length = u64::from_le_bytes(whole[..8].try_into().unwrap()) as usize;
    let with_header = |header: &str| {
        [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &whole[8 + length..]].concat()
    };
    for cut in [0, 1, 7, 8, 9, length, 8 + length, whole.len() / 2, whole.len() - 1] {
        round.refused(&format!("{name} cut at {cut}"), load(&whole[..cut]), &[name]);
    }
    round.refused(&format!("{name} with a byte too many"), load(&[whole, &[0]].concat()), &[name]);
    for size in [u64::MAX, 1 << 40, whole.len() as u64, 0] {
        let bytes = [&size.to_le_bytes()[..], &whole[8..]].concat();
        round.refused(&format!("{name} with a header of {size} bytes"), load(&bytes), &[name]);
    }
    let header = std::str::from_utf8(&whole[8..8 + length]).unwrap();
    for (what, other) in [
        (
            "offsets far behind the end",
            header.replacen("\"data_offsets\":[0,", "\"data_offsets\":[99999999999,", 1),
        ),
        ("an unknown type", header.replacen("\"F32\"", "\"F31\"", 1).replacen("\"BF16\"", "\"BF15\"", 1)),
        ("no offsets", header.replacen("\"data_offsets\"", "\"offsets\"", 1)),
        ("no JSON", header.replacen('{', "[", 1)),
    ] {
        assert_ne!(other, header, "{what}");
        round.refused(&format!("{name} with {what}"), load(&with_header(&other)), &[name]);
    }
}

/// A fault of a tensor; where it changes nothing, it is none.
pub(crate) type Fault<'a> = (&'a str, &'a dyn Fn(&mut Tensor));

/// Leaves out each tensor, then puts each fault into it. `load` gets all tensors; an error has to name the one at fault, as it
/// was or as it is now.
pub(crate) fn broken_each(
    round: &mut Round,
    tensors: &[Tensor],
    faults: &[Fault<'_>],
    load: &mut impl FnMut(&[Tensor]) -> Result<String, String>,
) {
    for (index, tensor) in tensors.iter().enumerate() {
        let name = &tensor.name;
        let without: Vec<Tensor> = tensors.iter().filter(|t| t.name != *name).cloned().collect();
        round.refused(&format!("{name} is missing"), load(&without), &[name]);
        for (what, change) in faults {
            let mut other = tensors.to_vec();
            change(&mut other[index]);
            if other[index] != *tensor {
                round.refused(&format!("{name} {what}"), load(&other), &[name, &other[index].name]);
            }
        }
    }
}

/// A value that is not finite in the place of the last one.
fn not_finite(tensor: &mut Tensor, value: f32) {
    let end = tensor.bytes.len();
    match tensor.dtype.as_str() {
        "F32" => tensor.bytes[end - 4..].copy_from_slice(&value.to_le_bytes()),
        "BF16" => tensor.bytes[end - 2..].copy_from_slice(&value.to_le_bytes()[2..]),
        // A code that no ternary weight has.
        "U8" => tensor.bytes[end - 1] = 0xff,
        other => panic!("{other}"),
    }
}

/// A type of which the tensor has as many zeros.
fn zeros(tensor: &mut Tensor, dtype: &str, size: usize) {
    tensor.dtype = dtype.to_string();
    tensor.bytes.resize(tensor.shape.iter().product::<usize>() * size, 0);
}

/// Faults of each tensor of a model. `load` gets all tensors.
pub(crate) fn broken_tensors(
    round: &mut Round,
    tensors: &[Tensor],
    mut load: impl FnMut(&[Tensor]) -> Result<String, String>,
) {
    let faults: [Fault<'_>; 9] = [
        ("is renamed", &|t| t.name += ".old"),
        // A scale is one number, whatever its shape.
        ("has another rank", &|t| t.shape.extend((!t.name.ends_with("_scale")).then_some(1))),
        ("has a row more", &|t| {
            t.shape[0] += 1;
            let row = t.bytes.len() / (t.shape[0] - 1);
            t.bytes.extend_from_within(..row);
        }),
        ("is transposed", &|t| t.shape.reverse()),
        ("of type I32", &|t| zeros(t, "I32", 4)),
        ("of type U32", &|t| zeros(t, "U32", 4)),
        ("of type F8_E4M3", &|t| zeros(t, "F8_E4M3", 1)),
        ("with NaN", &|t| not_finite(t, f32::NAN)),
        ("with infinity", &|t| not_finite(t, f32::INFINITY)),
    ];
    broken_each(round, tensors, &faults, &mut load);
    let extra = Tensor {
        name: "model.layers.0.extra.weight".to_string(),
        dtype: "F32".to_string(),
        shape: vec![1],
        bytes: vec![0; 4],
    };
    let other = [tensors, &[extra]].concat();
    round.refused("a tensor that the model has no place for", load(&other), &["model.layers.0.extra.weight"]);
}
