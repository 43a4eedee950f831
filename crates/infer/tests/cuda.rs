//! The whole engine on a GPU against the CPU, bit for bit: every packing, granularity and type, prompts in
//! any split, batches.
//!
//! The tests of `on_device` need a GPU, or the stand-in for its driver on which the others run them.
#![cfg(feature = "cuda")]

mod common;
mod on_device;
#[path = "../../kernels-cuda/tests/standin/mod.rs"]
mod standin;

use std::collections::HashMap;

use standin::{Build, run, run_with, text};

#[test]
fn logits_have_the_bits_of_the_cpu_under_every_schedule() {
    for seed in [1, 2] {
        let output = run(Build::Fast, seed, "on_device", None);
        assert!(output.status.success(), "seed {seed}: {}", text(&output));
        assert!(text(&output).contains("test on_device::"), "no tests were run: {}", text(&output));
    }
}

#[test]
fn the_engine_stays_within_its_memory() {
    for filter in ["on_device::batches", "on_device::decoding::single_tokens"] {
        let output = run(Build::Sanitized, 1, filter, None);
        assert!(output.status.success(), "{}", text(&output));
    }
}

/// What the stand-in counted while these tests ran.
fn counted(filter: &str, refused: Option<&str>) -> HashMap<String, u64> {
    let file = tempfile::NamedTempFile::new().unwrap().into_temp_path();
    let mut variables = vec![("CUDA_CPU_COUNTS", file.to_str().unwrap())];
    variables.extend(refused.map(|name| ("CUDA_CPU_REFUSE", name)));
    let output = run_with(Build::Fast, 1, filter, variables);
    assert!(output.status.success(), "{refused:?}: {}", text(&output));
    let counts = std::fs::read_to_string(&file).unwrap();
    let count =
        |line: &str| line.split_once(' ').map(|(what, n)| (what.to_string(), n.parse().unwrap())).unwrap();
    counts.lines().map(count).collect()
}

#[test]
fn tokens_are_decoded_by_graphs_or_without_if_the_driver_refuses() {
    let with = counted("on_device::decoding::single_tokens", None);
    assert!(with["graph_launches"] > 50 && with["captures"] < with["graph_launches"] / 4, "{with:?}");
    for refused in ["cuStreamBeginCapture_v2", "cuStreamEndCapture", "cuGraphInstantiateWithFlags"] {
        let without = counted("on_device::decoding::single_tokens", Some(refused));
        assert!(without["graph_launches"] == 0 && without["launches"] > with["launches"], "{without:?}");
    }
}

/// The engine's choices need no logits but the few that can be chosen.
#[test]
fn few_logits_are_copied_for_a_choice() {
    let copied = counted("on_device::decoding::choices", None)["bytes_down"];
    assert!(copied > 0 && copied < on_device::decoding::CHOICES as u64 * 4 * 257 / 2, "{copied} bytes");
}
