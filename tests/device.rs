//! `--device` where there is no GPU: a clear error, and the CPU for `auto`.

use std::path::Path;
use std::process::{Command, Output};

fn tritforge(folder: &Path, arguments: &[&str]) -> Output {
    // What is no library is in the way of any driver that this machine has.
    Command::new(env!("CARGO_BIN_EXE_tritforge"))
        .current_dir(folder)
        .env("LD_LIBRARY_PATH", folder)
        .args(arguments)
        .output()
        .unwrap()
}

fn error(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn without_a_gpu_the_error_says_what_is_missing_and_auto_takes_the_cpu() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["libcuda.so.1", "libcuda.so"] {
        std::fs::write(folder.path().join(name), "").unwrap();
    }
    let shape = "vocab_size = 300\nhidden_size = 256\nintermediate_size = 256\nnum_hidden_layers = 1\n\
        num_attention_heads = 4\nnum_key_value_heads = 2\nmax_position_embeddings = 64\n";
    std::fs::write(folder.path().join("shape.toml"), shape).unwrap();
    let run = |arguments: &[&str]| tritforge(folder.path(), arguments);
    let made = run(&["synth", "shape.toml", "-o", "model.gguf"]);
    assert!(made.status.success(), "{}", error(&made));

    let generate = ["generate", "model.gguf", "--prompt", "a", "-n", "3", "--temperature", "0", "--quiet"];
    let on = |device: &str| run(&[&generate[..], &["--device", device]].concat());
    let missing = if cfg!(feature = "cuda") { "no CUDA driver was found (" } else { "built without CUDA" };
    for device in ["cuda", "cuda:1"] {
        let output = on(device);
        let number = if device == "cuda" { "cuda:0" } else { device };
        assert_eq!(output.status.code(), Some(1));
        assert!(error(&output).contains(&format!("device {number}: ")), "{}", error(&output));
        assert!(error(&output).contains(missing) && output.stdout.is_empty(), "{}", error(&output));
    }
    let cpu = on("cpu");
    assert!(cpu.status.success() && cpu.stderr.is_empty(), "{}", error(&cpu));
    let auto = on("auto");
    assert!(auto.status.success() && auto.stdout == cpu.stdout, "{}", error(&auto));
    let said = error(&auto);
    assert!(said.starts_with("--device auto: running on the CPU: ") && said.contains(missing), "{said}");

    let unknown = on("gpu");
    assert_eq!(unknown.status.code(), Some(2));
    assert!(error(&unknown).contains("expected auto, cpu, cuda or cuda:N"), "{}", error(&unknown));
    let bench = run(&["bench", "model.gguf", "-p", "4", "-n", "0", "--repetitions", "1", "--device", "cuda"]);
    assert!(bench.status.code() == Some(1) && error(&bench).contains(missing), "{}", error(&bench));
    std::fs::write(folder.path().join("text.txt"), "abc abc").unwrap();
    for command in [
        &["chat", "model.gguf", "--template", "plain"][..],
        &["serve", "model.gguf", "--port", "0"],
        #[cfg(feature = "train")]
        &["eval", "model.gguf", "--text", "text.txt"],
    ] {
        let output = run(&[command, &["--device", "cuda"]].concat());
        let said = error(&output);
        assert!(output.status.code() == Some(1) && said.contains(missing), "{command:?}: {said}");
        assert!(output.stdout.is_empty(), "{command:?}");
    }
    let bench = run(&["bench", "model.gguf", "--roofline", "--device", "cuda"]);
    assert!(error(&bench).contains("--roofline and --patterns are for the CPU"), "{}", error(&bench));
}
