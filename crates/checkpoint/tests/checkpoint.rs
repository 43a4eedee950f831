//! A checkpoint is whole or absent, and damage is named.

use std::fs;
use std::path::Path;

use half::bf16;
use safetensors::SafeTensors;
use tritforge_checkpoint::{
    Checkpoint, Dtype, MODEL, TensorView, Tensors, Writer, check_room, latest, prune, step_dir, steps,
};
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
fn prune_keeps_the_newest_and_the_best() {
    let run = tempfile::tempdir().unwrap();
    for step in [5, 30, 200, 1000] {
        write(run.path(), step);
    }
    let left = || steps(run.path()).unwrap().into_iter().map(|(step, _)| step).collect::<Vec<_>>();
    prune(run.path(), 2, &[5]).unwrap();
    assert_eq!(left(), [5, 200, 1000]);
    prune(run.path(), 2, &[1000]).unwrap();
    assert_eq!(left(), [200, 1000]);
    prune(run.path(), 1, &[]).unwrap();
    assert_eq!(left(), [1000]);
}

#[test]
fn tensors_of_both_types_are_read_by_the_safetensors_crate() {
    let run = tempfile::tempdir().unwrap();
    let dir = step_dir(run.path(), 1);
    let mut writer = Writer::create(&dir).unwrap();
    let (wide, narrow) = ([1.5f32, -2.0, 3.25], [1.5f32, -2.0].map(bf16::from_f32));
    // Odd counts, and a bf16 tensor whose name comes first: nothing may be misaligned.
    let tensors = [TensorView::bf16("a", &[2, 1], &narrow), TensorView::new("b", &[3], &wide)];
    writer.write_tensors("t", &tensors).unwrap();
    let twice = [TensorView::new("b", &[3], &wide), TensorView::new("b", &[3], &wide)];
    assert!(writer.write_tensors("u", &twice).unwrap_err().to_string().contains("two tensors"));
    let short = [TensorView::new("b", &[4], &wide)];
    assert!(writer.write_tensors("u", &short).is_err());
    writer.commit().unwrap();

    let bytes = fs::read(dir.join("t")).unwrap();
    let theirs = SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(theirs.tensor("a").unwrap().data(), bytemuck::cast_slice::<bf16, u8>(&narrow));
    assert_eq!(theirs.tensor("b").unwrap().data(), bytemuck::cast_slice::<f32, u8>(&wide));
    let ours = Checkpoint::open(&dir).unwrap().tensors("t").unwrap();
    assert_eq!(ours.bf16("a", &[2, 1]).unwrap(), narrow);
    assert_eq!(ours.f32("a", &[2, 1]).unwrap().as_ref(), [1.5, -2.0]);
    assert_eq!(ours.f32("b", &[3]).unwrap().as_ref(), wide);
    assert!(ours.bf16("b", &[3]).unwrap_err().to_string().contains("expected BF16"));
}

#[test]
fn room_is_asked_for_before_a_run() {
    let run = tempfile::tempdir().unwrap();
    let out = run.path().join("runs/new");
    check_room(&out, 1).unwrap();
    assert_eq!(fs::read_dir(&out).unwrap().count(), 0);
    let error = check_room(&out, u64::MAX).unwrap_err().to_string();
    assert!(error.contains("MB free") && error.contains("runs/new"), "{error}");
    fs::write(run.path().join("file"), "").unwrap();
    let error = check_room(&run.path().join("file/new"), 1).unwrap_err().to_string();
    assert!(error.contains("cannot create"), "{error}");
}

#[test]
fn tensors_with_nan_or_infinity_are_neither_written_nor_read() {
    let run = tempfile::tempdir().unwrap();
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let values = [0.5, 1.5, bad, 2.5];
        let narrow = values.map(bf16::from_f32);
        let mut writer = Writer::create(&step_dir(run.path(), 1)).unwrap();
        let place = format!("row 1, column 0 is {bad}");
        for view in [TensorView::new("w", &[2, 2], &values), TensorView::bf16("w", &[2, 2], &narrow)] {
            let error = writer.write_tensors("t", &[view]).unwrap_err().to_string();
            assert!(error.contains("tensor w") && error.contains(&place), "{error}");
        }
        drop(writer);

        // A file of another program that holds one.
        let file = run.path().join("other.safetensors");
        for (dtype, bytes) in [
            (Dtype::F32, values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>()),
            (Dtype::BF16, narrow.iter().flat_map(|v| v.to_le_bytes()).collect()),
            (Dtype::F16, values.iter().flat_map(|v| half::f16::from_f32(*v).to_le_bytes()).collect()),
        ] {
            let view = safetensors::tensor::TensorView::new(dtype, vec![2, 2], &bytes).unwrap();
            fs::write(&file, safetensors::serialize([("w", view)], None).unwrap()).unwrap();
            let tensors = Tensors::open(&file).unwrap();
            let error = tensors.f32("w", &[2, 2]).unwrap_err().to_string();
            assert!(error.contains("tensor w") && error.contains(&place), "{error}");
            assert_eq!(tensors.f32_as_stored("w", &[2, 2]).unwrap()[2].to_bits() & 0x7f80_0000, 0x7f80_0000);
            if dtype == Dtype::BF16 {
                assert!(tensors.bf16("w", &[2, 2]).unwrap_err().to_string().contains(&place));
            }
        }
    }
}
