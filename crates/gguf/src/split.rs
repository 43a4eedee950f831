//! Models in several files, as llama.cpp's `llama-gguf-split` writes them.
//!
//! Every file has `split.no`, `split.count` and `split.tensors.count`; all other metadata is in the first.
//! The files lie in one directory and are found by their names, `NAME-00001-of-00003.gguf` and so on. Source:
//! `llama-model-loader.cpp`.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use tritforge_support::counted;

use crate::error::{Error, Quoted};
use crate::format::ALIGNMENT_KEY;
use crate::metadata::{Metadata, optional};
use crate::parse::Header;
use crate::value::Described;

const NO: &str = "split.no";
const COUNT: &str = "split.count";
const TENSORS: &str = "split.tensors.count";

#[expect(
    clippy::needless_pass_by_value,
    reason = "callers give numbers, texts and what displays a key alike"
)]
fn fault(file: &Path, key: impl ToString, found: impl ToString, expected: impl ToString) -> Error {
    Error::Split {
        file: file.display().to_string(),
        key: key.to_string(),
        found: found.to_string(),
        expected: expected.to_string(),
    }
}

/// A whole number that a file says about its set.
fn number(metadata: &Metadata, key: &str, file: &Path) -> Result<Option<u64>, Error> {
    optional(metadata.get_u64(key)).map_err(|error| match error {
        Error::KeyType { key, found, .. } => fault(file, key, found, "an integer"),
        other => other,
    })
}

/// The number of files that the model has; 1 where nothing says so.
fn count(metadata: &Metadata, file: &Path) -> Result<u64, Error> {
    // Converters write 0 for a model in one file.
    match number(metadata, COUNT, file)?.unwrap_or(1).max(1) {
        // The key is a u16 in files of llama.cpp.
        found if found > u64::from(u16::MAX) => Err(fault(file, COUNT, found, "at most 65535 files")),
        found => Ok(found),
    }
}

/// The paths of the files beside the first, in their order: none for a model in one file.
pub(crate) fn others(header: &Header, path: &Path) -> Result<Vec<PathBuf>, Error> {
    let count = count(&header.metadata, path)?;
    let no = number(&header.metadata, NO, path)?;
    if let Some(no) = no.filter(|no| *no != 0) {
        let first = name_of_part(path, no, 0, count).map_or_else(
            || "the first file of the set, whose split.no is 0".to_owned(),
            |first| first.display().to_string(),
        );
        let found =
            format!("{no}, so that this is part {} of {count} of a split model", no.saturating_add(1));
        return Err(fault(path, NO, found, format!("0: open {first}")));
    }
    if count == 1 {
        return Ok(Vec::new());
    }
    if no.is_none() {
        return Err(fault(
            path,
            NO,
            "no such key",
            format!("0, in the first of {count} (split.count)", count = counted(count, "file")),
        ));
    }
    let mut paths = Vec::new();
    for part in 1..count {
        let Some(other) = name_of_part(path, 0, part, count) else {
            let expected = format!(
                "a name that ends in -00001-of-{count:05}.gguf: the other parts of the split model are found by theirs"
            );
            return Err(fault(path, COUNT, count, expected));
        };
        if !other.exists() {
            let found = format!("{count}, of which {} is missing", other.display());
            return Err(fault(path, COUNT, found, "all parts of the split model in one directory"));
        }
        paths.push(other);
    }
    Ok(paths)
}

/// The path of part `wanted`, given that of part `no`; none if that is not named as parts are.
fn name_of_part(path: &Path, no: u64, wanted: u64, count: u64) -> Option<PathBuf> {
    let end = |no: u64| format!("-{:05}-of-{count:05}.gguf", no + 1);
    let stem = path.file_name()?.to_str()?.strip_suffix(&end(no))?;
    Some(path.with_file_name(format!("{stem}{}", end(wanted))))
}

/// Adds the tensors of part `no` to those of the parts before it.
pub(crate) fn join(whole: &mut Header, part: &Header, no: usize, path: &Path) -> Result<(), Error> {
    if number(&part.metadata, NO, path)? != Some(no as u64) {
        let found = part.metadata.get(NO).map_or("no such key".to_owned(), |v| Described(v).to_string());
        return Err(fault(path, NO, found, format!("{no}, as its name says")));
    }
    // What a later part says has to be what the first says: otherwise they are parts of two models.
    for key in [COUNT, TENSORS] {
        let [first, found] = [number(&whole.metadata, key, path)?, number(&part.metadata, key, path)?];
        if first != found {
            let shown = |n: Option<u64>| n.map_or("no such key".to_owned(), |n| n.to_string());
            return Err(fault(path, key, shown(found), format!("{}, as in the first part", shown(first))));
        }
    }
    for (key, value) in
        part.metadata.iter().filter(|(key, _)| ![NO, COUNT, TENSORS, ALIGNMENT_KEY].contains(key))
    {
        let first = whole.metadata.get(key);
        if first != Some(value) {
            let first = first.map_or("no such key".to_owned(), |value| Described(value).to_string());
            let expected = format!("{first}, as in the first part: are these parts of one model?");
            return Err(fault(path, Quoted(key), Described(value), expected));
        }
    }
    let names: HashSet<&str> = whole.tensors.iter().map(|tensor| tensor.name.as_str()).collect();
    if let Some(twice) = part.tensors.iter().find(|tensor| names.contains(tensor.name.as_str())) {
        let tensor = format!("tensor {}", Quoted(&twice.name));
        return Err(fault(path, tensor, "a second time", "each tensor in one part of the split model"));
    }
    let no = u16::try_from(no).map_err(|_| fault(path, NO, no, "at most 65535 files"))?;
    whole.tensors.extend(part.tensors.iter().map(|tensor| {
        let mut tensor = tensor.clone();
        tensor.part = no;
        tensor
    }));
    Ok(())
}

/// Checks that a model has as many tensors as it says.
pub(crate) fn check_whole(header: &Header, path: &Path) -> Result<(), Error> {
    let found = header.tensors.len() as u64;
    match number(&header.metadata, TENSORS, path)? {
        Some(expected) if expected != found => {
            Err(fault(path, TENSORS, expected, format!("{found}, the number of tensors that the files hold")))
        }
        None if count(&header.metadata, path)? > 1 => {
            Err(fault(path, TENSORS, "no such key", format!("{found}, the number of tensors in all parts")))
        }
        _ => Ok(()),
    }
}

/// Checks that a file is a whole model.
pub(crate) fn check_single(header: &Header, file: &str) -> Result<(), Error> {
    let path = Path::new(file);
    let count = count(&header.metadata, path)?;
    if count > 1 {
        return Err(fault(path, COUNT, count, "a single-file model: split models must be opened by path"));
    }
    others(header, path).map(|_| ())
}
