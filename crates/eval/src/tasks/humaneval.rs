//! HumanEval (Chen et al. 2021): functions that have to pass their tests.

use super::Fields;
use crate::EvalError;

/// Where the function has ended.
pub(crate) const STOP: [&str; 5] = ["\nclass", "\ndef", "\n#", "\nif", "\nprint"];
/// The same for a chat model, which writes it into a block of Markdown.
pub(crate) const CHAT_STOP: [&str; 1] = ["```"];

/// A problem: `prompt`, `test`, `entry_point`, and `task_id`, which is not needed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problem {
    /// The beginning of the function.
    pub(crate) prompt: String,
    /// What comes after the finished function: its tests, and their call.
    pub(crate) test: String,
}

pub(crate) fn humaneval(fields: &Fields<'_>) -> Result<Problem, EvalError> {
    let (prompt, test) = (fields.text("prompt")?, fields.text("test")?);
    let entry_point = fields.text("entry_point")?;
    Ok(Problem { prompt: prompt.to_string(), test: format!("{test}\ncheck({entry_point})") })
}

impl Problem {
    /// What a chat model is asked, and how its answer begins.
    pub(crate) fn chat(&self) -> (String, String) {
        let prompt = &self.prompt;
        (
            format!(
                "Write a solution to the following problem and make sure that it passes the tests:\n\
                 ```python\n{prompt}\n```\n"
            ),
            format!("Here is the completed function:\n```python\n{prompt}\n"),
        )
    }

    /// The program that fails or comes to its end.
    pub(crate) fn program(&self, completion: &str) -> String {
        format!("{}{completion}\n{}", self.prompt, self.test)
    }
}
