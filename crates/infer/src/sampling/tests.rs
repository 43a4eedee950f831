//! Choices by their definitions.

use super::*;

fn counts(sampling: Sampling, logits: &[f32], draws: usize) -> Vec<usize> {
    let mut sampler = Sampler::new(sampling).unwrap();
    let mut counts = vec![0; logits.len()];
    for _ in 0..draws {
        counts[sampler.choose(logits, &[]).unwrap() as usize] += 1;
    }
    counts
}

#[test]
fn greedy_takes_the_largest_and_of_equals_the_first() {
    let mut sampler = Sampler::new(Sampling::default()).unwrap();
    assert_eq!(sampler.choose(&[0.5, 2.0, 2.0, -1.0], &[]).unwrap(), 1);
}

#[test]
fn temperature_one_draws_from_the_softmax() {
    // p = 0.7, 0.2, 0.1
    let logits = [0.7f32.ln(), 0.2f32.ln(), 0.1f32.ln()];
    let n = 20_000;
    let counts = counts(Sampling { temperature: 1.0, ..Sampling::default() }, &logits, n);
    for (count, p) in counts.iter().zip([0.7, 0.2, 0.1]) {
        let sigma = (p * (1.0 - p) / n as f64).sqrt();
        assert!((*count as f64 / n as f64 - p).abs() < 5.0 * sigma, "{counts:?}");
    }
}

#[test]
fn cuts_keep_what_their_definitions_say() {
    let logits = [0.5f32.ln(), 0.3f32.ln(), 0.15f32.ln(), 0.05f32.ln()];
    let base = Sampling { temperature: 1.0, ..Sampling::default() };
    let seen = |s| counts(s, &logits, 3000).iter().filter(|c| **c > 0).count();
    assert_eq!(seen(base.clone()), 4);
    assert_eq!(seen(Sampling { top_k: 2, ..base.clone() }), 2);
    assert_eq!(seen(Sampling { top_p: 0.75, ..base.clone() }), 2);
    assert_eq!(seen(Sampling { min_p: 0.2, ..base }), 3);
}

#[test]
fn the_penalty_lowers_recent_tokens_of_either_sign() {
    let s = Sampling { repetition_penalty: 2.0, ..Sampling::default() };
    let mut sampler = Sampler::new(s).unwrap();
    assert_eq!(sampler.choose(&[3.0, 2.0, -1.0], &[0]).unwrap(), 1);
    assert_eq!(sampler.choose(&[-1.0, -1.5, -9.0], &[0, 7]).unwrap(), 1);
}

