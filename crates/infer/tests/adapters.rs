//! Adapters beside the projections: against the merged weight, and what is refused.

mod common;

use std::sync::Arc;

use tritforge_gguf::{GgmlType, Metadata};
use tritforge_infer::{Adapter, LogitsRequest, Model, ScaledAdapter, Session};

use common::{
    RANK, Stored, adapter_values, bits, f32s, full_precision, model, rewrite, tokens, write, write_adapter,
};

fn logits(model: &Arc<Model>, adapters: &[ScaledAdapter]) -> Vec<f32> {
    let mut session = Session::new(Arc::clone(model), 64).unwrap();
    session.set_adapters(adapters);
    session.forward(&tokens(30, 1), LogitsRequest::All).unwrap()
}

fn distance(a: &[f32], b: &[f32]) -> f32 {
    let size = a.iter().fold(0f32, |m, x| m.max(x.abs()));
    a.iter().zip(b).fold(0f32, |m, (a, b)| m.max((a - b).abs())) / size
}

#[test]
fn an_adapter_is_the_merged_weight() {
    let (dir, path) = write(&full_precision(), &f32s());
    let model = Arc::new(Model::open(&path).unwrap());
    let file = dir.path().join("adapter.gguf");
    // Small beside the weights, so that the comparison is one of sums and not of chaos.
    let alpha = |metadata: &mut Metadata, _: &mut Vec<Stored>| {
        metadata.insert("adapter.lora.alpha", 0.2f32);
    };
    write_adapter(&file, &model, alpha);
    let adapter = Arc::new(Adapter::open(&file, &model).unwrap());
    for scale in [1.0f32, -0.5] {
        let merged = dir.path().join("merged.gguf");
        rewrite(&path, &merged, |_, tensors| {
            for tensor in tensors {
                if !["attn_q", "ffn_down"].iter().any(|name| tensor.name.contains(name)) {
                    continue;
                }
                let (cols, rows) = (tensor.dims[0] as usize, tensor.dims[1] as usize);
                let a = adapter_values(&tensor.name, 0, RANK * cols);
                let b = adapter_values(&tensor.name, 1, rows * RANK);
                let factor = f64::from(scale) * 0.2 / RANK as f64;
                for (i, bytes) in tensor.bytes.as_chunks_mut().0.iter_mut().enumerate() {
                    let (row, col) = (i / cols, i % cols);
                    let product: f64 =
                        (0..RANK).map(|k| f64::from(b[row * RANK + k]) * f64::from(a[k * cols + col])).sum();
                    let value = f64::from(f32::from_le_bytes(*bytes)) + factor * product;
                    *bytes = (value as f32).to_le_bytes();
                }
            }
        });
        let expected = logits(&Arc::new(Model::open(&merged).unwrap()), &[]);
        let found = logits(&model, &[ScaledAdapter { adapter: Arc::clone(&adapter), scale }]);
        let apart = distance(&expected, &found);
        assert!(apart < 1e-3, "{scale}: {apart}");
        assert!(
            distance(&expected, &logits(&model, &[])) > 10.0 * apart,
            "the adapter must change something"
        );
    }
}

#[test]
fn several_adapters_add_up_and_none_is_none() {
    let (dir, path) = write(&full_precision(), &f32s());
    let model = Arc::new(Model::open(&path).unwrap());
    let file = dir.path().join("adapter.gguf");
    write_adapter(&file, &model, |_, _| ());
    let adapter = Arc::new(Adapter::open(&file, &model).unwrap());
    let scaled = |scale: f32| ScaledAdapter { adapter: Arc::clone(&adapter), scale };
    let plain = logits(&model, &[]);
    assert_eq!(bits(&logits(&model, &[scaled(0.0)])), bits(&plain));
    let (twice, two) = (logits(&model, &[scaled(0.5)]), logits(&model, &[scaled(0.25), scaled(0.25)]));
    assert!(distance(&twice, &two) < 1e-3 && distance(&plain, &two) > 1e-2);
}

#[test]
fn what_is_no_adapter_of_this_model_is_refused_by_name() {
    let (dir, model) = model();
    let file = dir.path().join("adapter.gguf");
    let refused = |change: &dyn Fn(&mut Metadata, &mut Vec<Stored>)| {
        write_adapter(&file, &model, change);
        let error = Adapter::open(&file, &model).unwrap_err().to_string();
        assert!(error.contains("adapter.gguf"), "{error}");
        error
    };
    let error = refused(&|metadata, _| {
        metadata.insert("general.type", "model");
    });
    assert!(error.contains("general.type = model"), "{error}");
    let error = refused(&|metadata, _| {
        metadata.insert("general.architecture", "qwen3");
    });
    assert!(error.contains("made for architecture qwen3"), "{error}");
    let error = refused(&|metadata, _| {
        metadata.insert("adapter.lora.alpha", f32::NAN);
    });
    assert!(error.contains("adapter.lora.alpha"), "{error}");
    let error = refused(&|_, tensors| {
        tensors.remove(1);
    });
    assert!(error.contains("blk.0.attn_q.weight") && error.contains(".lora_b"), "{error}");
    let error = refused(&|_, tensors| {
        tensors[0].dims[0] = 128;
        tensors[0].bytes.truncate(128 * RANK * 4);
    });
    assert!(error.contains("blk.0.attn_q.weight"), "{error}");
    let error = refused(&|_, tensors| {
        tensors.push(Stored { name: "blk.9.attn_q.weight.lora_a".to_string(), ..tensors[0].clone() });
    });
    assert!(error.contains("blk.9.attn_q.weight.lora_a"), "{error}");
    let error = refused(&|_, tensors| {
        assert_eq!(tensors[2].ty, GgmlType::F32);
        tensors[2].bytes[40..44].copy_from_slice(&f32::NAN.to_le_bytes());
    });
    assert!(error.contains("NaN"), "{error}");
}
