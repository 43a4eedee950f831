//! From a file to a model: every packing gives the same numbers, and a file that is not whole says what is wrong.

mod common;

use std::sync::Arc;

use tritforge_config::{ModelConfig, Projection};
use tritforge_export::ExportOptions;
use tritforge_gguf::{GgmlType, Metadata};
use tritforge_infer::{LogitsRequest, Model, Session};
use tritforge_kernels::DenseType;
use tritforge_ternary::Packing;

use common::{Stored, bits, config, f32s, full_precision, rewrite, tokens, write};

fn logits(model: Model) -> Vec<f32> {
    let mut session = Session::new(Arc::new(model), 64).unwrap();
    session.forward(&tokens(30, 1), LogitsRequest::All).unwrap()
}

#[test]
fn every_packing_gives_the_same_bits() {
    let of = |packing| {
        let (_dir, path) = write(&config(), &ExportOptions { packing, ..ExportOptions::default() });
        let model = Model::open(&path).unwrap();
        let codes: Vec<Vec<i8>> = model.ternary().map(|info| info.weights.codes()).collect();
        assert_eq!(codes.len(), 2 * 7);
        assert!(model.ternary().all(|info| info.packing == packing), "{packing:?}");
        (codes, bits(&logits(model)))
    };
    let first = of(Packing::Tq2_0);
    for packing in [Packing::Tq1_0, Packing::I2S, Packing::I2SArm, Packing::Q2_0, Packing::Iq2Bn] {
        assert!(of(packing) == first, "{packing:?}");
    }
}

#[test]
fn a_full_precision_projection_may_stand_among_ternary_ones() {
    let (dir, path) = write(&config(), &ExportOptions::default());
    let plain = logits(Model::open(&path).unwrap());
    let model = Model::open(&path).unwrap();
    let mixed = dir.path().join("mixed.gguf");
    // Values as f32, code times scale: only the rounding of activations is missing there.
    rewrite(&path, &mixed, |_, tensors| {
        let name = Projection::V.gguf_weight(1);
        tensors.retain(|tensor| tensor.name != "blk.1.attn_v.scale");
        let info = model.ternary().find(|info| (info.layer, info.projection) == (1, Projection::V)).unwrap();
        let tensor = tensors.iter_mut().find(|tensor| tensor.name == name).unwrap();
        let values = {
            let (codes, mut values) = (info.weights.codes(), vec![0.0; info.weights.codes().len()]);
            info.weights.scales().apply(&codes, info.weights.cols(), &mut values);
            values.into_iter()
        };
        *tensor = Stored {
            ty: GgmlType::F32,
            bytes: values.flat_map(|x| x.to_le_bytes()).collect(),
            ..tensor.clone()
        };
    });
    let model = Model::open(&mixed).unwrap();
    assert_eq!(model.ternary().count(), 2 * 7 - 1);
    let found = logits(model);
    let size = plain.iter().fold(0f32, |m, x| m.max(x.abs()));
    let apart = plain.iter().zip(&found).fold(0f32, |m, (a, b)| m.max((a - b).abs()));
    assert!(apart > 0.0 && apart < 0.1 * size, "{apart} of {size}");
}

#[test]
fn full_precision_weights_are_read_in_every_type() {
    let of = |linears, embeddings| {
        let options = ExportOptions { linears, embeddings, ..ExportOptions::default() };
        // Small weights: the layers do not multiply what is rounded.
        let config = ModelConfig { initializer_range: 0.05, ..full_precision() };
        let (_dir, path) = write(&config, &options);
        logits(Model::open(&path).unwrap())
    };
    let exact = of(DenseType::F32, DenseType::F32);
    let size = exact.iter().fold(0f32, |m, x| m.max(x.abs()));
    for (ty, bound) in
        [(DenseType::F16, 0.02), (DenseType::Bf16, 0.1), (DenseType::Q8_0, 0.1), (DenseType::Q6K, 0.3)]
    {
        let found = of(ty, ty);
        let apart = exact.iter().zip(&found).fold(0f32, |m, (a, b)| m.max((a - b).abs()));
        assert!(apart > 0.0 && apart < bound * size, "{ty:?}: {apart} of {size}");
    }
}

/// What opening says of a file that was changed.
fn refused(
    config: &ModelConfig,
    options: &ExportOptions,
    change: impl FnOnce(&mut Metadata, &mut Vec<Stored>),
) -> String {
    let (dir, path) = write(config, options);
    let changed = dir.path().join("changed.gguf");
    rewrite(&path, &changed, change);
    let error = Model::open(&changed).unwrap_err().to_string();
    assert!(error.contains("changed.gguf"), "{error}");
    error
}

fn find<'a>(tensors: &'a mut [Stored], name: &str) -> &'a mut Stored {
    tensors.iter_mut().find(|tensor| tensor.name == name).unwrap()
}

#[test]
fn a_file_that_is_not_whole_names_the_tensor() {
    let ternary = ExportOptions::default();
    let error = refused(&config(), &ternary, |_, tensors| {
        tensors.retain(|tensor| tensor.name != "blk.1.ffn_up.weight");
    });
    assert!(error.contains("blk.1.ffn_up.weight") && error.contains("missing"), "{error}");

    let error = refused(&config(), &ternary, |_, tensors| {
        let tensor = find(tensors, "blk.0.attn_norm.weight");
        tensor.dims = vec![128];
        tensor.bytes.truncate(128 * 4);
    });
    assert!(error.contains("blk.0.attn_norm.weight") && error.contains("[128], expected [256]"), "{error}");

    let error = refused(&config(), &ternary, |_, tensors| {
        let extra = Stored { name: "blk.0.attn_sinks.weight".to_string(), ..tensors[1].clone() };
        tensors.push(extra);
    });
    assert!(error.contains("blk.0.attn_sinks.weight"), "{error}");

    let error = refused(&config(), &ternary, |_, tensors| {
        let tensor = find(tensors, "blk.1.ffn_norm.weight");
        tensor.bytes[4..8].copy_from_slice(&f32::INFINITY.to_le_bytes());
    });
    assert!(error.contains("blk.1.ffn_norm.weight") && error.contains("inf"), "{error}");

    let error = refused(&config(), &ternary, |metadata, _| {
        metadata.insert("general.architecture", "mamba");
    });
    assert!(error.contains("mamba"), "{error}");
}

#[test]
fn numbers_that_stay_in_the_file_are_looked_at_when_they_are_used() {
    let (dir, path) = write(&full_precision(), &f32s());
    let changed = dir.path().join("nan.gguf");
    rewrite(&path, &changed, |_, tensors| {
        let tensor = find(tensors, "blk.1.attn_output.weight");
        tensor.bytes[(5 * 256 + 3) * 4..][..4].copy_from_slice(&f32::NAN.to_le_bytes());
    });
    let model = Model::open(&changed).unwrap();
    for error in [
        model.check_finite().unwrap_err().to_string(),
        Session::new(Arc::new(model), 64)
            .unwrap()
            .forward(&[1], LogitsRequest::Last)
            .unwrap_err()
            .to_string(),
    ] {
        assert!(error.contains("blk.1.attn_output.weight") && error.contains("NaN"), "{error}");
    }
}

#[test]
fn memory_is_told_by_where_it_is() {
    let (_dir, path) = write(&config(), &ExportOptions::default());
    let model = Model::open(&path).unwrap();
    let memory = model.memory();
    assert_eq!(memory.file_bytes as u64, std::fs::metadata(&path).unwrap().len());
    let codes: usize = model.ternary().map(|info| info.weights.packed_bytes()).sum();
    assert!(memory.weight_bytes >= codes && codes > 0);
}
