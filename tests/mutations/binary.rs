//! GGUF, safetensors, sentencepiece models.

use std::fs;

use tritforge_config::ModelConfig;
use tritforge_export::{ExportOptions, synth_gguf};
use tritforge_gguf::{Gguf, Override};
use tritforge_infer::Model;
use tritforge_text::Tokenizer;

use crate::harness::{Parser, Seed};
use crate::tensors::read_all;
use crate::{golden, scratch, tiny};

const GGUF_WORDS: [&str; 14] = [
    "GGUF",
    "\u{3}\0\0\0",
    "general.architecture",
    "general.alignment",
    "bitnet.block_count",
    "bitnet.embedding_length",
    "bitnet.attention.head_count",
    "bitnet.rope.scaling.type",
    "tokenizer.ggml.tokens",
    "tokenizer.ggml.merges",
    "tokenizer.ggml.token_type",
    "split.count",
    "blk.0.attn_q.weight",
    "token_embd.weight",
];

/// A small model as a file.
fn model() -> Vec<u8> {
    let directory = scratch();
    let path = directory.path().join("model.gguf");
    let options = ExportOptions { packing: tritforge_ternary::Packing::I2S, ..ExportOptions::default() };
    synth_gguf(&tiny(), &path, &options, 1, None).unwrap();
    fs::read(path).unwrap()
}

/// The file's metadata and list of tensors are damaged, not the numbers behind them.
fn head(file: Vec<u8>) -> Seed {
    let head = Gguf::from_bytes(file.clone()).unwrap().data_offset() as usize;
    Seed::head(file, head)
}

/// The reader alone. 7.5 bytes a byte are explained in the tests of the crate; the file itself is held too.
#[test]
fn gguf() {
    let small = golden("gguf_writer.bin");
    let seeds = vec![Seed::whole(small.clone()), head(small), head(model())];
    let parser = Parser { name: "gguf", seeds, words: &GGUF_WORDS, times: 9, always: 8 << 10 };
    parser.check(|bytes| match Gguf::from_bytes(bytes.to_vec()) {
        Ok(file) => {
            for tensor in file.tensors() {
                assert_eq!(file.data(tensor).len() as u64, tensor.nbytes);
            }
            true
        }
        Err(error) => {
            assert!(!error.to_string().is_empty());
            false
        }
    });
}

/// What a file says about its model: configuration and tokenizer.
#[test]
fn gguf_metadata() {
    let parser = Parser {
        name: "gguf_metadata",
        seeds: vec![head(model())],
        words: &GGUF_WORDS,
        times: 100,
        always: 1 << 20,
    };
    parser.check(|bytes| {
        let Ok(file) = Gguf::from_bytes(bytes.to_vec()) else { return false };
        let config = ModelConfig::from_gguf_file(&file);
        let tokenizer = Tokenizer::from_gguf(file.metadata());
        if let Ok(tokenizer) = &tokenizer {
            let ids = tokenizer.encode("a größe \u{0}", true).unwrap_or_default();
            let _ = tokenizer.decode(&ids);
        }
        config.is_ok() && tokenizer.is_ok()
    });
}

/// A model that is loaded to be run.
#[test]
fn gguf_model() {
    let directory = scratch();
    let path = directory.path().join("damaged.gguf");
    let parser = Parser {
        name: "gguf_model",
        seeds: vec![head(model())],
        words: &GGUF_WORDS,
        times: 100,
        always: 4 << 20,
    };
    parser.check(|bytes| {
        fs::write(&path, bytes).unwrap();
        Model::open(&path).is_ok()
    });
}

#[test]
fn safetensors() {
    let directory = scratch();
    let path = directory.path().join("damaged.safetensors");
    let words = [
        "F32",
        "BF16",
        "U8",
        "I64",
        "F8_E4M3",
        "dtype",
        "shape",
        "data_offsets",
        "__metadata__",
        "[0,0]",
        "[18446744073709551615,2]",
        "model.norm.weight",
    ];
    let seeds =
        ["bitnet_packed/bitlinear/model.safetensors", "lora_bitnet/adapter_model.safetensors"].map(|name| {
            let file = golden(name);
            let header = 8 + u64::from_le_bytes(file[..8].try_into().unwrap()) as usize;
            Seed::head(file, header)
        });
    let parser =
        Parser { name: "safetensors", seeds: seeds.into(), words: &words, times: 20, always: 64 << 10 };
    parser.check(|bytes| {
        fs::write(&path, bytes).unwrap();
        read_all(&path)
    });
}

/// `--override-kv`.
#[test]
fn override_strings() {
    let seeds =
        ["tokenizer.ggml.pre=str:llama-bpe", "bitnet.context_length=int:4096", "k=float:1e4", "k=bool:true"];
    let words = ["=", ":", "int", "float", "bool", "str", "general.alignment", "split.count", "nan", "inf"];
    let seeds = seeds.map(Seed::whole).into();
    let parser = Parser { name: "override_strings", seeds, words: &words, times: 12, always: 4 << 10 };
    parser.check(|bytes| String::from_utf8_lossy(bytes).parse::<Override>().is_ok());
}

/// The names by which the parts of a split model are found, and the keys that say which part a file is.
#[test]
fn split_models() {
    let directory = scratch();
    let path = directory.path().join("model-00001-of-00002.gguf");
    let second = directory.path().join("model-00002-of-00002.gguf");
    let part = |no: u16| {
        let mut metadata = tritforge_gguf::Metadata::new();
        metadata.insert("general.architecture", "llama");
        metadata.insert("split.no", tritforge_gguf::Value::U16(no));
        metadata.insert("split.count", tritforge_gguf::Value::U16(2));
        metadata.insert("split.tensors.count", 2i32);
        let name = format!("blk.{no}.attn_norm.weight");
        let spec = tritforge_gguf::TensorSpec {
            name: name.clone(),
            dims: vec![8],
            ty: tritforge_gguf::GgmlType::F32,
        };
        let path = directory.path().join("part.gguf");
        let mut writer = tritforge_gguf::Writer::create(&path, &metadata, vec![spec]).unwrap();
        writer.write_tensor(&name, &[0; 32]).unwrap();
        writer.finish().unwrap();
        fs::read(path).unwrap()
    };
    let (first, other) = (part(0), part(1));
    let words =
        ["split.no", "split.count", "split.tensors.count", "\u{2}\0", "\u{1}\0", "blk.1.attn_norm.weight"];
    let parser = Parser {
        name: "split_models",
        seeds: vec![Seed::whole(first.clone()), Seed::whole(other.clone())],
        words: &words,
        times: 20,
        always: 16 << 10,
    };
    parser.check(|bytes| {
        // The part that is damaged is the one whose number the input has.
        let is_second = bytes.windows(22).any(|name| name == b"blk.1.attn_norm.weight");
        let files = if is_second { [&first[..], bytes] } else { [bytes, &other[..]] };
        fs::write(&path, files[0]).unwrap();
        fs::write(&second, files[1]).unwrap();
        Gguf::open(&path).is_ok()
    });
}
