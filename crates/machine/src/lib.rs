//! What this machine can do, what this process holds of it, and what only a program may set for itself.
//!
//! * [`f32_flops`] and [`ternary_ops`]: operations a second that the kernels reach, by which the use of a
//!   machine (MFU) is measured. [`read_bandwidth`] and [`int8_peak`]: what memory and registers would allow.
//! * [`resident`] and [`available_memory`]: bytes that this process holds, and that are left.
//! * [`keep_pages`] and [`configure_threads`]: settings of the whole process, for `main` alone. No library
//!   calls them.
//!
//! ```
//! if let Some(memory) = tritforge_machine::resident() {
//!     assert!(memory.now <= memory.peak);
//! }
//! ```

#![warn(clippy::print_stdout, clippy::print_stderr)]

mod memory;
mod process;
mod roofline;
mod speed;

pub use memory::{Resident, available_memory, resident};
pub use process::{configure_threads, keep_pages};
pub use roofline::{int8_peak, read_bandwidth};
pub use speed::{f32_flops, ternary_ops};
