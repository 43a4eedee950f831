//! Files of tensors, and adapters as such files.

use std::path::Path;

use tritforge_config::Projection;
use tritforge_gguf::{GgmlType, Metadata, TensorSpec, Writer};
use tritforge_infer::Model;

/// A tensor of a file.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Stored {
    pub(crate) name: String,
    /// Innermost first.
    pub(crate) dims: Vec<u64>,
    pub(crate) ty: GgmlType,
    pub(crate) bytes: Vec<u8>,
}

pub(crate) fn write_file(to: &Path, metadata: &Metadata, tensors: &[Stored]) {
    let specs =
        tensors.iter().map(|t| TensorSpec { name: t.name.clone(), dims: t.dims.clone(), ty: t.ty }).collect();
    let mut writer = Writer::create(to, metadata, specs).unwrap();
    for tensor in tensors {
        writer.write_tensor(&tensor.name, &tensor.bytes).unwrap();
    }
    writer.finish().unwrap();
}

pub(crate) const RANK: usize = 4;

/// What A (which 0) and B (which 1) of [`write_adapter`] hold.
pub(crate) fn adapter_values(name: &str, which: usize, len: usize) -> Vec<f32> {
    (0..len).map(|i| ((i * 7919 + name.len() + which) % 1009) as f32 / 1009.0 - 0.5).collect()
}

/// An adapter of rank [`RANK`] and alpha 4 on two projections of every block, and its tensors.
pub(crate) fn write_adapter(
    path: &Path,
    model: &Model,
    change: impl FnOnce(&mut Metadata, &mut Vec<Stored>),
) {
    let mut metadata = Metadata::new();
    let architecture = model.gguf().metadata().get_str("general.architecture").unwrap();
    metadata.insert("general.architecture", architecture);
    metadata.insert("general.type", "adapter");
    metadata.insert("adapter.type", "lora");
    metadata.insert("adapter.lora.alpha", 4f32);
    let mut tensors = Vec::new();
    for layer in 0..model.config().num_hidden_layers {
        for projection in [Projection::Q, Projection::Down] {
            let [rows, cols] = model.config().projection_shape(projection);
            let weight = projection.gguf_weight(layer);
            for (which, (end, dims)) in
                [(".lora_a", [cols, RANK]), (".lora_b", [RANK, rows])].into_iter().enumerate()
            {
                let name = format!("{weight}{end}");
                let values = adapter_values(&weight, which, dims[0] * dims[1]);
                tensors.push(Stored {
                    name,
                    dims: dims.map(|n| n as u64).to_vec(),
                    ty: GgmlType::F32,
                    bytes: values.iter().flat_map(|x| x.to_le_bytes()).collect(),
                });
            }
        }
    }
    change(&mut metadata, &mut tensors);
    write_file(path, &metadata, &tensors);
}
