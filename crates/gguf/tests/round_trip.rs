//! What the writer writes, the reader reads: any metadata, any tensors, any alignment.

use proptest::{collection::vec, prelude::*};
use tritforge_gguf::{Array, GgmlType, Gguf, Metadata, TensorSpec, Value, Writer};

fn array() -> impl Strategy<Value = Array> {
    prop_oneof![
        vec(any::<u8>(), 0..20).prop_map(Array::U8),
        vec(any::<i8>(), 0..20).prop_map(Array::I8),
        vec(any::<u16>(), 0..20).prop_map(Array::U16),
        vec(any::<i16>(), 0..20).prop_map(Array::I16),
        vec(any::<u32>(), 0..20).prop_map(Array::U32),
        vec(any::<i32>(), 0..20).prop_map(Array::I32),
        vec(any::<f32>(), 0..20).prop_map(Array::F32),
        vec(any::<bool>(), 0..20).prop_map(Array::Bool),
        vec(any::<String>(), 0..20).prop_map(Array::String),
        vec(any::<u64>(), 0..20).prop_map(Array::U64),
        vec(any::<i64>(), 0..20).prop_map(Array::I64),
        vec(any::<f64>(), 0..20).prop_map(Array::F64),
    ]
}

fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        any::<u8>().prop_map(Value::U8),
        any::<i8>().prop_map(Value::I8),
        any::<u16>().prop_map(Value::U16),
        any::<i16>().prop_map(Value::I16),
        any::<u32>().prop_map(Value::U32),
        any::<i32>().prop_map(Value::I32),
        any::<f32>().prop_map(Value::F32),
        any::<bool>().prop_map(Value::Bool),
        any::<String>().prop_map(Value::String),
        array().prop_map(Value::Array),
        any::<u64>().prop_map(Value::U64),
        any::<i64>().prop_map(Value::I64),
        any::<f64>().prop_map(Value::F64),
    ]
}

/// Keys with and without an alignment; a repeated key keeps its last value.
fn metadata() -> impl Strategy<Value = Metadata> {
    let alignment = proptest::option::of((3u32..=9).prop_map(|log| 1u32 << log));
    (vec(("[a-z.]{0,12}", value()), 0..12), alignment).prop_map(|(entries, alignment)| {
        let mut metadata = Metadata::new();
        for (key, value) in entries {
            metadata.insert(key, value);
        }
        if let Some(alignment) = alignment {
            metadata.insert("general.alignment", alignment);
        }
        metadata
    })
}

/// Tensors of every type with their data; names unique by their index.
fn tensors() -> impl Strategy<Value = Vec<(TensorSpec, Vec<u8>)>> {
    // Small tensors of the two types with one id cannot be told apart: their own test has larger ones.
    let types = GgmlType::all().filter(|ty| *ty != GgmlType::Q2_0_G128);
    let ty = proptest::sample::select(types.collect::<Vec<_>>());
    vec((ty, vec(1u64..4, 0..=4), "[^0-9]{0,10}", any::<u8>()), 0..8).prop_map(|tensors| {
        let tensors = tensors.into_iter().enumerate().map(|(i, (ty, mut dims, name, seed))| {
            // A scalar has no block to fill.
            if dims.is_empty() && ty.block_size() > 1 {
                dims.push(1);
            }
            if let Some(inner) = dims.first_mut() {
                *inner *= ty.block_size();
            }
            let nbytes = ty.nbytes(&dims).unwrap();
            let data = (0..nbytes).map(|b| (b as u8).wrapping_mul(7).wrapping_add(seed)).collect();
            (TensorSpec { name: format!("{i}{name}"), dims, ty }, data)
        });
        tensors.collect()
    })
}

fn write(path: &std::path::Path, metadata: &Metadata, tensors: &[(TensorSpec, Vec<u8>)]) {
    let specs = tensors.iter().map(|(spec, _)| spec.clone()).collect();
    let mut writer = Writer::create(path, metadata, specs).unwrap();
    for (spec, data) in tensors {
        writer.write_tensor(&spec.name, data).unwrap();
    }
    writer.finish().unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn written_files_read_back(metadata in metadata(), tensors in tensors()) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("model.gguf");
        write(&path, &metadata, &tensors);
        let mapped = Gguf::open(&path).unwrap();
        let owned = Gguf::from_bytes(std::fs::read(&path).unwrap()).unwrap();
        prop_assert_eq!(mapped.file_size() % mapped.alignment(), 0);
        for model in [&mapped, &owned] {
            prop_assert_eq!(model.metadata(), &metadata);
            prop_assert_eq!(model.tensors().len(), tensors.len());
            for (info, (spec, data)) in model.tensors().iter().zip(&tensors) {
                prop_assert_eq!(model.tensor(&spec.name), Some(info));
                prop_assert_eq!((&info.name, &info.dims, info.ty), (&spec.name, &spec.dims, spec.ty));
                prop_assert_eq!((model.data_offset() + info.offset) % model.alignment(), 0);
                prop_assert_eq!(model.data(info), data.as_slice());
            }
        }
    }
}

#[test]
fn not_a_number_keeps_its_bits() {
    let bits = 0xffc1_2345u32;
    let mut metadata = Metadata::new();
    metadata.insert("scalar", f32::from_bits(bits));
    metadata.insert("array", vec![f64::from_bits(u64::MAX)]);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("nan.gguf");
    write(&path, &metadata, &[]);
    let model = Gguf::open(&path).unwrap();
    assert_eq!(model.metadata().get_f32("scalar").unwrap().to_bits(), bits);
    assert_eq!(model.metadata().get_f64_array("array").unwrap()[0].to_bits(), u64::MAX);
}
