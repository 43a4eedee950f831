//! Perplexity, and verify: any two models side by side.
