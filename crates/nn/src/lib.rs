//! Candle modules: BitLinear with a straight-through estimator and the decoder around it.
