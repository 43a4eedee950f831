//! `[export]`: the GGUF file that the trained model is to become.

use schemars::JsonSchema;
use serde::{Serialize, Serializer};
use tritforge_config::{Granularity, Projection, WeightQuant};
use tritforge_kernels::DenseType;
use tritforge_recipe::{Model, Reader};
use tritforge_ternary::Packing;

use super::Quant;

/// `[export]`: the GGUF file that the trained model is to become.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Export {
    /// The packing (`docs/formats.md`); by default the first of `"tq2_0"`, `"i2_s"` and `"q2_0"` that has room for the
    /// scales and whose blocks fit the widths.
    #[serde(serialize_with = "packing_name")]
    #[schemars(with = "String")]
    pub format: Packing,
    /// How embedding and head are stored: `"f16"` (the default), `"f32"` or `"q8_0"`.
    #[serde(serialize_with = "dense_name")]
    #[schemars(with = "String")]
    pub embeddings: DenseType,
}

impl Default for Export {
    fn default() -> Self {
        Self { format: Packing::Tq2_0, embeddings: DenseType::F16 }
    }
}

impl Export {
    /// Reads the section.
    pub(super) fn read(r: &mut Reader, model: &Model, quant: Quant) -> Self {
        let default = Self::default();
        let names = Packing::ALL.map(|packing| (recipe_name(packing), packing));
        let packings: Vec<(&str, Packing)> =
            names.iter().map(|(name, packing)| (name.as_str(), *packing)).collect();
        let dense = DenseType::ALL.map(|format| (format.name(), format));
        let format = r.choice("export", "format", &packings).unwrap_or_else(|| {
            let fits = |packing: &Packing| {
                no_room(quant, *packing).is_none() && misfit(model, quant, *packing).is_none()
            };
            let preferred = [Packing::Tq2_0, Packing::I2S, Packing::Q2_0];
            preferred.into_iter().chain(Packing::ALL).find(fits).unwrap_or(default.format)
        });
        Self { format, embeddings: r.choice("export", "embeddings", &dense).unwrap_or(default.embeddings) }
    }

    /// Notes a packing whose blocks do not divide the widths of the model.
    pub(super) fn check(&self, r: &mut Reader, model: &Model, quant: Quant) {
        let format = self.format;
        if quant.weights != WeightQuant::None
            && let Some((key, granularity)) = no_room(quant, format)
        {
            return self.refuse(r, key, granularity);
        }
        let Some((key, width)) = misfit(model, quant, format) else { return };
        let what = match key {
            "head_dim" => "model.num_attention_heads · model.head_dim".to_string(),
            key => format!("model.{key}"),
        };
        let other = Packing::ALL.into_iter().find(|p| misfit(model, quant, *p).is_none());
        let other =
            other.map_or(String::new(), |p| format!(", or choose export.format = \"{}\"", recipe_name(p)));
        let (name, block) = (recipe_name(format), format.block());
        let fix = format!(
            "expected a multiple of {block}: export.format = \"{name}\" packs blocks of {block} weights{other}"
        );
        // Whoever chose a format sees the fault there; otherwise the width is at fault.
        if r.given("export", "format") {
            r.fault(
                "export",
                "format",
                format!("export.format = \"{name}\" does not support {what} = {width}: {fix}"),
            );
        } else {
            r.fault("model", key, format!("{what} = {width}: {fix}"));
        }
    }
}

impl Export {
    /// Notes a packing that has no room for the scales that a key of `[quant]` asks for.
    fn refuse(&self, r: &mut Reader, key: &'static str, granularity: Granularity) {
        let mut holding = Packing::holding(granularity);
        if key != "granularity" && granularity == Granularity::Tensor {
            holding =
                Packing::ALL.into_iter().filter(|packing| !packing.is_f16()).map(Packing::name).collect();
        }
        let name = recipe_name(self.format);
        let holding = match holding.is_empty() {
            true => "no packing has room for them, since no ternary type of GGUF files has blocks of fewer than 64 \
                     weights: expected tensor, row, 64, 128 or 256"
            .to_string(),
            false => format!("these packings have: {}", holding.join(", ")),
        };
        if r.given("export", "format") {
            let message =
                format!("export.format = \"{name}\" has no room for quant.{key} = {granularity}; {holding}");
            r.fault("export", "format", message);
        } else {
            let together = match Packing::holding(granularity).is_empty() {
                true => "",
                false => "no packing has room for all scales of the model; for this granularity ",
            };
            r.fault("quant", key, format!("quant.{key} = {granularity}: {together}{holding}"));
        }
    }
}

/// The scales that a packing has no room for, with the key that asks for them. The one scale of an embedding or a head has
/// no tensor beside it in any architecture, so that a packing of f16 scales would round it.
fn no_room(quant: Quant, packing: Packing) -> Option<(&'static str, Granularity)> {
    if !packing.holds(quant.granularity) {
        return Some(("granularity", quant.granularity));
    }
    let tables = [("embedding", quant.embedding), ("head", quant.head)];
    let tables = tables.into_iter().filter_map(|(key, table)| Some((key, table?)));
    tables.into_iter().find(|(_, granularity)| {
        !packing.holds(*granularity) || (*granularity == Granularity::Tensor && packing.is_f16())
    })
}

/// The width that a packing's blocks do not divide, with the key that it comes from. Models that are not
/// ternary are not packed.
fn misfit(model: &Model, quant: Quant, packing: Packing) -> Option<(&'static str, usize)> {
    if quant.weights != WeightQuant::Absmean {
        return None;
    }
    let config = quant.config(model, 1);
    Projection::ALL.into_iter().find_map(|projection| {
        let [_, cols] = config.projection_shape(projection);
        let key = match projection {
            Projection::O => "head_dim",
            Projection::Down => "intermediate_size",
            _ => "hidden_size",
        };
        (!cols.is_multiple_of(packing.block())).then_some((key, cols))
    })
}

/// The name of a packing in recipes.
fn recipe_name(packing: Packing) -> String {
    packing.name().to_ascii_lowercase()
}

fn packing_name<S: Serializer>(packing: &Packing, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&recipe_name(*packing))
}

fn dense_name<S: Serializer>(format: &DenseType, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(format.name())
}
