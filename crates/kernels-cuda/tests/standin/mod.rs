//! A stand-in for the driver's library over the emulator, built by g++; and this test program run on it.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

/// The folder of the kernels' crate; the tests of others use this module too.
pub(crate) fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../kernels-cuda")
}

/// Compiles C++ with the emulator.
///
/// # Panics
/// If there is no g++ or it fails.
pub(crate) fn compile(sources: &[&str], flags: &[&str], out: &Path) {
    let mut command = Command::new("g++");
    // No contraction of a · b + c, as on the GPU; fused multiply-adds by one instruction where there is one.
    command.args(["-std=c++20", "-ffp-contract=off", "-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas"]);
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("fma") {
        command.arg("-mfma");
    }
    command
        .args(flags)
        .args(["-Iemulator", "-Ikernels", "-pthread", "-x", "c++"])
        .args(sources)
        .arg("-o")
        .arg(out);
    let output = command.current_dir(folder()).output().unwrap_or_else(|error| {
        panic!("g++: {error}; the kernels' tests compile them for the CPU: install g++ 11 or newer")
    });
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// How the stand-in is compiled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Build {
    Fast,
    /// With sanitizers for addresses and undefined behavior.
    Sanitized,
}

/// The folder with the stand-in for libcuda.so.1, built at the first call.
pub(crate) fn driver(build: Build) -> &'static Path {
    static FOLDERS: [OnceLock<PathBuf>; 2] = [OnceLock::new(), OnceLock::new()];
    FOLDERS[build as usize].get_or_init(|| {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("cuda-{build:?}"));
        std::fs::create_dir_all(&folder).unwrap();
        let mut flags = vec!["-shared", "-fPIC", "-Wl,-soname,libcuda.so.1"];
        flags.extend_from_slice(match build {
            Build::Fast => &["-O2"],
            Build::Sanitized => {
                &["-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"]
            }
        });
        let sources = ["emulator/driver.cpp", "emulator/cuda_cpu.cpp"];
        // Programs that run on an older one keep it.
        let new = folder.join(format!("{}.so", std::process::id()));
        compile(&sources, &flags, &new);
        std::fs::rename(new, folder.join("libcuda.so.1")).unwrap();
        folder
    })
}

/// Runs the ignored tests of this program whose names contain `filter`, on the stand-in.
pub(crate) fn run(build: Build, seed: u32, filter: &str, leave_out: Option<&str>) -> Output {
    run_with(build, seed, filter, leave_out.map(|place| ("CUDA_CPU_LEAVE_OUT", place)))
}

/// The same with variables of the stand-in.
pub(crate) fn run_with<'v>(
    build: Build,
    seed: u32,
    filter: &str,
    variables: impl IntoIterator<Item = (&'v str, &'v str)>,
) -> Output {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args([filter, "--ignored"])
        .env("LD_LIBRARY_PATH", driver(build))
        .env("CUDA_CPU_SEED", seed.to_string())
        .envs(variables);
    if build == Build::Sanitized {
        // A library that is sanitized in a program that is not: the runtime must be there first. What the
        // program and the driver keep for its whole life are no leaks.
        let runtime = Command::new("g++").arg("-print-file-name=libasan.so").output().unwrap().stdout;
        command
            .env("LD_PRELOAD", String::from_utf8(runtime).unwrap().trim())
            .env("ASAN_OPTIONS", "detect_leaks=0");
    }
    command.output().unwrap()
}

/// What a program printed.
pub(crate) fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}
