//! Which ternary weights of a GGUF file share a scale: as it says, or as its blocks and rows have it.

use tritforge_gguf::{Gguf, Metadata, optional};
use tritforge_ternary::{
    EMBEDDING_GRANULARITY, GRANULARITY, HEAD_GRANULARITY, I2_S_LAYOUT, PackedRows, Packing,
};

use crate::{ConfigError, Granularity, ModelConfig, Projection};

/// The embedding in GGUF files.
pub(super) const EMBEDDING: &str = "token_embd.weight";
/// The head in GGUF files.
pub(super) const HEAD: &str = "output.weight";

/// What the file says.
pub(super) fn said(metadata: &Metadata) -> Result<Option<Granularity>, ConfigError> {
    said_by(metadata, GRANULARITY)
}

/// What the file says under a key.
fn said_by(metadata: &Metadata, key: &str) -> Result<Option<Granularity>, ConfigError> {
    let fault = |message: String| ConfigError::Gguf(message);
    let said = optional(metadata.get_str(key)).map_err(|e| fault(e.to_string()))?;
    said.map(|text| text.parse().map_err(|e| fault(format!("{key} = \"{text}\": {e}")))).transpose()
}

impl ModelConfig {
    /// Which weights of a file share a scale, if the file says it: [`GRANULARITY`]. Else its blocks and rows do.
    ///
    /// # Errors
    /// If the key has a value that it cannot have.
    pub fn said_granularity(metadata: &Metadata) -> Result<Option<Granularity>, ConfigError> {
        said(metadata)
    }

    /// The same of a ternary embedding or head, by its tensor: what its own key says ([`EMBEDDING_GRANULARITY`],
    /// [`HEAD_GRANULARITY`]), or else what the file says of all weights.
    ///
    /// # Errors
    /// If a key has a value that it cannot have.
    pub fn said_table_granularity(
        metadata: &Metadata,
        tensor: &str,
    ) -> Result<Option<Granularity>, ConfigError> {
        let own = match tensor {
            EMBEDDING => said_by(metadata, EMBEDDING_GRANULARITY)?,
            HEAD => said_by(metadata, HEAD_GRANULARITY)?,
            _ => None,
        };
        own.map_or_else(|| said(metadata), |own| Ok(Some(own)))
    }

    /// Takes the granularities that a file does not say from its tensors: the coarsest that holds the scales of all
    /// projections, which is one of the whole model, since products of groups round in another place than those of rows;
    /// and those of a ternary embedding and head, each by itself. All of these tensors are read. One whose bytes are
    /// damaged is an error where it is loaded.
    ///
    /// # Errors
    /// If a key that says it has a value that it cannot have.
    pub fn find_granularities(&mut self, gguf: &Gguf) -> Result<(), ConfigError> {
        if said(gguf.metadata())?.is_none() {
            let layers = 0..self.num_hidden_layers;
            let projections = layers.flat_map(|layer| Projection::ALL.map(|p| (layer, p)));
            let found = projections.filter_map(|(layer, p)| {
                stored_granularity(gguf, &p.gguf_weight(layer), self.projection_shape(p))
            });
            self.granularity = found.fold(Granularity::Tensor, Granularity::finer);
        }
        let shape = [self.vocab_size, self.hidden_size];
        for (name, table) in [(EMBEDDING, &mut self.ternary_embedding), (HEAD, &mut self.ternary_head)] {
            if table.is_some() && Self::said_table_granularity(gguf.metadata(), name)?.is_none() {
                *table = Some(stored_granularity(gguf, name, shape).unwrap_or_default());
            }
        }
        Ok(())
    }
}

/// The coarsest granularity that holds the scales of a tensor; none if it is not ternary or damaged.
fn stored_granularity(gguf: &Gguf, name: &str, [rows, cols]: [usize; 2]) -> Option<Granularity> {
    let layout = gguf.metadata().get_str(I2_S_LAYOUT).ok();
    let info = gguf.tensor(name)?;
    let packing = Packing::in_file(info.ty.name(), layout)?;
    let bytes = Packing::bytes_in_file(info.ty.name(), gguf.data(info), rows, cols).ok()?;
    let packed = PackedRows::new(packing, &bytes, rows, cols).ok()?;
    Some(packed.scales(None, None).ok()?.granularity())
}
