//! The optimizers against independent implementations: AdamW and Muon against PyTorch's, Lion against its
//! paper's algorithm in numpy (`tests/golden/{adamw,muon,lion}.json`, made by
//! `tests/golden/make_transformers.py` and `make_optimizers.py`).

use serde::Deserialize;
use tritforge_model::{DecayGroup, Parameter, Tensor};
use tritforge_train::{
    AdamW, Buffer, Lion, Muon, Optimizer, OptimizerConfig, ParameterStep, Rule, Step, StoredType, global_norm,
};

#[derive(Deserialize)]
struct Golden {
    lr: f64,
    beta1: f64,
    beta2: f64,
    weight_decay: f64,
    initial: Vec<f32>,
    gradients: Vec<Vec<f32>>,
    parameters: Vec<Vec<f32>>,
}

#[derive(Deserialize)]
struct GoldenMuon {
    lr: f64,
    momentum: f64,
    weight_decay: f64,
    shapes: Vec<(usize, usize)>,
    initial: Vec<Vec<f32>>,
    gradients: Vec<Vec<Vec<f32>>>,
    parameters: Vec<Vec<Vec<f32>>>,
}

fn golden<'a, T: Deserialize<'a>>(text: &'a str) -> T {
    serde_json::from_str(text).unwrap()
}

fn parameter(values: &[f32], shape: &[usize], group: DecayGroup) -> Parameter {
    let tensor = Tensor::new(values.to_vec(), shape).unwrap();
    Parameter { name: "w".to_string(), tensor, group, frozen: false }
}

fn exact(rule: Rule) -> OptimizerConfig {
    OptimizerConfig { rule, state: StoredType::F32, master: StoredType::F32, seed: 1 }
}

fn values(parameter: &Parameter) -> Vec<f32> {
    parameter.tensor.read().to_vec()
}

fn close(step: usize, found: &[f32], expected: &[f32], tolerance: f32) {
    assert_eq!(found.len(), expected.len());
    for (f, e) in found.iter().zip(expected) {
        assert!((f - e).abs() <= tolerance, "step {step}: {f} against {e}");
    }
}

/// Follows a golden of one vector; after two steps the state goes out and comes back, as in a checkpoint.
fn follow(golden: &Golden, rule: Rule) {
    let parameters = [parameter(&golden.initial, &[golden.initial.len()], DecayGroup::Decay)];
    let mut optimizer = Optimizer::new(exact(rule), &parameters);
    for (i, (gradient, expected)) in golden.gradients.iter().zip(&golden.parameters).enumerate() {
        if i == 2 {
            optimizer = Optimizer::restore(exact(rule), optimizer.states().to_vec(), optimizer.steps(), 0);
        }
        // Clipping multiplies on the way: a gradient twice as large, halved.
        let double: Vec<f32> = gradient.iter().map(|g| 2.0 * g).collect();
        let step =
            Step { lr: golden.lr, weight_decay: golden.weight_decay, gradient_scale: 0.5, decays: true };
        optimizer.step(&parameters, &[Some(&double)], step).unwrap();
        close(i, &values(&parameters[0]), expected, 1e-6);
    }
}

#[test]
fn every_step_of_adamw_is_torchs() {
    let golden: Golden = golden(include_str!("../../../tests/golden/adamw.json"));
    follow(&golden, Rule::AdamW(AdamW { betas: (golden.beta1, golden.beta2), eps: 1e-8 }));
}

#[test]
fn every_step_of_lion_is_the_papers() {
    let golden: Golden = golden(include_str!("../../../tests/golden/lion.json"));
    follow(&golden, Rule::Lion(Lion { betas: (golden.beta1, golden.beta2) }));
}

