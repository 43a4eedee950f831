//! Who can load a model: a table of runtimes by architecture and tensor types.
//!
//! Every row was run on 28 November 2026, on x86-64, against files that this project exported: llama.cpp as
//! in llama-cpp-python 0.3.36, microsoft/BitNet of March and July 2026 with its fork of llama.cpp, and
//! ik_llama.cpp. `docs/formats.md` has the results.

use std::collections::BTreeSet;

use serde::Serialize;
use tritforge_config::Architecture;
use tritforge_kernels::BlockFormat;
use tritforge_ternary::Packing;

/// A program that runs models.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Runtime {
    /// This project's engine.
    #[serde(rename = "tritforge")]
    Tritforge,
    /// llama.cpp and what is built on it.
    #[serde(rename = "llama.cpp")]
    LlamaCpp,
    /// microsoft/BitNet.
    #[serde(rename = "bitnet.cpp")]
    BitnetCpp,
    /// ikawrakow/ik_llama.cpp.
    #[serde(rename = "ik_llama.cpp")]
    IkLlamaCpp,
    /// Hugging Face's library.
    #[serde(rename = "transformers")]
    Transformers,
}

impl Runtime {
    /// The name that its users know.
    pub fn name(self) -> &'static str {
        match self {
            Runtime::Tritforge => "tritforge",
            Runtime::LlamaCpp => "llama.cpp",
            Runtime::BitnetCpp => "bitnet.cpp",
            Runtime::IkLlamaCpp => "ik_llama.cpp",
            Runtime::Transformers => "transformers",
        }
    }
}

/// Whether a runtime loads a model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// The runtime.
    pub runtime: Runtime,
    /// Whether it does.
    pub loads: bool,
    /// Why not, or what to do first.
    pub note: String,
}

/// What decides who loads a GGUF file.
#[derive(Debug)]
pub(crate) struct GgufTraits<'a> {
    /// `general.architecture`.
    pub(crate) architecture: &'a str,
    /// The types of its tensors; ternary ones by the name of their layout.
    pub(crate) types: BTreeSet<&'a str>,
    /// Whether `.scale` tensors stand beside ternary weights.
    pub(crate) scales: bool,
    /// Whether the output head is a tensor of its own, not the embedding.
    pub(crate) own_head: bool,
    /// Whether the embedding or the head is ternary.
    pub(crate) ternary_tables: bool,
    /// `tokenizer.ggml.pre`, if there is one.
    pub(crate) pre: Option<&'a str>,
    /// The fewest inputs of a ternary matrix; 0 without one.
    pub(crate) least_columns: usize,
}

/// What one runtime of GGUF files knows.
struct Row {
    runtime: Runtime,
    architectures: &'static [&'static str],
    /// Ternary and binary types; all know the block formats of llama.cpp's full-precision models.
    types: &'static [&'static str],
    /// Architectures in which a `.scale` tensor beside a weight has a place; elsewhere a loader counts one
    /// tensor too many.
    scales: &'static [&'static str],
}

/// Types that not every runtime has: those of the packings, and later ones that forks do not have.
fn is_special(ty: &str) -> bool {
    ["TL1", "TL2", "Q1_0", "MXFP4", "NVFP4", "IQ2_BN_R4"].contains(&ty)
        || Packing::ALL.iter().any(|packing| packing.name() == ty)
}

const ROWS: [Row; 3] = [
    Row {
        runtime: Runtime::LlamaCpp,
        architectures: &["bitnet", "llama", "qwen2", "qwen3"],
        types: &["TQ1_0", "TQ2_0", "Q1_0", "Q2_0", "MXFP4", "NVFP4"],
        scales: &["bitnet", "llama", "qwen3"],
    },
    Row {
        runtime: Runtime::BitnetCpp,
        architectures: &["bitnet", "bitnet-b1.58", "llama", "qwen2"],
        types: &["TQ1_0", "TQ2_0", "I2_S", "I2_S_ARM"],
        scales: &["bitnet"],
    },
    // Its table of types has holes where TQ1_0 and TQ2_0 are elsewhere, and I2_S is only a source of its
    // quantizer.
    Row {
        runtime: Runtime::IkLlamaCpp,
        architectures: &["bitnet", "bitnet-b1.58", "llama", "qwen2", "qwen3"],
        types: &["IQ1_BN", "IQ2_BN", "IQ2_BN_R4", "Q1_0", "MXFP4"],
        scales: &["bitnet"],
    },
];