#[test]
fn the_same_seed_gives_the_same_tokens() {
    let draw = |seed| {
        let mut s = Sampler::new(Sampling { temperature: 1.0, seed, ..Sampling::default() }).unwrap();
        (0..50).map(|_| s.choose(&[0.0; 100], &[]).unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(draw(3), draw(3));
    assert_ne!(draw(3), draw(4));
}

#[test]
fn options_out_of_range_are_named() {
    let error = Sampler::new(Sampling { top_p: 1.5, ..Sampling::default() }).unwrap_err();
    assert!(error.to_string().starts_with("top_p = 1.5: expected 0 to 1"), "{error}");
    for (penalty, option) in [(2.5, "frequency_penalty"), (f32::NAN, "frequency_penalty")] {
        let s = Sampling { frequency_penalty: penalty, ..Sampling::default() };
        assert!(Sampler::new(s).unwrap_err().to_string().starts_with(option));
    }
    let bias = BTreeMap::from([(3, -100.5)]);
    let error = Sampler::new(Sampling { logit_bias: bias, ..Sampling::default() }).unwrap_err();
    assert!(error.to_string().starts_with("logit_bias = -100.5"), "{error}");
    assert!(Sampler::new(Sampling { temperature: f32::NAN, ..Sampling::default() }).is_err());
}

#[test]
fn openais_penalties_count_what_was_generated_and_not_the_prompt() {
    let logits = [3.0, 2.5, 0.0];
    let choices = |s: Sampling| {
        let mut sampler = Sampler::new(s).unwrap();
        (0..5).map(|_| sampler.choose(&logits, &[0, 0, 0]).unwrap()).collect::<Vec<_>>()
    };
    // 3, then 2 against 2.5, then 2 against 1.5, 1 against 1.5, 1 against 0.5.
    let s = Sampling { frequency_penalty: 1.0, ..Sampling::default() };
    assert_eq!(choices(s), [0, 1, 0, 1, 0]);
    // 3, then 1 against 2.5, then 1 against 0.5: once is all that it counts.
    let s = Sampling { presence_penalty: 2.0, ..Sampling::default() };
    assert_eq!(choices(s), [0, 1, 0, 0, 0]);
}

#[test]
fn a_bias_is_added_and_ids_beyond_the_logits_change_nothing() {
    let s = Sampling { logit_bias: BTreeMap::from([(2, 1.5), (9, 100.0)]), ..Sampling::default() };
    assert_eq!(Sampler::new(s).unwrap().choose(&[1.0, 0.0, 0.0], &[]).unwrap(), 2);
    let s = Sampling {
        temperature: 1.0,
        logit_bias: BTreeMap::from([(0, -100.0), (1, -100.0)]),
        ..Sampling::default()
    };
    assert_eq!(counts(s, &[0.0; 3], 200), [0, 0, 200]);
}

#[test]
fn barred_tokens_are_never_chosen() {
    for temperature in [0.0, 1.0] {
        let mut sampler = Sampler::new(Sampling { temperature, ..Sampling::default() }).unwrap();
        for _ in 0..50 {
            assert_eq!(sampler.choose_among(&[9.0, 1.0, 9.0], &[], &[0, 2], None).unwrap(), 1);
        }
        assert!(sampler.choose_among(&[9.0], &[], &[0], None).is_err());
    }
}

#[test]
fn logits_that_are_no_numbers_choose_nothing() {
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        for temperature in [0.0, 1.0] {
            let mut sampler = Sampler::new(Sampling { temperature, ..Sampling::default() }).unwrap();
            let error = sampler.choose(&[0.0, 1.0, bad], &[4, 5]).unwrap_err().to_string();
            assert!(error.contains("position 2") && error.contains("token 2"), "{error}");
        }
    }
}

#[test]
fn top_p_of_0_keeps_the_most_probable_token_and_equal_zeros_are_equal() {
    let s = Sampling { temperature: 1.0, top_p: 0.0, ..Sampling::default() };
    assert_eq!(counts(s, &[0.1, 0.2, 0.2], 100), [0, 100, 0]);
    assert_eq!(Sampler::new(Sampling::default()).unwrap().choose(&[-0.0, 0.0], &[]).unwrap(), 0);
}

#[test]
fn a_tiny_or_huge_penalty_still_chooses_by_numbers() {
    for repetition_penalty in [1e-38, 1e38] {
        for temperature in [0.0, 1.0] {
            let s = Sampling { repetition_penalty, temperature, ..Sampling::default() };
            let id = Sampler::new(s).unwrap().choose(&[5.0, 5.0, 1.0], &[0, 1]).unwrap();
            assert_eq!(id == 2, repetition_penalty > 1.0, "{repetition_penalty} {temperature}");
        }
    }
}

/// What a device would give of all logits.
fn found(logits: &[f32], needed: &NeededLogits) -> Vec<(u32, f32)> {
    let mut all: Vec<(u32, f32)> = (0u32..).zip(logits.iter().copied()).collect();
    all.sort_by(|a, b| b.1.partial_cmp(&a.1).unwrap());
    all.truncate(needed.largest);
    all.extend(needed.ids.iter().map(|id| (*id, logits[*id as usize])));
    all.sort_by_key(|(id, _)| *id);
    all.dedup_by_key(|(id, _)| *id);
    all
}

#[test]
fn a_choice_among_the_needed_logits_is_that_among_all() {
    let base = Sampling { seed: 5, ..Sampling::default() };
    let drawn = Sampling { temperature: 0.9, top_k: 3, ..base.clone() };
    let bias = BTreeMap::from([(3, 2.0), (11, -100.0), (900, 1.0)]);
    let settings = [
        base.clone(),
        drawn.clone(),
        Sampling { top_p: 0.8, min_p: 0.1, ..drawn.clone() },
        Sampling { repetition_penalty: 1.4, repeat_last_n: 5, ..base.clone() },
        Sampling { repetition_penalty: 0.8, frequency_penalty: 0.5, presence_penalty: -0.3, ..drawn.clone() },
        Sampling { logit_bias: bias, frequency_penalty: 1.0, ..drawn },
    ];
    for sampling in settings {
        for banned in [&[][..], &[0, 7, 8]] {
            let [mut all, mut few] = [(); 2].map(|()| Sampler::new(sampling.clone()).unwrap());
            let mut recent = vec![1, 2];
            for step in 0..200u32 {
                // Many equal ones.
                let logits: Vec<f32> =
                    (0..40).map(|i| ((i * 7 + step * 13) % 11) as f32 * 0.5 - 2.0).collect();
                let needed = few.needed(&recent, banned, logits.len()).unwrap();
                let pairs = found(&logits, &needed);
                let expected = all.choose_among(&logits, &recent, banned, None).unwrap();
                let id = few.choose_of(Among::Needed(&pairs), &recent, banned, None).unwrap();
                assert_eq!(id, expected, "{sampling:?}, step {step}");
                recent.push(id);
            }
        }
    }
}

#[test]
fn a_draw_from_the_whole_vocabulary_needs_all_logits() {
    let s = Sampling { temperature: 1.0, top_p: 0.9, ..Sampling::default() };
    assert_eq!(Sampler::new(s).unwrap().needed(&[], &[], 9), None);
    let greedy = Sampler::new(Sampling::default()).unwrap().needed(&[5, 6], &[], 9).unwrap();
    assert_eq!(greedy, NeededLogits { largest: 1, ids: Vec::new() });
}
