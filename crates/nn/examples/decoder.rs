//! A ternary decoder on candle's tape, trained with candle-nn's AdamW on the bytes of a short text.
//!
//! `cargo run --release -p tritforge-nn --example decoder`.

mod export;

use anyhow::Result;
use candle_core::{DType, Device, Module, Tensor};
use candle_nn::{AdamW, Optimizer, VarBuilder, VarMap};
use tritforge_config::ModelConfig;
use tritforge_nn::{BitLinear, Decoder};

/// William Blake, "The Tyger" (1794), first and second stanza.
const TEXT: &str = "Tyger Tyger, burning bright,\nIn the forests of the night;\nWhat immortal hand or eye,\n\
Could frame thy fearful symmetry?\n\nIn what distant deeps or skies,\nBurnt the fire of thine eyes?\n\
On what wings dare he aspire?\nWhat the hand, dare seize the fire?\n";
const LENGTH: usize = 64;
const STEPS: usize = 150;

fn main() -> Result<()> {
    let config = ModelConfig {
        vocab_size: 128,
        hidden_size: 256,
        intermediate_size: 512,
        num_hidden_layers: 2,
        max_position_embeddings: 256,
        ..ModelConfig::default()
    };
    let variables = VarMap::new();
    let model = Decoder::new(&config, VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu))?;
    let mut optimizer = AdamW::new_lr(variables.all_vars(), 2e-3)?;

    let text: Vec<u32> = TEXT.bytes().map(u32::from).collect();
    // All windows that begin at a multiple of 8: [windows, LENGTH].
    let starts: Vec<usize> = (0..text.len() - LENGTH).step_by(8).collect();
    let window = |offset: usize| {
        let ids: Vec<u32> =
            starts.iter().flat_map(|start| &text[start + offset..][..LENGTH]).copied().collect();
        Tensor::from_vec(ids, (starts.len(), LENGTH), &Device::Cpu)
    };
    let (ids, targets) = (window(0)?, window(1)?);
    for step in 1..=STEPS {
        let loss = model.loss(&ids, &targets)?;
        optimizer.backward_step(&loss)?;
        if step % 25 == 0 || step == 1 {
            println!("step {step}: loss {:.4}", loss.to_scalar::<f32>()?);
        }
    }

    let mut sample = text[..12].to_vec();
    for _ in 0..100 {
        let context = &sample[sample.len().saturating_sub(LENGTH)..];
        let logits = model.forward(&Tensor::new(context, &Device::Cpu)?.unsqueeze(0)?)?;
        sample.push(logits.get(0)?.get(context.len() - 1)?.argmax(0)?.to_scalar()?);
    }
    let bytes: Vec<u8> = sample.iter().map(|id| *id as u8).collect();
    println!("---\n{}\n---", String::from_utf8_lossy(&bytes));

    let layers: Vec<(String, &BitLinear)> = model.projections().collect();
    export::export(&std::env::temp_dir().join("tritforge-decoder.gguf"), &layers)
}
