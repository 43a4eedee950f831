//! Kahneman-Tversky optimization against TRL (`tests/golden/make_kto.py`): its formula, and a step of a small model with an adapter.

use std::path::{Path, PathBuf};

use serde_json::Value;
use tritforge_checkpoint::Tensors;
use tritforge_config::{
    ADAPTER_CONFIG, ADAPTER_MODEL, ActivationQuant, HuggingFaceConfig, LoraConfig, ModelConfig, WeightQuant,
};
use tritforge_data::{LabelledSample, Sample, mismatched, row_batch};
use tritforge_model::{Decoder, Gradients, ModelError, Workspace};

use super::pass::{Judged, KtoPass};
use super::{Kto, KtoLoss};
use crate::objective::preference::log_probs;
use crate::objective::{LossFunction, Pass};
use crate::training_data::rows;

const GOLDEN: &str = include_str!("../../../../../tests/golden/kto.json");

fn section(keys: &Value) -> Kto {
    let number = |key: &str| keys[key].as_f64().unwrap();
    Kto {
        beta: number("beta"),
        loss: match keys["loss"].as_str().unwrap() {
            "kto" => KtoLoss::Kto,
            "apo_zero_unpaired" => KtoLoss::ApoZeroUnpaired,
            other => panic!("{other}"),
        },
        desirable_weight: number("desirable_weight"),
        undesirable_weight: number("undesirable_weight"),
        reference: None,
    }
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|number| number.as_f64().unwrap()).collect()
}

#[test]
fn losses_and_derivatives_are_those_of_trl() {
    let golden: Value = serde_json::from_str(GOLDEN).unwrap();
    let cases = golden["formula"].as_array().unwrap();
    assert_eq!(cases.len(), 4);
    for case in cases {
        let (kto, point) = (section(&case["keys"]), case["kl"].as_f64().unwrap());
        if kto.loss == KtoLoss::Kto {
            let others = numbers(&case["policy_kl"]).into_iter().zip(numbers(&case["reference_kl"]));
            let mean = others.map(|(policy, reference)| policy - reference).sum::<f64>() / 6.0;
            assert!((mean.max(0.0) - point).abs() < 1e-12, "{case}");
        }
        let labels = case["labels"].as_array().unwrap().iter().map(|label| label.as_bool().unwrap());
        let ratios = numbers(&case["policy"]).into_iter().zip(numbers(&case["reference"]));
        let expected = numbers(&case["losses"]).into_iter().zip(numbers(&case["by"]));
        for ((desirable, (policy, reference)), (loss, by)) in labels.zip(ratios).zip(expected) {
            let found = kto.answer(desirable, policy - reference, point);
            assert!((found[0] - loss).abs() < 1e-12 && (found[1] - by).abs() < 1e-12, "{case}: {found:?}");
        }
    }
}

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden").join(name)
}

fn read(tensors: &Tensors, name: &str, shape: &[usize]) -> Result<Vec<f32>, ModelError> {
    match tensors.f32(name, shape) {
        Ok(values) => Ok(values.into_owned()),
        Err(e) => Err(ModelError::Tensor { name: name.to_string(), message: e.to_string() }),
    }
}

/// The reference, and the policy: the same with an adapter.
fn models() -> [Decoder; 2] {
    let text = std::fs::read_to_string(folder("llama_tiny").join("config.json")).unwrap();
    let config = ModelConfig {
        weights: WeightQuant::None,
        activations: ActivationQuant::None,
        ..HuggingFaceConfig::from_json(&text).unwrap().config
    };
    let text = std::fs::read_to_string(folder("lora_llama").join(ADAPTER_CONFIG)).unwrap();
    let (lora, _) = LoraConfig::from_json(&text).unwrap();
    let masters = Tensors::open(&folder("llama_tiny").join("model.safetensors")).unwrap();
    let adapter = Tensors::open(&folder("lora_llama").join(ADAPTER_MODEL)).unwrap();
    let of_base = |name: &str, shape: &[usize]| read(&masters, name, shape);
    let of_adapter = |name: &str, shape: &[usize]| read(&adapter, &LoraConfig::peft_name(name), shape);
    let policy = Decoder::load_adapted(&config, &lora, of_base, of_adapter).unwrap();
    [Decoder::load(&config, of_base).unwrap(), policy]
}

