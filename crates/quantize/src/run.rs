//! The conversion from the first block to the last, and the checkpoint at its end.

use std::ops::Range;
use std::path::Path;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tritforge_checkpoint::{MODEL, TOKENIZER, TOKENIZER_CONFIG, TensorSpec, TensorType, Tensors, Writer};
use tritforge_config::{ActivationQuant, ModelConfig, WeightQuant};
use tritforge_export::LoadedModel;
use tritforge_model::{BlockStack, ModelError, Parameter};

use crate::states::States;
use crate::store::Store;
use crate::window::Task;
use crate::{Calibration, Options, QuantizeError};

/// What a window came to. Losses are Huber's, of the states behind it, in units of the square of their mean magnitude,
/// by the weights as they will be deployed.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct WindowReport {
    /// The first block, from 0.
    pub first: usize,
    /// The last block.
    pub last: usize,
    /// The loss before training: of the weights rounded, or of what the window before made of them.
    pub before: f64,
    /// The loss after training.
    pub after: f64,
}

/// What a conversion came to.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// The ternary model.
    pub config: ModelConfig,
    /// Every window, in order.
    pub windows: Vec<WindowReport>,
}

/// What happens on the way.
#[derive(Debug, Clone, Copy)]
pub enum Event<'a> {
    /// A step of training was taken.
    Step {
        /// The window's blocks, from 0.
        blocks: &'a Range<usize>,
        /// Steps taken.
        done: usize,
        /// Steps in all.
        steps: usize,
        /// The loss of the newest step, by the weights as training sees them.
        loss: f64,
    },
    /// A window is finished.
    Window {
        /// What it came to.
        report: &'a WindowReport,
        /// Whether an earlier call had finished it.
        earlier: bool,
    },
}

