//! Files that lie: hand-made ones, one for each class of published GGUF parser vulnerabilities, and ten
//! thousand mutated ones. The reader must answer with an error or a sound model, within memory that the file
//! justifies.

#[path = "../../../../tests/mutations/counting.rs"]
mod counting;
mod fields;
mod mutations;
mod raw;
