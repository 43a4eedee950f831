//! Programs that a model wrote, run in a process of their own under limits.
//!
//! A fresh directory, no environment, limits of CPU time, memory, file size and processes (set by `guard.py`
//! before the program begins), a time limit, and at the end a signal to the whole process group. That holds
//! off accidents. It is no sandbox: who does not trust the model runs it in a container or a virtual machine.

use std::fs::{self, File};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};

use crate::EvalError;

const GUARD: &str = include_str!("guard.py");

/// What a program may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// CPU time; whole seconds count. lm-evaluation-harness gives 3 seconds, by the clock.
    pub cpu: Duration,
    /// Time by the clock, for programs that wait.
    pub wall: Duration,
    /// Bytes of memory (address space).
    pub memory: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { cpu: Duration::from_secs(3), wall: Duration::from_secs(20), memory: 4 << 30 }
    }
}

/// What became of a program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It came to its end.
    Passed,
    /// It raised this.
    Failed(String),
    /// It was ended: for its time, or for something that kills a process.
    Ended(&'static str),
}

/// The `python3` of the search path: the program's own environment has none.
///
/// # Errors
/// If there is none.
pub fn find_python() -> Result<PathBuf, EvalError> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|dir| dir.join("python3")).find(|file| file.is_file());
    found.ok_or_else(|| {
        EvalError::Input("python3, which is needed to run programs, was not found in PATH".to_string())
    })
}

/// Runs a program.
///
/// # Errors
/// If it cannot be started, or a limit cannot be set.
pub fn run(python: &Path, program: &str, limits: Limits) -> Result<Outcome, EvalError> {
    let fault = |what: &str, e: &dyn std::fmt::Display| {
        EvalError::Input(format!("cannot run a program with {}: {what}: {e}", python.display()))
    };
    let dir = tempfile::tempdir().map_err(|e| fault("a temporary directory", &e))?;
    fs::write(dir.path().join("program.py"), program).map_err(|e| fault("program.py", &e))?;
    let mut said = tempfile::tempfile().map_err(|e| fault("a temporary file", &e))?;
    let mut faults = tempfile::tempfile().map_err(|e| fault("a temporary file", &e))?;
    let out = said.try_clone().and_then(|out| Ok((out, faults.try_clone()?)));
    let (out, err) = out.map_err(|e| fault("a temporary file", &e))?;
    let cpu = limits.cpu.as_secs().max(1).to_string();
    let mut child = Command::new(python)
        .args(["-I", "-B", "-X", "utf8", "-c", GUARD, &cpu, &limits.memory.to_string(), "1048576"])
        .env_clear()
        .current_dir(dir.path())
        .stdin(Stdio::piped())
        .stdout(out)
        .stderr(err)
        .process_group(0)
        .spawn()
        .map_err(|e| fault("start", &e))?;
    // The word that a program does not know: one that leaves early has not passed.
    let word = format!(
        "passed {:016x}\n",
        std::hash::BuildHasher::hash_one(&std::collections::hash_map::RandomState::new(), child.id(),)
    );
    let written = child.stdin.take().map(|mut stdin| stdin.write_all(word.as_bytes()));
    let in_time = wait(&mut child, limits.wall).map_err(|e| fault("wait", &e))?;
    if !in_time {
        return Ok(Outcome::Ended("time limit"));
    }
    let said = text(&mut said).map_err(|e| fault("its output", &e))?;
    let Some(said) = said.strip_prefix("begun\n") else {
        let faults = text(&mut faults).map_err(|e| fault("its output", &e))?;
        let last = faults.trim().lines().last().unwrap_or("it ended at once").to_string();
        return Err(match written {
            Some(Err(e)) if faults.is_empty() => fault("its input", &e),
            _ => fault("the limits", &last),
        });
    };
    Ok(match said {
        said if said == word => Outcome::Passed,
        "" => Outcome::Ended("killed, or left before its tests"),
        said => Outcome::Failed(said.to_string()),
    })
}

/// Waits for the end, kills all that is left of the process group, and says whether the end came in time.
fn wait(child: &mut Child, wall: Duration) -> std::io::Result<bool> {
    let end = Instant::now() + wall;
    let pid = Pid::from_child(child);
    // The process is left unreaped so that its id, which is the group's, is nobody else's.
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    let mut pause = Duration::from_millis(1);
    let in_time = loop {
        if waitid(WaitId::Pid(pid), options)?.is_some() {
            break true;
        }
        if Instant::now() >= end {
            break false;
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    };
    // An error says that there is no process left.
    let _ = kill_process_group(pid, Signal::KILL);
    child.wait()?;
    Ok(in_time)
}

/// The first kilobytes of what was written.
fn text(file: &mut File) -> std::io::Result<String> {
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(0))?;
    file.take(1 << 14).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(python: &Path, program: &str) -> Outcome {
        let limits = Limits { wall: Duration::from_secs(60), cpu: Duration::from_secs(1), memory: 1 << 30 };
        run(python, program, limits).unwrap()
    }

    /// The interpreter; where there is none there is nothing to test.
    fn python() -> Option<PathBuf> {
        let python = find_python();
        if let Err(error) = &python {
            eprintln!("skipped: {error}");
        }
        python.ok()
    }

    #[test]
    fn programs_pass_only_by_coming_to_their_end() {
        let Some(python) = python() else { return };
        let outcome = |program| outcome(&python, program);
        let failed = |program, with| match outcome(program) {
            Outcome::Failed(message) => assert!(message.contains(with), "{program}: {message}"),
            other => panic!("{program}: {other:?}"),
        };
        assert_eq!(outcome("import math\nassert math.gcd(12, 18) == 6\nprint('noise')"), Outcome::Passed);
        failed("assert 1 == 2, 'no'", "AssertionError: no");
        failed("def f(:", "SyntaxError");
        failed("import sys\nsys.exit(0)", "SystemExit");
        assert_eq!(outcome("import os\nos._exit(0)"), Outcome::Ended("killed, or left before its tests"));
    }

    #[test]
    fn limits_hold() {
        let Some(python) = python() else { return };
        let outcome = |program| outcome(&python, program);
        let failed = |program, with| match outcome(program) {
            Outcome::Failed(message) => assert!(message.contains(with), "{program}: {message}"),
            other => panic!("{program}: {other:?}"),
        };
        failed("x = 'a' * (1 << 31)", "MemoryError");
        failed("open('x', 'w')", "writing files");
        failed("import os\nos.fork()", "os.fork");
        failed("import subprocess\nsubprocess.run(['true'])", "subprocess.Popen");
        failed("import socket\nsocket.socket()", "socket.");
        failed("import os\nassert not dict(os.environ).get('HOME'), 'environment'\n1/0", "ZeroDivisionError");
        assert_eq!(outcome("while True: pass"), Outcome::Ended("killed, or left before its tests"));
        let limits = Limits { wall: Duration::from_millis(300), ..Limits::default() };
        let found = run(&python, "import time\ntime.sleep(100)", limits).unwrap();
        assert_eq!(found, Outcome::Ended("time limit"));
    }

    #[test]
    fn what_cannot_run_is_said() {
        let error = run(Path::new("/nowhere/python3"), "", Limits::default()).unwrap_err().to_string();
        assert!(error.contains("/nowhere/python3: start"), "{error}");
    }
}
