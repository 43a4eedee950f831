//! Statements about ternary training that need no seeds: each is computed on this machine, by the kernels that it has, and
//! compared with a formula.

use statrs::function::erf::erf;
use tritforge_kernels::{TernaryWeights, hadamard_in_place, quantize_rows, ternary_matmul_i32};
use tritforge_ternary::{Granularity, Packing, TernaryError, TernaryTensor, WeightQuantizer};

/// A statement, what it says and what was found.
#[derive(Debug, Clone, PartialEq)]
pub struct Statement {
    /// What is said.
    pub text: String,
    /// Where it comes from.
    pub source: &'static str,
    /// The value by the formula.
    pub expected: f64,
    /// The value that was found.
    pub found: f64,
    /// How far they may be apart.
    pub tolerance: f64,
}

impl Statement {
    /// Whether it holds.
    pub fn holds(&self) -> bool {
        (self.found - self.expected).abs() <= self.tolerance
    }
}

/// Weights of the samples, in rows of 512: shares are known to about 0.0005.
const SHAPE: [usize; 2] = [2048, 512];

/// Computes every statement.
///
/// # Errors
/// If a quantizer or a packing refuses the sample: a fault of the program.
pub fn selfcheck() -> Result<Vec<Statement>, TernaryError> {
    let weights = gaussian(SHAPE[0] * SHAPE[1]);
    let mut statements = Vec::new();
    let share = |t: f64| erf(t / std::f64::consts::SQRT_2);
    let mean = (2.0 / std::f64::consts::PI).sqrt();
    for (name, threshold, source) in [
        ("absmean", 0.5 * mean, "arXiv 2402.17764: half of mean|W|"),
        ("absmedian", 0.5 * 0.674_489_750_196_082, "arXiv 2407.09527: half of median|W|"),
        ("twn", 0.75 * mean, "arXiv 1605.04711: 0.75 mean|W|"),
        ("rms", 0.612, "arXiv 2502.05003: 0.612 of the root of mean W²"),
    ] {
        let tensor = quantized(name, &weights)?;
        statements.push(Statement {
            text: format!("{name}: share of zeros on a Gaussian"),
            source,
            expected: share(threshold),
            found: tensor.zero_fraction(),
            tolerance: 0.003,
        });
    }
    let sherry = quantized("sherry", &weights)?;
    statements.push(exact(
        "sherry: share of zeros, exactly a quarter",
        "arXiv 2601.07892",
        0.25,
        sherry.zero_fraction(),
    ));
    statements.push(Statement {
        text: "rms: relative squared error on a Gaussian, that of the three-level Lloyd-Max quantizer"
            .to_string(),
        source: "Max 1960, table I",
        expected: 0.1902,
        found: relative_error(&weights, &quantized("rms", &weights)?),
        tolerance: 0.002,
    });
    let tensor = quantized("absmean", &weights)?;
    let again = quantized("absmean", &tensor.values())?;
    statements.push(Statement {
        text: "absmean of ternary values: the scale shrinks by the share of zeros, so they must not be quantized again"
            .to_string(),
        source: "arithmetic",
        expected: 1.0 - tensor.zero_fraction(),
        found: f64::from(again.scales().values()[0]) / f64::from(tensor.scales().values()[0]),
        tolerance: 1e-5,
    });
    statements.extend(packings(&tensor)?);
    statements.push(products(&tensor, &weights));
    statements.extend(rotation(&weights));
    Ok(statements)
}

fn quantized(name: &str, weights: &[f32]) -> Result<TernaryTensor, TernaryError> {
    let quantizer: WeightQuantizer = name.parse()?;
    TernaryTensor::quantize_by(quantizer, Granularity::Tensor, weights, SHAPE)
}

fn exact(text: impl Into<String>, source: &'static str, expected: f64, found: f64) -> Statement {
    Statement { text: text.into(), source, expected, found, tolerance: 0.0 }
}

/// Mean squared error over mean square.
fn relative_error(weights: &[f32], tensor: &TernaryTensor) -> f64 {
    let pairs = weights.iter().zip(tensor.values());
    let (error, all) = pairs.fold((0.0, 0.0), |(error, all), (w, q)| {
        (error + f64::from(w - q).powi(2), all + f64::from(*w).powi(2))
    });
    error / all
}

/// Codes that packing and unpacking changes, in each layout.
fn packings(tensor: &TernaryTensor) -> Result<Vec<Statement>, TernaryError> {
    let mut statements = Vec::new();
    for packing in Packing::ALL {
        let unpacked = packing.unpack(&packing.pack(tensor)?, SHAPE[0], SHAPE[1])?;
        let changed = unpacked.codes.iter().zip(tensor.codes()).filter(|(a, b)| a != b).count();
        let text = format!("{}: codes that packing and unpacking change", packing.name());
        statements.push(exact(text, "docs/formats.md", 0.0, changed as f64));
    }
    Ok(statements)
}

/// Sums of int8 × ternary products that differ from those of 64-bit integers.
fn products(tensor: &TernaryTensor, inputs: &[f32]) -> Statement {
    let [rows, cols] = SHAPE;
    let x = quantize_rows(&inputs[..8 * cols], cols);
    let weights = TernaryWeights::new(tensor.codes(), rows, cols, tensor.scales().clone());
    let mut sums = vec![0i32; 8 * rows];
    ternary_matmul_i32(&x, &weights, &mut sums);
    let differ = sums.iter().enumerate().filter(|(i, sum)| {
        let (input, row) = (i / rows, i % rows);
        let codes = x.codes[input * cols..(input + 1) * cols].iter();
        let expected: i64 =
            codes.zip(&tensor.codes()[row * cols..]).map(|(a, b)| i64::from(*a) * i64::from(*b)).sum();
        i64::from(**sum) != expected
    });
    exact("int8 × ternary: sums of the kernels that are not exact", "arithmetic", 0.0, differ.count() as f64)
}

/// The Hadamard rotation is its own inverse, and keeps lengths.
fn rotation(values: &[f32]) -> [Statement; 2] {
    let before = &values[..SHAPE[1]];
    let mut x = before.to_vec();
    let length = |x: &[f32]| x.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
    hadamard_in_place(&mut x, SHAPE[1]);
    let ratio = length(&x) / length(before);
    hadamard_in_place(&mut x, SHAPE[1]);
    let furthest = x.iter().zip(before).map(|(a, b)| f64::from((a - b).abs())).fold(0.0, f64::max);
    let source = "arXiv 2504.18415: an orthonormal matrix";
    let near = |text: &str, expected, found| Statement {
        text: text.to_string(),
        source,
        expected,
        found,
        tolerance: 1e-5,
    };
    [
        near("Hadamard rotation: length after it by that before", 1.0, ratio),
        near("Hadamard rotation twice: the largest change", 0.0, furthest),
    ]
}

/// Numbers of a standard normal distribution, by Box and Muller, the same everywhere.
fn gaussian(n: usize) -> Vec<f32> {
    let mut state = 1u64;
    let mut uniform = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((state >> 11) as f64 + 0.5) / (1u64 << 53) as f64
    };
    (0..n)
        .map(|_| ((-2.0 * uniform().ln()).sqrt() * (std::f64::consts::TAU * uniform()).cos()) as f32)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_statement_holds_and_a_wrong_one_does_not() {
        let statements = selfcheck().unwrap();
        assert!(statements.len() > 15);
        for statement in &statements {
            assert!(statement.holds(), "{statement:?}");
        }
        assert!(!exact("", "", 0.0, 1.0).holds());
        assert!(!Statement { found: f64::NAN, ..statements[0].clone() }.holds());
    }
}
