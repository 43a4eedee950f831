//! The plan as a file: an experiment with every arm and every drawn value written out, which runs again as it is, and on
//! other seeds once they are changed.

use std::fmt::Write as _;

use crate::experiment::{Experiment, Setting};

/// Its name in the directory of the experiment.
pub(crate) const PLAN: &str = "plan.toml";

/// The text of the file.
pub(crate) fn text(experiment: &Experiment, command: &str) -> String {
    let mut text = format!(
        "# All arms as they are run, written by\n#   {}\n# An experiment of its own: `tritforge sweep` or `ablate` takes it.\n",
        command.replace('\n', " ")
    );
    let quoted = |text: &str| toml::Value::String(text.to_string()).to_string();
    let path = |path: &std::path::Path| quoted(&path.to_string_lossy());
    let seeds = |seeds: &[u64]| seeds.iter().map(u64::to_string).collect::<Vec<_>>().join(", ");
    let _ = writeln!(text, "question = {}", quoted(&experiment.question));
    let _ = writeln!(text, "base = {}", path(&experiment.base));
    let _ = writeln!(text, "metric = {}", quoted(experiment.metric.name()));
    let _ = writeln!(text, "seeds = [{}]", seeds(&experiment.seeds));
    let _ = writeln!(text, "baseline = {}", quoted(&experiment.arms[experiment.baseline].name));
    if let Some(seconds) = experiment.budget {
        let _ = writeln!(text, "budget = \"{seconds} s\"");
    }
    if let Some(margin) = experiment.margin {
        let _ = writeln!(text, "margin = {margin:?}");
    }
    for arm in &experiment.arms {
        let _ = writeln!(text, "\n[[arms]]\nname = {}", quoted(&arm.name));
        if let Some(base) = &arm.base {
            let _ = writeln!(text, "base = {}", path(base));
        }
        if !arm.set.is_empty() {
            let each = arm.set.iter().map(|Setting { key, value }| format!("{} = {value}", quoted(key)));
            let _ = writeln!(text, "set = {{ {} }}", each.collect::<Vec<_>>().join(", "));
        }
        if let Some(axis) = arm.tune.as_deref().and_then(axis) {
            let _ = writeln!(text, "tune = {{ {axis} }}");
        }
    }
    if let Some(tune) = &experiment.tune {
        let _ = writeln!(text, "\n[tune]\nseeds = [{}]", seeds(&tune.seeds));
        if let Some(axis) = axis(&tune.points) {
            let _ = writeln!(text, "{axis}");
        }
    }
    let o = &experiment.outputs;
    let _ = write!(
        text,
        "\n[outputs]\ndir = {}\nruns = {}\nexport = {}\nengine_speed = {}\ncheckpoints = {}\n",
        path(&o.dir),
        path(&o.runs),
        o.export,
        o.engine_speed,
        o.checkpoints
    );
    text
}

/// Points as one axis of keys that go together; none if they have no keys.
fn axis(points: &[Vec<Setting>]) -> Option<String> {
    let keys: Vec<&str> = points.first()?.iter().map(|setting| setting.key.as_str()).collect();
    let value = |point: &Vec<Setting>| {
        let values = point.iter().map(|setting| setting.value.as_str()).collect::<Vec<_>>().join(", ");
        if keys.len() == 1 { values } else { format!("[{values}]") }
    };
    let values = points.iter().map(value).collect::<Vec<_>>().join(", ");
    (!keys.is_empty()).then(|| format!("\"{}\" = [{values}]", keys.join(", ")))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// What is written is read as the same experiment.
    #[test]
    fn a_plan_is_the_experiment_that_it_was_made_of() {
        let file = "question = \"Does \\\"it\\\" help?\"\nbase = \"none/r.toml\"\nseeds = [1, 2, 3]\nbaseline = \"b\"\n\
                    metric = \"held_out_loss\"\nbudget = \"1.5 h\"\nmargin = 0.02\n\
                    [[arms]]\nname = \"a, = x\"\nset = { \"optim.lr\" = 1e-3, \"data.train\" = [\"a b.txt\"], \"quant.scale\" = \"rms\" }\n\
                    tune = { \"optim.lr, optim.warmup_steps\" = [[1e-3, 4], [2e-3, 8]] }\n\
                    [[arms]]\nname = \"b\"\nbase = \"none/other.toml\"\n\
                    [tune]\n\"optim.lr\" = [1e-3, 2e-3]\n\"train.batch_size\" = [2, 4]\nseeds = [7, 8]\n\
                    [outputs]\ndir = \"x\"\ncheckpoints = false\n";
        let mut experiment = Experiment::from_toml(Path::new("e.toml"), file).unwrap();
        let again = |experiment: &Experiment| {
            let text = text(experiment, "tritforge ablate\ne.toml");
            Experiment::from_toml(Path::new("elsewhere/plan.toml"), &text)
                .unwrap_or_else(|e| panic!("{e}\n{text}"))
        };
        assert_eq!(again(&experiment), experiment);
        (experiment.tune, experiment.arms[0].tune) = (None, None);
        assert_eq!(again(&experiment), experiment);
    }
}
