//! The two ways to score a text, against sums over all logits computed here.

use tritforge_config::ModelConfig;
use tritforge_eval::{EvalModel, PerplexityOptions, Scoring, perplexity};
use tritforge_infer::KvType;
use tritforge_model::Decoder;
use tritforge_text::{SpecialTokens, Tokenizer};

const TEXT: &str = "the quick brown fox jumps over the lazy dög and then it sleeps";

fn model() -> EvalModel {
    let tokenizer = Tokenizer::characters([TEXT], &SpecialTokens::default()).unwrap();
    let config = ModelConfig {
        vocab_size: tokenizer.vocab_size(),
        hidden_size: 32,
        intermediate_size: 32,
        num_hidden_layers: 1,
        num_attention_heads: 2,
        num_key_value_heads: 1,
        head_dim: 16,
        max_position_embeddings: 32,
        initializer_range: 0.3,
        ..ModelConfig::default()
    };
    let decoder = Decoder::init(&config, 5).unwrap();
    EvalModel::Trained { decoder: Box::new(decoder), tokenizer: Some(Box::new(tokenizer)) }
}

/// −ln p of the token at `at`, from the inputs before it.
fn nats(model: &EvalModel, inputs: &[u32], target: u32) -> f64 {
    let logits = model.logits(inputs).unwrap();
    let row = &logits[logits.len() - model.config().vocab_size..];
    let total: f64 = row.iter().map(|x| f64::from(*x).exp()).sum();
    total.ln() - f64::from(row[target as usize])
}

#[test]
fn second_halves_are_scored_as_llama_cpp_does() {
    let model = model();
    let tokenizer = model.tokenizer().unwrap();
    let window = 13;
    let found = perplexity(&model, TEXT, Scoring::SecondHalf { window }, |_, _| Ok(())).unwrap();
    // The text with BOS where sequences begin with it, in whole windows whose first token is BOS; tokens 7 to
    // 12 of each.
    let ids = tokenizer.encode(TEXT, tokenizer.adds_bos()).unwrap();
    let (mut losses, mut bytes) = (Vec::new(), 0);
    for own in ids.chunks_exact(window) {
        let mut inputs = own.to_vec();
        if tokenizer.adds_bos() {
            inputs[0] = tokenizer.bos().unwrap();
        }
        for at in 7..window {
            losses.push(nats(&model, &inputs[..at], own[at]));
            bytes += tokenizer.decode(&own[at..=at]).unwrap().len();
        }
    }
    assert_eq!((found.tokens, found.bytes), (losses.len(), bytes));
    assert_eq!(found.tokens, ids.len() / window * 6);
    let n = losses.len() as f64;
    let mean = losses.iter().sum::<f64>() / n;
    let variance = losses.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / (n - 1.0);
    assert!((found.loss - mean).abs() < 1e-5, "{found:?} {mean}");
    assert!((found.loss_stderr - (variance / n).sqrt()).abs() < 1e-5, "{found:?}");
    assert!((found.perplexity - mean.exp()).abs() < 1e-3 * mean.exp());
    let options = PerplexityOptions { max_tokens: Some(13), ..Scoring::SecondHalf { window }.into() };
    let cut = perplexity(&model, TEXT, options, |_, _| Ok(())).unwrap();
    assert_eq!(cut.tokens, 12);
}

#[test]
fn every_token_but_the_first_is_scored_once() {
    let model = model();
    let found = perplexity(&model, TEXT, Scoring::All { window: 9 }, |_, _| Ok(())).unwrap();
    let ids = model.tokenizer().unwrap().encode(TEXT, false).unwrap();
    let expected: f64 = (1..ids.len()).map(|at| nats(&model, &ids[(at - 1) / 9 * 9..at], ids[at])).sum();
    assert_eq!((found.tokens, found.bytes), (ids.len() - 1, TEXT.len()));
    assert!((found.loss - expected / (ids.len() - 1) as f64).abs() < 1e-5, "{found:?}");
}

#[test]
fn windows_that_do_not_fit_are_named() {
    let model = model();
    for (scoring, tokens, expected) in [
        (Scoring::All { window: 33 }, None, "window = 33: expected 1 to 32"),
        (Scoring::SecondHalf { window: 3 }, None, "window = 3: expected 4 to 32"),
        (Scoring::SecondHalf { window: 32 }, Some(3), "each window of 32 scores 15"),
    ] {
        let options = PerplexityOptions { max_tokens: tokens, ..scoring.into() };
        let error = perplexity(&model, TEXT, options, |_, _| Ok(())).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn a_checkpoint_has_no_cache() {
    let options = PerplexityOptions { kv: KvType::Q8_0, ..Scoring::All { window: 9 }.into() };
    let error = perplexity(&model(), TEXT, options, |_, _| Ok(())).unwrap_err().to_string();
    assert!(error.contains("kv = q8_0: a checkpoint") && error.contains("export it"), "{error}");
}