/// The fewest inputs of a matrix in IQ2_BN with which ik_llama.cpp does not abort.
const IQ2_BN_LEAST_COLUMNS: usize = 512;

/// Who loads a GGUF file.
pub(crate) fn gguf_verdicts(file: &GgufTraits<'_>) -> Vec<Verdict> {
    let architecture = file.architecture;
    let ours = if Architecture::from_name(architecture).is_none() {
        Some(format!("no architecture {architecture}"))
    } else {
        let known = |ty: &&str| {
            BlockFormat::from_name(ty).is_some()
                || Packing::in_file(ty, None).is_some()
                || Packing::ALL.iter().any(|packing| packing.name() == *ty)
        };
        file.types.iter().find(|ty| !known(ty)).map(|ty| format!("no type {ty}"))
    };
    let verdict = |runtime, fault: Option<String>| Verdict {
        runtime,
        loads: fault.is_none(),
        note: fault.unwrap_or_default(),
    };
    let mut verdicts = vec![verdict(Runtime::Tritforge, ours)];
    for row in &ROWS {
        let mut found = verdict(row.runtime, fault(row, file));
        if found.loads {
            found.note = advice(row.runtime, file).join("; ");
        }
        verdicts.push(found);
    }
    let export = "reads only its own layout: import the file and export it as hf-packed, hf-bf16 or hf-f32";
    verdicts.push(verdict(Runtime::Transformers, Some(export.to_string())));
    verdicts
}

/// Why a runtime cannot run a file, if it cannot.
fn fault(row: &Row, file: &GgufTraits<'_>) -> Option<String> {
    let architecture = file.architecture;
    if !row.architectures.contains(&architecture) {
        return Some(format!("no architecture {architecture}"));
    }
    if row.runtime == Runtime::IkLlamaCpp && file.types.contains("I2_S") {
        return Some(
            "I2_S only as input for requantization: llama-quantize --allow-requantize FILE OUT \
                     IQ2_BN"
                .to_string(),
        );
    }
    if let Some(ty) = file.types.iter().find(|ty| is_special(ty) && !row.types.contains(ty)) {
        return Some(format!("no type {ty}"));
    }
    if file.scales && !row.scales.contains(&architecture) {
        return Some(format!("no .scale tensors in {architecture}; i2_s needs none"));
    }
    match row.runtime {
        Runtime::BitnetCpp if architecture == "bitnet-b1.58" && file.own_head => {
            Some("it ignores the output head of bitnet-b1.58 and uses the embedding instead".to_string())
        }
        Runtime::IkLlamaCpp if file.types.contains("IQ2_BN") && file.least_columns < IQ2_BN_LEAST_COLUMNS => {
            Some(format!(
                "it aborts on IQ2_BN matrices with fewer than {IQ2_BN_LEAST_COLUMNS} columns; the file has \
                 {}",
                file.least_columns
            ))
        }
        _ => None,
    }
}

