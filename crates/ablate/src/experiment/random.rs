//! `[random]`: points that are drawn from distributions and lists, as those of `tritforge sweep --trials`: the same points
//! for the same seed and the same keys in the same order.

use std::collections::BTreeMap;

use tritforge_recipe::{Entry, Fault, Origin, Value};

use super::axis;
use super::keys::Keys;
use super::{MOST_POINTS, Setting};
use crate::search::{Law, Space, Trials, draw, name, varied};

/// Reads the table and draws its points, each with its name; `arms` is how many arms have each of them.
pub(super) fn points(
    entries: BTreeMap<String, Entry>,
    header: &Origin,
    arms: usize,
    faults: &mut Vec<Fault>,
) -> Vec<(String, Vec<Setting>)> {
    let before = faults.len();
    let mut keys = Keys::new("random.", entries, faults);
    let most = (MOST_POINTS / arms.max(1)).max(2) as u64;
    let given = keys.has("trials");
    let count = keys.integer("trials", 2, most);
    let seed = keys.integer("seed", 0, i64::MAX as u64).unwrap_or(0);
    let rest = keys.rest();
    let at = |origin: &Origin, message: String| Fault { origin: origin.clone(), message };
    if !given {
        let message = "random.trials is missing: expected how many points are drawn, as in trials = 16";
        faults.push(at(header, message.to_string()));
    }
    // As on the command line, what stands first is drawn first.
    let mut rest: Vec<(String, Entry)> = rest.into_iter().collect();
    rest.sort_by(|a, b| a.1.key_at.cmp(&b.1.key_at));
    let mut spaces = Vec::new();
    for (name, entry) in rest {
        match space(&name, &entry) {
            Ok(space) => spaces.push(space),
            Err(message) => faults.push(at(&entry.value_at, format!("random.{message}"))),
        }
    }
    if spaces.is_empty() && faults.len() == before {
        let message = "[random]: expected keys with distributions or lists, as in \"optim.lr\" = \"log_uniform(1e-4, 1e-2)\"";
        faults.push(at(header, message.to_string()));
    }
    let (Some(count), true) = (count, faults.len() == before) else { return nothing() };
    match draw(&spaces, Trials { count: count as usize, seed }) {
        Ok(points) => {
            let keys = varied(&spaces);
            points.into_iter().map(|point| (name(&point, &keys), point)).collect()
        }
        Err(message) => {
            faults.push(at(header, format!("[random]: {message}")));
            nothing()
        }
    }
}

/// One point that changes nothing, so that nothing is said of arms that are missing for another reason.
fn nothing() -> Vec<(String, Vec<Setting>)> {
    vec![(String::new(), Vec::new())]
}

/// A distribution, as a text, or a list.
fn space(key: &str, entry: &Entry) -> Result<Space, String> {
    match &entry.value {
        Value::Text(text) => {
            // A key that may not be swept is refused as with a value, and keys that go together have no distribution.
            axis::setting(key, &Value::Integer(0))?;
            let law = Law::of(text).ok_or_else(|| {
                format!(
                    "\"{key}\" = {}: expected a distribution, as in \"log_uniform(1e-4, 1e-2)\", or an array",
                    entry.written
                )
            })?;
            Ok(Space::Drawn(key.to_string(), law.map_err(|message| format!("\"{key}\" = {message}"))?))
        }
        Value::Array(_) => axis::axis(key, entry).map(Space::Listed),
        _ => Err(format!(
            "\"{key}\" = {}: expected a distribution, as in \"log_uniform(1e-4, 1e-2)\", or an array of values",
            entry.written
        )),
    }
}
