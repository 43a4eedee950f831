//! The held-out loss of each document: from these the noise of an evaluation can be told, since documents are
//! independent of each other and tokens are not.

use std::fmt::Write as _;
use std::path::Path;

use tritforge_data::IGNORE_INDEX;
use tritforge_model::{Batch, Decoder, Score};

use crate::TrainError;
use crate::training_data::TextData;

/// The table's name in the directory of a run.
pub(crate) const DOCUMENTS: &str = "documents.csv";

const HEADER: &str = "document,targets,bytes,nats\n";

/// The held-out loss of a document.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct DocumentLoss {
    /// Tokens that were predicted.
    pub targets: usize,
    /// Bytes of its text.
    pub bytes: usize,
    /// Σ −ln p(target), in nats.
    pub nats: f64,
}

/// Reads the table of a run's last evaluation; none if the run has written none (`tritforge train --document-losses`).
///
/// # Errors
/// If the file cannot be read, or is no such table.
pub fn document_losses(run: &Path) -> Result<Option<Vec<DocumentLoss>>, TrainError> {
    let path = run.join(DOCUMENTS);
    if !path.exists() {
        return Ok(None);
    }
    let text = std::fs::read_to_string(&path).map_err(TrainError::io(&path, "read"))?;
    let fault = |line: usize| {
        let expected = HEADER.trim_end();
        TrainError::State(format!("{}:{line}: expected a row of {expected}", path.display()))
    };
    let rows = text.strip_prefix(HEADER).ok_or_else(|| fault(1))?;
    let row = |(i, row): (usize, &str)| {
        let cells: Vec<&str> = row.split(',').collect();
        let read = match cells[..] {
            [_, targets, bytes, nats] => targets.parse().ok().zip(bytes.parse().ok()).zip(nats.parse().ok()),
            _ => None,
        };
        let ((targets, bytes), nats) = read.ok_or_else(|| fault(i + 2))?;
        Ok(DocumentLoss { targets, bytes, nats })
    };
    rows.lines().enumerate().map(row).collect::<Result<Vec<_>, _>>().map(Some)
}

/// Adds up the losses of held-out text document by document, in the order in which an evaluation goes through it.
#[derive(Debug)]
pub(crate) struct DocumentSums {
    /// The token after the last of each document.
    ends: Vec<usize>,
    losses: Vec<DocumentLoss>,
    /// The next target's position in the text, and its document.
    next: usize,
    document: usize,
}

impl DocumentSums {
    /// None where the tokens do not tell the documents apart.
    pub(crate) fn new(text: &TextData) -> Option<Self> {
        let (starts, documents) = (text.held_out.documents(), &text.documents.1);
        if starts.len() != documents.len() {
            return None;
        }
        let ends = starts.skip(1).chain([text.held_out.len()]).collect();
        let losses =
            documents.iter().map(|d| DocumentLoss { bytes: d.text.len(), ..DocumentLoss::default() });
        // The first token is no target.
        Some(Self { ends, losses: losses.collect(), next: 1, document: 0 })
    }

    /// Scores the next batch, to the same bits as [`Decoder::score`].
    pub(crate) fn score(&mut self, model: &Decoder, batch: &Batch<'_>) -> Result<Score, TrainError> {
        let mut score = Score::default();
        for (log_prob, target) in model.log_probs(batch)?.into_iter().zip(batch.targets) {
            if *target != IGNORE_INDEX {
                let nats = f64::from(-log_prob);
                score.nats += nats;
                score.targets += 1;
                self.add(nats);
            }
        }
        Ok(score)
    }

    fn add(&mut self, nats: f64) {
        while self.ends.get(self.document).is_some_and(|end| *end <= self.next) {
            self.document += 1;
        }
        if let Some(loss) = self.losses.get_mut(self.document) {
            loss.targets += 1;
            loss.nats += nats;
        }
        self.next += 1;
    }

    /// Writes the table into the directory of a run, whole or not at all.
    pub(crate) fn write(&self, run: &Path) -> Result<(), TrainError> {
        let mut text = HEADER.to_string();
        for (i, DocumentLoss { targets, bytes, nats }) in self.losses.iter().enumerate() {
            let _ = writeln!(text, "{i},{targets},{bytes},{nats}");
        }
        let (path, new) = (run.join(DOCUMENTS), run.join("documents.csv.tmp"));
        std::fs::write(&new, text).map_err(TrainError::io(&new, "write"))?;
        std::fs::rename(&new, &path).map_err(TrainError::io(&path, "replace"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_belong_to_the_document_that_they_are_in() {
        let run = tempfile::tempdir().unwrap();
        assert_eq!(document_losses(run.path()).unwrap(), None);
        let losses = vec![DocumentLoss { bytes: 5, ..DocumentLoss::default() }; 3];
        // Tokens 0 1 2 | 3 | 4 5: the first is no target.
        let mut sums = DocumentSums { ends: vec![3, 4, 6], losses, next: 1, document: 0 };
        [0.1, 0.2, 1.0, 10.0, 20.0].into_iter().for_each(|nats| sums.add(nats));
        sums.write(run.path()).unwrap();
        let read = document_losses(run.path()).unwrap().unwrap();
        let found: Vec<_> = read.iter().map(|d| (d.targets, d.nats)).collect();
        assert_eq!(found, [(2, 0.1 + 0.2), (1, 1.0), (2, 30.0)]);
        std::fs::write(run.path().join(DOCUMENTS), format!("{HEADER}0,1,2\n")).unwrap();
        let message = document_losses(run.path()).unwrap_err().to_string();
        assert!(message.contains("documents.csv:2") && message.contains("nats"), "{message}");
    }
}
