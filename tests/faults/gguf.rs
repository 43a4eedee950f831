//! GGUF models: metadata, tensors, length.

use std::fs;
use std::path::Path;

use tritforge_config::ModelConfig;
use tritforge_export::{ExportOptions, synth_gguf};
use tritforge_gguf::{GgmlType, Gguf, Metadata, TensorSpec, Value, Writer};
use tritforge_infer::Model;
use tritforge_ternary::{EMBEDDING_GRANULARITY, GRANULARITY, HEAD_GRANULARITY, Packing};

use crate::Round;

/// A model's metadata and tensors, to be written with a fault.
struct Parts {
    metadata: Metadata,
    tensors: Vec<(TensorSpec, Vec<u8>)>,
}

impl Parts {
    fn of(path: &Path) -> Self {
        let file = Gguf::open(path).unwrap();
        let mut metadata = Metadata::new();
        file.metadata().iter().for_each(|(key, value)| drop(metadata.insert(key, value.clone())));
        let spec = |t: &tritforge_gguf::TensorInfo| TensorSpec {
            name: t.name.clone(),
            dims: t.dims.clone(),
            ty: t.ty,
        };
        let tensors = file.tensors().iter().map(|t| (spec(t), file.data(t).to_vec())).collect();
        Self { metadata, tensors }
    }

    /// Writes the file and loads it: what the model is, or why not.
    fn load(&self, path: &Path) -> Result<String, String> {
        let specs = self.tensors.iter().map(|(spec, _)| spec.clone()).collect();
        let mut writer = Writer::create(path, &self.metadata, specs).map_err(|e| e.to_string())?;
        for (spec, bytes) in &self.tensors {
            writer.write_tensor(&spec.name, bytes).map_err(|e| e.to_string())?;
        }
        writer.finish().map_err(|e| e.to_string())?;
        describe(path)
    }
}

fn describe(path: &Path) -> Result<String, String> {
    let model = Model::open(path).map_err(|e| format!("{e:?}: {e}"))?;
    model.check_finite().map_err(|e| e.to_string())?;
    let ids = model.tokenizer().encode("größe <|endoftext|> 12", true).map_err(|e| e.to_string())?;
    Ok(format!("{:?} {ids:?} {:?}", model.config(), model.end_ids()))
}

const SHAPE: &str = "vocab_size = 257\nhidden_size = 128\nintermediate_size = 128\nnum_hidden_layers = 1\n\
    num_attention_heads = 4\nnum_key_value_heads = 2\nhead_dim = 32\nmax_position_embeddings = 32\nhidden_act = \"relu2\"\n";

#[test]
fn models_with_one_fault() {
    with_one_fault(SHAPE);
}

#[test]
fn models_with_a_ternary_embedding_and_one_fault() {
    with_one_fault(&format!("{SHAPE}ternary_embedding = \"tensor\"\n"));
}

