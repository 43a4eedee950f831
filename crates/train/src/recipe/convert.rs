//! `[convert]`: read and checked.

use tritforge_config::WeightQuant;

use super::Recipe;
use super::reader::Reader;
use super::sections::{BlendOrder, BlendSchedule, Convert};

/// Steps of a rise where the recipe does not say: what worked best in "Fine-tuning LLMs to 1.58bit" (Hugging
/// Face, 2024).
const STEPS: u64 = 1000;

/// Reads the section; none where no schedule is given.
pub(super) fn convert(r: &mut Reader, train_steps: u64) -> Option<Convert> {
    let schedules = [
        ("none", BlendSchedule::None),
        ("linear", BlendSchedule::Linear),
        ("exponential", BlendSchedule::Exponential),
        ("sigmoid", BlendSchedule::Sigmoid),
    ];
    let orders = [("together", BlendOrder::Together), ("layers", BlendOrder::Layers)];
    let schedule = r.choice("convert", "schedule", &schedules);
    let steps = r.integer("convert", "steps", 1, u64::MAX);
    let order = r.choice("convert", "order", &orders);
    if schedule.is_none() && r.has_section("convert") && !r.given("convert", "schedule") {
        r.fault(
            "convert",
            "schedule",
            "convert.schedule is missing: expected a quantization schedule, as in schedule = \"linear\"",
        );
    }
    Some(Convert {
        schedule: schedule?,
        steps: steps.unwrap_or(STEPS.min((train_steps / 2).max(1))),
        order: order.unwrap_or(BlendOrder::Together),
    })
}

/// Notes what contradicts the section.
pub(super) fn check(r: &mut Reader, recipe: &Recipe) {
    let Some(convert) = &recipe.convert else { return };
    if recipe.quant.weights != WeightQuant::Absmean {
        let message = "[convert]: expected quant.weights = \"absmean\", the only quantization that models \
                       can be converted to";
        r.fault("convert", "schedule", message);
    }
    if recipe.lora.is_some() {
        r.fault("convert", "schedule", "[convert] contradicts [lora]: conversion trains all weights");
    }
    if convert.steps > recipe.train.steps {
        let message = format!(
            "convert.steps = {}: expected at most train.steps = {}: otherwise the final model would be only \
             partly ternary",
            convert.steps, recipe.train.steps
        );
        r.fault("convert", "steps", message);
    }
}
