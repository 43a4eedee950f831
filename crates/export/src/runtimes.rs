//! Who can load a model: a table of runtimes by architecture and tensor types.
//!
//! Sources: `llama-arch.cpp` and the loaders of llama.cpp (llama-cpp-python 0.3.36), microsoft/BitNet with its fork of llama.cpp, and
//! ik_llama.cpp (`src/llama-load-tensors.cpp`, August 2026). Only llama.cpp has been run against files of this project.

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

/// What one runtime of GGUF files knows.
struct Row {
    runtime: Runtime,
    architectures: &'static [&'static str],
    /// Ternary and binary types; all know the block formats of llama.cpp's full-precision models.
    types: &'static [&'static str],
    /// Architectures in which a `.scale` tensor beside a weight has a place; elsewhere a loader counts one tensor too many.
    scales: &'static [&'static str],
}

/// Types that came with ternary and binary models, and later ones that forks do not have.
const SPECIAL: [&str; 11] =
    ["TQ1_0", "TQ2_0", "I2_S", "I2_S_ARM", "IQ1_BN", "IQ2_BN", "TL1", "TL2", "Q1_0", "Q2_0", "NVFP4"];

const ROWS: [Row; 3] = [
    Row {
        runtime: Runtime::LlamaCpp,
        architectures: &["bitnet", "llama", "qwen2", "qwen3"],
        types: &["TQ1_0", "TQ2_0", "Q1_0", "Q2_0", "NVFP4"],
        scales: &["bitnet", "llama", "qwen3"],
    },
    Row {
        runtime: Runtime::BitnetCpp,
        architectures: &["bitnet", "bitnet-b1.58", "llama"],
        types: &["TQ1_0", "TQ2_0", "I2_S", "I2_S_ARM"],
        scales: &["bitnet"],
    },
    Row {
        runtime: Runtime::IkLlamaCpp,
        architectures: &["bitnet", "bitnet-b1.58", "llama", "qwen2", "qwen3"],
        types: &["TQ1_0", "TQ2_0", "I2_S", "IQ1_BN", "IQ2_BN"],
        scales: &["bitnet"],
    },
];

/// Who loads a GGUF file of an architecture whose weights have these types; `scales` says whether `.scale` tensors stand beside
/// ternary weights.
pub(crate) fn gguf_verdicts(architecture: &str, types: &BTreeSet<&str>, scales: bool) -> Vec<Verdict> {
    let ours = if Architecture::from_name(architecture).is_none() {
        Some(format!("no architecture {architecture}"))
    } else {
        let known = |ty: &&str| {
            BlockFormat::from_name(ty).is_some() || Packing::ALL.iter().any(|packing| packing.name() == *ty)
        };
        types.iter().find(|ty| !known(ty)).map(|ty| format!("no type {ty}"))
    };
    let verdict = |runtime, fault: Option<String>| Verdict {
        runtime,
        loads: fault.is_none(),
        note: fault.unwrap_or_default(),
    };
    let mut verdicts = vec![verdict(Runtime::Tritforge, ours)];
    for row in &ROWS {
        let unknown = types.iter().find(|ty| SPECIAL.contains(ty) && !row.types.contains(ty));
        let fault = if !row.architectures.contains(&architecture) {
            Some(format!("no architecture {architecture}"))
        } else if let Some(ty) = unknown {
            Some(format!("no type {ty}"))
        } else if scales && !row.scales.contains(&architecture) {
            Some(format!("no .scale tensors in {architecture}: i2_s has none"))
        } else {
            None
        };
        verdicts.push(verdict(row.runtime, fault));
    }
    let export = "its own layout only: import the file and export it as hf-packed, hf-bf16 or hf-f32";
    verdicts.push(verdict(Runtime::Transformers, Some(export.to_string())));
    verdicts
}

/// Who loads a directory in Hugging Face's layout whose configuration this program understands.
pub(crate) fn hugging_face_verdicts() -> Vec<Verdict> {
    let others = [Runtime::LlamaCpp, Runtime::BitnetCpp, Runtime::IkLlamaCpp];
    let ours = Verdict {
        runtime: Runtime::Tritforge,
        loads: true,
        note: "eval, diff and verify as it is; import it to run it".to_string(),
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

    fn names(architecture: &str, types: &[&str], scales: bool) -> Vec<&'static str> {
        let verdicts = gguf_verdicts(architecture, &types.iter().copied().collect(), scales);
        loading(&verdicts).into_iter().map(Runtime::name).collect()
    }

    #[test]
    fn files_load_where_architecture_types_and_scales_are_known() {
        let all = ["tritforge", "llama.cpp", "bitnet.cpp", "ik_llama.cpp"];
        assert_eq!(names("bitnet", &["F32", "Q8_0", "TQ2_0"], true), all);
        assert_eq!(names("llama", &["F32", "F16"], false), all);
        assert_eq!(names("bitnet", &["I2_S"], false), ["tritforge", "bitnet.cpp", "ik_llama.cpp"]);
        assert_eq!(names("bitnet-b1.58", &["TQ1_0"], false), ["tritforge", "bitnet.cpp", "ik_llama.cpp"]);
        assert_eq!(names("llama", &["TQ1_0"], true), ["tritforge", "llama.cpp"]);
        assert_eq!(names("qwen2", &["TQ1_0"], false), ["tritforge", "llama.cpp", "ik_llama.cpp"]);
        assert_eq!(names("bitnet-b1.58", &["IQ2_BN"], false), ["tritforge", "ik_llama.cpp"]);
        assert_eq!(names("bitnet", &["Q2_0"], true), ["tritforge", "llama.cpp"]);
        assert_eq!(names("bitnet-b1.58", &["I2_S_ARM"], false), ["tritforge", "bitnet.cpp"]);
        assert_eq!(names("mamba", &["F16"], false), [""; 0]);
        let verdicts = gguf_verdicts("bitnet-b1.58", &BTreeSet::from(["I2_S"]), false);
        assert_eq!(verdicts[1].note, "no architecture bitnet-b1.58");
    }
}
