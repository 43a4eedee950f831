//! Ternary adapters: what they make of codes, the exact merge, what they refuse.

use super::*;

#[test]
fn a_ternary_adapter_moves_codes_as_its_definition_says_and_merges_exactly() {
    let (ids, _) = tokens();
    let latent = shape(WeightQuant::Absmean, ActivationQuant::Absmax);
    let masters = masters(&latent);
    // The same base with codes alone: code · scale in the place of every projection.
    let stored = shape(WeightQuant::Ternary, ActivationQuant::Absmax);
    let mut ternary = masters.clone();
    for (name, values) in &mut ternary {
        if Projection::ALL.iter().any(|p| name.contains(p.hf_name())) {
            let quantized = TernaryTensor::quantize(values, 1, values.len()).unwrap();
            *values = quantized.values();
        }
    }
    let bits = |model: &Decoder| -> Vec<u32> {
        model.logits(&ids, 1, None).unwrap().iter().map(|x| x.to_bits()).collect()
    };
    for (threshold, targets) in [(0.75, &Projection::ALL[..]), (0.3, &SOME), (0.0, &Projection::ALL)] {
        let lora = LoraConfig { rank: 5, threshold, ..lora(LoraMode::Lota, targets) };
        let models = [(&latent, &masters), (&stored, &ternary)]
            .map(|(config, tensors)| adapted(config, &lora, tensors));
        let mut merged = ternary.clone();
        let mut flips = 0;
        for layer in 0..2 {
            for projection in Projection::ALL {
                let (name, shape) = (projection.hf_weight(layer), latent.projection_shape(projection));
                let base = TernaryTensor::quantize(&masters[&name], shape[0], shape[1]).unwrap();
                let [a, b] = LoraConfig::tensors(layer, projection);
                let a = drawn(LoraMode::Lota, &a, &[5, shape[1]]);
                let b = drawn(LoraMode::Lota, &b, &[shape[0], 5]);
                let expected = match targets.contains(&projection) {
                    true => moved(base.codes(), &a, &b, shape, f64::from(threshold) * 5.0),
                    false => base.codes().to_vec(),
                };
                flips += expected.iter().zip(base.codes()).filter(|(a, b)| a != b).count();
                for model in &models {
                    let linear = model.projection(layer, projection);
                    let quantized = linear.quantized().unwrap();
                    assert_eq!(quantized.codes(), expected, "{name}");
                    assert_eq!(one_scale(&quantized.scales()).to_bits(), one_scale(base.scales()).to_bits());
                }
                merged.insert(
                    name,
                    expected.iter().map(|code| f32::from(*code) * one_scale(base.scales())).collect(),
                );
            }
        }
        assert!(flips > 0, "the adapter must move something at threshold {threshold}");
        let plain = Decoder::load(&stored, |name, _| give(&merged, name)).unwrap();
        assert_eq!(bits(&models[0]), bits(&plain));
        assert_eq!(bits(&models[1]), bits(&plain));
    }
}

#[test]
fn a_ternary_adapter_needs_codes_and_ternary_numbers() {
    let lora = lora(LoraMode::Lota, &SOME);
    let refused = |weights, by: f32| {
        let config = shape(weights, ActivationQuant::Absmax);
        let masters = masters(&config);
        let adapter = |name: &str, shape: &[usize]| {
            let mut values = drawn(LoraMode::Lota, name, shape);
            values[1] += by;
            Ok(values)
        };
        let loaded = Decoder::load_adapted(&config, &lora, |name, _| give(&masters, name), adapter);
        loaded.err().map(|error| error.to_string())
    };
    assert_eq!(refused(WeightQuant::Absmean, 0.0), None);
    assert!(refused(WeightQuant::None, 0.0).unwrap().contains("lota"));
    let error = refused(WeightQuant::Absmean, 0.5).unwrap();
    assert!(error.contains("lora_A") && error.contains("expected -1, 0 or 1"), "{error}");
}

#[test]
fn a_new_ternary_adapter_is_drawn_as_the_paper_says() {
    let a = initial_adapter(LoraMode::Lota, 3)("q_proj.lora_A.weight", &[64, 1000]).unwrap();
    let share = |value: f32| a.iter().filter(|x| **x == value).count() as f64 / a.len() as f64;
    // P(|x| < 0.75 · √(2/π)) of a normal distribution: 0.4504.
    assert!((share(0.0) - 0.4504).abs() < 0.01, "{}", share(0.0));
    assert!((share(1.0) - share(-1.0)).abs() < 0.01);
    assert_eq!(share(0.0) + share(1.0) + share(-1.0), 1.0);
    let b = initial_adapter(LoraMode::Lota, 3)("q_proj.lora_B.weight", &[64, 1000]).unwrap();
    assert!(b.iter().all(|x| *x == 0.0));
}
