//! How a test starts itself again, with another environment.

use std::process::Command;

/// This test program, through the emulator that `TRITFORGE_TEST_RUNNER` names if it was built for another
/// processor.
pub(crate) fn this_program() -> Command {
    let program = std::env::current_exe().unwrap();
    let runner = std::env::var("TRITFORGE_TEST_RUNNER").unwrap_or_default();
    let mut words = runner.split_whitespace();
    match words.next() {
        Some(emulator) => {
            let mut command = Command::new(emulator);
            command.args(words).arg(program);
            command
        }
        None => Command::new(program),
    }
}
