//! Tokenizers and chat templates, to and from Hugging Face files and GGUF metadata.
