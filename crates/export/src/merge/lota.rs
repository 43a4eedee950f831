//! A ternary adapter and its base to one checkpoint of codes: those that the forward multiplied, packed, with
//! the base's scales.

use std::collections::HashMap;
use std::path::Path;

use tritforge_checkpoint::{
    AdapterFiles, AdapterModule, Checkpoint, MODEL, TensorSpec, TensorType, Tensors, Writer,
};
use tritforge_config::{AdapterConfig, ModelConfig, Projection, WeightQuant};
use tritforge_model::merge_ternary_adapter;
use tritforge_ternary::{TernaryError, TernaryTensor, pack_stripes};

use super::{MergeReport, MergedProjection, by_weight, write_tokenizer};
use crate::ExportError;
use crate::tensor_data::{f32_bytes, learned_scales, quantize};

/// Writes the checkpoint `out`: every projection packed, moved where the adapter moves it, all other tensors
/// as they are. One tensor is in memory at a time.
pub(super) fn write(
    base: &Checkpoint,
    adapter: &AdapterFiles,
    modules: &[AdapterModule],
    config: &ModelConfig,
    out: &Path,
    report: &mut MergeReport,
) -> Result<(), ExportError> {
    let (tensors, modules) = (base.model_tensors()?, by_weight(modules));
    let layers = (0..config.num_hidden_layers).flat_map(|l| Projection::ALL.map(|p| (l, p)));
    let projections: HashMap<String, (usize, Projection)> =
        layers.map(|(layer, projection)| (projection.hf_weight(layer), (layer, projection))).collect();
    // Of a base that is packed already: written anew beside the codes.
    let of_scale = |name: &str| name.strip_suffix("_scale").and_then(|weight| projections.get(weight));
    let mut specs = Vec::new();
    for (name, shape, dtype) in tensors.list()? {
        if let Some((_, projection)) = projections.get(&name) {
            let [rows, cols] = config.projection_shape(*projection);
            specs.push(TensorSpec { name: scale_name(&name), shape: vec![1], ty: TensorType::F32 });
            specs.push(TensorSpec { name, shape: vec![rows.div_ceil(4), cols], ty: TensorType::U8 });
        } else if of_scale(&name).is_none() && config.learned_scales(&name).is_none() {
            let ty = if dtype == "BF16" { TensorType::Bf16 } else { TensorType::F32 };
            specs.push(TensorSpec { name, shape, ty });
        }
    }
    let mut writer = Writer::create(out)?;
    writer.write_config(&ModelConfig { weights: WeightQuant::Ternary, ..config.clone() })?;
    let mut file = writer.tensor_file(MODEL, specs)?;
    for TensorSpec { name, shape, ty } in file.specs().to_vec() {
        let fault = |source: TernaryError| ExportError::Merge {
            path: base.dir().to_path_buf(),
            message: format!("tensor {name}: {source}"),
        };
        let codes =
            |name: &str, projection| of_base(&tensors, config, name, config.projection_shape(projection));
        let bytes: Vec<u8> = match (ty, projections.get(&name), of_scale(&name)) {
            (TensorType::U8, Some((layer, projection)), _) => {
                let tensor = codes(&name, *projection)?.map_err(fault)?;
                let [rows, cols] = [tensor.rows(), tensor.cols()];
                if let Some(found) = modules.get(&projection.hf_weight(*layer)) {
                    let [a, b] = adapter.matrices(found)?;
                    let omega = omega(adapter.config(), found);
                    let moved = merge_ternary_adapter(tensor.codes(), &a, &b, [rows, cols], omega);
                    let flipped = tensor.codes().iter().zip(&moved).filter(|(a, b)| a != b).count();
                    let (name, weights) = (name.clone(), moved.len());
                    report.projections.push(MergedProjection { name, weights, flipped, scale_ratio: 1.0 });
                    pack_stripes(&moved, rows, cols).map_err(fault)?
                } else {
                    pack_stripes(tensor.codes(), rows, cols).map_err(fault)?
                }
            }
            (TensorType::F32, None, Some((layer, projection))) => {
                let tensor = codes(&projection.hf_weight(*layer), *projection)?.map_err(fault)?;
                f32_bytes(tensor.scales().values()).into_owned()
            }
            (TensorType::Bf16, ..) => tensors.raw(&name)?.2.to_vec(),
            _ => tensors.f32(&name, &shape)?.iter().flat_map(|value| value.to_le_bytes()).collect(),
        };
        file.write(&name, &bytes)?;
        tensors.release(&name);
    }
    writer.keep(MODEL, file)?;
    write_tokenizer(&mut writer, adapter, base)?;
    Ok(writer.commit()?)
}

/// The name of the scale beside a packed tensor.
fn scale_name(weight: &str) -> String {
    format!("{weight}_scale")
}

/// Codes and scale of a base's projection as training has them: by absmean of its latent weights, or as they
/// are stored.
fn of_base(
    tensors: &Tensors,
    config: &ModelConfig,
    name: &str,
    [rows, cols]: [usize; 2],
) -> Result<Result<TernaryTensor, TernaryError>, ExportError> {
    let values = tensors.f32(name, &[rows, cols])?;
    Ok(match config.weights {
        WeightQuant::Ternary => TernaryTensor::from_values(&values, rows, cols, config.granularity),
        WeightQuant::Absmean | WeightQuant::None => {
            return quantize_base(tensors, config, name, &values, [rows, cols]);
        }
    })
}

/// Latent weights of a base, by its learned scales if there are any.
fn quantize_base(
    tensors: &Tensors,
    config: &ModelConfig,
    name: &str,
    values: &[f32],
    shape: [usize; 2],
) -> Result<Result<TernaryTensor, TernaryError>, ExportError> {
    let scales = learned_scales(tensors, config, name, shape)?;
    Ok(match quantize(config, config.granularity, scales.as_deref(), name, values, shape) {
        Err(ExportError::Ternary { source, .. }) => Err(source),
        other => Ok(other?),
    })
}

/// ω of a module.
fn omega(config: &AdapterConfig, found: &AdapterModule) -> f32 {
    config.lora(found.module.rank, Vec::new()).omega()
}
