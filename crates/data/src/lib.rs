//! From corpora to token shards to batches.
