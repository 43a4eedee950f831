//! GGUF files of other programs: granularities that they do not say, types that are read and not written, numbers of every
//! block format; and ternary models written as numbers for them.

use std::path::Path;

use tritforge_checkpoint::MODEL;
use tritforge_config::{ActivationQuant, Granularity, ModelConfig, Projection, WeightQuant};
use tritforge_export::{ExportOptions, ImportOptions, export_gguf};
use tritforge_gguf::{GgmlType, Gguf, TensorSpec, Writer};
use tritforge_infer::Model;
use tritforge_kernels::{BlockFormat, DenseType, f32_to_f16};
use tritforge_ternary::{EMBEDDING_GRANULARITY, GRANULARITY, HEAD_GRANULARITY, Packing, Scales};

use crate::{base, checkpoint, engine_logits, exact, full_precision, imported, trained_logits};

/// A file whose tensors have scales of different granularities and no key that says so, rewritten from one of ours.
fn without_granularity(ours: &Path, theirs: &Path, scales: impl Fn(&str) -> Option<Granularity>) {
    let gguf = Gguf::open(ours).unwrap();
    let mut metadata = gguf.metadata().clone();
    for key in [GRANULARITY, EMBEDDING_GRANULARITY, HEAD_GRANULARITY] {
        metadata.remove(key);
    }
    let specs = gguf.tensors().iter();
    let specs = specs.map(|t| TensorSpec { name: t.name.clone(), dims: t.dims.clone(), ty: t.ty }).collect();
    let mut writer = Writer::create(theirs, &metadata, specs).unwrap();
    for tensor in gguf.tensors() {
        let bytes = gguf.data(tensor);
        let Some(granularity) = scales(&tensor.name) else {
            writer.write_tensor(&tensor.name, bytes).unwrap();
            continue;
        };
        let shape @ [rows, cols] = [tensor.dims[1] as usize, tensor.dims[0] as usize];
        let codes = Packing::Q2_0.unpack(bytes, rows, cols).unwrap().codes;
        // Block after block of 64: the scales that the granularity has are f16 numbers, no two neighbours the same.
        let count = granularity.count(rows, cols);
        let values = (0..count).map(|i| 0.25 + (i * 5 % 7) as f32 / 64.0).collect();
        let scales = Scales::new(granularity, shape, values).unwrap();
        let blocks = scales.refined(Granularity::Group(64), shape).unwrap();
        writer
            .write_tensor(&tensor.name, &Packing::Q2_0.pack_codes(&codes, shape, &blocks).unwrap())
            .unwrap();
    }
    writer.finish().unwrap();
}

/// All projections have the finest granularity of theirs, embedding and head each its own; engine and import choose alike.
#[test]
fn tensors_of_different_granularities_are_read_in_the_finest() {
    let temp = tempfile::tempdir().unwrap();
    let config = ModelConfig {
        use_sub_norm: false,
        tie_word_embeddings: false,
        granularity: Granularity::Group(64),
        ternary_embedding: Some(Granularity::Group(64)),
        ternary_head: Some(Granularity::Group(64)),
        ..base()
    };
    let ours = temp.path().join("ours.gguf");
    export_gguf(&checkpoint(&temp, "first", &config), &ours, &exact(Packing::Q2_0)).unwrap();
    for name in ["groups", "rows", "tensor"] {
        let scales = |tensor: &str| match (name, tensor) {
            (_, tensor) if !tensor.ends_with(".weight") || tensor.contains("norm") => None,
            ("groups", "token_embd.weight") => Some(Granularity::Row),
            ("groups", "output.weight") => Some(Granularity::Group(64)),
            ("groups", "blk.1.attn_q.weight") => Some(Granularity::Row),
            ("groups", "blk.1.ffn_down.weight") => Some(Granularity::Group(128)),
            ("rows", "token_embd.weight") => Some(Granularity::Group(64)),
            ("rows", "blk.0.attn_k.weight") => Some(Granularity::Row),
            ("tensor", "output.weight") => Some(Granularity::Row),
            _ => Some(Granularity::Tensor),
        };
        let expected = match name {
            "groups" => [Granularity::Group(128), Granularity::Row, Granularity::Group(64)],
            "rows" => [Granularity::Row, Granularity::Group(64), Granularity::Tensor],
            _ => [Granularity::Tensor, Granularity::Tensor, Granularity::Row],
        };
        let theirs = temp.path().join(format!("{name}.gguf"));
        without_granularity(&ours, &theirs, scales);
        let model = Model::open(&theirs).unwrap();
        let (report, second) = imported(&theirs, &temp.path().join(name), &ImportOptions::default()).unwrap();
        for config in [model.config(), &report.config, &second.config().unwrap()] {
            let found = [Some(config.granularity), config.ternary_embedding, config.ternary_head];
            assert_eq!(found, expected.map(Some), "{name}");
        }
        for info in model.ternary() {
            // A group of 128 is a row of a matrix of as many columns.
            let own = expected[0].on(info.weights.cols());
            assert_eq!(
                info.weights.granularity(),
                own,
                "{name}: {}",
                info.projection.gguf_weight(info.layer)
            );
            let [rows, cols] = model.config().projection_shape(info.projection);
            let tensor = info.projection.gguf_weight(info.layer);
            let stored = scales(&tensor).unwrap();
            let values = |i: usize| 0.25 + (i * 5 % 7) as f32 / 64.0;
            for row in [0, rows - 1] {
                // The rows of queries and keys stand in another order in the file.
                let in_file = match info.projection {
                    Projection::Q | Projection::K => model.config().interleaved_row(row),
                    _ => row,
                };
                let first = if stored == Granularity::Tensor { 0 } else { in_file * stored.per_row(cols) };
                assert_eq!(info.weights.scales().row(row)[0], values(first), "{name}: {tensor}, row {row}");
            }
        }
        assert_eq!(engine_logits(&theirs), trained_logits(&second), "{name}");
    }
}

