//! Tokens a second of forward and backward, part by part: `cargo bench -p tritforge-nn`.
//!
//! Shape S of the training benchmarks: d 256, 6 layers, 4 heads (2 KV), FFN 768, vocabulary 4096, 8 sequences of 256.

use std::time::{Duration, Instant};

use tritforge_config::{HiddenAct, ModelConfig};
use tritforge_nn::{Batch, Decoder};

const SEQUENCES: usize = 8;
const LENGTH: usize = 256;
const STEPS: usize = 7;

fn median(mut times: Vec<Duration>) -> f64 {
    times.sort();
    times[times.len() / 2].as_secs_f64()
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    tritforge_kernels::configure_threads(None);
    tritforge_kernels::keep_pages();
    let config = ModelConfig {
        num_hidden_layers: 6,
        hidden_act: HiddenAct::Relu2,
        max_position_embeddings: LENGTH,
        ..ModelConfig::default()
    };
    let mut model = Decoder::init(&config, 1)?;
    let tokens = SEQUENCES * LENGTH;
    let ids: Vec<u32> = (0..=tokens as u64).map(|i| (i * 2_654_435_761 % 4096) as u32).collect();
    let batch = Batch { ids: &ids[..tokens], targets: &ids[1..], sequences: SEQUENCES };
    let (mut forward, mut backward, mut quantize) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..STEPS {
        let begin = Instant::now();
        let loss = model.loss(&batch, tokens as f32)?;
        forward.push(begin.elapsed());
        let begin = Instant::now();
        drop(loss.backward()?);
        backward.push(begin.elapsed());
        drop(loss);
        let begin = Instant::now();
        model.requantize()?;
        quantize.push(begin.elapsed());
    }
    let (f, b, q) = (median(forward), median(backward), median(quantize));
    println!("forward  {:.1} ms", 1e3 * f);
    println!("backward {:.1} ms", 1e3 * b);
    println!("quantize {:.1} ms", 1e3 * q);
    println!("{:.0} tokens/s without the optimizer", tokens as f64 / (f + b + q));
    Ok(())
}
