//! `--device`: where a GGUF model runs.

use anyhow::Result;
use clap::Args as ClapArgs;
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
}

/// The GPU's name; where there is none though one was wanted, why not is printed.
pub(crate) fn say(placed: Placed) -> Option<String> {
    match placed {
        Placed::Cpu => None,
        Placed::Gpu(name) => Some(name),
        Placed::Fallback(reason) => {
            eprintln!("--device auto: running on the CPU: {reason}");
            None
        }
    }
}
