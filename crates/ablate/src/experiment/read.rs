//! From the entries of a file to an experiment.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use tritforge_recipe::{Entries, Entry, Fault, Origin, Value, resolve};

use super::keys::Keys;
use super::{
    Arm, Axis, Experiment, Metric, Outputs, Setting, Tune, axis, combinations, parse_duration, random,
};

/// Reads everything, and notes what is wrong; none if something that is needed is missing.
pub(super) fn read(path: &Path, mut entries: Entries, faults: &mut Vec<Fault>) -> Option<Experiment> {
    let file = Origin::File(path.to_path_buf());
    let mut sections = std::mem::take(&mut entries.sections);
    let tables = entries.stray.remove("arms");
    let mut top = Keys::new("", entries.stray, faults);
    let question = top.text("question").map(|(text, _)| text);
    let base = top.text("base").map(|(text, at)| resolve(path, &text, &at, Path::exists));
    let metric = top.text("metric").map(|(text, at)| {
        let found = Metric::of(&text);
        if found.is_none() {
            let names = Metric::ALL.map(|metric| format!("\"{}\"", metric.name())).join(" or ");
            top.fault(&at, format!("metric = \"{text}\": expected {names}"));
        }
        found
    });
    let seeds = top.seeds("seeds");
    let baseline = top.text("baseline");
    let budget = top.text("budget").map(|(text, at)| {
        let seconds = parse_duration(&text);
        if seconds.is_none() {
            top.fault(&at, format!("budget = \"{text}\": expected a time, as in \"60 min\" or \"2 h\""));
        }
        seconds
    });
    let margin = top.number("margin");
    top.take("arms");
    top.finish();
    for (key, found, what) in [
        ("question", question.is_some(), "what is asked, in a sentence"),
        ("base", base.is_some(), "the recipe that arms change"),
        ("seeds", seeds.is_some(), "the seeds of the runs, as in [1, 2, 3]"),
    ] {
        // What is given and wrong is said already.
        let said = faults.iter().any(|fault| fault.message.starts_with(&format!("{key} =")));
        if !found && !said {
            faults
                .push(Fault { origin: file.clone(), message: format!("{key} is missing: expected {what}") });
        }
    }
    let drawn = sections.remove("random").map(|keys| (keys, entries.headers.get("random").unwrap_or(&file)));
    let arms = arms(path, tables, sections.remove("grid"), drawn, &file, faults);
    let seeds = seeds.map(|(seeds, _)| seeds).unwrap_or_default();
    let all_own = arms.iter().all(|arm| arm.tune.is_some());
    let tune =
        sections.remove("tune").map(|keys| tune(keys, &seeds, entries.headers.get("tune"), all_own, faults));
    if tune.is_none()
        && let Some(arm) = arms.iter().find(|arm| arm.tune.is_some())
    {
        let message = format!("arms.tune of \"{}\": expected [tune] with a seed, as in seed = 101", arm.name);
        faults.push(Fault { origin: file.clone(), message });
    }
    let outputs = outputs(path, sections.remove("outputs").unwrap_or_default(), faults);
    for (section, keys) in sections {
        let at = entries.headers.get(&section).or(keys.values().next().map(|entry| &entry.key_at));
        let hint = match tritforge_recipe::nearest(
            &section,
            ["arms", "grid", "random", "tune", "outputs"].into_iter(),
            0.7,
        ) {
            Some("arms") => "did you mean [[arms]]?".to_string(),
            Some(near) => format!("did you mean [{near}]?"),
            None => "expected [[arms]], [grid], [random], [tune] or [outputs]; keys of recipes go into arms"
                .to_string(),
        };
        let message = format!("[{section}]: unknown section; {hint}");
        faults.push(Fault { origin: at.unwrap_or(&file).clone(), message });
    }
    let index = match baseline {
        None => 0,
        Some((name, at)) => arms.iter().position(|arm| arm.name == name).unwrap_or_else(|| {
            let names: Vec<String> = arms.iter().map(|arm| format!("\"{}\"", arm.name)).collect();
            let message = format!("baseline = \"{name}\": no such arm; expected one of {}", names.join(", "));
            faults.push(Fault { origin: at, message });
            0
        }),
    };
    Some(Experiment {
        question: question?,
        base: base?,
        metric: metric.unwrap_or(Some(Metric::BitsPerByte))?,
        seeds,
        arms,
        baseline: index,
        tune: tune.flatten(),
        budget: budget.flatten(),
        margin,
        outputs,
    })
}

