//! The options of the cross-entropy against PyTorch, transformers and TRL (`tests/golden/make_cross_entropy.py`).

use serde_json::Value;
use tritforge_kernels::{LossTerms, cross_entropy_backward_with};

const GOLDEN: &str = include_str!("../../../tests/golden/cross_entropy.json");

fn numbers(value: &Value) -> Vec<f32> {
    value.as_array().unwrap().iter().map(|x| x.as_f64().unwrap() as f32).collect()
}

#[test]
fn losses_and_gradients_are_those_of_torch_transformers_and_trl() {
    let golden: Value = serde_json::from_str(GOLDEN).unwrap();
    let rows: Vec<Vec<f32>> = golden["logits"].as_array().unwrap().iter().map(numbers).collect();
    let targets: Vec<usize> =
        golden["targets"].as_array().unwrap().iter().map(|t| t.as_u64().unwrap() as usize).collect();
    let cases = golden["cases"].as_array().unwrap();
    assert_eq!((rows.len(), cases.len()), (3, 7));
    for case in cases {
        let number = |key: &str| case[key].as_f64().unwrap() as f32;
        let terms = LossTerms {
            label_smoothing: number("label_smoothing"),
            z_loss: number("z_loss"),
            dft: case["dft"].as_bool().unwrap(),
        };
        let factor = 1.0 / rows.len() as f32;
        let (mut loss, mut plain) = (0.0, 0.0);
        for (i, (row, target)) in rows.iter().zip(&targets).enumerate() {
            let mut row = row.clone();
            let found = cross_entropy_backward_with(&mut row, *target, factor, terms);
            loss += found.total * factor;
            plain += found.cross_entropy * factor;
            for (found, expected) in row.iter().zip(numbers(&case["gradients"][i])) {
                assert!((found - expected).abs() < 1e-6, "{terms:?}: {found} {expected}");
            }
        }
        assert!((loss - number("loss")).abs() < 1e-5, "{terms:?}: {loss} {}", number("loss"));
        assert!((plain - golden["cross_entropy"].as_f64().unwrap() as f32).abs() < 1e-5);
    }
}
