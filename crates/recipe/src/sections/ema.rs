//! `[ema]`: an average of the weights.

use schemars::JsonSchema;
use serde::Serialize;

use crate::{Range, Reader};

/// `[ema]`: an average of the weights over the steps, kept where the section is given.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, JsonSchema)]
pub struct Ema {
    /// Decay rate per step; lower at the beginning of the run, (1 + step) / (10 + step).
    pub decay: f64,
    /// Whether the average is used as the model: it is evaluated, and stored as `model.safetensors` for
    /// export. By default it is; otherwise it is stored separately, in `ema.safetensors`.
    pub deploy: bool,
}

impl Ema {
    /// Reads the section; none where no decay is given.
    pub fn read(r: &mut Reader) -> Option<Self> {
        let decay = r.number("ema", "decay", Range::above(0.0).below(1.0));
        let deploy = r.flag("ema", "deploy");
        if decay.is_none() && deploy.is_some() {
            r.fault("ema", "deploy", "ema.deploy: needs ema.decay, as in decay = 0.999");
        }
        Some(Self { decay: decay?, deploy: deploy.unwrap_or(true) })
    }
}
