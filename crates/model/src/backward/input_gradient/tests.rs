//! The gradient of inputs by few bits, rounded at random, against scalar loops over the codes of each group.

use tritforge_kernels::CounterRng;
use tritforge_ternary::WeightQuantizer;

use super::*;

const ROWS: usize = 40;
const COLS: usize = 128;
const TOKENS: usize = 5;

/// `dx = Σ_group Σ_digit scale_digit · Σ_row code · digit`, in f64: dy times the scales of a group's rows, rounded with that
/// group's noise, times the codes of the weights of the group.
fn reference(codes: &[i8], scales: &Scales, dy: &[f32], rounding: impl Fn(usize) -> Rounding) -> Vec<f64> {
    let mut dx = vec![0f64; TOKENS * COLS];
    let (groups, of_row) = match scales.granularity() {
        Granularity::Group(size) => (COLS / size, COLS / size),
        _ => (1, 1),
    };
    for group in 0..groups {
        let scale = |row: usize| match scales.granularity() {
            Granularity::Tensor => 1.0,
            _ => scales.values()[row * of_row + group],
        };
        let scaled: Vec<f32> = dy.iter().enumerate().map(|(i, dy)| dy * scale(i % ROWS)).collect();
        let mut rounded = GradientRows::default();
        quantize_gradient_rows(&scaled, ROWS, rounding(group), &mut rounded);
        let digits = rounded.digits();
        let width = COLS / groups;
        let whole = scales.of_tensor().map_or(1.0, f64::from);
        for (row, digit) in rounded.rows().codes.chunks_exact(ROWS).enumerate() {
            let digit_scale = f64::from(rounded.rows().scales[row]) * whole;
            for column in group * width..(group + 1) * width {
                let sum: i32 =
                    (0..ROWS).map(|r| i32::from(codes[r * COLS + column]) * i32::from(digit[r])).sum();
                dx[row / digits * COLS + column] += digit_scale * f64::from(sum);
            }
        }
    }
    dx
}

#[test]
fn groups_are_rounded_once_each_and_summed_exactly() {
    let latent: Vec<f32> =
        (0..ROWS * COLS).map(|i| ((i * 7919 % 1009) as f32 - 504.0) * ((i / 32 % 5) as f32 + 1.0)).collect();
    // Magnitudes of many orders, as those of gradients, and a token of zeros.
    let mut dy: Vec<f32> = (0..TOKENS * ROWS)
        .map(|i| ((i * 31 % 101) as f32 - 50.0) * 10f32.powi(-((i * 7 % 9) as i32)))
        .collect();
    dy[2 * ROWS..3 * ROWS].fill(0.0);
    for granularity in [Granularity::Tensor, Granularity::Row, Granularity::Group(32), Granularity::Group(64)]
    {
        let fitted = WeightQuantizer::default().fit(granularity, &latent, [ROWS, COLS]).unwrap();
        let mut codes = vec![0; latent.len()];
        fitted.codes(0, COLS, &latent, &mut codes);
        let transposed = TernaryWeights::quantize_transposed(&latent, ROWS, COLS, fitted.clone());
        for digits in [1, 2, 3] {
            let rounding = |group: usize| {
                let noise = CounterRng::new(17, 1 + group as u64, 0);
                if digits == 3 { Rounding::nearest(3) } else { Rounding::stochastic(digits, noise) }
            };
            let expected = reference(&codes, fitted.scales(), &dy, rounding);
            let mut dx = vec![f32::NAN; TOKENS * COLS];
            let mut rounded = Rounded::default();
            let write = WriteMode::Overwrite;
            input_gradient(fitted.scales(), &transposed, &dy, rounding, (&mut dx, write), &mut rounded);
            let largest = expected.iter().fold(0f64, |m, x| m.max(x.abs()));
            for (i, (found, expected)) in dx.iter().zip(&expected).enumerate() {
                // Sums are exact; scales and the digits' sum round in f32.
                let distance = (f64::from(*found) - expected).abs();
                assert!(
                    distance <= 1e-6 * largest,
                    "{granularity}, {digits} digits [{i}]: {found}, {expected}"
                );
            }
            assert!(dx[2 * COLS..3 * COLS].iter().all(|x| *x == 0.0));
            // Adding leaves what was there.
            let before = dx.clone();
            let write = WriteMode::Accumulate;
            input_gradient(fitted.scales(), &transposed, &dy, rounding, (&mut dx, write), &mut rounded);
            let twice = before.iter().zip(&dx).all(|(a, b)| (2.0 * a - b).abs() <= 1e-6 * largest as f32);
            assert!(twice, "{granularity}, {digits} digits");
        }
    }
    // One digit alone is coarse: the groups' own roundings are what was tested.
    let fitted = WeightQuantizer::default().fit(Granularity::Group(32), &latent, [ROWS, COLS]).unwrap();
    let one = |group: usize| Rounding::stochastic(1, CounterRng::new(17, 1 + group as u64, 0));
    let same = |_: usize| Rounding::stochastic(1, CounterRng::new(17, 1, 0));
    let mut codes = vec![0; latent.len()];
    fitted.codes(0, COLS, &latent, &mut codes);
    assert_ne!(reference(&codes, fitted.scales(), &dy, one), reference(&codes, fitted.scales(), &dy, same));
}
