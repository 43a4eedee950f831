//! What a model is: its shape and quantization, named as in Hugging Face configs.
