//! The model that writes: its file, adapters, and the device it runs on.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Result;
use clap::Args as ClapArgs;
use tritforge_infer::Model;

use super::device_args::DeviceArgs;
use super::lora_args::LoraArgs;

#[derive(ClapArgs)]
pub(crate) struct ModelArgs {
    /// GGUF file.
    #[arg(value_name = "MODEL")]
    pub(crate) model: PathBuf,
    #[command(flatten)]
    lora: LoraArgs,
    #[command(flatten)]
    pub(crate) device: DeviceArgs,
}

impl ModelArgs {
    /// Loads the model onto its device and puts the adapters on it.
    pub(crate) fn open(&self) -> Result<Arc<Model>> {
        self.lora.open_on(&self.model, &self.device)
    }
}
