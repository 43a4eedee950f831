//! The embedding and the head: looked up and multiplied as they are, or ternary as the projections are.

use tritforge_config::ModelConfig;
use tritforge_ternary::TernaryTensor;

use crate::device::sized;
use crate::linear::Linear;
use crate::{Decoder, ModelError, Tensor};

/// The embedding in a checkpoint.
pub(crate) const EMBEDDING: &str = "model.embed_tokens.weight";
/// The head in a checkpoint.
pub(crate) const HEAD: &str = "lm_head.weight";

/// Embedding and head in their ternary form, where they are ternary; a tied head is the embedding.
#[derive(Debug)]
pub(crate) struct Tables {
    pub(crate) embedding: Option<Linear>,
    pub(crate) head: Option<Linear>,
}

impl Tables {
    /// `frozen` tables are never changed: codes and scales are all that is kept of them.
    pub(crate) fn new(
        config: &ModelConfig,
        embedding: &Tensor,
        head: Option<&Tensor>,
        frozen: bool,
    ) -> Result<Self, ModelError> {
        let table = |granularity, weight: &Tensor| Linear::table(config, weight.clone(), granularity);
        let embedding = config.ternary_embedding.map(|granularity| {
            let table = table(granularity, embedding);
            if head.is_some() { table.for_lookup() } else { table }
        });
        let head = config.ternary_head.zip(head).map(|(granularity, head)| table(granularity, head));
        let mut tables = Self { embedding, head };
        if frozen {
            let both = tables.embedding.iter_mut().chain(&mut tables.head);
            both.into_iter().try_for_each(Linear::freeze)?;
        }
        Ok(tables)
    }
}

impl Decoder {
    /// What makes logits, if it is ternary: the head, or the embedding where they are tied.
    pub(crate) fn output_table(&self) -> Option<&Linear> {
        if self.head.is_some() { self.tables.head.as_ref() } else { self.tables.embedding.as_ref() }
    }

    /// The ternary embedding and head, each with the number of its parameter.
    pub(crate) fn ternary_tables(&self) -> impl Iterator<Item = (&Linear, usize)> {
        let embedding = self.tables.embedding.as_ref().map(|table| (table, self.indices.embedding));
        embedding.into_iter().chain(self.tables.head.as_ref().map(|table| (table, self.indices.output)))
    }

    /// The same, to be changed: embedding, head.
    pub(crate) fn tables_mut(&mut self) -> [Option<&mut Linear>; 2] {
        [self.tables.embedding.as_mut(), self.tables.head.as_mut()]
    }

    /// Codes and scales of a ternary embedding or head as they are exported, by its name in a checkpoint; none if it is in
    /// full precision or the model has no such tensor.
    ///
    /// # Errors
    /// If the weights changed without [`Self::requantize`], or a scale is no positive number.
    pub fn ternary_table(&self, name: &str) -> Result<Option<TernaryTensor>, ModelError> {
        let table = match name {
            EMBEDDING => &self.tables.embedding,
            HEAD => &self.tables.head,
            _ => &None,
        };
        table.as_ref().map(Linear::ternary).transpose()
    }

    /// The embedding's rows of these tokens, [tokens, hidden_size], as the deployed engine reads them or as training does.
    ///
    /// # Errors
    /// If a ternary embedding changed and was not quantized again.
    pub(crate) fn embed(&self, ids: &[u32], deployed: bool, out: &mut Vec<f32>) -> Result<(), ModelError> {
        let width = self.config().hidden_size;
        let mut rows = sized(out, ids.len() * width).chunks_exact_mut(width);
        if let Some(table) = &self.tables.embedding {
            return rows.zip(ids).try_for_each(|(row, id)| table.row(*id as usize, deployed, row));
        }
        let table = self.embedding.read();
        for (row, id) in rows.by_ref().zip(ids) {
            row.copy_from_slice(&table[*id as usize * width..][..width]);
        }
        Ok(())
    }
}
