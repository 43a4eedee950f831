//! What the runs of an arm allow to be said, in words.

use crate::experiment::Metric;
use crate::results::{ArmResult, Versus};
use crate::stats::{Difference, LEAST_SEEDS};

/// The share of false claims that is accepted.
const LEVEL: f64 = 0.05;

/// What can be said of an arm.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Verdict {
    /// It has the lower loss.
    Better,
    /// It has the higher loss.
    Worse,
    /// No difference was shown, and differences beyond the margin are excluded.
    Equivalent(f64),
    /// No difference was shown.
    NotShown,
    /// Too few seeds to say anything.
    TooFew,
    /// No run of it has a loss.
    Diverged,
}

impl Verdict {
    /// What a difference shows, with its p-value by Holm's correction, of an arm of which so many of its runs diverged.
    pub fn of(
        difference: &Difference,
        adjusted_p: f64,
        diverged: usize,
        runs: usize,
        margin: Option<f64>,
    ) -> Self {
        let (low, high) = (difference.mean - difference.half_width, difference.mean + difference.half_width);
        let within = |margin: &f64| low > -margin && high < *margin;
        match margin.filter(within) {
            _ if runs > 0 && diverged == runs => Self::Diverged,
            _ if difference.n < LEAST_SEEDS => Self::TooFew,
            Some(margin) => Self::Equivalent(margin),
            None if adjusted_p < LEVEL => Self::by_sign(difference),
            None => Self::NotShown,
        }
    }

    fn by_sign(difference: &Difference) -> Self {
        if difference.mean < 0.0 { Self::Better } else { Self::Worse }
    }

    /// In a word or two, for tables.
    pub fn word(self) -> &'static str {
        match self {
            Self::Better => "better",
            Self::Worse => "worse",
            Self::Equivalent(_) => "equivalent",
            Self::NotShown => "not shown",
            Self::TooFew => "no verdict",
            Self::Diverged => "diverged",
        }
    }
}

/// A difference with its sign, as `−0.0778 ± 0.0330`.
pub(crate) fn signed(x: f64) -> String {
    match x {
        x if x.is_nan() => "–".to_string(),
        x if x < 0.0 => format!("−{:.4}", -x),
        x => format!("+{x:.4}"),
    }
}

/// A p-value as it is written; those below 0.0001 as a bound.
pub(crate) fn p_value(p: f64) -> String {
    match p {
        p if p.is_nan() => "–".to_string(),
        p if p < 1e-4 => "< 0.0001".to_string(),
        p => format!("{p:.4}"),
    }
}

/// What an arm shows against the baseline, in a sentence without its full stop.
pub(crate) fn sentence(arm: &ArmResult, baseline: &str, metric: Metric) -> String {
    let name = &arm.arm.name;
    let Some(Versus { difference: d, adjusted_p, verdict, .. }) = &arm.versus else {
        return format!("{name} is what the others are compared with");
    };
    let (unit, seeds) = (metric.label().trim_start_matches("held-out "), d.n);
    let pairs = if d.wins.is_some() { "paired seeds" } else { "seeds an arm, unpaired" };
    let interval = format!("{} ± {:.4} {unit}", signed(d.mean), d.half_width);
    let p = match p_value(*adjusted_p) {
        p if p.starts_with('<') => format!("p {p}"),
        p => format!("p = {p}"),
    };
    let mut text = match verdict {
        Verdict::Better | Verdict::Worse => format!(
            "{name} is {} than {baseline} by {:.4} ± {:.4} {unit} (95 %, {seeds} {pairs}; {p} after Holm)",
            verdict.word(),
            d.mean.abs(),
            d.half_width
        ),
        Verdict::Equivalent(margin) => format!(
            "{name} and {baseline} are equivalent within ±{margin}: the difference is {interval} (95 %, {seeds} {pairs})"
        ),
        Verdict::NotShown => format!(
            "no difference between {name} and {baseline} is shown: {interval} (95 %, {seeds} {pairs}; {p} after Holm); \
             a difference of {:.4} would have been shown with probability 0.8",
            d.smallest_shown
        ),
        Verdict::TooFew => format!(
            "no verdict about {name}: {seeds} of its seeds can be compared with {baseline}, and at least {LEAST_SEEDS} \
             are needed"
        ),
        Verdict::Diverged => format!("{name} diverged with every seed"),
    };
    if arm.diverged > 0 && *verdict != Verdict::Diverged {
        text += &format!("; it diverged with {} of {} seeds", arm.diverged, arm.arm.runs.len());
    }
    text
}

