//! The journal of an experiment: what was planned and what happened, a JSON object a line, each on the disk before the
//! next thing is done. Results themselves are kept with the runs; the journal says which runs they are, and keeps what was
//! measured and cannot be found out again.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::AblateError;

/// Its name in the directory of the experiment.
pub(crate) const JOURNAL: &str = "journal.jsonl";

/// A line of the journal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Record {
    /// Work began, or went on.
    Start {
        /// UTC.
        time: String,
        /// The command line.
        command: String,
        /// Version and build of the program.
        program: String,
        /// The machine.
        machine: String,
    },
    /// Seeds were cut to what the budget allows: from now on they are these.
    Seeds {
        /// Digest of the experiment for which this holds.
        experiment: String,
        /// The seeds.
        seeds: Vec<u64>,
    },
    /// What a dry run of an arm measured.
    Probe {
        /// Identity of the arm's first run.
        id: String,
        /// Seconds that a run takes; none if it could not be measured.
        seconds: Option<f64>,
        /// Bytes of memory that it takes; none if it could not be measured.
        memory: Option<u64>,
    },
    /// A run was started.
    Run {
        /// Its identity.
        id: String,
        /// Its arm.
        arm: String,
        /// Its seed.
        seed: u64,
        /// What was chosen by tuning, or is tried.
        settings: String,
    },
    /// A run had its result before, from this experiment or another.
    Reused {
        /// Its identity.
        id: String,
    },
    /// A run ended with a result.
    Done {
        /// Its identity.
        id: String,
        /// Whether it diverged.
        diverged: bool,
    },
    /// A run ended without a result; it is tried again when the experiment goes on.
    Failed {
        /// Its identity.
        id: String,
        /// Why.
        message: String,
    },
    /// The engine's speed with the exported model of a run.
    Speed {
        /// The run's identity.
        id: String,
        /// Tokens a second, one after the other.
        tokens_per_second: f64,
    },
    /// A report was written.
    Report {
        /// UTC.
        time: String,
    },
    /// What a later version may write.
    #[serde(other)]
    Unknown,
}

/// The journal of an experiment on which this process works, and no other.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: File,
    records: Vec<Record>,
}

impl Journal {
    /// Opens the journal in a directory, or begins it. A last line that a kill cut off is dropped.
    ///
    /// # Errors
    /// If another process has it open, it cannot be read or written, or a whole line is no record.
    pub fn open(dir: &Path) -> Result<Self, AblateError> {
        std::fs::create_dir_all(dir).map_err(AblateError::io(dir, "create"))?;
        let path = dir.join(JOURNAL);
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(AblateError::io(&path, "open"))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(AblateError::Locked(path)),
            Err(TryLockError::Error(source)) => return Err(AblateError::io(&path, "lock")(source)),
        }
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(AblateError::io(&path, "read"))?;
        let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let mut records = Vec::new();
        for (i, line) in bytes[..whole].split(|byte| *byte == b'\n').enumerate() {
            if !line.is_empty() {
                let record = serde_json::from_slice(line).map_err(|e| AblateError::Damaged {
                    path: path.clone(),
                    line: i + 1,
                    message: format!("{e}; delete the line, or the file: results are kept with the runs"),
                })?;
                records.push(record);
            }
        }
        file.set_len(whole as u64).map_err(AblateError::io(&path, "truncate"))?;
        file.seek(SeekFrom::End(0)).map_err(AblateError::io(&path, "read"))?;
        Ok(Self { path, file, records })
    }

    /// Writes a record; when this returns it is on the disk.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write(&mut self, record: Record) -> Result<(), AblateError> {
        let line = serde_json::to_string(&record).map_err(|e| AblateError::Damaged {
            path: self.path.clone(),
            line: 0,
            message: e.to_string(),
        })?;
        let written = self.file.write_all((line + "\n").as_bytes()).and_then(|()| self.file.sync_data());
        written.map_err(AblateError::io(&self.path, "write"))?;
        self.records.push(record);
        Ok(())
    }

    /// All records, in order.
    pub fn records(&self) -> &[Record] {
        &self.records
    }

    /// The latest value of a record.
    pub fn latest<T>(&self, what: impl Fn(&Record) -> Option<T>) -> Option<T> {
        self.records.iter().rev().find_map(what)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn done(id: &str) -> Record {
        Record::Done { id: id.to_string(), diverged: false }
    }

    #[test]
    fn a_torn_line_is_dropped_and_the_rest_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(JOURNAL);
        let mut journal = Journal::open(dir.path()).unwrap();
        journal.write(done("a")).unwrap();
        journal.write(done("b")).unwrap();
        drop(journal);
        let whole = std::fs::read(&path).unwrap();
        for cut in 0..=whole.len() {
            std::fs::write(&path, &whole[..cut]).unwrap();
            let mut journal = Journal::open(dir.path()).unwrap();
            let lines = whole[..cut].iter().filter(|byte| **byte == b'\n').count();
            assert_eq!(journal.records().len(), lines, "{cut}");
            journal.write(done("c")).unwrap();
            drop(journal);
            let again = Journal::open(dir.path()).unwrap();
            assert_eq!(again.records().last(), Some(&done("c")), "{cut}");
            assert_eq!(again.records().len(), lines + 1, "{cut}");
        }
    }

    #[test]
    fn one_process_at_a_time_and_damage_has_a_place() {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::open(dir.path()).unwrap();
        // A lock is one of an open file, so that the same process is another one here.
        let message = Journal::open(dir.path()).unwrap_err().to_string();
        assert!(message.contains("another process"), "{message}");
        drop(journal);
        std::fs::write(dir.path().join(JOURNAL), "{\"event\":\"report\",\"time\":\"t\"}\nnonsense\n")
            .unwrap();
        let message = Journal::open(dir.path()).unwrap_err().to_string();
        assert!(message.contains("journal.jsonl:2") && message.contains("delete the line"), "{message}");
        std::fs::write(dir.path().join(JOURNAL), "{\"event\":\"of a later version\",\"x\":1}\n").unwrap();
        assert_eq!(Journal::open(dir.path()).unwrap().records(), [Record::Unknown]);
    }
}
