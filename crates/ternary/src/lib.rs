//! What a ternary tensor is: quantizers, scales, rounding, packings.
