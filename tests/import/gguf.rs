//! GGUF files: the order of rows, the pre-tokenizer, packings of other programs.

use tritforge_checkpoint::MODEL;
use tritforge_config::{HiddenAct, ModelConfig, Projection};
use tritforge_export::{ImportOptions, export_gguf, import};
use tritforge_gguf::{GgmlType, Gguf, TensorSpec, Writer};
use tritforge_infer::Model;
use tritforge_ternary::Packing;

use crate::{base, checkpoint, exact, full_precision, imported, trained_logits};

#[test]
fn rows_of_queries_and_keys_are_permuted_as_llama_cpp_reads_them() {
    let temp = tempfile::tempdir().unwrap();
    let config = full_precision();
    let first = checkpoint(&temp, "first", &config);
    let file = temp.path().join("m.gguf");
    export_gguf(&first, &file, &exact(Packing::Tq2_0)).unwrap();
    let gguf = Gguf::open(&file).unwrap();
    let tensors = first.tensors(MODEL).unwrap();
    for (p, heads) in [(Projection::Q, 4), (Projection::K, 2), (Projection::V, 2)] {
        let [rows, cols] = config.projection_shape(p);
        let ours = tensors.f32(&p.hf_weight(0), &[rows, cols]).unwrap();
        let stored = gguf.data(gguf.tensor(&p.gguf_weight(0)).unwrap());
        let stored: Vec<f32> = stored.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
        // `permute` of convert_hf_to_gguf.py: reshape (heads, 2, rows / heads / 2, cols), swap the middle
        // two.
        let half = rows / heads / 2;
        let mut expected = Vec::new();
        for head in 0..heads {
            for j in 0..half {
                for k in 0..2 {
                    let row = (head * 2 + k) * half + j;
                    expected.extend_from_slice(&ours[row * cols..][..cols]);
                }
            }
        }
        assert_eq!(stored == expected, p != Projection::V, "{p:?}");
        assert_eq!(stored == ours.to_vec(), p == Projection::V, "{p:?}");
    }
}

#[test]
fn a_gguf_file_without_its_pre_tokenizer_is_neither_written_nor_read() {
    let temp = tempfile::tempdir().unwrap();
    let first = checkpoint(&temp, "first", &base());
    let file = temp.path().join("m.gguf");
    export_gguf(&first, &file, &exact(Packing::I2S)).unwrap();
    let gguf = Gguf::open(&file).unwrap();
    assert_eq!(gguf.metadata().get_str("tokenizer.ggml.pre").unwrap(), "gpt-2");

    let mut metadata = gguf.metadata().clone();
    metadata.remove("tokenizer.ggml.pre");
    let specs = gguf.tensors().iter();
    let specs = specs.map(|t| TensorSpec { name: t.name.clone(), dims: t.dims.clone(), ty: t.ty }).collect();
    let without = temp.path().join("without.gguf");
    let mut writer = Writer::create(&without, &metadata, specs).unwrap();
    for tensor in gguf.tensors() {
        writer.write_tensor(&tensor.name, gguf.data(tensor)).unwrap();
    }
    writer.finish().unwrap();
    let error = import(&without, &temp.path().join("c"), &ImportOptions::default()).unwrap_err().to_string();
    assert!(error.contains("tokenizer.ggml.pre"), "{error}");
    assert!(!temp.path().join("c").exists());
    assert!(Model::open(&without).is_err());
}

/// The bytes of IQ2_BN: before each row its scale, then 64 weights in 16 bytes.
fn iq2_bn(codes: &[i8], cols: usize, scale: f32) -> Vec<u8> {
    let mut bytes = Vec::new();
    for row in codes.chunks_exact(cols) {
        bytes.extend_from_slice(&scale.to_le_bytes());
        for block in row.chunks_exact(64) {
            let code = |i: usize| (block[i] + 1) as u8;
            bytes
                .extend((0..16).map(|j| code(j) | code(j + 16) << 2 | code(j + 32) << 4 | code(j + 48) << 6));
        }
    }
    bytes
}

#[test]
fn files_of_ik_llama_keep_codes_and_scales() {
    let temp = tempfile::tempdir().unwrap();
    let config = ModelConfig { hidden_act: HiddenAct::Relu2, ..base() };
    let first = checkpoint(&temp, "first", &config);
    let file = temp.path().join("m.gguf");
    export_gguf(&first, &file, &exact(Packing::I2S)).unwrap();
    let gguf = Gguf::open(&file).unwrap();
    let other = |ty| if ty == GgmlType::I2_S { GgmlType::IQ2_BN } else { ty };
    let specs = gguf.tensors().iter();
    let specs =
        specs.map(|t| TensorSpec { name: t.name.clone(), dims: t.dims.clone(), ty: other(t.ty) }).collect();
    let theirs = temp.path().join("ik.gguf");
    let mut writer = Writer::create(&theirs, gguf.metadata(), specs).unwrap();
    for tensor in gguf.tensors() {
        let bytes = gguf.data(tensor);
        if tensor.ty == GgmlType::I2_S {
            let (cols, rows) = (tensor.dims[0] as usize, tensor.dims[1] as usize);
            let unpacked = Packing::I2S.unpack(bytes, rows, cols).unwrap();
            writer.write_tensor(&tensor.name, &iq2_bn(&unpacked.codes, cols, unpacked.scales[0])).unwrap();
        } else {
            writer.write_tensor(&tensor.name, bytes).unwrap();
        }
    }
    writer.finish().unwrap();
    let (report, second) = imported(&theirs, &temp.path().join("second"), &ImportOptions::default()).unwrap();
    assert_eq!(report.ternary_tensors, 14);
    assert_eq!(trained_logits(&second), trained_logits(&first));
}