/// Types that are read and not written: binary blocks, rows of four together.
#[test]
fn types_that_are_only_read_keep_codes_and_scales() {
    let temp = tempfile::tempdir().unwrap();
    let config = ModelConfig {
        use_sub_norm: false,
        granularity: Granularity::Group(128),
        ternary_embedding: Some(Granularity::Group(128)),
        ..base()
    };
    let ours = temp.path().join("ours.gguf");
    export_gguf(&checkpoint(&temp, "first", &config), &ours, &exact(Packing::Pq2_0)).unwrap();
    let gguf = Gguf::open(&ours).unwrap();
    for (ty, bits) in [(GgmlType::Q1_0, true), (GgmlType::IQ2_BN_R4, false)] {
        let other = |own| if own == GgmlType::PQ2_0 { ty } else { own };
        let specs = gguf.tensors().iter();
        let specs = specs
            .map(|t| TensorSpec { name: t.name.clone(), dims: t.dims.clone(), ty: other(t.ty) })
            .collect();
        let mut metadata = gguf.metadata().clone();
        metadata.remove(GRANULARITY);
        let theirs = temp.path().join(format!("{ty}.gguf"));
        let mut writer = Writer::create(&theirs, &metadata, specs).unwrap();
        for tensor in gguf.tensors() {
            if tensor.ty != GgmlType::PQ2_0 {
                writer.write_tensor(&tensor.name, gguf.data(tensor)).unwrap();
                continue;
            }
            let weights = tensor.dims.iter().product::<u64>() as usize;
            let cols = tensor.dims[0] as usize;
            let mut bytes = Vec::new();
            if bits {
                for block in 0..weights / 128 {
                    bytes.extend(f32_to_f16(&[0.5 + (block % 9) as f32 / 16.0]));
                    bytes.extend((0..16).map(|byte| (block * 31 + byte * 77) as u8));
                }
            } else {
                for four in 0..weights / cols / 4 {
                    bytes.extend((0..4).flat_map(|row| (0.1 + (four * 4 + row) as f32 / 97.0).to_le_bytes()));
                    // Codes of 0, 1 and 2 only.
                    bytes.extend((0..cols).map(|byte| [0x12, 0x48, 0x94, 0x61][byte * byte % 4]));
                }
            }
            writer.write_tensor(&tensor.name, &bytes).unwrap();
        }
        writer.finish().unwrap();
        let (report, second) =
            imported(&theirs, &temp.path().join(ty.name()), &ImportOptions::default()).unwrap();
        assert_eq!((report.ternary_tensors, report.decoded_tensors), (15, 0), "{ty}");
        let expected = if bits { Granularity::Group(128) } else { Granularity::Row };
        // A group as wide as a row is a row.
        let embedding = Some(expected.on(config.hidden_size));
        assert_eq!((report.config.granularity, report.config.ternary_embedding), (expected, embedding));
        assert_eq!(engine_logits(&theirs), trained_logits(&second), "{ty}");
        // What was imported is written in a packing that holds it.
        let again = temp.path().join(format!("{ty}-again.gguf"));
        let packing = if bits { Packing::Ptq1_0 } else { Packing::Iq2Bn };
        export_gguf(&second, &again, &exact(packing)).unwrap();
        assert_eq!(engine_logits(&again), engine_logits(&theirs), "{ty}");
    }
}