#[test]
fn every_step_of_muon_is_torchs_and_the_rest_is_adamws() {
    let golden: GoldenMuon = golden(include_str!("../../../tests/golden/muon.json"));
    let adamw = AdamW { betas: (0.9, 0.95), eps: 1e-8 };
    let rest = [0.5f32, -1.0, 2.0];
    let mut parameters: Vec<Parameter> = golden
        .initial
        .iter()
        .zip(&golden.shapes)
        .map(|(v, (rows, columns))| parameter(v, &[*rows, *columns], DecayGroup::Decay))
        .collect();
    parameters.push(parameter(&rest, &[3], DecayGroup::NoDecay));
    let alone = [parameter(&rest, &[3], DecayGroup::NoDecay)];
    let mut optimizer =
        Optimizer::new(exact(Rule::Muon(Muon { adamw, momentum: golden.momentum })), &parameters);
    let mut only_adamw = Optimizer::new(exact(Rule::AdamW(adamw)), &alone);
    let step = Step { lr: golden.lr, weight_decay: golden.weight_decay, gradient_scale: 1.0, decays: true };
    for (i, (gradients, expected)) in golden.gradients.iter().zip(&golden.parameters).enumerate() {
        let mut all: Vec<Option<&[f32]>> = gradients.iter().map(|g| Some(&g[..])).collect();
        all.push(Some(&rest));
        optimizer.step(&parameters, &all, step).unwrap();
        only_adamw.step(&alone, &[Some(&rest)], step).unwrap();
        for (parameter, expected) in parameters.iter().zip(expected) {
            close(i, &values(parameter), expected, 3e-6);
        }
        assert_eq!(values(&parameters[3]), values(&alone[0]));
    }
    // One buffer for a matrix, two for the rest.
    let kept: Vec<usize> = optimizer.states().iter().map(Vec::len).collect();
    assert_eq!(kept, [1, 1, 1, 2]);
}

#[test]
fn norms_and_embeddings_do_not_decay_and_frozen_parameters_stay() {
    for rule in
        [Rule::AdamW(AdamW { betas: (0.9, 0.95), eps: 1e-8 }), Rule::Lion(Lion { betas: (0.9, 0.99) })]
    {
        let group = [DecayGroup::Decay, DecayGroup::NoDecay, DecayGroup::Decay];
        let parameters = group.map(|group| parameter(&[2.0], &[1], group));
        let step = Step { lr: 0.1, weight_decay: 0.5, gradient_scale: 1.0, decays: true };
        let gradients = [Some(&[0f32][..]), Some(&[0f32]), None];
        Optimizer::new(exact(rule), &parameters).step(&parameters, &gradients, step).unwrap();
        assert_eq!(parameters.map(|p| values(&p)[0]), [1.9, 2.0, 2.0]);
    }
}

/// A parameter with settings of its own moves as one that is alone with an optimizer of these settings.
#[test]
fn parameters_have_rates_and_decays_of_their_own() {
    let adamw = AdamW { betas: (0.9, 0.95), eps: 1e-8 };
    let rules = [
        Rule::AdamW(adamw),
        Rule::Lion(Lion { betas: (0.9, 0.99) }),
        Rule::Muon(Muon { adamw, momentum: 0.95 }),
    ];
    for rule in rules {
        let groups = [DecayGroup::Decay, DecayGroup::NoDecay, DecayGroup::Decay];
        let each = [(0.5, Some(0.25)), (4.0, Some(0.125)), (1.0, None)];
        let gradient = [0.5f32, -1.0, 2.0, 0.25];
        let initial = [2.0f32, 1.0, -3.0, 0.5];
        let all = groups.map(|group| parameter(&initial, &[2, 2], group));
        let mut together = Optimizer::new(exact(rule), &all);
        let own = |(lr_ratio, weight_decay)| ParameterStep { lr_ratio, weight_decay };
        together.set_each(each.map(own).to_vec());
        let alone = groups.map(|group| parameter(&initial, &[2, 2], group));
        let mut apart = alone.each_ref().map(|p| Optimizer::new(exact(rule), std::slice::from_ref(p)));
        for t in 0..4 {
            let decays = t < 3;
            let step = Step { lr: 0.25, weight_decay: 0.5, gradient_scale: 1.0, decays };
            together.step(&all, &[Some(&gradient[..]); 3], step).unwrap();
            for (i, optimizer) in apart.iter_mut().enumerate() {
                let (lr_ratio, weight_decay) = each[i];
                // An optimizer alone decays nothing of the second group: done here by hand.
                let decay = if decays { weight_decay.unwrap_or(0.5) } else { 0.0 };
                let lr = 0.25 * lr_ratio;
                if groups[i] == DecayGroup::NoDecay {
                    alone[i].tensor.write().iter_mut().for_each(|x| *x *= (1.0 - lr * decay) as f32);
                }
                let step = Step { lr, weight_decay: decay, ..step };
                optimizer.step(std::slice::from_ref(&alone[i]), &[Some(&gradient[..])], step).unwrap();
            }
            for (together, alone) in all.iter().zip(&alone) {
                close(t, &values(together), &values(alone), 1e-6);
            }
        }
    }
}

