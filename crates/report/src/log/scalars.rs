//! Which number of an event stands under which name, in TensorBoard and everywhere else that draws numbers over steps.

use super::Event;

/// Held-out bits a byte.
pub(super) const BITS_PER_BYTE: &str = "loss/bits_per_byte";
/// Held-out loss.
pub(super) const HELD_OUT: &str = "loss/held_out";
/// What training minimizes.
pub(super) const TRAIN: &str = "loss/train";

/// The step of an event and its numbers, each with its name; none of an event that has no numbers.
pub(super) fn scalars(event: &Event) -> Option<(u64, Vec<(String, f64)>)> {
    let named = |name: &str, x: f64| (name.to_string(), x);
    match event {
        Event::Train(train) => {
            let mut values = vec![
                named(TRAIN, train.loss),
                named("optimizer/lr", train.lr),
                named("optimizer/grad_norm", train.grad_norm),
                named("speed/tokens_per_second", train.tokens_per_second),
            ];
            values.extend(train.metrics.iter().map(|(name, x)| (format!("loss/{name}"), *x)));
            values.extend(train.mfu.map(|mfu| named("speed/mfu", mfu)));
            values.extend(train.rss.map(|bytes| named("memory/rss", bytes as f64)));
            values.extend(train.peak_rss.map(|bytes| named("memory/peak_rss", bytes as f64)));
            Some((train.step, values))
        }
        Event::Eval { step, loss, bits_per_byte, .. } => {
            Some((*step, vec![named(HELD_OUT, *loss), named(BITS_PER_BYTE, *bits_per_byte)]))
        }
        Event::Health { step, steps, matrices } => {
            let mut values = Vec::new();
            for matrix in matrices {
                let mut add = |what, x: f64| values.push((format!("{what}/{}", matrix.name), x));
                add("ternary_zero", matrix.zero);
                if let Some(positive) = matrix.positive {
                    add("ternary_positive", positive);
                }
                add("ternary_scale", matrix.scale);
                add("ternary_distance", matrix.distance);
                if let Some(flipped) = matrix.flipped_per_step(*steps) {
                    add("ternary_flipped_per_step", flipped);
                }
            }
            Some((*step, values))
        }
        Event::Preferences { step, held_out, loss, accuracy, margin, point } => {
            let what = if *held_out { "held_out" } else { "train" };
            let each = [("loss", *loss), ("accuracy", *accuracy), ("margin", *margin)];
            let all = each.into_iter().chain(point.map(|point| ("point", point)));
            Some((*step, all.map(|(name, x)| (format!("preferences/{what}_{name}"), x)).collect()))
        }
        Event::Run { .. }
        | Event::Skip { .. }
        | Event::Checkpoint { .. }
        | Event::End { .. }
        | Event::Unknown => None,
    }
}
