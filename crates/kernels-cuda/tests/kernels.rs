//! The kernels against those of the CPU, bit for bit, on odd shapes.
//!
//! The tests of `on_device` need a GPU, or the stand-in for its driver on which the other tests run them:
//! under an odd and an even schedule, with sanitizers, and with each barrier left out in turn, which must be
//! found.

mod on_device;
mod standin;

use standin::{Build, run, text};

#[test]
fn kernels_have_the_bits_of_the_cpu_under_every_schedule() {
    for seed in [1, 2] {
        let output = run(Build::Fast, seed, "on_device", None);
        assert!(output.status.success(), "seed {seed}: {}", text(&output));
        assert!(text(&output).contains("test on_device::"), "no tests were run: {}", text(&output));
    }
}

#[test]
fn kernels_stay_within_their_memory() {
    for seed in [1, 2] {
        let output = run(Build::Sanitized, seed, "on_device", None);
        assert!(output.status.success(), "seed {seed}: {}", text(&output));
    }
}

#[test]
fn a_barrier_or_a_wait_that_is_left_out_is_found() {
    let (mut places, mut not_found) = (0, Vec::new());
    for file in ["attention", "largest", "rows", "ternary"] {
        let path = standin::folder().join(format!("kernels/{file}.cu"));
        let source = std::fs::read_to_string(path).unwrap();
        for (i, line) in source.lines().enumerate() {
            if !line.contains("__syncthreads();") && !line.contains("wait_copies<") {
                continue;
            }
            places += 1;
            let place = format!("{file}.cu:{}", i + 1);
            let found = (1..=4).any(|seed| {
                !run(Build::Fast, seed, &format!("on_device::{file}"), Some(&place)).status.success()
            });
            if !found {
                not_found.push(format!("{place}: {}", line.trim()));
            }
        }
    }
    assert!(places > 10, "{places} places");
    assert!(not_found.is_empty(), "no schedule shows that these are missing: {not_found:#?}");
}

#[test]
fn without_a_driver_or_with_an_old_one_the_error_says_what_is_missing() {
    let folder = tempfile::tempdir().unwrap();
    let message = || {
        let mut command = std::process::Command::new(std::env::current_exe().unwrap());
        command.args(["on_device::rows::rope", "--ignored"]).env("LD_LIBRARY_PATH", folder.path());
        text(&command.output().unwrap())
    };
    // Not libraries, but in the way of any driver that this machine has.
    for name in ["libcuda.so.1", "libcuda.so"] {
        std::fs::write(folder.path().join(name), "").unwrap();
    }
    let found = message();
    assert!(found.contains("no CUDA driver was found (") && found.contains("libcuda.so.1"), "{found}");
    let source = folder.path().join("old.cpp");
    std::fs::write(&source, "extern \"C\" int cuInit(unsigned) { return 0; }").unwrap();
    let out = folder.path().join("libcuda.so.1");
    standin::compile(&[source.to_str().unwrap()], &["-shared", "-fPIC"], &out);
    let found = message();
    assert!(found.contains("the CUDA driver has no function cuGetErrorName; it is too old"), "{found}");
}
