//! Post-training ternarization: a model that was trained in full precision, made ternary a window of blocks at a
//! time by block-wise reconstruction, as in BRECQ (arXiv 2102.05426) and CAT-Q (arXiv 2606.26650).
//!
//! Sequences of a calibration text run through the model twice, block by block: as it is, and as it becomes. The
//! weights of a window of blocks are trained, quantized as they will be deployed, to give from the states that the
//! ternary blocks before them produce the states that the full-precision model has behind the window; so they make up
//! for the errors of those before. Then the window moves on. One window is in memory at a time, and the states: this
//! is how a model of more than a billion parameters is converted on a machine that cannot train it.
//!
//! * [`quantize`]: the whole conversion, resumable, to a checkpoint with latent weights that export, evaluation and
//!   further training read.
//! * [`Options`]: quantizer, granularity, window, epochs, learning rate.
//! * [`calibration_ids`]: sequences of tokens out of a text.

#![warn(clippy::print_stdout, clippy::print_stderr)]

mod calibration;
mod error;
mod huber;
mod options;
mod run;
mod states;
mod store;
mod window;

pub use calibration::{Calibration, calibration_ids};
pub use error::QuantizeError;
pub use options::Options;
pub use run::{Event, Report, WindowReport, quantize};
