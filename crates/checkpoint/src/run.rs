//! The checkpoints of one run: `step-000100`, `step-000200`, … in one directory.

use std::fs;
use std::path::{Path, PathBuf};

use crate::{Checkpoint, CheckpointError};

/// The directory of the checkpoint after `step` optimizer steps.
pub fn step_dir(run: &Path, step: u64) -> PathBuf {
    run.join(format!("step-{step:06}"))
}

/// Checkpoint directories of a run, by step, oldest first. A directory that does not exist has none.
///
/// # Errors
/// If the directory cannot be listed.
pub fn steps(run: &Path) -> Result<Vec<(u64, PathBuf)>, CheckpointError> {
    if !run.exists() {
        return Ok(Vec::new());
    }
    let mut found = Vec::new();
    for entry in fs::read_dir(run).map_err(CheckpointError::io(run, "list"))? {
        let path = entry.map_err(CheckpointError::io(run, "list"))?.path();
        let step =
            path.file_name().and_then(|name| name.to_str()?.strip_prefix("step-")?.parse::<u64>().ok());
        if let Some(step) = step.filter(|_| path.is_dir()) {
            found.push((step, path));
        }
    }
    found.sort();
    Ok(found)
}

/// The newest whole checkpoint of a run, if there is one. Damaged ones are passed over.
///
/// # Errors
/// If the directory cannot be listed.
pub fn latest(run: &Path) -> Result<Option<PathBuf>, CheckpointError> {
    let newest_first = steps(run)?.into_iter().rev();
    Ok(newest_first.map(|(_, path)| path).find(|path| Checkpoint::open(path).is_ok_and(|c| is_whole(&c))))
}

fn is_whole(checkpoint: &Checkpoint) -> bool {
    checkpoint.files().all(|(name, _)| checkpoint.check_file(name).is_ok())
}

/// Removes all but the newest `keep` checkpoints and those of the steps `kept`.
///
/// # Errors
/// If one cannot be removed.
pub fn prune(run: &Path, keep: usize, kept: &[u64]) -> Result<(), CheckpointError> {
    let all = steps(run)?;
    let surplus = all.len().saturating_sub(keep);
    for (_, path) in all[..surplus].iter().filter(|(step, _)| !kept.contains(step)) {
        fs::remove_dir_all(path).map_err(CheckpointError::io(path, "remove"))?;
    }
    Ok(())
}

/// Makes sure, before a run spends time, that `bytes` more can be written into its directory: makes it,
/// writes a probe file, and asks for the free space. What other programs write later is beyond it.
///
/// # Errors
/// If the directory cannot be made or written, or has less space.
pub fn check_room(run: &Path, bytes: u64) -> Result<(), CheckpointError> {
    fs::create_dir_all(run).map_err(CheckpointError::io(run, "create"))?;
    let probe = run.join(".tmp-probe");
    let write = fs::write(&probe, [0u8; 4096]).map_err(CheckpointError::io(&probe, "write"));
    // A probe that could not be written may be there in part.
    let removed = fs::remove_file(&probe).map_err(CheckpointError::io(&probe, "remove"));
    write.and(removed)?;
    match free_space(run)? {
        Some(free) if free < bytes => {
            Err(CheckpointError::NoRoom { path: run.to_path_buf(), free, needed: bytes })
        }
        _ => Ok(()),
    }
}

/// Bytes that may be written to a directory's disk, where the system can be asked.
#[cfg(unix)]
fn free_space(dir: &Path) -> Result<Option<u64>, CheckpointError> {
    let disk = rustix::fs::statvfs(dir)
        .map_err(|e| CheckpointError::io(dir, "ask for the free space of")(e.into()))?;
    Ok(Some(disk.f_bavail.saturating_mul(disk.f_frsize)))
}

#[cfg(not(unix))]
fn free_space(_: &Path) -> Result<Option<u64>, CheckpointError> {
    Ok(None)
}
