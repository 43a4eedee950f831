//! The deployable engine: a model from GGUF, a KV cache, sampling.