/// After a reset an optimizer moves weights as a new one does, and goes on from a checkpoint in the same way.
#[test]
fn a_reset_optimizer_is_a_new_one() {
    for rule in [Rule::AdamW(AdamW::default()), Rule::Lion(Lion::default()), Rule::Muon(Muon::default())] {
        let [a, b] = [(); 2].map(|()| [parameter(&[2.0, 1.0, -1.0, 0.5], &[2, 2], DecayGroup::Decay)]);
        let step = Step { lr: 0.1, weight_decay: 0.5, gradient_scale: 1.0, decays: true };
        let mut old = Optimizer::new(exact(rule), &a);
        for _ in 0..5 {
            old.step(&a, &[Some(&[1.0, -2.0, 3.0, 0.5])], step).unwrap();
        }
        b[0].tensor.write().copy_from_slice(&values(&a[0]));
        old.reset();
        assert_eq!(old.steps(), 5);
        let mut new = Optimizer::new(exact(rule), &b);
        for i in 0..4 {
            let gradient = [-1.0, 0.5, 0.25, i as f32];
            if i == 2 {
                old = Optimizer::restore(exact(rule), old.states().to_vec(), old.steps(), 5);
            }
            old.step(&a, &[Some(&gradient)], step).unwrap();
            new.step(&b, &[Some(&gradient)], step).unwrap();
            assert_eq!(values(&a[0]), values(&b[0]));
        }
    }
}

#[test]
fn frozen_parameters_have_no_state_and_stay() {
    for rule in [Rule::AdamW(AdamW::default()), Rule::Lion(Lion::default()), Rule::Muon(Muon::default())] {
        let mut parameters = [(); 2].map(|()| parameter(&[2.0; 4], &[2, 2], DecayGroup::Decay));
        parameters[0].frozen = true;
        let mut optimizer = Optimizer::new(exact(rule), &parameters);
        assert!(optimizer.states()[0].is_empty() && !optimizer.states()[1].is_empty());
        let step = Step { lr: 0.1, weight_decay: 0.5, gradient_scale: 1.0, decays: true };
        optimizer.step(&parameters, &[Some(&[1.0; 4]), Some(&[1.0; 4])], step).unwrap();
        assert_eq!(values(&parameters[0]), [2.0; 4]);
        assert_ne!(values(&parameters[1]), [2.0; 4]);
    }
}

#[test]
fn what_does_not_fit_is_refused_before_anything_moves() {
    let rule = Rule::AdamW(AdamW { betas: (0.9, 0.95), eps: 1e-8 });
    let parameters = [parameter(&[2.0, 1.0], &[2], DecayGroup::Decay)];
    let step = Step { lr: 0.1, weight_decay: 0.5, gradient_scale: 1.0, decays: true };
    let mut optimizer = Optimizer::new(exact(rule), &parameters);
    assert!(optimizer.step(&parameters, &[Some(&[1.0])], step).is_err());
    assert!(optimizer.step(&parameters, &[], step).is_err());
    let mut short = Optimizer::restore(exact(rule), vec![vec![Buffer::F32(vec![0.0; 2])]], 3, 0);
    assert!(short.step(&parameters, &[Some(&[1.0, 1.0])], step).is_err());
    assert_eq!(values(&parameters[0]), [2.0, 1.0]);
}

