//! GGUF version 3: a bounded reader over mmap and a streaming writer.