fn with_one_fault(shape: &str) {
    let directory = tempfile::tempdir().unwrap();
    let (path, faulty) = (directory.path().join("model.gguf"), directory.path().join("faulty.gguf"));
    let config = ModelConfig::from_toml(shape).unwrap();
    let options = ExportOptions { packing: Packing::I2S, ..ExportOptions::default() };
    synth_gguf(&config, &path, &options, 1, None).unwrap();
    let right = describe(&path).unwrap();
    let mut round = Round::default();
    for index in 0..Parts::of(&path).tensors.len() {
        let name = Parts::of(&path).tensors[index].0.name.clone();
        let mut parts = Parts::of(&path);
        parts.tensors.remove(index);
        round.refused(&format!("{name} is missing"), parts.load(&faulty), &[&name]);
        let mut parts = Parts::of(&path);
        parts.tensors[index].0.name = format!("{name}.old");
        round.refused(&format!("{name} is renamed"), parts.load(&faulty), &[&name]);
        let mut parts = Parts::of(&path);
        parts.tensors[index].0.dims.push(2);
        let bytes = parts.tensors[index].1.repeat(2);
        parts.tensors[index].1 = bytes
            [..parts.tensors[index].0.ty.nbytes(&parts.tensors[index].0.dims).unwrap() as usize]
            .to_vec();
        round.refused(&format!("{name} has another shape"), parts.load(&faulty), &[&name]);
        let mut parts = Parts::of(&path);
        let extra =
            (TensorSpec { name: format!("extra.{name}"), dims: vec![4], ty: GgmlType::F32 }, vec![0; 16]);
        parts.tensors.push(extra);
        round.refused(&format!("extra.{name}"), parts.load(&faulty), &[&format!("extra.{name}")]);
        for not_finite in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut parts = Parts::of(&path);
            let (spec, bytes) = &mut parts.tensors[index];
            match spec.ty {
                GgmlType::F32 => bytes[..4].copy_from_slice(&not_finite.to_le_bytes()),
                GgmlType::F16 => {
                    let bits: u16 = if not_finite.is_nan() {
                        0x7e00
                    } else if not_finite > 0.0 {
                        0x7c00
                    } else {
                        0xfc00
                    };
                    let end = bytes.len();
                    bytes[end - 2..].copy_from_slice(&bits.to_le_bytes());
                }
                // The scale behind the codes.
                _ => {
                    let end = config.hidden_size.min(bytes.len());
                    let at = spec.dims.iter().product::<u64>() as usize / 4;
                    bytes[at..at + 4].copy_from_slice(&not_finite.to_le_bytes());
                    assert!(end > 0);
                }
            }
            round.refused(&format!("{name} with {not_finite}"), parts.load(&faulty), &[&name]);
        }
    }
    // What a configuration calls what it read, in any file: its errors give this name behind that of the
    // file.
    let in_config = [
        ("vocab_size", "vocab_size"),
        ("context_length", "max_position_embeddings"),
        ("embedding_length", "hidden_size"),
        ("block_count", "num_hidden_layers"),
        ("feed_forward_length", "intermediate_size"),
        ("head_count", "num_attention_heads"),
        ("head_count_kv", "num_key_value_heads"),
        ("layer_norm_rms_epsilon", "rms_norm_eps"),
        ("rope.freq_base", "rope_theta"),
        ("rope.scaling.factor", "rope_scaling"),
    ];
    let keys: Vec<String> = Parts::of(&path).metadata.iter().map(|(key, _)| key.to_string()).collect();
    for key in &keys {
        let values = [
            Value::Bool(true),
            Value::String("abc".to_string()),
            Value::I32(-1),
            Value::F32(f32::NAN),
            Value::U64(u64::MAX),
        ];
        for value in values {
            let mut parts = Parts::of(&path);
            let old = parts.metadata.get(key).unwrap();
            let same_type = old.type_id() == value.type_id();
            parts.metadata.insert(key.as_str(), value.clone());
            let found = parts.load(&faulty);
            match &found {
                // A value of the right type in its range is one like any other.
                Ok(_) if same_type => round.tried += 1,
                // As in llama.cpp, an id that no token has is passed over with a warning: the model has no
                // such token.
                Ok(_) if key.ends_with("bos_token_id") => round.tried += 1,
                _ => {
                    let name = in_config
                        .iter()
                        .find(|(end, _)| key.ends_with(end))
                        .map(|(_, name)| format!("faulty.gguf: {name} ="));
                    let places = [key.as_str(), name.as_deref().unwrap_or(key)];
                    round.take(&format!("{key} = {value:?}"), found, &places, &right);
                }
            }
        }
    }
    for key in [GRANULARITY, EMBEDDING_GRANULARITY, HEAD_GRANULARITY] {
        for value in [Value::String("48".to_string()), Value::U32(128)] {
            let mut parts = Parts::of(&path);
            parts.metadata.insert(key, value.clone());
            // Without a ternary embedding or head, nothing asks for theirs.
            let asked =
                key == GRANULARITY || (key == EMBEDDING_GRANULARITY && config.ternary_embedding.is_some());
            match parts.load(&faulty) {
                Ok(_) if !asked => round.tried += 1,
                found => round.refused(&format!("{key} = {value:?}"), found, &[key]),
            }
        }
    }
    let whole = fs::read(&path).unwrap();
    for cut in (0..16).map(|part| whole.len() * part / 16) {
        fs::write(&faulty, &whole[..cut]).unwrap();
        round.refused(&format!("cut at {cut}"), describe(&faulty), &["byte", "faulty.gguf"]);
    }
    round.end(150);
}