/// The arms, each with every point of the grid, or with every point that is drawn.
fn arms(
    path: &Path,
    tables: Option<Entry>,
    grid: Option<BTreeMap<String, Entry>>,
    drawn: Option<(BTreeMap<String, Entry>, &Origin)>,
    file: &Origin,
    faults: &mut Vec<Fault>,
) -> Vec<Arm> {
    let mut arms = Vec::new();
    if let Some(entry) = tables {
        match entry.value {
            Value::Tables(tables) => {
                for (at, keys) in tables {
                    arms.extend(arm(path, &at, keys, faults));
                }
            }
            _ => {
                let message = "arms: expected tables, each [[arms]] with a name".to_string();
                faults.push(Fault { origin: entry.value_at, message });
            }
        }
    }
    if let (Some(_), Some((_, at))) = (&grid, &drawn) {
        let message =
            "[random] and [grid]: expected one of them; lists may stand in [random] too".to_string();
        faults.push(Fault { origin: (*at).clone(), message });
    }
    let points = match (grid, drawn) {
        (_, Some((entries, at))) => Some(random::points(entries, at, arms.len(), faults)),
        (Some(entries), None) => {
            let axes = axis::axes("grid", entries, faults);
            let points = points("grid", &axes, arms.len(), file, faults).into_iter();
            let name = |point: &[Setting]| point.iter().map(Setting::short).collect::<Vec<_>>().join(", ");
            Some(points.map(|point| (name(&point), point)).collect())
        }
        (None, None) => None,
    };
    if let Some(points) = points {
        let named = |arm: Option<&Arm>, (name, point): &(String, Vec<Setting>)| {
            let own = arm.map(|arm| arm.name.as_str()).into_iter().chain([name.as_str()]);
            let name = own.filter(|name| !name.is_empty()).collect::<Vec<_>>().join(", ");
            let arm = arm.cloned().unwrap_or_default();
            Arm { name, set: [arm.set.clone(), point.clone()].concat(), ..arm }
        };
        arms = match arms.is_empty() {
            true => points.iter().map(|point| named(None, point)).collect(),
            false => arms.iter().flat_map(|arm| points.iter().map(|p| named(Some(arm), p))).collect(),
        };
    }
    if arms.len() < 2 && faults.is_empty() {
        let message = format!("{} arms: expected at least two [[arms]], a [grid] or [random]", arms.len());
        faults.push(Fault { origin: file.clone(), message });
    }
    if let Some((i, twice)) =
        arms.iter().enumerate().find(|(i, arm)| arms[..*i].iter().any(|a| a.name == arm.name))
    {
        let message = format!("arms.name = \"{}\": given twice, as arm {}", twice.name, i + 1);
        faults.push(Fault { origin: file.clone(), message });
    }
    arms
}

fn arm(path: &Path, at: &Origin, keys: BTreeMap<String, Entry>, faults: &mut Vec<Fault>) -> Option<Arm> {
    let mut keys = Keys::new("arms.", keys, faults);
    let name = keys.text("name");
    let base = keys.text("base").map(|(text, at)| resolve(path, &text, &at, Path::exists));
    let (set, tune) = (keys.take("set"), keys.take("tune"));
    keys.finish();
    let set = set.map(|entry| axis::settings(&entry, faults)).unwrap_or_default();
    let tune = tune.map(|entry| {
        let axes = axis::axes_of("arms.tune", &entry, faults);
        points("arms.tune", &axes, 1, &entry.value_at, faults)
    });
    if name.is_none() {
        let message = "arms.name is missing: expected a name for the tables of the report".to_string();
        faults.push(Fault { origin: at.clone(), message });
    }
    Some(Arm { name: name?.0, base, set, tune })
}

fn tune(
    keys: BTreeMap<String, Entry>,
    reported: &[u64],
    header: Option<&Origin>,
    all_own: bool,
    faults: &mut Vec<Fault>,
) -> Option<Tune> {
    let mut keys = Keys::new("tune.", keys, faults);
    let (one, several) = (keys.seeds("seed"), keys.seeds("seeds"));
    let rest = keys.rest();
    let at = |faults: &mut Vec<Fault>, origin: Option<&Origin>, message: String| {
        if let Some(origin) = origin {
            faults.push(Fault { origin: origin.clone(), message });
        }
    };
    let axes = axis::axes("tune", rest, faults);
    let points = points("tune", &axes, 1, header.unwrap_or(&Origin::File(PathBuf::new())), faults);
    let Some((seeds, origin)) = one.or(several) else {
        let message = "tune.seed is missing: expected a seed that is not among seeds, as in seed = 101";
        at(faults, header, message.to_string());
        return None;
    };
    if let Some(seed) = seeds.iter().find(|seed| reported.contains(seed)) {
        let message = format!(
            "tune.seed: {seed} is among seeds: what is chosen on a seed looks better on it than it is; choose another"
        );
        at(faults, Some(&origin), message);
    }
    if points.len() < 2 && !all_own {
        at(
            faults,
            header,
            "[tune]: expected a key with several values, as in \"optim.lr\" = [1e-3, 2e-3]".into(),
        );
    }
    Some(Tune { points, seeds })
}

fn outputs(path: &Path, keys: BTreeMap<String, Entry>, faults: &mut Vec<Fault>) -> Outputs {
    let mut keys = Keys::new("outputs.", keys, faults);
    let stem = path.file_stem().map_or("experiment".to_string(), |stem| stem.to_string_lossy().into_owned());
    let dir = keys.text("dir").map(|(text, _)| PathBuf::from(text));
    let runs = keys.text("runs").map(|(text, _)| PathBuf::from(text));
    let default = Outputs::default();
    let outputs = Outputs {
        dir: dir.unwrap_or_else(|| default.dir.join(stem)),
        runs: runs.unwrap_or(default.runs),
        export: keys.flag("export").unwrap_or(default.export),
        engine_speed: keys.flag("engine_speed").unwrap_or(default.engine_speed),
        checkpoints: keys.flag("checkpoints").unwrap_or(default.checkpoints),
    };
    keys.finish();
    outputs
}

/// The combinations of the axes of a table, each of which stands for `times` arms; one that is empty if there are too many.
fn points(
    table: &str,
    axes: &[Axis],
    times: usize,
    at: &Origin,
    faults: &mut Vec<Fault>,
) -> Vec<Vec<Setting>> {
    combinations(axes, times.max(1)).unwrap_or_else(|message| {
        faults.push(Fault { origin: at.clone(), message: format!("[{table}]: {message}") });
        vec![Vec::new()]
    })
}
