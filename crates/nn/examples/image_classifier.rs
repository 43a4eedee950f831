//! A ternary classifier of small images and its full-precision twin, trained alike.
//!
//! `cargo run --release -p tritforge-nn --example image_classifier`. The images are drawn by a seeded
//! function: 16 × 16 pixels, five shapes at random places in random sizes, under noise.

mod export;

use anyhow::Result;
use candle_core::{DType, Device, Module, Tensor};
use candle_nn::{AdamW, Optimizer, VarBuilder, VarMap};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha20Rng;
use tritforge_nn::{BitLinear, BitLinearConfig, RmsNorm};

const SIDE: usize = 16;
const CLASSES: usize = 5;
const WIDTH: usize = 256;
const BATCH: usize = 64;
const STEPS: usize = 800;

/// Images [count, SIDE²] and their classes: frame, disc, plus, diagonal cross, horizontal bars.
fn images(count: usize, rng: &mut ChaCha20Rng) -> Result<(Tensor, Tensor)> {
    let mut pixels = Vec::with_capacity(count * SIDE * SIDE);
    let mut classes = Vec::with_capacity(count);
    for _ in 0..count {
        let class = rng.random_range(0..CLASSES);
        let radius = rng.random_range(3..=5i32);
        let mut center = || rng.random_range(radius..SIDE as i32 - radius);
        let (center_x, center_y) = (center(), center());
        for i in 0..SIDE * SIDE {
            let (x, y) = ((i % SIDE) as i32 - center_x, (i / SIDE) as i32 - center_y);
            let inside = x.abs() <= radius && y.abs() <= radius;
            let drawn = inside
                && match class {
                    0 => x.abs() == radius || y.abs() == radius,
                    1 => x * x + y * y <= radius * radius,
                    2 => x == 0 || y == 0,
                    3 => x.abs() == y.abs(),
                    _ => y % 2 == 0,
                };
            pixels.push(f32::from(drawn) + rng.random_range(-0.5..0.5f32));
        }
        classes.push(class as u32);
    }
    let images = Tensor::from_vec(pixels, (count, SIDE * SIDE), &Device::Cpu)?;
    Ok((images, Tensor::from_vec(classes, count, &Device::Cpu)?))
}

/// Three linear layers, a norm and ReLU before each but the first.
struct Classifier {
    layers: Vec<(String, BitLinear)>,
    norms: Vec<RmsNorm>,
}

impl Classifier {
    fn new(config: BitLinearConfig, vb: &VarBuilder<'_>) -> Result<Self> {
        let widths = [SIDE * SIDE, WIDTH, WIDTH, CLASSES];
        let mut layers = Vec::new();
        let mut norms = Vec::new();
        for (i, pair) in widths.windows(2).enumerate() {
            let name = format!("layers.{i}");
            layers.push((name.clone(), BitLinear::new(pair[0], pair[1], config, vb.pp(&name))?));
            norms.push(RmsNorm::new(pair[0], 1e-5, vb.pp(format!("norms.{i}")))?);
        }
        Ok(Self { layers, norms })
    }

    fn accuracy(&self, images: &Tensor, classes: &Tensor) -> Result<f64> {
        let predicted = self.forward(images)?.argmax(1)?;
        let right = predicted.eq(classes)?.to_dtype(DType::F32)?.mean_all()?;
        Ok(f64::from(right.to_scalar::<f32>()?))
    }
}

impl Module for Classifier {
    fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        let mut x = x.clone();
        for (i, ((_, layer), norm)) in self.layers.iter().zip(&self.norms).enumerate() {
            x = if i == 0 { x } else { x.relu()? };
            x = layer.forward(&norm.forward(&x)?)?;
        }
        Ok(x)
    }
}

fn train(name: &str, config: BitLinearConfig) -> Result<Classifier> {
    let variables = VarMap::new();
    let model = Classifier::new(config, &VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu))?;
    let mut optimizer = AdamW::new_lr(variables.all_vars(), 2e-3)?;
    let mut rng = ChaCha20Rng::seed_from_u64(1);
    for step in 1..=STEPS {
        // Linear decay of the learning rate to 0.
        optimizer.set_learning_rate(2e-3 * (STEPS - step) as f64 / STEPS as f64);
        let (x, classes) = images(BATCH, &mut rng)?;
        let loss = candle_nn::loss::cross_entropy(&model.forward(&x)?, &classes)?;
        optimizer.backward_step(&loss)?;
        if step % 200 == 0 {
            println!("{name}: step {step}, loss {:.4}", loss.to_scalar::<f32>()?);
        }
    }
    Ok(model)
}

fn main() -> Result<()> {
    let (x, classes) = images(2000, &mut ChaCha20Rng::seed_from_u64(2))?;
    let ternary = train("ternary", BitLinearConfig::default())?;
    let full = train("full precision", BitLinearConfig::default().full_precision())?;
    println!("accuracy on 2000 images not trained on (chance {:.3}):", 1.0 / CLASSES as f64);
    println!("  ternary         {:.3}", ternary.accuracy(&x, &classes)?);
    println!("  full precision  {:.3}", full.accuracy(&x, &classes)?);
    let layers: Vec<(String, &BitLinear)> =
        ternary.layers.iter().map(|(name, layer)| (name.clone(), layer)).collect();
    export::export(&std::env::temp_dir().join("tritforge-image-classifier.gguf"), &layers)
}