/// Steps of 1e-4 at 1, where bf16 numbers are 4e-3 apart: rounded to the nearest, no weight would ever move.
#[test]
fn bf16_weights_move_by_less_than_their_distances() {
    const N: usize = 4096;
    let parameters = [parameter(&[1.0; N], &[N], DecayGroup::NoDecay)];
    let rule = Rule::Lion(Lion { betas: (0.9, 0.99) });
    let config = OptimizerConfig { rule, state: StoredType::Bf16, master: StoredType::Bf16, seed: 7 };
    let mut optimizer = Optimizer::new(config, &parameters);
    for _ in 0..400 {
        let step = Step { lr: 1e-4, weight_decay: 0.0, gradient_scale: 1.0, decays: true };
        optimizer.step(&parameters, &[Some(&[1.0; N])], step).unwrap();
    }
    let found = values(&parameters[0]);
    assert!(found.iter().all(|w| w.to_bits() & 0xffff == 0));
    let mean = found.iter().map(|w| f64::from(*w)).sum::<f64>() / N as f64;
    // A weight's deviation is √(400 · 1e-4 · 4e-3) = 0.0126, the mean's a 64th of that: five of them.
    assert!((mean - 0.96).abs() < 1e-3, "{mean}");
}

/// A sum of squares whose minimum is known: with bf16 state AdamW comes as near to it as with f32, with bf16
/// weights as near as their grid allows.
#[test]
fn bf16_state_and_weights_still_learn() {
    const N: usize = 4096;
    let target: Vec<f32> = (0..N).map(|i| (i as f32 / N as f32 - 0.5) * 2.0).collect();
    let distance = |state, master| {
        let rule = Rule::AdamW(AdamW { betas: (0.9, 0.95), eps: 1e-8 });
        let parameters = [parameter(&[0.0; N], &[N], DecayGroup::NoDecay)];
        let mut optimizer = Optimizer::new(OptimizerConfig { rule, state, master, seed: 7 }, &parameters);
        for i in 0..400 {
            let gradient: Vec<f32> = values(&parameters[0]).iter().zip(&target).map(|(w, t)| w - t).collect();
            let lr = 1e-2 * (1.0 - f64::from(i) / 400.0);
            let step = Step { lr, weight_decay: 0.0, gradient_scale: 1.0, decays: true };
            optimizer.step(&parameters, &[Some(&gradient)], step).unwrap();
        }
        let found = values(&parameters[0]);
        let mean = found.iter().zip(&target).map(|(w, t)| f64::from(w - t).abs()).sum::<f64>() / N as f64;
        (mean, found)
    };
    use StoredType::{Bf16, F32};
    let (exact, _) = distance(F32, F32);
    let (state, _) = distance(Bf16, F32);
    let (both, found) = distance(Bf16, Bf16);
    println!(
        "mean distance: {exact:.1e} in f32, {state:.1e} with bf16 state, {both:.1e} with bf16 weights too"
    );
    assert!(state < exact + 1e-3, "{state} {exact}");
    assert!(both < exact + 4e-3, "{both} {exact}");
    // The rounding is seeded: the same again, bit for bit.
    assert!(distance(Bf16, Bf16).1 == found);
}

#[test]
fn steps_do_not_depend_on_the_number_of_threads() {
    const SHAPE: [usize; 2] = [300, 257];
    let n = SHAPE[0] * SHAPE[1];
    let noise = |i: usize| ((i * 2_654_435_761) % 1009) as f32 / 1009.0 - 0.5;
    let adamw = AdamW { betas: (0.9, 0.95), eps: 1e-8 };
    for rule in [
        Rule::AdamW(adamw),
        Rule::Lion(Lion { betas: (0.9, 0.99) }),
        Rule::Muon(Muon { adamw, momentum: 0.95 }),
    ] {
        let run = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| {
                let initial: Vec<f32> = (0..n).map(noise).collect();
                let parameters = [parameter(&initial, &SHAPE, DecayGroup::Decay)];
                let config =
                    OptimizerConfig { rule, state: StoredType::Bf16, master: StoredType::Bf16, seed: 3 };
                let mut optimizer = Optimizer::new(config, &parameters);
                for i in 0..3 {
                    let gradient: Vec<f32> = (0..n).map(|j| noise(j + i * n + 1)).collect();
                    let scale = 1.0 / global_norm(&[Some(&gradient)]);
                    let step = Step { lr: 0.01, weight_decay: 0.1, gradient_scale: scale, decays: true };
                    optimizer.step(&parameters, &[Some(&gradient)], step).unwrap();
                }
                values(&parameters[0])
            })
        };
        assert!(run(1) == run(3), "{rule:?}");
    }
}
