//! Quantizations that others have and this program does not, by the names that one would try, and why not.

use tritforge_recipe::Reader;

/// Names of one scale for all tokens.
const ONE_SCALE: [&str; 8] = [
    "tensor",
    "absmax_tensor",
    "absmax-tensor",
    "int8_tensor",
    "int8-tensor",
    "per_tensor",
    "sequence",
    "batch",
];
const NO_SCALE_OF_ALL_TOKENS: &str = "one scale for all tokens of a sequence or a batch cannot be deployed: the scale of a token would depend on the tokens behind it \
     and on what else is in the batch, so that one token at a time, or a prompt in pieces, gives other codes than training and nothing \
     could be verified; expected \"absmax\" (int8, a scale a token), \"int4\" or \"none\"";

/// Names of weights with more levels than three.
const BITS: [&str; 15] = [
    "int2", "int3", "int4", "int8", "2bit", "3bit", "4bit", "8bit", "2-bit", "3-bit", "4-bit", "8-bit", "w2",
    "w3", "w4",
];
const NO_MORE_BITS: &str = "weights of 2 or more bits cannot be deployed: the kernels multiply codes -1, 0 and 1, and of the types of GGUF files with more \
     levels (Q2_K, Q3_K, Q4_0 …) the engine reads the numbers and multiplies those, so that the file would compute something else than \
     training did and nothing could be verified; expected ternary weights, or binary ones by quant.scale = \"binary\"";

/// Notes what `[quant]` asks for that does not exist; to be called before its keys are read.
pub(super) fn quantizations(r: &mut Reader) {
    r.refuse_names("quant", "activations", &ONE_SCALE, NO_SCALE_OF_ALL_TOKENS);
    for key in ["weights", "scale"] {
        r.refuse_names("quant", key, &BITS, NO_MORE_BITS);
    }
    for key in ["bits", "w_bits", "weight_bits"] {
        r.refuse_key("quant", key, NO_MORE_BITS);
    }
}
