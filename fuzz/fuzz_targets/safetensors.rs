//! A safetensors file of a checkpoint: refused, or every tensor that it lists can be asked for.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tritforge_checkpoint::Tensors;

fuzz_target!(|bytes: &[u8]| {
    let Ok(directory) = tempfile::tempdir() else { return };
    let path = directory.path().join("model.safetensors");
    if std::fs::write(&path, bytes).is_err() {
        return;
    }
    let Ok(tensors) = Tensors::open(&path) else { return };
    for (name, shape, _) in tensors.list().unwrap_or_default() {
        let _ = tensors.raw(&name);
        let _ = tensors.f32(&name, &shape);
    }
});
