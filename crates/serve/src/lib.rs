//! HTTP service, OpenAI-compatible, over the engine.
