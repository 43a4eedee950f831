//! The checkpoint directory: tensors, manifest with checksums, atomic writes.
