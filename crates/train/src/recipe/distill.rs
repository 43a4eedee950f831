//! `[distill]`: read and checked.

use super::Recipe;
use super::kind::Range;
use super::reader::Reader;
use super::sections::Distill;

/// Tokens that are kept of a teacher's distribution where the recipe does not say.
const TOP_K: usize = 64;

/// Reads the section; none where no teacher is given.
pub(super) fn distill(r: &mut Reader) -> Option<Distill> {
    let teacher = r.path("distill", "teacher");
    let weight = Range::at_least(0.0);
    let ce = r.number("distill", "ce", weight);
    let kl = r.number("distill", "kl", weight);
    let temperature = r.number("distill", "temperature", Range::above(0.0).at_most(100.0));
    let top_k = r.size("distill", "top_k", 1);
    let cache = r.path("distill", "cache");
    if teacher.is_none() && r.has_section("distill") && !r.given("distill", "teacher") {
        r.fault(
            "distill",
            "teacher",
            "distill.teacher is missing: expected a checkpoint, the directory of a run, or a GGUF file",
        );
    }
    Some(Distill {
        teacher: teacher?,
        ce: ce.unwrap_or(1.0),
        kl: kl.unwrap_or(1.0),
        temperature: temperature.unwrap_or(1.0),
        top_k: top_k.unwrap_or(TOP_K),
        cache,
    })
}

/// Notes what contradicts the section.
pub(super) fn check(r: &mut Reader, recipe: &Recipe) {
    let Some(distill) = &recipe.distill else { return };
    if distill.ce == 0.0 && distill.kl == 0.0 {
        r.fault("distill", "kl", "distill.ce and distill.kl are both 0: there is nothing to learn");
    }
}
