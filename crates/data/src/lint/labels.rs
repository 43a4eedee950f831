//! Answers that were judged twice and differently: the model would be told to give them and not to give them.

use std::collections::HashMap;

use sha2::{Digest, Sha256};

use super::{Finding, FindingKind, Lint};
use crate::examples::{Body, Example};

/// Notes every example whose messages stand in an earlier one with the other label.
pub(super) fn find(examples: &[&Example], found: &mut Lint) {
    let mut seen: HashMap<[u8; 32], (bool, &str)> = HashMap::new();
    for example in examples {
        let Body::Labelled { turns, desirable } = &example.body else { continue };
        let said = serde_json::to_vec(&(turns, &example.supplied)).unwrap_or_default();
        let (label, source) =
            *seen.entry(Sha256::digest(said).into()).or_insert((*desirable, &example.source));
        if label != *desirable {
            found.findings.push(Finding {
                kind: FindingKind::ContradictoryLabels,
                source: example.source.clone(),
                detail: format!(
                    "label = {desirable}, but an earlier record has the same prompt and completion with label = {label}"
                ),
                other: Some(source.to_string()),
            });
        }
    }
}