/// A ternary embedding beside full-precision projections holds numbers as any other type does.
#[test]
fn a_ternary_embedding_of_a_full_precision_model_is_decoded() {
    let temp = tempfile::tempdir().unwrap();
    let config = full_precision();
    let ours = temp.path().join("ours.gguf");
    export_gguf(&checkpoint(&temp, "first", &config), &ours, &exact(Packing::Tq2_0)).unwrap();
    let gguf = Gguf::open(&ours).unwrap();
    let is_embedding = |name: &str| name == "token_embd.weight";
    let specs = gguf.tensors().iter();
    let specs = specs.map(|t| TensorSpec {
        name: t.name.clone(),
        dims: t.dims.clone(),
        ty: if is_embedding(&t.name) { GgmlType::PQ2_0 } else { t.ty },
    });
    let theirs = temp.path().join("theirs.gguf");
    let mut writer = Writer::create(&theirs, gguf.metadata(), specs.collect()).unwrap();
    let shape = [config.vocab_size, config.hidden_size];
    let codes: Vec<i8> = (0..shape[0] * shape[1]).map(|i| (i * i / 7 % 3) as i8 - 1).collect();
    let count = Granularity::Row.count(shape[0], shape[1]);
    let scales = (0..count).map(|i| 0.25 + (i % 13) as f32 / 32.0).collect();
    let scales = Scales::new(Granularity::Row, shape, scales).unwrap();
    for tensor in gguf.tensors() {
        match is_embedding(&tensor.name) {
            true => {
                writer.write_tensor(&tensor.name, &Packing::Pq2_0.pack_codes(&codes, shape, &scales).unwrap())
            }
            false => writer.write_tensor(&tensor.name, gguf.data(tensor)),
        }
        .unwrap();
    }
    writer.finish().unwrap();
    let (report, second) = imported(&theirs, &temp.path().join("second"), &ImportOptions::default()).unwrap();
    assert_eq!(
        (report.ternary_tensors, report.decoded_tensors, report.config.ternary_embedding),
        (0, 1, None)
    );
    let mut expected = vec![0.0; codes.len()];
    scales.apply(&codes, shape[1], &mut expected);
    let stored = second.tensors(MODEL).unwrap();
    assert!(stored.f32("model.embed_tokens.weight", &shape).unwrap() == expected);
    assert_eq!(engine_logits(&theirs), trained_logits(&second));
}

/// A ternary model as numbers, for quantizers of other programs: each is code times scale, and can be read again.
#[test]
fn a_ternary_model_is_written_as_numbers() {
    let temp = tempfile::tempdir().unwrap();
    let config = ModelConfig {
        use_sub_norm: false,
        granularity: Granularity::Group(64),
        ternary_embedding: Some(Granularity::Row),
        ..base()
    };
    let first = checkpoint(&temp, "first", &config);
    let packed = temp.path().join("packed.gguf");
    export_gguf(&first, &packed, &exact(Packing::Q2_0)).unwrap();
    let (_, codes) = imported(&packed, &temp.path().join("codes"), &ImportOptions::default()).unwrap();
    for ty in [DenseType::F32, DenseType::F16, DenseType::Bf16] {
        let file = temp.path().join(format!("{}.gguf", ty.name()));
        let options = ExportOptions { linears: ty, embeddings: ty, dequantize: true, ..exact(Packing::Q2_0) };
        let report = export_gguf(&first, &file, &options).unwrap();
        assert_eq!((report.ternary_tensors, report.weights.to_lowercase()), (0, ty.name().to_string()));
        let out = temp.path().join(ty.name());
        let (report, again) = imported(&file, &out, &ImportOptions::default()).unwrap();
        let kinds = (report.config.weights, report.config.activations, report.config.ternary_embedding);
        assert_eq!(kinds, (WeightQuant::None, ActivationQuant::None, None));
        let (stored, ternary) = (again.tensors(MODEL).unwrap(), codes.tensors(MODEL).unwrap());
        let matrices = Projection::ALL.map(|p| (p.hf_weight(1), config.projection_shape(p)));
        let embedding = ("model.embed_tokens.weight".to_string(), [config.vocab_size, config.hidden_size]);
        for (name, shape) in matrices.into_iter().chain([embedding]) {
            let expected = ternary.ternary(&name, shape).unwrap().unwrap().values();
            let found = stored.f32(&name, &shape).unwrap();
            assert_eq!(found.len(), expected.len());
            for (found, expected) in found.iter().zip(&expected) {
                // Scales of rows and groups are f16 numbers.
                let bound = if ty == DenseType::Bf16 { expected.abs() / 256.0 } else { 0.0 };
                assert!((found - expected).abs() <= bound, "{name}, {}: {found}, {expected}", ty.name());
            }
        }
    }
}

