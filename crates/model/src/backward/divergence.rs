//! How far a model's distribution is from a teacher's, by the generalized Jensen-Shannon divergence (generalized knowledge distillation,
//! arXiv 2306.13649), which goes from KL(teacher ‖ model) to KL(model ‖ teacher).

/// The divergence of the model's distribution q from the teacher's p over the same tokens, each the softmax of its logits over the
/// temperature, and its derivatives by the model's logits, which take their place. With m = β p + (1 − β) q it is
/// `β KL(p ‖ m) + (1 − β) KL(q ‖ m)`; in the limits KL(p ‖ q) for β = 0, KL(q ‖ p) for β = 1. In nats.
pub(super) fn divergence(model: &mut [f64], teacher: &[f64], beta: f64, temperature: f64) -> f64 {
    let ln_q = log_softmax(model, temperature);
    let ln_p = log_softmax(teacher, temperature);
    let mut sum = 0.0;
    // The derivatives by the probabilities q, up to a constant, which a softmax does not see.
    for ((by, ln_q), ln_p) in model.iter_mut().zip(&ln_q).zip(&ln_p) {
        let (p, q) = (ln_p.exp(), ln_q.exp());
        if beta == 0.0 {
            sum += p * (ln_p - ln_q);
            *by = -(ln_p - ln_q).exp();
        } else if beta == 1.0 {
            sum += q * (ln_q - ln_p);
            *by = ln_q - ln_p;
        } else {
            let larger = ln_p.max(*ln_q);
            let ln_m = larger + (beta * (ln_p - larger).exp() + (1.0 - beta) * (ln_q - larger).exp()).ln();
            sum += beta * p * (ln_p - ln_m) + (1.0 - beta) * q * (ln_q - ln_m);
            *by = (1.0 - beta) * (ln_q - ln_m);
        }
    }
    let mean: f64 = ln_q.iter().zip(&*model).map(|(ln_q, by)| ln_q.exp() * by).sum();
    model.iter_mut().zip(&ln_q).for_each(|(by, ln_q)| *by = ln_q.exp() * (*by - mean) / temperature);
    sum
}

/// ln of the softmax of logits over a temperature.
fn log_softmax(logits: &[f64], temperature: f64) -> Vec<f64> {
    let largest = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let sum: f64 = logits.iter().map(|z| ((z - largest) / temperature).exp()).sum();
    logits.iter().map(|z| (z - largest) / temperature - sum.ln()).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn numbers(value: &Value) -> Vec<f64> {
        value.as_array().unwrap().iter().map(|number| number.as_f64().unwrap()).collect()
    }

    #[test]
    fn divergences_and_derivatives_are_those_of_trl() {
        let golden = include_str!("../../../../tests/golden/divergence.json");
        let golden: Value = serde_json::from_str(golden).unwrap();
        let cases = golden["cases"].as_array().unwrap();
        assert_eq!(cases.len(), 7);
        for case in cases {
            let [beta, temperature, expected] =
                ["beta", "temperature", "divergence"].map(|key| case[key].as_f64().unwrap());
            let mut model = numbers(&golden["model"]);
            let found = divergence(&mut model, &numbers(&golden["teacher"]), beta, temperature);
            assert!((found - expected).abs() < 1e-12, "{case}: {found}");
            for (found, expected) in model.iter().zip(numbers(&case["by"])) {
                assert!((found - expected).abs() < 1e-12, "{case}: {model:?}");
            }
        }
    }

    #[test]
    fn a_sure_teacher_and_a_sure_model_are_a_finite_distance_apart() {
        for beta in [0.0, 0.3, 1.0] {
            let mut model = [0.0, 300.0];
            let found = divergence(&mut model, &[300.0, 0.0], beta, 0.5);
            assert!(found.is_finite() && found > 0.5, "{beta}: {found}");
            assert!(model.iter().all(|by| by.is_finite()), "{beta}: {model:?}");
        }
    }
}
