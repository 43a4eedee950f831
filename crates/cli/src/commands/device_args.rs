//! `--device`: where a GGUF model runs.

#[cfg(feature = "train")]
use std::path::Path;

#[cfg(feature = "train")]
use anyhow::Context as _;
use anyhow::Result;
use clap::Args as ClapArgs;
#[cfg(feature = "train")]
use tritforge_eval::EvalModel;
use tritforge_infer::{Device, Model, Placed};

#[derive(ClapArgs)]
pub(crate) struct DeviceArgs {
    /// Where the model runs: cpu, an NVIDIA GPU by its number (cuda is cuda:0), or auto for the first GPU and
    /// the CPU if it cannot be used. The results are the same bits.
    #[arg(long, value_name = "auto|cpu|cuda[:N]", default_value_t = Device::Cpu)]
    pub(crate) device: Device,
}

impl DeviceArgs {
    /// Puts a model on the device, and says so where it is not the one that was asked for. Returns the GPU's
    /// name.
    pub(crate) fn place(&self, model: &mut Model) -> Result<Option<String>> {
        Ok(say(model.run_on(self.device)?))
    }

    /// Puts a model that may be a checkpoint on the device, as [`Self::place`] does a GGUF file's.
    #[cfg(feature = "train")]
    pub(crate) fn place_any(&self, model: &mut EvalModel, path: &Path) -> Result<()> {
        if self.device != Device::Cpu {
            let placed = model.run_on(self.device)?.with_context(|| {
                let (device, path) = (self.device, path.display());
                format!(
                    "--device {device}: {path} is not a GGUF file, and only those run on a GPU: export it first"
                )
            })?;
            say(placed);
        }
        Ok(())
    }
}

/// The GPU's name; where there is none though one was wanted, why not is printed.
fn say(placed: Placed) -> Option<String> {
    match placed {
        Placed::Cpu => None,
        Placed::Gpu(name) => Some(name),
        Placed::Fallback(reason) => {
            eprintln!("--device auto: running on the CPU: {reason}");
            None
        }
    }
}
