//! The training pass and evaluation of whole models: one program, so that it is linked once.

mod backward;
mod blend;
mod common;
mod curvature;
mod dead_zone;
mod device;
mod differences;
mod distillation;
mod embedding_noise;
mod estimator;
mod finite_differences;
mod golden;
mod grid;
mod integer_backward;
mod learned_scales;
mod loss_terms;
mod quantizer_codes;
mod relation;
mod segments;
mod stack;
mod tables;
mod training_codes;
