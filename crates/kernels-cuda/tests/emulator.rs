//! The emulator stops faulty kernels, and the stand-in driver what captures forbid.

#[allow(dead_code, reason = "the other tests run programs on the stand-in")]
mod standin;

use std::process::Command;

use standin::{Build, compile, driver, text};

#[test]
fn faulty_kernels_are_stopped_and_a_correct_one_is_not() {
    let program = tempfile::NamedTempFile::new().unwrap().into_temp_path();
    let flags = ["-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"];
    compile(&["emulator/faults.cpp", "emulator/cuda_cpu.cpp"], &flags, &program);
    let cases = [
        ("", ""),
        ("an unaligned copy", "not aligned"),
        ("a copy that nobody waits for", "before its asynchronous copies"),
        ("a shuffle in a branch", "cuda_cpu: "),
        ("a lane that ends early", "cuda_cpu: "),
        ("different operations", "different operations"),
        ("a shuffle of half a warp", "only whole warps"),
        ("a write beyond shared memory", "heap-buffer-overflow"),
    ];
    for seed in ["0", "1", "2"] {
        for (fault, message) in cases {
            let output = Command::new(&program).arg(fault).env("CUDA_CPU_SEED", seed).output().unwrap();
            assert_eq!(output.status.success(), fault.is_empty(), "{fault}, seed {seed}: {}", text(&output));
            assert!(text(&output).contains(message), "{fault}, seed {seed}: {}", text(&output));
        }
    }
}

#[test]
fn captures_become_graphs_and_forbid_what_a_driver_forbids() {
    let program = tempfile::NamedTempFile::new().unwrap().into_temp_path();
    let library = driver(Build::Fast);
    let path = library.join("libcuda.so.1");
    let flags = ["-O1", "-Wl,--no-as-needed", path.to_str().unwrap()];
    compile(&["emulator/captures.cpp"], &flags, &program);
    let output = Command::new(&program).env("LD_LIBRARY_PATH", library).output().unwrap();
    assert!(output.status.success(), "line {:?} of captures.cpp: {}", output.status.code(), text(&output));
}
