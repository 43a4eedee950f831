//! A sweep that is asked for on the command line: a recipe, and keys with their values.

use std::path::{Path, PathBuf};

use tritforge_recipe::parse;

use crate::AblateError;
use crate::experiment::{Arm, Axis, Experiment, Metric, Outputs, Setting, combinations, setting};
use crate::search::{Law, Space, Trials, draw, name, varied};

/// The experiment of a recipe with axes, each `key=value,value,…`, `key,key=(value,value),(value,value),…` for keys
/// whose values go together, or, with `trials`, `key=uniform(low,high)`, `key=log_uniform(low,high)` or
/// `key=int_uniform(low,high)`. All combinations, or so many points drawn; seeds are 1, 2, … to `seeds`.
///
/// # Errors
/// If an axis cannot be read, there are fewer than two points, or a distribution without trials.
pub fn of_recipe(
    recipe: &Path,
    axes: &[String],
    trials: Option<Trials>,
    seeds: u64,
    metric: Metric,
) -> Result<Experiment, AblateError> {
    let spaces: Vec<Space> = axes
        .iter()
        .map(|text| space(text).map_err(|message| AblateError::Request(format!("{text}: {message}"))))
        .collect::<Result<_, _>>()?;
    let points = match trials {
        Some(trials) => draw(&spaces, trials),
        None => all(&spaces),
    };
    let points = points.map_err(AblateError::Request)?;
    if points.len() < 2 {
        let message =
            "nothing to sweep: give keys with several values, as in optim.lr=1e-3,2e-3, or two --trials";
        return Err(AblateError::Request(message.to_string()));
    }
    let keys = varied(&spaces);
    let arms = points.into_iter().map(|set| Arm { name: name(&set, &keys), set, ..Arm::default() });
    let stem = recipe.file_stem().map_or("recipe".to_string(), |stem| stem.to_string_lossy().into_owned());
    Ok(Experiment {
        question: format!("Which {} is the best for {}?", keys.join(", "), recipe.display()),
        base: recipe.to_path_buf(),
        metric,
        seeds: (1..=seeds.max(1)).collect(),
        arms: arms.collect(),
        baseline: 0,
        tune: None,
        budget: None,
        margin: None,
        outputs: Outputs { dir: PathBuf::from("runs/sweeps").join(stem), ..Outputs::default() },
    })
}

/// Every combination of what is listed.
fn all(spaces: &[Space]) -> Result<Vec<Vec<Setting>>, String> {
    let axes: Result<Vec<Axis>, String> = spaces
        .iter()
        .map(|space| match space {
            Space::Listed(axis) => Ok(axis.clone()),
            Space::Drawn(key, _) => {
                Err(format!("{key} has a distribution: say how many points are drawn, as in --trials 16"))
            }
        })
        .collect();
    combinations(&axes?, 1)
}

/// Values, or the distribution of a key.
fn space(text: &str) -> Result<Space, String> {
    let (keys, values) = text.split_once('=').ok_or("expected key=value,value")?;
    let keys: Vec<&str> = keys.split(',').map(str::trim).collect();
    let values = pieces(values)?;
    if let ([key], [value]) = (&keys[..], &values[..])
        && let Some(law) = Law::of(value)
    {
        // A key that may not be swept is refused as with a value.
        one(key, "0")?;
        return Ok(Space::Drawn(key.to_string(), law?));
    }
    axis(&keys, values).map(Space::Listed)
}

fn axis(keys: &[&str], values: Vec<String>) -> Result<Axis, String> {
    let mut points = Vec::new();
    for value in values {
        let own = match keys.len() {
            1 => vec![value],
            n => {
                let inner = value.strip_prefix('(').and_then(|v| v.strip_suffix(')'));
                let own = pieces(inner.ok_or_else(|| format!("\"{value}\": expected ({n} values)"))?)?;
                if own.len() != n {
                    return Err(format!("\"{value}\": {} values, expected {n}", own.len()));
                }
                own
            }
        };
        points
            .push(keys.iter().zip(own).map(|(key, value)| one(key, &value)).collect::<Result<Vec<_>, _>>()?);
    }
    match points.iter().enumerate().find(|(i, point)| points[..*i].contains(point)) {
        Some((_, twice)) => Err(format!("{} is given twice", twice[0].value)),
        None => Ok(Axis { points }),
    }
}

/// A setting whose value is written as in an override: TOML, or a bare string.
fn one(key: &str, value: &str) -> Result<Setting, String> {
    let (section, name) = key.split_once('.').ok_or_else(|| format!("\"{key}\": expected section.key"))?;
    let fault = |e: &dyn std::fmt::Display| format!("{key}={value}: {e}");
    let (entries, faults) =
        parse(Path::new("sweep"), "", &[format!("{key}={value}")]).map_err(|e| fault(&e))?;
    if let Some(first) = faults.first() {
        return Err(fault(&first.message));
    }
    let entry = entries.sections.get(section).and_then(|s| s.get(name));
    setting(key, &entry.ok_or_else(|| fault(&"expected section.key"))?.value)
}

