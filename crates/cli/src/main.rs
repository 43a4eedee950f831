//! The `tritforge` binary.
fn main() {}
