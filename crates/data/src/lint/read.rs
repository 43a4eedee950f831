//! Reads examples and goes on where training would stop.

use super::{Finding, FindingKind};
use crate::examples::{Examples, OnBadSample, ReadOptions, Reason};
use crate::{DataError, TextSource, corpus};

/// Reads all records of the sources. What training would stop at becomes a finding: bad records, and files that are
/// damaged, whose rest is not read. What the options leave out becomes one, too.
///
/// # Errors
/// If a file is not there or the operating system refuses it, or an address of the hub cannot be had.
pub fn read_leniently(
    sources: &[TextSource],
    options: &ReadOptions,
) -> Result<(Examples, Vec<Finding>), DataError> {
    let options = ReadOptions { on_bad: OnBadSample::Skip, ..options.clone() };
    let (mut read, mut seen, mut findings) = (Examples::default(), Default::default(), Vec::new());
    for source in sources {
        for file in corpus::files(&source.path, source.format)? {
            read.report.files += 1;
            match read.read_file(&file, &options, &mut seen) {
                Ok(()) => {}
                Err(error @ (DataError::Io(_) | DataError::Hub { .. })) => return Err(error),
                Err(error) => findings.push(Finding {
                    kind: FindingKind::Unreadable,
                    source: file.name.clone(),
                    detail: error.to_string(),
                    other: None,
                }),
            }
        }
    }
    for dropped in &read.report.dropped {
        let kind = match dropped.reason {
            Reason::Malformed => FindingKind::Malformed,
            Reason::NothingToLearn => FindingKind::NothingToLearn,
            Reason::EmptyAnswer => FindingKind::EmptyAnswer,
            Reason::Duplicate => FindingKind::Duplicate,
            // Reading meets no others.
            Reason::Template | Reason::TooLong | Reason::CutAway => FindingKind::Refused,
        };
        findings.push(Finding {
            kind,
            source: dropped.source.clone(),
            detail: dropped.message.clone(),
            other: None,
        });
    }
    Ok((read, findings))
}
