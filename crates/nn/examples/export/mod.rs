//! Writes ternary layers to a GGUF file, packed, reads it back and compares.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use tritforge_gguf::{GgmlType, Gguf, Metadata, TensorSpec, Writer};
use tritforge_nn::BitLinear;
use tritforge_ternary::{Packing, TernaryTensor};

/// Packs every layer as TQ2_0, its scale in the key `{name}.scale`; the file is then read again and codes and
/// scales compared. Columns must be a multiple of 256.
pub(crate) fn export(path: &Path, layers: &[(String, &BitLinear)]) -> Result<()> {
    let ternary: Vec<(&str, TernaryTensor)> =
        layers.iter().map(|(name, layer)| Ok((name.as_str(), layer.to_ternary()?))).collect::<Result<_>>()?;
    let ty = GgmlType::from_name(Packing::Tq2_0.ggml_type()).context("the type TQ2_0")?;
    let mut metadata = Metadata::new();
    metadata.insert("general.architecture", "example");
    let mut specs = Vec::new();
    for (name, tensor) in &ternary {
        let scale = tensor.scales().of_tensor().context("one scale a tensor")?;
        metadata.insert(format!("{name}.scale"), scale);
        let dims = vec![tensor.cols() as u64, tensor.rows() as u64];
        specs.push(TensorSpec { name: (*name).to_string(), dims, ty });
    }
    let mut writer = Writer::create(path, &metadata, specs)?;
    for (name, tensor) in &ternary {
        writer.write_tensor(name, &Packing::Tq2_0.pack(tensor)?)?;
    }
    writer.finish()?;

    let file = Gguf::open(path)?;
    for (name, tensor) in &ternary {
        let info = file.tensor(name).with_context(|| format!("tensor {name}"))?;
        let unpacked = Packing::Tq2_0.unpack(file.data(info), tensor.rows(), tensor.cols())?;
        ensure!(unpacked.codes == tensor.codes(), "{name}: the file has other codes");
        let scale = file.metadata().get_f32(&format!("{name}.scale"))?;
        ensure!(Some(scale) == tensor.scales().of_tensor(), "{name}: the file has another scale");
    }
    println!("{}: {} layers, read back and equal", path.display(), ternary.len());
    Ok(())
}
