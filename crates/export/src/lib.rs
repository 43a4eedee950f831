//! Checkpoints out: Tritforge to GGUF, codes and scales untouched.
