//! Files that are read again when they change, and on SIGHUP.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// How often files are looked at.
const CHECK: Duration = Duration::from_secs(1);

/// A file that the service reads again when it changes cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It cannot be read.
    #[error("{}: cannot read {what}: {source}", path.display())]
    Read {
        /// What it has.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// What it says is wrong.
    #[error("{}: {message}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What was found and expected.
        message: String,
    },
}

/// When a file was changed, and its length.
type Stamp = Option<(SystemTime, u64)>;

fn stamp(path: &Path) -> Stamp {
    let metadata = std::fs::metadata(path).ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
}

/// Calls `reload` whenever one of the files changes, or the process gets SIGHUP. A failure is reported to the log, with
/// `what` stays as it was. Never returns.
pub(crate) async fn watch(
    paths: Vec<PathBuf>,
    what: &str,
    reload: impl Fn() -> Result<(), String> + Send + Sync + 'static,
) {
    let stamps = |paths: &[PathBuf]| paths.iter().map(|path| stamp(path)).collect::<Vec<Stamp>>();
    let names = paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ");
    let (reload, paths) = (std::sync::Arc::new(reload), std::sync::Arc::new(paths));
    // A change between the first reading and now is read with the first look at the files.
    let mut seen: Option<Vec<Stamp>> = None;
    #[cfg(unix)]
    let mut hangup = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::hangup()).ok();
    let mut tick = tokio::time::interval(CHECK);
    loop {
        #[cfg(unix)]
        let asked = async {
            match &mut hangup {
                Some(hangup) => hangup.recv().await,
                None => std::future::pending().await,
            }
        };
        #[cfg(not(unix))]
        let asked = std::future::pending::<Option<()>>();
        let forced = tokio::select! {
            _ = asked => true,
            _ = tick.tick() => false,
        };
        let (reload, paths, before) = (reload.clone(), paths.clone(), seen.clone());
        let read = tokio::task::spawn_blocking(move || {
            let now = stamps(&paths);
            let changed = forced || before.as_ref() != Some(&now);
            (now, changed.then(|| reload()))
        });
        let Ok((now, outcome)) = read.await else { continue };
        let first = seen.replace(now).is_none();
        match outcome {
            Some(Ok(())) if !first || forced => log::info!("{names}: read again"),
            Some(Err(error)) => log::warn!("{error}; {what} stay as they were"),
            Some(Ok(())) | None => {}
        }
    }
}