/// What to know before a runtime runs a file that it loads.
fn advice(runtime: Runtime, file: &GgufTraits<'_>) -> Vec<&'static str> {
    let mut advice = Vec::new();
    if runtime == Runtime::IkLlamaCpp && file.types.contains("IQ1_BN") {
        advice.push("not run there with IQ1_BN");
    }
    if file.ternary_tables {
        advice.push("not run there with a ternary embedding or head");
    }
    if runtime != Runtime::BitnetCpp {
        return advice;
    }
    if file.types.contains("I2_S_ARM") {
        advice.push("ARM builds only");
    }
    if file.architecture == "bitnet-b1.58" {
        advice.push(
            "builds before July 2026; later ones compute SiLU in place of squared ReLU (microsoft/BitNet issue 588)",
        );
    }
    if file.pre == Some("gpt-4o") {
        advice.push("builds after March 2026; earlier ones do not know the pre-tokenizer gpt-4o");
    }
    advice
}

/// Who loads a directory in Hugging Face's layout whose configuration this program understands.
pub(crate) fn hugging_face_verdicts() -> Vec<Verdict> {
    let others = [Runtime::LlamaCpp, Runtime::BitnetCpp, Runtime::IkLlamaCpp];
    let ours = Verdict {
        runtime: Runtime::Tritforge,
        loads: true,
        note: "eval, diff and verify directly; import and export it for generate, chat and serve".to_string(),
    };
    let theirs = Verdict { runtime: Runtime::Transformers, loads: true, note: String::new() };
    let export = |runtime| Verdict {
        runtime,
        loads: false,
        note: "GGUF only: import the directory and export it".to_string(),
    };
    [ours, theirs].into_iter().chain(others.map(export)).collect()
}

/// The runtimes that do.
pub(crate) fn loading(verdicts: &[Verdict]) -> Vec<Runtime> {
    verdicts.iter().filter(|verdict| verdict.loads).map(|verdict| verdict.runtime).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file<'a>(architecture: &'a str, types: &[&'a str], scales: bool) -> GgufTraits<'a> {
        let types = types.iter().copied().collect();
        GgufTraits {
            architecture,
            types,
            scales,
            own_head: false,
            ternary_tables: false,
            pre: None,
            least_columns: 2560,
        }
    }

    fn names(file: &GgufTraits<'_>) -> Vec<&'static str> {
        loading(&gguf_verdicts(file)).into_iter().map(Runtime::name).collect()
    }

    #[test]
    fn files_load_where_architecture_types_and_scales_are_known() {
        let all = ["tritforge", "llama.cpp", "bitnet.cpp", "ik_llama.cpp"];
        assert_eq!(names(&file("llama", &["F32", "F16"], false)), all);
        assert_eq!(names(&file("bitnet", &["F32", "Q8_0", "TQ2_0"], true)), all[..3]);
        assert_eq!(names(&file("bitnet", &["I2_S"], false)), ["tritforge", "bitnet.cpp"]);
        assert_eq!(names(&file("bitnet-b1.58", &["TQ1_0"], false)), ["tritforge", "bitnet.cpp"]);
        assert_eq!(names(&file("llama", &["TQ1_0"], true)), ["tritforge", "llama.cpp"]);
        assert_eq!(names(&file("qwen2", &["TQ1_0"], false)), all[..3]);
        assert_eq!(names(&file("bitnet-b1.58", &["IQ2_BN"], false)), ["tritforge", "ik_llama.cpp"]);
        assert_eq!(names(&file("bitnet", &["Q2_0"], true)), ["tritforge", "llama.cpp"]);
        assert_eq!(names(&file("mamba", &["F16"], false)), [""; 0]);
        let verdicts = gguf_verdicts(&file("bitnet-b1.58", &["I2_S"], false));
        assert_eq!(verdicts[1].note, "no architecture bitnet-b1.58");
        assert!(verdicts[2].note.contains("before July 2026"), "{}", verdicts[2].note);
        assert!(verdicts[3].note.contains("llama-quantize"), "{}", verdicts[3].note);
    }

    #[test]
    fn files_do_not_load_where_a_runtime_was_seen_to_fail() {
        let narrow = GgufTraits { least_columns: 256, ..file("bitnet", &["IQ2_BN"], false) };
        assert_eq!(names(&narrow), ["tritforge"]);
        let untied = GgufTraits { own_head: true, ..file("bitnet-b1.58", &["I2_S"], false) };
        assert_eq!(names(&untied), ["tritforge"]);
        let arm = gguf_verdicts(&file("bitnet-b1.58", &["I2_S_ARM"], false));
        assert!(arm[2].loads && arm[2].note.starts_with("ARM builds only"), "{}", arm[2].note);
        assert!(!arm[3].loads);
        let words = gguf_verdicts(&GgufTraits { pre: Some("gpt-4o"), ..file("bitnet", &["I2_S"], false) });
        assert!(words[2].loads && words[2].note.contains("after March 2026"), "{}", words[2].note);
        assert_eq!(gguf_verdicts(&file("bitnet", &["I2_S"], false))[2].note, "");
    }
}