/// Pieces between commas that are in no brackets, braces or quotes.
fn pieces(text: &str) -> Result<Vec<String>, String> {
    let (mut pieces, mut depth, mut quote) = (vec![String::new()], 0i32, None);
    for c in text.chars() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (None, '"' | '\'') => quote = Some(c),
            (None, '(' | '[' | '{') => depth += 1,
            (None, ')' | ']' | '}') => depth -= 1,
            (None, ',') if depth == 0 => {
                pieces.push(String::new());
                continue;
            }
            _ => {}
        }
        if let Some(last) = pieces.last_mut() {
            last.push(c);
        }
    }
    let pieces: Vec<String> = pieces.iter().map(|piece| piece.trim().to_string()).collect();
    match depth == 0 && quote.is_none() && pieces.iter().all(|piece| !piece.is_empty()) {
        true => Ok(pieces),
        false => Err(format!("\"{text}\": expected values with commas between them")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(text: &str) -> Result<Axis, String> {
        match space(text)? {
            Space::Listed(axis) => Ok(axis),
            drawn @ Space::Drawn(..) => Err(format!("{drawn:?}")),
        }
    }

    fn values(text: &str) -> Vec<Vec<String>> {
        listed(text).unwrap().points.iter().map(|point| point.iter().map(Setting::text).collect()).collect()
    }

    #[test]
    fn axes_of_the_command_line() {
        assert_eq!(values("optim.lr=1e-3,2e-3"), [["optim.lr=0.001"], ["optim.lr=0.002"]]);
        assert_eq!(
            values("quant.weights,optim.lr=(absmean,4e-3),(none,3e-3)"),
            [["quant.weights=\"absmean\"", "optim.lr=0.004"], ["quant.weights=\"none\"", "optim.lr=0.003"]]
        );
        assert_eq!(values("optim.betas=[0.9, 0.95],[0.9, 0.99]").len(), 2);
        for (wrong, said) in [
            ("optim.lr", "expected key=value"),
            ("lr=1,2", "expected section.key"),
            ("optim.lr=1,,2", "commas"),
            ("a.b,c.d=(1,2),3", "expected (2 values)"),
            ("a.b,c.d=(1,2),(3)", "1 values, expected 2"),
            ("optim.lr=uniform(1,0)", "lower one first"),
            ("run.seed=int_uniform(1,2)", "seeds are those of the experiment"),
            ("run.seed=1,2", "seeds are those of the experiment"),
            ("optim.lr=1e-3,0.001", "given twice"),
        ] {
            let message = listed(wrong).unwrap_err();
            assert!(message.contains(said), "{wrong}: {message}");
        }
    }

    #[test]
    fn a_sweep_is_the_product_of_its_axes() {
        let axes =
            ["optim.lr=1e-3,2e-3", "train.steps=6", "model.use_sub_norm=true,false"].map(str::to_string);
        let sweep = of_recipe(Path::new("r.toml"), &axes, None, 2, Metric::BitsPerByte).unwrap();
        let names: Vec<&str> = sweep.arms.iter().map(|arm| arm.name.as_str()).collect();
        assert_eq!(names[0], "lr=0.001, use_sub_norm=true");
        assert_eq!((names.len(), &sweep.seeds[..]), (4, &[1, 2][..]));
        assert!(sweep.arms.iter().all(|arm| arm.set.len() == 3));
        assert!(of_recipe(Path::new("r.toml"), &axes[..0], None, 1, Metric::BitsPerByte).is_err());
    }

    #[test]
    fn drawn_points_are_arms() {
        let axes =
            ["optim.lr=log_uniform(1e-4,1e-2)", "optim.warmup_steps=int_uniform(0,9)", "train.steps=6"];
        let axes = axes.map(str::to_string);
        let of = |trials| of_recipe(Path::new("r.toml"), &axes, trials, 1, Metric::BitsPerByte);
        let sweep = of(Some(Trials { count: 5, seed: 3 })).unwrap();
        assert_eq!((sweep.arms.len(), &sweep), (5, &of(Some(Trials { count: 5, seed: 3 })).unwrap()));
        for arm in &sweep.arms {
            assert!(arm.name.starts_with("lr=") && arm.name.contains(", warmup_steps="), "{}", arm.name);
            assert!(!arm.name.contains(", steps=") && arm.set.len() == 3);
        }
        let message = of(None).unwrap_err().to_string();
        assert!(
            message.contains("optim.lr has a distribution") && message.contains("--trials 16"),
            "{message}"
        );
    }
}
