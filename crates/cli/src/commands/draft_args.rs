//! `--draft-model`: a small model that proposes tokens to the one that answers.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use clap::Args as ClapArgs;
use tritforge_export::gguf_file;
use tritforge_infer::{Draft, Model, Proposals};

use super::device_args::DeviceArgs;
use super::ranges::count;

#[derive(ClapArgs)]
pub(crate) struct DraftArgs {
    /// GGUF file of a smaller model with the same vocabulary that proposes tokens (speculative decoding), which can be
    /// faster; the text stays the same. Adapters and --override-kv are not for it.
    #[arg(long, value_name = "FILE", visible_alias = "model-draft")]
    draft_model: Option<PathBuf>,
    /// Propose up to N tokens at once with --draft-model.
    #[arg(long, value_name = "N", default_value_t = 4, visible_alias = "draft-max", requires = "draft_model",
        value_parser = count(1..=64))]
    draft_tokens: usize,
}

impl DraftArgs {
    /// Whether there is one.
    pub(crate) fn is_on(&self) -> bool {
        self.draft_model.is_some()
    }

    /// Loads the draft for a model onto its device.
    pub(crate) fn open(&self, target: &Model, device: &DeviceArgs) -> Result<Option<Draft>> {
        let Some(path) = &self.draft_model else { return Ok(None) };
        let place = || format!("--draft-model {}", path.display());
        let mut model = gguf_file(path).map_err(anyhow::Error::from).and_then(|file| Ok(Model::open(&file)?));
        if let Ok(model) = &mut model {
            device.place(model)?;
        }
        Ok(Some(Draft::new(Arc::new(model.with_context(place)?), target, self.draft_tokens)?))
    }
}

/// A part of a summary: how many proposed tokens came; nothing if nothing proposes any.
pub(crate) fn accepted(source: &str, on: bool, Proposals { proposed, accepted }: Proposals) -> String {
    if on { format!("; {source}: {accepted} of {proposed} proposed tokens accepted") } else { String::new() }
}
