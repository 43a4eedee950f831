//! Where a model runs.

use std::fmt;
use std::str::FromStr;

use crate::{InferError, Model};

/// Where a model runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Device {
    /// On the first GPU, or on the CPU if that cannot be used.
    Auto,
    /// On the CPU.
    #[default]
    Cpu,
    /// On a GPU of NVIDIA's, by its number from 0.
    Cuda(usize),
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Device::Auto => f.write_str("auto"),
            Device::Cpu => f.write_str("cpu"),
            Device::Cuda(ordinal) => write!(f, "cuda:{ordinal}"),
        }
    }
}

impl FromStr for Device {
    type Err = String;

    /// `auto`, `cpu`, `cuda` for the first GPU, or `cuda:N`.
    fn from_str(text: &str) -> Result<Self, String> {
        let ordinal = |n: &str| n.parse().map(Device::Cuda).ok();
        match text {
            "auto" => Some(Device::Auto),
            "cpu" => Some(Device::Cpu),
            "cuda" => Some(Device::Cuda(0)),
            _ => text.strip_prefix("cuda:").and_then(ordinal),
        }
        .ok_or_else(|| format!("unknown device {text:?}: expected auto, cpu, cuda or cuda:N, N from 0"))
    }
}

/// What became of the wish for a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Placed {
    /// The model runs on the CPU, as was wished.
    Cpu,
    /// It runs on a GPU, of this name.
    Gpu(String),
    /// It runs on the CPU, because no GPU can be used, for this reason.
    Fallback(String),
}

impl Model {
    /// Puts the model on a device, before its first session begins. Its weights stay in memory, too.
    ///
    /// # Errors
    /// If a GPU is asked for and cannot be used.
    pub fn run_on(&mut self, device: Device) -> Result<Placed, InferError> {
        match device {
            Device::Cpu => Ok(Placed::Cpu),
            Device::Cuda(ordinal) => self.run_on_cuda(ordinal).map(Placed::Gpu),
            Device::Auto => match self.run_on_cuda(0) {
                Ok(name) => Ok(Placed::Gpu(name)),
                Err(InferError::Device { message, .. }) => Ok(Placed::Fallback(message)),
                Err(error) => Err(error),
            },
        }
    }

    /// Whether passes run on a GPU: what they give is copied from there.
    pub(crate) fn runs_on_gpu(&self) -> bool {
        #[cfg(feature = "cuda")]
        let on_gpu = self.cuda.is_some();
        #[cfg(not(feature = "cuda"))]
        let on_gpu = false;
        on_gpu
    }

    #[cfg(feature = "cuda")]
    fn run_on_cuda(&mut self, ordinal: usize) -> Result<String, InferError> {
        let model = crate::cuda::CudaModel::new(self, ordinal)?;
        Ok(self.cuda.insert(model).name())
    }

    #[cfg(not(feature = "cuda"))]
    fn run_on_cuda(&mut self, ordinal: usize) -> Result<String, InferError> {
        let message = "this program was built without CUDA: build it with the feature `cuda`".to_string();
        Err(InferError::Device { device: Device::Cuda(ordinal), message })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_and_written() {
        for (text, device) in [("auto", Device::Auto), ("cpu", Device::Cpu), ("cuda:3", Device::Cuda(3))] {
            assert_eq!((text.parse(), device.to_string()), (Ok(device), text.to_string()));
        }
        assert_eq!("cuda".parse(), Ok(Device::Cuda(0)));
        for text in ["", "gpu", "cuda:", "cuda:-1", "cuda:x", "CPU"] {
            assert!(
                text.parse::<Device>().unwrap_err().contains("expected auto, cpu, cuda or cuda:N"),
                "{text}"
            );
        }
    }
}