/// The answer to the question: of two arms the sentence itself, of more which of them are better or worse.
pub(crate) fn answer(arms: &[ArmResult], baseline: usize, metric: Metric) -> String {
    let base = &arms[baseline].arm.name;
    // Arms without runs were given up before the end.
    let others: Vec<&ArmResult> =
        arms.iter().filter(|arm| arm.versus.is_some() && !arm.arm.runs.is_empty()).collect();
    if others.is_empty() {
        return format!("{base} is left: {:.4} {}.", arms[baseline].summary.mean, metric.label());
    }
    if let [one] = others[..] {
        return capital(&sentence(one, base, metric)) + ".";
    }
    let named = |wanted: &str| {
        let own = others.iter().filter(|arm| arm.versus.as_ref().is_some_and(|v| v.verdict.word() == wanted));
        own.map(|arm| arm.arm.name.as_str()).collect::<Vec<_>>().join(", ")
    };
    let parts = [
        ("better", format!("Better than {base}")),
        ("worse", format!("Worse than {base}")),
        ("equivalent", "Equivalent within the margin".to_string()),
        ("not shown", "No difference shown".to_string()),
        ("no verdict", "No verdict".to_string()),
        ("diverged", "Diverged with every seed".to_string()),
    ];
    let parts = parts.iter().map(|(word, text)| (text, named(word))).filter(|(_, names)| !names.is_empty());
    let parts: Vec<String> = parts.map(|(text, names)| format!("{text}: {names}.")).collect();
    parts.join(" ")
}

fn capital(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or(String::new(), |first| first.to_uppercase().chain(chars).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::difference;

    #[test]
    fn verdicts() {
        let of = |pairs: &[(f64, f64)], margin| {
            let d = difference(pairs);
            Verdict::of(&d, d.p, 0, pairs.len(), margin)
        };
        let lower = [(1.0, 2.0), (1.1, 2.05), (1.2, 2.21)];
        let higher = lower.map(|(a, b)| (b, a));
        let noise = [(1.0, 1.01), (1.02, 1.0), (1.0, 1.005)];
        assert_eq!(of(&lower, None), Verdict::Better);
        assert_eq!(of(&higher, None), Verdict::Worse);
        assert_eq!(of(&noise, None), Verdict::NotShown);
        assert_eq!(of(&noise, Some(0.1)), Verdict::Equivalent(0.1));
        assert_eq!(of(&noise, Some(0.001)), Verdict::NotShown);
        assert_eq!(of(&lower, Some(0.1)), Verdict::Better);
        // Shown, but smaller than what is of interest.
        let tiny = [(1.0, 1.001), (2.0, 2.001), (3.0, 3.0011)];
        assert_eq!(of(&tiny, Some(0.01)), Verdict::Equivalent(0.01));
        assert_eq!(of(&lower[..2], None), Verdict::TooFew);
        assert_eq!(Verdict::of(&difference(&[]), f64::NAN, 3, 3, None), Verdict::Diverged);
        // One of many arms.
        assert_eq!(Verdict::of(&difference(&lower), 0.2, 0, 3, None), Verdict::NotShown);
        assert_eq!((signed(-0.5), signed(0.25)), ("−0.5000".to_string(), "+0.2500".to_string()));
        assert_eq!((p_value(1e-9), p_value(0.04)), ("< 0.0001".to_string(), "0.0400".to_string()));
    }
}
