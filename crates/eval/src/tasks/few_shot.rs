//! Which examples stand before a question: those that lm-evaluation-harness draws, for the same seed and
//! file; one generator for all questions of a task in order.

use super::python_random::PythonRandom;
use super::{Kind, Task, TaskData, TaskOptions, gsm8k};
use crate::EvalError;

/// A question with its answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Example {
    /// What is asked.
    pub question: String,
    /// How it goes on, without what stands between them.
    pub answer: String,
}

/// The examples to draw from.
pub(super) struct Shots {
    count: usize,
    examples: Vec<Example>,
    /// The questions themselves with their answers, where they may stand among the examples: one more is
    /// drawn then.
    own: Vec<Example>,
}

impl Shots {
    /// Reads as many as the options ask for.
    ///
    /// # Errors
    /// If there is no file of examples, one of them is damaged, or the task is asked without.
    pub(super) fn read(
        task: &Task,
        data: &TaskData,
        examples: Option<&TaskData>,
        options: &TaskOptions,
    ) -> Result<Self, EvalError> {
        let count = options.num_fewshot;
        if count == 0 {
            return Ok(Self { count, examples: Vec::new(), own: Vec::new() });
        }
        let name = task.name;
        let read = |data: &TaskData| match task.kind {
            Kind::Choice { question, .. } => data.each(|fields| Ok(question(fields)?.example())),
            Kind::Number => data.each(|fields| {
                let (question, answer) = gsm8k::gsm8k(fields)?;
                Ok(Example { question, answer })
            }),
            Kind::Program => Err(EvalError::Input(format!(
                "{name} does not support few-shot examples: use --num-fewshot \
                                              0"
            ))),
        };
        let Some(examples) = examples else {
            let message = format!("{name}: no file with few-shot examples: give --fewshot-file {name}=FILE");
            return Err(EvalError::Input(message));
        };
        let own = if examples.path == data.path || !task.test_split { read(data)? } else { Vec::new() };
        Ok(Self { count, examples: read(examples)?, own })
    }

    /// The examples before each of `questions`.
    ///
    /// # Errors
    /// If there are too few; with the number of the question.
    pub(super) fn draw(&self, questions: usize, seed: u64) -> Result<Vec<Vec<&Example>>, (usize, EvalError)> {
        let mut random = PythonRandom::new(seed);
        let one = |index: usize| match self.count {
            0 => Ok(Vec::new()),
            count => {
                let own = self.own.get(index);
                draw(&mut random, &self.examples, count, own).map_err(|error| (index, error))
            }
        };
        (0..questions).map(one).collect()
    }
}

/// The examples for one question: `count` of them, in order. `own` is the question itself where it is among
/// the examples: one more is drawn then, and the question left out.
///
/// # Errors
/// If there are too few examples.
fn draw<'a>(
    random: &mut PythonRandom,
    examples: &'a [Example],
    count: usize,
    own: Option<&Example>,
) -> Result<Vec<&'a Example>, EvalError> {
    let others = |indices: Vec<usize>| -> Vec<&'a Example> {
        let drawn = indices.into_iter().map(|i| &examples[i]);
        drawn.filter(|example| Some(*example) != own).take(count).collect()
    };
    let drawn = others(random.sample(examples.len(), count + usize::from(own.is_some())));
    if drawn.len() == count {
        return Ok(drawn);
    }
    // The question was drawn more than once: from all but it, then.
    let pool: Vec<&Example> = examples.iter().filter(|example| Some(*example) != own).collect();
    let drawn: Vec<&Example> = random.sample(pool.len(), count).into_iter().map(|i| pool[i]).collect();
    if drawn.len() < count {
        let message = format!(
            "{count} few-shot examples requested, but the file has only {} besides the \
                               question",
            pool.len()
        );
        return Err(EvalError::Input(message));
    }
    Ok(drawn)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_question_is_not_its_own_example() {
        let example = |text: &str| Example { question: text.to_string(), answer: String::new() };
        let (examples, own) = (["a", "b", "a", "c"].map(example), example("a"));
        for seed in 0..20 {
            let drawn = draw(&mut PythonRandom::new(seed), &examples, 2, Some(&own)).unwrap();
            assert!(drawn.len() == 2 && !drawn.contains(&&own), "{drawn:?}");
        }
        let error = draw(&mut PythonRandom::new(0), &examples, 3, Some(&own)).unwrap_err().to_string();
        assert_eq!(error, "3 few-shot examples requested, but the file has only 2 besides the question");
    }
}
