//! Whether a kernel overwrites its result or adds to it: gradients are summed where they are kept.

/// What happens to the numbers that stand in a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Write {
    /// They are overwritten.
    Store,
    /// The result is added to them.
    Add,
}
