//! Which ternary weights of a GGUF file share a scale: as it says, or as its blocks and rows have it.

use tritforge_gguf::{Gguf, Metadata, optional};
use tritforge_ternary::{GRANULARITY, I2_S_LAYOUT, PackedRows, Packing};

use crate::{ConfigError, Granularity, ModelConfig, Projection};

/// What the file says.
pub(super) fn said(metadata: &Metadata) -> Result<Option<Granularity>, ConfigError> {
    let fault = |message: String| ConfigError::Gguf(message);
    let said = optional(metadata.get_str(GRANULARITY)).map_err(|e| fault(e.to_string()))?;
    said.map(|text| text.parse().map_err(|e| fault(format!("{GRANULARITY} = \"{text}\": {e}")))).transpose()
}

impl ModelConfig {
    /// Which weights of a file share a scale, if the file says it: [`GRANULARITY`]. Else its blocks and rows do.
    ///
    /// # Errors
    /// If the key has a value that it cannot have.
    pub fn said_granularity(metadata: &Metadata) -> Result<Option<Granularity>, ConfigError> {
        said(metadata)
    }

    /// The coarsest granularity that holds the scales of all projections of a file that does not say which weights share
    /// one. It is one of the whole model, since products of groups round in another place than those of rows. All
    /// projections are read for it. A tensor whose bytes are damaged is an error where it is loaded.
    pub fn stored_granularity(&self, gguf: &Gguf) -> Granularity {
        let layout = gguf.metadata().get_str(I2_S_LAYOUT).ok();
        let mut finest = Granularity::Tensor;
        let layers = 0..self.num_hidden_layers;
        for (layer, projection) in layers.flat_map(|layer| Projection::ALL.map(|p| (layer, p))) {
            let Some(info) = gguf.tensor(&projection.gguf_weight(layer)) else { continue };
            let Some(packing) = Packing::in_file(info.ty.name(), layout) else { continue };
            let [rows, cols] = self.projection_shape(projection);
            let packed = PackedRows::new(packing, gguf.data(info), rows, cols);
            if let Ok(scales) = packed.and_then(|packed| packed.scales(None, None)) {
                finest = finest.finer(scales.granularity());
            }
        }
        finest
    }
}
