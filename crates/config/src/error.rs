//! What can be wrong with a model's description.

/// An error in a model's configuration: it names the key, what was found and what was expected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// A value out of its range, or one that contradicts another.
    #[error("{key} = {found}: {expected}")]
    Value {
        /// The key, spelled as in `config.json`.
        key: &'static str,
        /// The value found.
        found: String,
        /// What would be right, and why.
        expected: String,
    },
    /// A shape in TOML cannot be read as a model configuration.
    #[error("{0}")]
    Toml(String),
    /// `config.json` cannot be read as a model configuration.
    #[error("config.json: {0}")]
    Json(String),
    /// `adapter_config.json` cannot be read as that of an adapter.
    #[error("adapter_config.json: {0}")]
    Adapter(String),
    /// A GGUF file's metadata does not describe a model that the engine can run.
    #[error("GGUF metadata: {0}")]
    Gguf(String),
    /// A GGUF file has a tensor that would be left out.
    #[error("tensor {tensor}: {problem}")]
    GgufTensor {
        /// The tensor's name in the file.
        tensor: String,
        /// Why it has no place in the model.
        problem: String,
    },
    /// No GGUF architecture describes this model.
    #[error("no GGUF architecture matches this model: {0}")]
    NoArchitecture(String),
    /// No class of `transformers` computes this model.
    #[error("no transformers class matches this model: {0}")]
    NoClass(String),
}
