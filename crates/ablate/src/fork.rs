//! A run that begins with steps which another run has taken: it goes on from that run's checkpoint.

use std::fs;
use std::path::Path;

use tritforge_checkpoint::{latest, step_dir};

use crate::AblateError;

/// What a run writes beside its checkpoints on the way. What it wrote after the checkpoint is dropped when training goes on.
const LOGS: [&str; 2] = ["metrics.jsonl", "tensorboard"];
/// A checkpoint that is not whole yet.
const PART: &str = "fork.tmp";

/// Puts the checkpoint that the run in `from` wrote after `step`, with its log, into the directory of a run that has
/// taken no steps; whoever calls it holds the lock of that directory. Files of a checkpoint never change, so that they are
/// shared where the disk can. False if the run has steps of its own, or there is no such checkpoint: it then trains from
/// its own beginning.
///
/// # Errors
/// If a file cannot be written.
pub(crate) fn fork(from: &Path, step: u64, to: &Path) -> Result<bool, AblateError> {
    let checkpoint = step_dir(from, step);
    let begun = latest(to).map_err(|e| AblateError::Train(e.into()))?.is_some();
    if begun || !checkpoint.is_dir() {
        return Ok(false);
    }
    let part = to.join(PART);
    if part.exists() {
        fs::remove_dir_all(&part).map_err(AblateError::io(&part, "remove"))?;
    }
    for name in LOGS {
        let (log, own) = (from.join(name), to.join(name));
        if log.is_dir() {
            copy_dir(&log, &own, |from, to| fs::copy(from, to).map(drop))?;
        } else if log.exists() {
            fs::copy(&log, &own).map_err(AblateError::io(&own, "write"))?;
        }
    }
    let share = |from: &Path, to: &Path| fs::hard_link(from, to).or_else(|_| fs::copy(from, to).map(drop));
    if copy_dir(&checkpoint, &part, share).is_err() {
        // Another experiment may have pruned it meanwhile; a full disk is met again, and said, by training itself.
        return Ok(false);
    }
    let own = step_dir(to, step);
    if own.exists() {
        // One that is damaged: `latest` would have found it.
        fs::remove_dir_all(&own).map_err(AblateError::io(&own, "remove"))?;
    }
    fs::rename(&part, &own).map_err(AblateError::io(&own, "rename a checkpoint to"))?;
    Ok(latest(to).map_err(|e| AblateError::Train(e.into()))?.is_some())
}

/// The files of a directory in another one.
fn copy_dir(
    from: &Path,
    to: &Path,
    copy: impl Fn(&Path, &Path) -> std::io::Result<()>,
) -> Result<(), AblateError> {
    fs::create_dir_all(to).map_err(AblateError::io(to, "create"))?;
    for entry in fs::read_dir(from).map_err(AblateError::io(from, "list"))? {
        let path = entry.map_err(AblateError::io(from, "list"))?.path();
        let own = to.join(path.file_name().unwrap_or_default());
        copy(&path, &own).map_err(AblateError::io(&own, "write"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use tritforge_checkpoint::Writer;

    use super::*;

    #[test]
    fn a_checkpoint_and_its_log_are_taken_once() {
        let dir = tempfile::tempdir().unwrap();
        let [from, to] = ["from", "to"].map(|name| dir.path().join(name));
        fs::create_dir_all(from.join("tensorboard")).unwrap();
        fs::create_dir_all(&to).unwrap();
        fs::write(from.join("metrics.jsonl"), "{}\n").unwrap();
        fs::write(from.join("tensorboard/events"), "x").unwrap();
        let mut writer = Writer::create(&step_dir(&from, 4)).unwrap();
        writer.write_file("training.json", b"{}").unwrap();
        writer.commit().unwrap();
        // What a kill in the middle of it left.
        fs::create_dir_all(to.join(PART)).unwrap();
        fs::write(to.join(PART).join("training.json"), "torn").unwrap();
        assert!(!fork(&from, 3, &to).unwrap());
        assert!(fork(&from, 4, &to).unwrap());
        assert_eq!(latest(&to).unwrap(), Some(step_dir(&to, 4)));
        assert_eq!(fs::read_to_string(step_dir(&to, 4).join("training.json")).unwrap(), "{}");
        assert_eq!(fs::read_to_string(to.join("tensorboard/events")).unwrap(), "x");
        assert!(!to.join(PART).exists());
        // The run has begun: its own log is not replaced.
        fs::write(to.join("metrics.jsonl"), "own").unwrap();
        assert!(!fork(&from, 4, &to).unwrap());
        assert_eq!(fs::read_to_string(to.join("metrics.jsonl")).unwrap(), "own");
    }
}