/// Makes a full-precision model ternary, and writes it to `out` as a checkpoint with latent weights. What is finished
/// is kept in `<out>.partial` until then; a call with the same arguments goes on from there, to the same bits.
///
/// # Errors
/// If the model is no full-precision model or has adapters, an option is impossible, a number becomes NaN or infinite,
/// or the disk is full.
pub fn quantize(
    model: &LoadedModel,
    calibration: &Calibration,
    out: &Path,
    options: &Options,
    on: &mut dyn FnMut(Event<'_>),
) -> Result<Report, QuantizeError> {
    let config = ternary_config(model, options)?;
    let dense = ModelConfig {
        weights: WeightQuant::None,
        activations: ActivationQuant::None,
        ..model.config().clone()
    };
    let store = Store::open(out, &settings(model, calibration, options)?)?;
    let mut plain = States::embedded(model, calibration)?;
    let mut quantized = plain.clone();
    let mut files: Vec<(Range<usize>, Tensors)> = Vec::new();
    let mut windows = Vec::new();
    // The window before, and whether it has trained blocks of this one already.
    let mut before: Option<(usize, bool)> = None;
    let of_model = |name: &str, shape: &[usize]| model.parameter(name, shape);
    for (blocks, kept) in options.windows(config.num_hidden_layers) {
        let (finished, batch) = (blocks.start..blocks.start + kept, options.batch);
        let behind = plain.through(&BlockStack::load(&dense, finished.clone(), of_model)?, kept, batch)?;
        let (report, tensors) = match store.finished(blocks.start)? {
            Some((report, tensors)) => {
                on(Event::Window { report: &report, earlier: true });
                let of_store = |name: &str, shape: &[usize]| read(&tensors, name, shape);
                let stack = BlockStack::load(&config, finished.clone(), of_store)?;
                quantized = quantized.through(&stack, kept, batch)?;
                (report, tensors)
            }
            None => {
                let stack = {
                    let trained = match before {
                        Some((first, true)) => Some(store.ahead(first)?),
                        _ => None,
                    };
                    BlockStack::load(&config, blocks.clone(), |name, shape| match &trained {
                        Some(tensors) if tensors.has(name) => read(tensors, name, shape),
                        _ => of_model(name, shape),
                    })?
                };
                let targets = match finished.end == blocks.end {
                    true => None,
                    false => {
                        let rest = BlockStack::load(&dense, finished.end..blocks.end, of_model)?;
                        Some(behind.through(&rest, usize::MAX, batch)?)
                    }
                };
                let targets = targets.as_ref().unwrap_or(&behind);
                let (report, stack) = train(stack, &blocks, &quantized, targets, options, on)?;
                on(Event::Window { report: &report, earlier: false });
                let of_finished = |p: &&Parameter| layer(&p.name).is_some_and(|layer| layer < finished.end);
                let (done, ahead): (Vec<_>, Vec<_>) = stack.parameters().iter().partition(of_finished);
                let tensors = store.keep(&report, &done, &ahead, before.map(|(first, _)| first))?;
                quantized = quantized.through(&stack, kept, batch)?;
                (report, tensors)
            }
        };
        before = Some((blocks.start, finished.end < blocks.end));
        windows.push(report);
        files.push((finished, tensors));
        plain = behind;
    }
    write(model, &config, &files, out)?;
    store.remove()?;
    Ok(Report { config, windows })
}

/// Trains a window, and measures it before and after.
fn train(
    mut stack: BlockStack,
    blocks: &Range<usize>,
    inputs: &States,
    targets: &States,
    options: &Options,
    on: &mut dyn FnMut(Event<'_>),
) -> Result<(WindowReport, BlockStack), QuantizeError> {
    let (first, last) = (blocks.start, blocks.end - 1);
    // Of states that are all 0 any scale is right.
    let delta = targets.mean_magnitude().max(f32::MIN_POSITIVE);
    let task = Task { blocks: (first, last), inputs, targets, delta };
    let before = task.distance(&stack, options.batch)?;
    if options.epochs == 0 {
        return Ok((WindowReport { first, last, before, after: before }, stack));
    }
    task.train(&mut stack, options, &mut |done, steps, loss| on(Event::Step { blocks, done, steps, loss }))?;
    let after = task.distance(&stack, options.batch)?;
    Ok((WindowReport { first, last, before, after }, stack))
}

/// The configuration of the ternary model.
fn ternary_config(model: &LoadedModel, options: &Options) -> Result<ModelConfig, QuantizeError> {
    let fault = |message: &str| {
        Err(QuantizeError::Source { path: model.path().to_path_buf(), message: message.to_string() })
    };
    if !model.adapters().is_empty() {
        return fault("there is an adapter on it: merge it first (`tritforge merge`)");
    }
    match model.config().weights {
        WeightQuant::None => {}
        WeightQuant::Absmean => {
            return fault(
                "its weights are latent weights of a ternary model already: export it, or train it on",
            );
        }
        WeightQuant::Ternary => {
            return fault("its weights are ternary already: there is nothing to quantize");
        }
    }
    options.check(model.config())?;
    let config = ModelConfig {
        weights: WeightQuant::Absmean,
        activations: ActivationQuant::Absmax,
        quantizer: options.quantizer,
        granularity: options.granularity,
        ..model.config().clone()
    };
    config.validate()?;
    Ok(config)
}

/// What two calls must agree in for the second to go on with what the first left.
fn settings(
    model: &LoadedModel,
    calibration: &Calibration,
    options: &Options,
) -> Result<serde_json::Value, QuantizeError> {
    let mut files = Vec::new();
    for path in model.files() {
        let found = std::fs::metadata(&path).map_err(QuantizeError::io(&path, "find"))?;
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
        let since = found.modified().ok().and_then(|at| at.duration_since(std::time::UNIX_EPOCH).ok());
        files.push(serde_json::json!([name, found.len(), since.map(|t| t.as_nanos().to_string())]));
    }
    let mut hash = Sha256::new();
    calibration.ids.iter().for_each(|id| hash.update(id.to_le_bytes()));
    let ids: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(serde_json::json!({
        "version": env!("CARGO_PKG_VERSION"),
        "model": files,
        "calibration": { "sha256": ids, "length": calibration.length, "sequences": calibration.sequences() },
        "options": options,
    }))
}

/// Writes the checkpoint: blocks from where they were kept, everything else from the model.
fn write(
    model: &LoadedModel,
    config: &ModelConfig,
    files: &[(Range<usize>, Tensors)],
    out: &Path,
) -> Result<(), QuantizeError> {
    let mut writer = Writer::create(out)?;
    writer.write_config(config)?;
    if let Some(tokenizer) = model.tokenizer()? {
        writer.write_file(TOKENIZER, tokenizer.to_json()?.as_bytes())?;
        writer.write_file(TOKENIZER_CONFIG, tokenizer.to_config_json().as_bytes())?;
    }
    let spec = |(name, shape): (&str, &[usize])| TensorSpec {
        name: name.to_string(),
        shape: shape.to_vec(),
        ty: TensorType::F32,
    };
    let mut file = writer.tensor_file(MODEL, model.tensors().map(spec).collect())?;
    for TensorSpec { name, shape, .. } in file.specs().to_vec() {
        let of = layer(&name).and_then(|layer| files.iter().find(|(blocks, _)| blocks.contains(&layer)));
        match of {
            Some((_, tensors)) => {
                file.write_f32(&name, &tensors.f32(&name, &shape)?)?;
                tensors.release(&name);
            }
            None => file.write_f32(&name, &model.values(&name, &shape)?)?,
        }
    }
    writer.keep(MODEL, file)?;
    Ok(writer.commit()?)
}

/// The number of the block that a tensor belongs to.
fn layer(name: &str) -> Option<usize> {
    name.strip_prefix("model.layers.")?.split_once('.')?.0.parse().ok()
}

/// A tensor of what was kept, as blocks ask for it.
fn read(tensors: &Tensors, name: &str, shape: &[usize]) -> Result<Vec<f32>, ModelError> {
    let fault = |e: tritforge_checkpoint::CheckpointError| ModelError::Tensor {
        name: name.to_string(),
        message: e.to_string(),
    };
    Ok(tensors.f32(name, shape).map_err(fault)?.into_owned())
}
