//! A checkpoint is whole or absent, and damage is named.

use std::fs;
use std::path::Path;

use tritforge_checkpoint::{Checkpoint, MODEL, TensorView, Writer, latest, prune, step_dir, steps};
use tritforge_config::ModelConfig;

fn write(run: &Path, step: u64) -> std::path::PathBuf {
    let dir = step_dir(run, step);
    let mut writer = Writer::create(&dir).unwrap();
    writer.write_config(&ModelConfig::default()).unwrap();
    let values: Vec<f32> = (0..6).map(|i| i as f32 + step as f32).collect();
    writer.write_tensors(MODEL, &[TensorView::new("w", &[2, 3], &values)]).unwrap();
    writer.commit().unwrap();
    dir
}

#[test]
fn what_is_written_is_read() {
    let run = tempfile::tempdir().unwrap();
    let checkpoint = Checkpoint::open(&write(run.path(), 7)).unwrap();
    assert_eq!(checkpoint.config().unwrap(), ModelConfig::default());
    let tensors = checkpoint.tensors(MODEL).unwrap();
    assert_eq!(tensors.f32("w", &[2, 3]).unwrap()[5], 12.0);
    let error = tensors.f32("w", &[3, 2]).unwrap_err().to_string();
    assert!(error.contains("tensor w: shape [2, 3], expected [3, 2]"), "{error}");
    assert!(tensors.f32("missing", &[1]).is_err());
}

#[test]
fn an_abandoned_writer_leaves_nothing() {
    let run = tempfile::tempdir().unwrap();
    let mut writer = Writer::create(&step_dir(run.path(), 1)).unwrap();
    writer.write_file("a", b"b").unwrap();
    drop(writer);
    assert_eq!(fs::read_dir(run.path()).unwrap().count(), 0);
}

#[test]
fn leftovers_of_a_crash_are_not_checkpoints_and_do_not_hinder() {
    let run = tempfile::tempdir().unwrap();
    fs::create_dir(run.path().join(".tmp-step-000002")).unwrap();
    fs::write(run.path().join(".tmp-step-000002").join("half"), b"x").unwrap();
    let first = write(run.path(), 1);
    assert_eq!(latest(run.path()).unwrap(), Some(first));
    let second = write(run.path(), 2);
    assert!(!second.join("half").exists());
}

#[test]
fn latest_passes_over_damage() {
    let run = tempfile::tempdir().unwrap();
    let first = write(run.path(), 1);
    let second = write(run.path(), 2);
    let model = second.join(MODEL);
    let mut bytes = fs::read(&model).unwrap();
    let end = bytes.len() - 1;
    bytes[end] ^= 1;
    fs::write(&model, &bytes).unwrap();
    let error = Checkpoint::open(&second).unwrap().tensors(MODEL).unwrap_err().to_string();
    assert!(error.contains("SHA-256"), "{error}");
    assert_eq!(latest(run.path()).unwrap().as_deref(), Some(first.as_path()));
    fs::write(&model, &bytes[..20]).unwrap();
    assert!(Checkpoint::open(&second).unwrap_err().to_string().contains("the manifest says"));
    fs::remove_file(second.join("manifest.json")).unwrap();
    assert_eq!(latest(run.path()).unwrap(), Some(first));
}

#[test]
fn prune_keeps_the_newest() {
    let run = tempfile::tempdir().unwrap();
    for step in [5, 30, 200] {
        write(run.path(), step);
    }
    prune(run.path(), 2).unwrap();
    let left: Vec<u64> = steps(run.path()).unwrap().into_iter().map(|(step, _)| step).collect();
    assert_eq!(left, [30, 200]);
}
