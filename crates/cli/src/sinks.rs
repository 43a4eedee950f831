//! Where the training side's messages and progress go: lines on standard output, bars on standard error.

use std::cell::RefCell;

use indicatif::{ProgressBar, ProgressStyle};
use tritforge_report::{Event, Progress, Sink, Train};

/// Prints the messages of preparing data, and shows a bar for what takes long.
pub(crate) struct Preparation {
    print: fn(&str),
    /// The bar of the task that goes on, and the task's name.
    bar: RefCell<Option<(ProgressBar, String)>>,
}

impl Preparation {
    /// Messages are printed by `print`.
    pub(crate) fn new(print: fn(&str)) -> Self {
        Self { print, bar: RefCell::default() }
    }
}

impl Sink for Preparation {
    fn message(&self, text: &str) {
        (self.print)(text);
    }

    fn progress(&self, progress: &Progress<'_>) {
        let Progress { task, done, total } = *progress;
        let mut shown = self.bar.borrow_mut();
        let (bar, _) = match shown.take() {
            Some(same) if same.1 == task => shown.insert(same),
            _ => shown.insert((bytes(task, total), task.to_string())),
        };
        bar.set_position(done);
        if done >= total {
            bar.finish_and_clear();
            *shown = None;
        }
    }
}

/// A bar that counts bytes; hidden where standard error is no terminal.
fn bytes(task: &str, total: u64) -> ProgressBar {
    let style = "  {msg} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}";
    ProgressBar::new(total).with_style(template(style)).with_message(task.to_string())
}

fn template(style: &str) -> ProgressStyle {
    ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar())
}

/// Shows a run as it goes on: a bar with the newest figures, and a line for every evaluation.
pub(crate) struct Training {
    bar: ProgressBar,
    /// Where training stands, in words; empty before the first step that was logged.
    standing: RefCell<String>,
}

impl Training {
    /// For a run of so many steps.
    pub(crate) fn new(steps: u64) -> Self {
        let style = template("{bar:24} {pos}/{len} {msg} [{elapsed} < {eta}]");
        Self { bar: ProgressBar::new(steps).with_style(style), standing: RefCell::default() }
    }

    /// Ends the bar.
    pub(crate) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

impl Sink for Training {
    /// Prints a line above the bar; without a terminal there is none.
    fn message(&self, text: &str) {
        match self.bar.is_hidden() {
            true => println!("{text}"),
            false => self.bar.println(text),
        }
    }

    fn event(&self, event: &Event) {
        let mut standing = self.standing.borrow_mut();
        match event {
            Event::Run { step, .. } => {
                self.bar.set_position(*step);
                self.bar.reset_eta();
            }
            Event::Train(train) => {
                *standing = figures(train);
                self.bar.set_position(train.step);
                self.bar.set_message(standing.clone());
            }
            Event::Skip { step, reason } => self.message(&format!("step {step} skipped: {reason}")),
            Event::Eval { step, loss, bits_per_byte, sample } => {
                let mut text = format!("step {step}: held-out loss {loss:.4}, {bits_per_byte:.4} bits/byte");
                // Where there is no bar, this is the only place to see it.
                if self.bar.is_hidden() && !standing.is_empty() {
                    text += &format!("; {standing}");
                }
                self.message(&format!("{text}\n{}", indented(sample)));
            }
            Event::Preferences { step, held_out: true, loss, accuracy, margin, point } => {
                let share = 100.0 * accuracy;
                let (what, point) = match point {
                    None => ("pairs", String::new()),
                    Some(point) => ("answers", format!(" from the point {point:.3}")),
                };
                self.message(&format!(
                    "step {step}: held-out {what}: preference loss {loss:.4}, accuracy {share:.1} %, margin \
                     {margin:+.3} nats{point}"
                ));
            }
            Event::Preferences { accuracy, margin, .. } => {
                *standing += &format!(" accuracy {:.0} % margin {margin:+.2}", 100.0 * accuracy);
                self.bar.set_message(standing.clone());
            }
            Event::Health { .. } | Event::Checkpoint { .. } | Event::End { .. } | Event::Unknown => {}
        }
    }
}

/// Loss, learning rate, gradient norm, speed and memory in a line.
fn figures(train: &Train) -> String {
    let Train { loss, lr, grad_norm, tokens_per_second, mfu, rss, peak_rss, metrics, .. } = train;
    let mut text = format!("loss {loss:.4}");
    for (name, value) in metrics {
        text += &format!(" {name} {value:.3e}");
    }
    text += &format!(" lr {lr:.1e} |g| {grad_norm:.2} {tokens_per_second:.0} tokens/s");
    if let Some(mfu) = mfu {
        text += &format!(" MFU {:.0} %", 100.0 * mfu);
    }
    if let (Some(now), Some(peak)) = (rss, peak_rss) {
        text += &format!(" {:.0} MB, peak {:.0}", *now as f64 / 1e6, *peak as f64 / 1e6);
    }
    text
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("    │ {line}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(relation: Option<f64>) -> Train {
        Train {
            step: 1,
            loss: 3.0,
            lr: 1e-3,
            grad_norm: 0.5,
            tokens: 64,
            tokens_per_second: 100.0,
            mfu: Some(0.5),
            rss: Some(1_000_000),
            peak_rss: Some(2_000_000),
            metrics: relation.map(|x| ("relation".to_string(), x)).into_iter().collect(),
        }
    }

    #[test]
    fn figures_of_a_step_are_one_line() {
        let expected = "loss 3.0000 lr 1.0e-3 |g| 0.50 100 tokens/s MFU 50 % 1 MB, peak 2";
        assert_eq!(figures(&step(None)), expected);
        assert_eq!(figures(&step(Some(0.00125))), expected.replace(" lr", " relation 1.250e-3 lr"));
    }

    #[test]
    fn one_bar_stays_until_its_task_is_done() {
        let sink = Preparation::new(|_| ());
        let progress = |task, done| sink.progress(&Progress { task, done, total: 10 });
        progress("a", 4);
        assert_eq!(sink.bar.borrow().as_ref().map(|(bar, _)| bar.position()), Some(4));
        progress("a", 6);
        assert_eq!(sink.bar.borrow().as_ref().map(|(bar, _)| bar.position()), Some(6));
        progress("b", 1);
        assert_eq!(sink.bar.borrow().as_ref().map(|(_, task)| task.clone()), Some("b".to_string()));
        progress("b", 10);
        assert!(sink.bar.borrow().is_none());
    }
}