#[test]
fn a_step_of_a_model_with_an_adapter_is_that_of_trl() {
    let golden = &serde_json::from_str::<Value>(GOLDEN).unwrap()["model"];
    let answers: Vec<LabelledSample> = (0..6)
        .map(|i| {
            let ids: Vec<u32> = numbers(&golden["ids"][i]).iter().map(|id| *id as u32).collect();
            let prompt = golden["prompts"][i].as_u64().unwrap() as usize;
            let mask = (0..ids.len()).map(|at| at >= prompt).collect();
            let sample = Sample { ids, mask, source: format!("answer {i}"), bytes: 0 };
            LabelledSample { sample, desirable: golden["labels"][i].as_bool().unwrap() }
        })
        .collect();
    let ([reference, policy], seq_len) = (models(), 12);
    let others = mismatched(&answers, seq_len);
    let all: Vec<&Sample> = answers.iter().map(|answer| &answer.sample).chain(&others).collect();
    let known = log_probs(&reference, all, seq_len).unwrap();
    let judged = || Judged::new(&answers, others.clone(), known.clone(), seq_len);
    let mut pass = KtoPass::new(section(&golden["keys"]), judged(), judged(), String::new());

    // In one micro-batch, and in two of different sizes: the point is that of the step.
    for parts in [vec![vec![0, 1, 2, 3, 4, 5]], vec![vec![0, 1, 2, 3], vec![4, 5]]] {
        let mut gradients = Gradients::new(policy.parameters(), |p| !p.frozen);
        let mut workspace = Workspace::new(false);
        pass.begin_step(&policy, &[], &[0, 1, 2, 3, 4, 5]).unwrap();
        let mut sums = vec![0.0; 5];
        for (part, numbers) in parts.iter().enumerate() {
            let own: Vec<&Sample> = numbers.iter().map(|i| &answers[*i].sample).collect();
            let batch = row_batch(&own, seq_len).unwrap();
            let found = pass.forward_backward(Pass {
                model: &policy,
                workspace: &mut workspace,
                batch: &rows(&batch, seq_len),
                pairs: numbers,
                step: 0,
                part,
                targets: batch.scored(),
                samples: 6,
                gradients: &mut gradients,
            });
            sums.iter_mut().zip(found.unwrap()).for_each(|(sum, more)| *sum += more);
        }
        let near = |found: f64, expected: f64, what: &str| {
            assert!((found - expected).abs() < 1e-5, "{what}: {found}, TRL has {expected}");
        };
        near(pass.points[0], golden["kl"].as_f64().unwrap(), "the point");
        near(pass.loss(&sums), golden["loss"].as_f64().unwrap(), "the loss");
        let mut compared = 0;
        for (i, parameter) in policy.parameters().iter().enumerate() {
            let Some(expected) = golden["gradients"].get(LoraConfig::peft_name(&parameter.name)) else {
                continue;
            };
            let (expected, found) = (numbers(expected), gradients.get(i).unwrap());
            assert_eq!(found.len(), expected.len());
            let largest = expected.iter().fold(0f64, |most, x| most.max(x.abs()));
            let off =
                found.iter().zip(&expected).fold(0f64, |most, (a, b)| most.max((f64::from(*a) - b).abs()));
            assert!(largest > 1e-4 && off < 1e-5, "{}: off by {off} of {largest}", parameter.name);
            compared += 1;
        }
        assert_eq!(compared, golden["gradients"].as_object().unwrap().len());
    }
}
