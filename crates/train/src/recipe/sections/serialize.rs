//! How values are written whose types know nothing of serde, and which are left out because every recipe has them.

use serde::Serializer;
use tritforge_config::{Granularity, LoraMode, Projection};
use tritforge_data::Packing;
use tritforge_kernels::DenseType;
use tritforge_model::GradPrecision;
use tritforge_ternary::Packing as TernaryPacking;

use super::SHARD_TOKENS;

/// The name of a packing in recipes.
pub(in crate::recipe) fn recipe_name(packing: TernaryPacking) -> String {
    packing.name().to_ascii_lowercase()
}

pub(super) fn packing_name<S: Serializer>(
    packing: &TernaryPacking,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&recipe_name(*packing))
}

pub(super) fn dense_name<S: Serializer>(format: &DenseType, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(format.name())
}

pub(super) fn backward_name<S: Serializer>(
    backward: &GradPrecision,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(backward.name())
}

pub(super) fn display<S: Serializer>(
    value: &impl std::fmt::Display,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

/// The size of a group as a number, the rest as text.
pub(super) fn granularity<S: Serializer>(
    granularity: &Granularity,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match granularity {
        Granularity::Group(size) => serializer.serialize_u64(*size as u64),
        other => serializer.collect_str(other),
    }
}

pub(super) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

pub(super) fn mode_name<S: Serializer>(mode: &LoraMode, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(mode.name())
}

pub(super) fn module_name<S: Serializer>(module: &Projection, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(module.module())
}

pub(super) fn module_names<S: Serializer>(modules: &[Projection], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(modules.iter().map(|module| module.module()))
}

// serde hands references to `skip_serializing_if`.
pub(super) fn is_zero(n: &usize) -> bool {
    *n == 0
}

pub(super) fn is_text(column: &str) -> bool {
    column == "text"
}

pub(super) fn is_concat(packing: &Packing) -> bool {
    *packing == Packing::Concat
}

pub(super) fn is_auto(backward: &GradPrecision) -> bool {
    *backward == GradPrecision::Auto
}

pub(super) fn is_shard_tokens(n: &usize) -> bool {
    *n == SHARD_TOKENS
}
