//! A thousand damaged checkpoints of Hugging Face: each is imported or refused, and what is refused leaves
//! nothing behind.

#[path = "../../../tests/mutations/mod.rs"]
mod mutations;
#[path = "../../../tests/mutations/tensors.rs"]
mod tensors;

use std::fs;
use std::path::{Path, PathBuf};

use mutations::{Random, mutate};
use tensors::read_all;
use tritforge_checkpoint::MODEL;
use tritforge_export::{ImportOptions, import};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden").join(name)
}

#[test]
fn a_thousand_damaged_checkpoints() {
    let temp = tempfile::tempdir().unwrap();
    let source = temp.path().join("source");
    let mut random = Random(41);
    let (mut read, mut imported, mut refused) = (0, 0, 0);
    for name in ["bitnet_packed/bitlinear", "llama_tiny"] {
        let _ = fs::remove_dir_all(&source);
        fs::create_dir(&source).unwrap();
        let weights = fs::read(golden(name).join(MODEL)).unwrap();
        let config = fs::read(golden(name).join("config.json")).unwrap();
        let file = source.join(MODEL);
        // Changes to the numbers change nothing that can be found: the header is what is damaged.
        let header = 8 + u64::from_le_bytes(weights[..8].try_into().unwrap()) as usize;
        for i in 0..500 {
            let damaged_config = i % 4 == 3;
            let mut bytes =
                if damaged_config { weights.clone() } else { mutate(&weights[..header], &mut random) };
            if !damaged_config {
                bytes.extend_from_slice(&weights[header..]);
            }
            fs::write(&file, &bytes).unwrap();
            let json = if damaged_config { mutate(&config, &mut random) } else { config.clone() };
            fs::write(source.join("config.json"), json).unwrap();
            if !damaged_config {
                read += usize::from(read_all(&file));
            }
            let out = temp.path().join("out");
            match import(&source, &out, &ImportOptions::default()) {
                Ok(_) => {
                    imported += 1;
                    fs::remove_dir_all(&out).unwrap();
                }
                Err(error) => {
                    assert!(!error.to_string().is_empty());
                    assert!(!out.exists(), "{error}");
                    refused += 1;
                }
            }
        }
    }
    // Both sides are exercised.
    assert!(
        read > 5 && imported > 10 && refused > 500,
        "{read} read, {imported} imported, {refused} refused"
    );
}
