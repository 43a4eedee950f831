//! A file written by the Python package gguf 0.19.0 (`tests/golden/make_gguf.py`) reads as that package meant
//! it.

use serde_json::Value as Json;
use tritforge_gguf::{Array, GgmlType, Gguf, Metadata, TensorSpec, Value, Writer};

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden/gguf_writer.bin");

fn golden() -> Json {
    serde_json::from_str(include_str!("../../../tests/golden/gguf_writer.json")).unwrap()
}

fn hex(text: &str) -> Vec<u8> {
    text.as_bytes()
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

/// The value that the golden file describes.
fn scalar(ty: &str, value: &Json) -> Value {
    let unsigned = || value.as_u64().unwrap();
    let signed = || value.as_i64().unwrap();
    match ty {
        "u8" => Value::U8(unsigned().try_into().unwrap()),
        "i8" => Value::I8(signed().try_into().unwrap()),
        "u16" => Value::U16(unsigned().try_into().unwrap()),
        "i16" => Value::I16(signed().try_into().unwrap()),
        "u32" => Value::U32(unsigned().try_into().unwrap()),
        "i32" => Value::I32(signed().try_into().unwrap()),
        // The script wrote f32 values as the f64 they are.
        "f32" => Value::F32(value.as_f64().unwrap() as f32),
        "bool" => Value::Bool(value.as_bool().unwrap()),
        "string" => Value::String(value.as_str().unwrap().to_owned()),
        "u64" => Value::U64(unsigned()),
        "i64" => Value::I64(signed()),
        "f64" => Value::F64(value.as_f64().unwrap()),
        _ => panic!("unknown type {ty}"),
    }
}

/// An array as the scalars it consists of.
fn elements(array: &Array) -> Vec<Value> {
    match array {
        Array::U8(v) => v.iter().map(|&x| x.into()).collect(),
        Array::I8(v) => v.iter().map(|&x| x.into()).collect(),
        Array::U16(v) => v.iter().map(|&x| x.into()).collect(),
        Array::I16(v) => v.iter().map(|&x| x.into()).collect(),
        Array::U32(v) => v.iter().map(|&x| x.into()).collect(),
        Array::I32(v) => v.iter().map(|&x| x.into()).collect(),
        Array::F32(v) => v.iter().map(|&x| x.into()).collect(),
        Array::Bool(v) => v.iter().map(|&x| x.into()).collect(),
        Array::String(v) => v.iter().map(|x| x.as_str().into()).collect(),
        Array::U64(v) => v.iter().map(|&x| x.into()).collect(),
        Array::I64(v) => v.iter().map(|&x| x.into()).collect(),
        Array::F64(v) => v.iter().map(|&x| x.into()).collect(),
    }
}

#[test]
fn every_metadata_value_is_read_in_order() {
    let model = Gguf::open(FILE).unwrap();
    let golden = golden();
    let expected = golden["metadata"].as_array().unwrap();
    assert_eq!(model.metadata().len(), expected.len());
    for ((key, value), line) in model.metadata().iter().zip(expected) {
        assert_eq!(key, line[0].as_str().unwrap());
        match (value, line[1].as_str().unwrap()) {
            (Value::Array(array), "array") => {
                let ty = line[2].as_str().unwrap();
                let scalars: Vec<Value> =
                    line[3].as_array().unwrap().iter().map(|element| scalar(ty, element)).collect();
                assert_eq!(elements(array), scalars, "{key}");
            }
            (value, ty) => assert_eq!(*value, scalar(ty, &line[2]), "{key}"),
        }
    }
}

#[test]
fn every_tensor_is_read_in_order() {
    let model = Gguf::open(FILE).unwrap();
    let golden = golden();
    assert_eq!(model.version(), 3);
    assert_eq!(Some(model.alignment()), golden["alignment"].as_u64());
    assert_eq!(Some(model.data_offset()), golden["data_offset"].as_u64());
    let expected = golden["tensors"].as_array().unwrap();
    assert_eq!(model.tensors().len(), expected.len());
    for (tensor, line) in model.tensors().iter().zip(expected) {
        assert_eq!(tensor.name, line["name"].as_str().unwrap());
        let dims: Vec<u64> = line["dims"].as_array().unwrap().iter().map(|d| d.as_u64().unwrap()).collect();
        assert_eq!(tensor.dims, dims, "{}", tensor.name);
        assert_eq!(tensor.ty.name(), line["type"].as_str().unwrap());
        assert_eq!(Some(tensor.offset), line["offset"].as_u64());
        assert_eq!(model.data(tensor), hex(line["data"].as_str().unwrap()), "{}", tensor.name);
    }
}

#[test]
fn tensor_types_are_those_of_the_package() {
    let golden = golden();
    let mut known = 0;
    for row in golden["types"].as_array().unwrap() {
        let id = u32::try_from(row[0].as_u64().unwrap()).unwrap();
        let ty = GgmlType::from_id(id).unwrap();
        assert_eq!(ty.name(), row[1].as_str().unwrap());
        assert_eq!((Some(ty.block_size()), Some(ty.type_size())), (row[2].as_u64(), row[3].as_u64()), "{ty}");
        known += 1;
    }
    // The package does not know I2_S, both Q2_0, IQ1_BN, IQ2_BN, IQ2_BN_R4, PQ2_0 and PTQ1_0.
    assert_eq!(GgmlType::all().count(), known + 8);
}

#[test]
fn the_writer_writes_the_same_bytes() {
    let model = Gguf::open(FILE).unwrap();
    let mut metadata = Metadata::new();
    for (key, value) in model.metadata().iter() {
        metadata.insert(key, value.clone());
    }
    let specs = model.tensors().iter();
    let specs = specs.map(|t| TensorSpec { name: t.name.clone(), dims: t.dims.clone(), ty: t.ty }).collect();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("again.gguf");
    let mut writer = Writer::create(&path, &metadata, specs).unwrap();
    for tensor in model.tensors() {
        writer.write_tensor(&tensor.name, model.data(tensor)).unwrap();
    }
    writer.finish().unwrap();
    assert!(std::fs::read(&path).unwrap() == std::fs::read(FILE).unwrap(), "the files differ");
}