/// Block formats that are read and not written: the engine and an import have the numbers that the format's decoder gives.
#[test]
fn quantized_models_of_other_programs_are_read_as_numbers() {
    let temp = tempfile::tempdir().unwrap();
    let config = ModelConfig { hidden_size: 256, head_dim: 64, ..full_precision() };
    let ours = temp.path().join("ours.gguf");
    export_gguf(&checkpoint(&temp, "first", &config), &ours, &exact(Packing::Tq2_0)).unwrap();
    let gguf = Gguf::open(&ours).unwrap();
    // Where a block has its f16 scale, and its f16 minimum.
    let formats: [(GgmlType, Option<usize>, Option<usize>); 8] = [
        (GgmlType::Q2_K, Some(80), Some(82)),
        (GgmlType::Q3_K, Some(108), None),
        (GgmlType::Q4_K, Some(0), Some(2)),
        (GgmlType::Q5_K, Some(0), Some(2)),
        (GgmlType::IQ4_NL, Some(0), None),
        (GgmlType::IQ4_XS, Some(0), None),
        (GgmlType::IQ3_S, Some(0), None),
        (GgmlType::MXFP4, None, None),
    ];
    for (ty, scale, min) in formats {
        let format = BlockFormat::from_name(ty.name()).unwrap();
        let matrix = |dims: &[u64]| dims.len() == 2;
        let specs = gguf.tensors().iter().map(|t| TensorSpec {
            name: t.name.clone(),
            dims: t.dims.clone(),
            ty: if matrix(&t.dims) { ty } else { t.ty },
        });
        let theirs = temp.path().join(format!("{ty}.gguf"));
        let mut writer = Writer::create(&theirs, gguf.metadata(), specs.collect()).unwrap();
        let mut embedding = Vec::new();
        for (number, tensor) in gguf.tensors().iter().enumerate() {
            if !matrix(&tensor.dims) {
                writer.write_tensor(&tensor.name, gguf.data(tensor)).unwrap();
                continue;
            }
            let len = ty.nbytes(&tensor.dims).unwrap() as u32;
            let byte = |i: u32| ((i + 977 * number as u32).wrapping_mul(2_654_435_761) >> 13) as u8;
            let mut bytes: Vec<u8> = (0..len).map(byte).collect();
            for block in bytes.chunks_exact_mut(format.bytes) {
                // 2^-10: the numbers have the size of weights.
                for at in scale.into_iter().chain(min) {
                    block[at..at + 2].copy_from_slice(&0x1400u16.to_le_bytes());
                }
                if ty == GgmlType::MXFP4 {
                    block[0] = 123;
                }
            }
            if tensor.name == "token_embd.weight" {
                embedding = vec![0f32; tensor.dims.iter().product::<u64>() as usize];
                format.decode(&bytes, &mut embedding);
            }
            writer.write_tensor(&tensor.name, &bytes).unwrap();
        }
        writer.finish().unwrap();
        let (report, second) =
            imported(&theirs, &temp.path().join(ty.name()), &ImportOptions::default()).unwrap();
        assert_eq!((report.decoded_tensors, report.ternary_tensors), (15, 0), "{ty}");
        let shape = [config.vocab_size, config.hidden_size];
        let stored = second.tensors(MODEL).unwrap();
        assert!(stored.f32("model.embed_tokens.weight", &shape).unwrap() == embedding, "{ty}");
        let logits = engine_logits(&theirs);
        assert!(logits.iter().all(|logit| logit.is_finite()), "{ty}");
        assert_eq!(logits, trained_logits(&second), "{ty}");
        // A file that ends too soon says where.
        let whole = std::fs::read(&theirs).unwrap();
        let cut = temp.path().join("cut.gguf");
        std::fs::write(&cut, &whole[..whole.len() - 64]).unwrap();
        let error = Model::open(&cut).unwrap_err().to_string();
        assert!(error.contains("cut.gguf") && error.contains("truncated"), "{ty}: {error}");
    }
}
