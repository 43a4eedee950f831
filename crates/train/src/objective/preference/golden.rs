//! Losses and derivatives of pairs against those of TRL (`tests/golden/make_preferences.py`).

use serde_json::Value;

use super::{Pair, PairFormula, Sft, SftLoss};
use crate::objective::{Dpo, DpoLoss, Orpo, Simpo};

const GOLDEN: &str = include_str!("../../../../../tests/golden/preferences.json");

/// The formula of a section with these keys, and what the section adds of the chosen answer's cross-entropy.
fn formula(section: &str, keys: &Value) -> (Box<dyn PairFormula>, Sft) {
    let number = |key: &str| keys[key].as_f64().unwrap();
    let (beta, none) = (number("beta"), Sft { weight: 0.0, loss: SftLoss::Mean });
    match section {
        "dpo" => {
            let loss = match keys["loss"].as_str().unwrap() {
                "sigmoid" => DpoLoss::Sigmoid,
                "sigmoid_norm" => DpoLoss::SigmoidNorm,
                "robust" => DpoLoss::Robust,
                "hinge" => DpoLoss::Hinge,
                "ipo" => DpoLoss::Ipo,
                other => panic!("{other}"),
            };
            let label_smoothing = number("label_smoothing");
            (Box::new(Dpo { beta, loss, label_smoothing, ..Dpo::default() }), none)
        }
        "orpo" => (Box::new(Orpo { beta }), Sft { weight: 1.0, ..none }),
        "simpo" => (Box::new(Simpo { beta, gamma: number("gamma"), sft: 0.0 }), none),
        other => panic!("{other}"),
    }
}

fn two(value: &Value) -> [f64; 2] {
    [value[0].as_f64().unwrap(), value[1].as_f64().unwrap()]
}

#[test]
fn losses_and_derivatives_are_those_of_trl() {
    let golden: Value = serde_json::from_str(GOLDEN).unwrap();
    let pairs: Vec<Pair> = (golden["pairs"].as_array().unwrap().iter())
        .map(|pair| Pair {
            policy: two(&pair["policy"]),
            reference: two(&pair["reference"]),
            tokens: two(&pair["tokens"]).map(|tokens| tokens as usize),
        })
        .collect();
    let cases = golden["cases"].as_array().unwrap();
    assert_eq!((pairs.len(), cases.len()), (5, 10));
    for case in cases {
        let (formula, sft) = formula(case["section"].as_str().unwrap(), &case["keys"]);
        for (pair, expected) in pairs.iter().zip(case["results"].as_array().unwrap()) {
            let own = sft.weight / pair.tokens[0] as f64;
            let found = formula.pair(pair);
            let by = two(&expected["by"]);
            for (found, expected) in [
                (found.loss - own * pair.policy[0], expected["loss"].as_f64().unwrap()),
                (found.by[0] - own, by[0]),
                (found.by[1], by[1]),
            ] {
                let off = (found - expected).abs();
                assert!(off < 1e-9 * expected.abs().max(1.0), "{case} {pair:?}: {found} {expected}");
            }
        }
    }
}
