//! Whether a kernel overwrites its result or adds to it: gradients are summed where they are kept.

/// What happens to the values already in the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteMode {
    /// They are overwritten.
    Overwrite,
    /// The result is added to them.
    Accumulate,
}
