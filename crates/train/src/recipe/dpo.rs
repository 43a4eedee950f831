//! `[dpo]`: read and checked.

use tritforge_data::{Packing, RecordKind};

use super::kind::Range;
use super::reader::Reader;
use super::sections::{Dpo, SftLoss};
use super::{Loss, Recipe};

/// β where the recipe does not say: that of the paper.
const BETA: f64 = 0.1;

/// Reads the section; none where neither it nor any of its keys is given.
pub(super) fn dpo(r: &mut Reader) -> Option<Dpo> {
    let losses = [("mean", SftLoss::Mean), ("sum", SftLoss::Sum)];
    let beta = r.number("dpo", "beta", Range::above(0.0));
    let sft = r.number("dpo", "sft", Range::at_least(0.0));
    let sft_loss = r.choice("dpo", "sft_loss", &losses);
    let reference = r.path("dpo", "reference");
    let given = r.has_section("dpo")
        || ["beta", "sft", "sft_loss", "reference"].iter().any(|key| r.given("dpo", key));
    given.then(|| Dpo {
        beta: beta.unwrap_or(BETA),
        sft: sft.unwrap_or(0.0),
        sft_loss: sft_loss.unwrap_or(SftLoss::Mean),
        reference,
    })
}

/// Notes what contradicts the section.
pub(super) fn check(r: &mut Reader, recipe: &Recipe) {
    let data = &recipe.data;
    if recipe.dpo.is_none() {
        if data.samples.records == Some(RecordKind::Preference) {
            let message = "data.records = \"preference\": training on pairs of answers needs a [dpo] section";
            r.fault("data", "records", message);
        }
        return;
    }
    if recipe.model.base.is_none() {
        r.fault("dpo", "beta", "[dpo]: model.base is missing: expected the model to train on preferences");
    }
    if !matches!(data.samples.records, Some(RecordKind::Preference | RecordKind::Auto)) {
        let message = "[dpo] trains on pairs of answers: expected data.records = \"preference\"";
        r.fault("data", "records", message);
    }
    if data.samples.loss == Loss::All {
        let message = "data.loss = \"all\" contradicts [dpo]: only the answers are compared, not the prompt";
        r.fault("data", "loss", message);
    }
    if data.packing == Packing::Masked {
        let message =
            "data.packing = \"masked\" contradicts [dpo]: answers are not packed; expected \"documents\"";
        r.fault("data", "packing", message);
    }
    if recipe.distill.is_some() {
        r.fault("distill", "teacher", "[distill] contradicts [dpo]: a run has one objective");
    }
    if recipe.convert.is_some() {
        let message = "[convert] contradicts [dpo]: the reference log-probabilities would not match the \
                       trained model; convert first";
        r.fault("convert", "schedule", message);
    }
    if recipe.lora.as_ref().is_some_and(|lora| lora.dropout > 0.0) {
        let message = "lora.dropout contradicts [dpo]: the reference log-probabilities would not match the \
                       trained model; leave it out";
        r.fault("lora", "dropout", message);
    }
}
