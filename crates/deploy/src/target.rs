//! Machines to serve on: built in, from a file, or this one.

use std::fmt;
use std::path::Path;

use serde::{Deserialize, Serialize};
use toml::Value;
use tritforge_infer::EngineLayout;
use tritforge_kernels::{Backend, KvType, TernaryLayout, threads};

use crate::size::parse;
use crate::{DeployError, readable};

macro_rules! built_in {
    ($($name:literal),*) => {
        /// The built-in targets: name, machine, and the preset of the service that goes with it.
        pub const BUILT_IN: &[(&str, &str, &str)] = &[$((
            $name,
            include_str!(concat!("../../../configs/deploy/", $name, ".toml")),
            include_str!(concat!("../../../configs/serve/", $name, ".toml")),
        )),*];
    };
}
built_in!("mobile", "edge", "server", "cloud");

/// The name of this machine as a target.
pub(crate) const HERE: &str = "here";

/// The keys of a target's file.
const KEYS: &str = "cores, memory, bandwidth (GB/s), isa, concurrency, context, kv (optional), about (optional), preset (optional)";
/// Bytes of a file at most.
const LONGEST: u64 = 1 << 20;

/// An instruction set, as far as the layout of weights depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isa {
    /// One of the engine's backends.
    Backend(Backend),
    /// AVX-512 VNNI with VBMI, on which weights take 1.6 bits.
    Avx512Vbmi,
}

/// The names of all instruction sets.
const ISAS: [(&str, Isa); 8] = [
    ("scalar", Isa::Backend(Backend::Scalar)),
    ("neon", Isa::Backend(Backend::Neon)),
    ("neon-dot", Isa::Backend(Backend::NeonDot)),
    ("neon-i8mm", Isa::Backend(Backend::NeonI8mm)),
    ("avx2", Isa::Backend(Backend::Avx2)),
    ("avx-vnni", Isa::Backend(Backend::AvxVnni)),
    ("avx512", Isa::Backend(Backend::Avx512Vnni)),
    ("avx512-vbmi", Isa::Avx512Vbmi),
];

impl Isa {
    fn named(name: &str) -> Option<Self> {
        ISAS.into_iter().find(|(known, _)| *known == name).map(|(_, isa)| isa)
    }

    /// That of this machine.
    pub fn here() -> Self {
        match EngineLayout::here().ternary {
            TernaryLayout::FiveTrits => Self::Avx512Vbmi,
            TernaryLayout::TwoBits => Self::Backend(Backend::active()),
        }
    }

    /// How the engine lays weights out with it.
    pub fn layout(self) -> EngineLayout {
        let of_x86 = [Backend::Avx2, Backend::AvxVnni, Backend::Avx512Vnni].map(Self::Backend);
        let x86 = self == Self::Avx512Vbmi || of_x86.contains(&self);
        let five_trits = self == Self::Avx512Vbmi;
        EngineLayout {
            ternary: if five_trits { TernaryLayout::FiveTrits } else { TernaryLayout::TwoBits },
            rearranges_head: x86,
        }
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = ISAS.iter().find(|(_, isa)| isa == self).map_or("", |(name, _)| *name);
        f.pad(name)
    }
}

/// A machine, and what is asked of it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Target {
    /// Its name: that of the file without the extension.
    pub name: String,
    /// What it is, for people.
    pub about: String,
    /// Cores that the service may use.
    pub cores: usize,
    /// Bytes that the service may take.
    pub memory: u64,
    /// Bytes a second that the cores read from memory together.
    pub bandwidth: f64,
    /// Its instruction set.
    #[serde(serialize_with = "as_text")]
    pub isa: Isa,
    /// Requests at once.
    pub concurrency: usize,
    /// Tokens of a request, prompt and answer.
    pub context: usize,
    /// How keys and values are stored.
    #[serde(serialize_with = "as_text")]
    pub kv: KvType,
    /// The preset of the service that gives what does not depend on the model.
    pub preset: String,
}

fn as_text<S: serde::Serializer>(named: &impl fmt::Display, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(named)
}

/// A file as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    about: String,
    cores: usize,
    memory: Value,
    bandwidth: f64,
    isa: String,
    concurrency: usize,
    context: usize,
    kv: Option<String>,
    preset: Option<String>,
}

impl Target {
    /// A built-in target, this machine (`here`), or that of a file.
    ///
    /// # Errors
    /// If it is none of these, or a key of the file is missing, unknown, or out of its range.
    pub fn named(name: &str) -> Result<Self, DeployError> {
        if let Some((_, text, _)) = BUILT_IN.iter().find(|(known, ..)| *known == name) {
            return Self::from_toml(name, name, text);
        }
        if name == HERE {
            return Self::here();
        }
        let path = Path::new(name);
        if !path.is_file() {
            let known: Vec<&str> = BUILT_IN.iter().map(|(name, ..)| *name).chain([HERE]).collect();
            return Err(DeployError::NoTarget {
                found: name.to_string(),
                expected: known.join(", "),
                keys: KEYS,
            });
        }
        let read = |source| DeployError::Read { path: path.to_path_buf(), source };
        let length = std::fs::metadata(path).map_err(read)?.len();
        if length > LONGEST {
            let message = format!("{length} bytes; expected at most {LONGEST}");
            return Err(DeployError::Target { place: name.to_string(), message });
        }
        let text = std::fs::read_to_string(path).map_err(read)?;
        let stem = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
        Self::from_toml(&stem, name, &text)
    }

    /// The target that a text describes; errors say `place`.
    fn from_toml(name: &str, place: &str, text: &str) -> Result<Self, DeployError> {
        let fault = |message: String| DeployError::Target { place: place.to_string(), message };
        let file: File = toml::from_str(text).map_err(|e| fault(format!("{e}; the keys are {KEYS}")))?;
        let memory = match &file.memory {
            Value::Integer(bytes) => parse(&bytes.to_string()),
            Value::String(text) => parse(text),
            other => Err(format!("memory: {}; expected a size such as \"4 GiB\"", other.type_str())),
        };
        let isa = Isa::named(&file.isa).ok_or_else(|| {
            let known: Vec<&str> = ISAS.iter().map(|(name, _)| *name).collect();
            fault(format!("isa {:?}: expected {}", file.isa, known.join(", ")))
        })?;
        let kv = file.kv.map_or(Ok(KvType::default()), |name| name.parse());
        let kv = kv.map_err(|e| fault(format!("kv: {e}")))?;
        let preset = file.preset.unwrap_or_else(|| "server".to_string());
        if !BUILT_IN.iter().any(|(known, ..)| *known == preset) {
            let known: Vec<&str> = BUILT_IN.iter().map(|(name, ..)| *name).collect();
            return Err(fault(format!("preset {preset:?}: expected {}", known.join(", "))));
        }
        for (key, found, most) in [
            ("cores", file.cores, 1024),
            ("concurrency", file.concurrency, 256),
            ("context", file.context, 1 << 30),
        ] {
            if !(1..=most).contains(&found) {
                return Err(fault(format!("{key} {found}: expected 1 to {most}")));
            }
        }
        if !(0.001..=1e6).contains(&file.bandwidth) {
            return Err(fault(format!("bandwidth {}: expected GB/s, 0.001 to 1000000", file.bandwidth)));
        }
        Ok(Self {
            name: name.to_string(),
            about: file.about,
            cores: file.cores,
            memory: memory.map_err(fault)?,
            bandwidth: file.bandwidth * 1e9,
            isa,
            concurrency: file.concurrency,
            context: file.context,
            kv,
            preset,
        })
    }

    /// This machine as it is now: the threads that this process has, the memory that is free, the bandwidth that they
    /// measure.
    fn here() -> Result<Self, DeployError> {
        let memory = tritforge_machine::available_memory().ok_or_else(|| {
            DeployError::Here(
                "the system does not say how much memory is free; write a target's file".to_string(),
            )
        })?;
        let bandwidth = tritforge_machine::read_bandwidth()
            .map_err(|e| DeployError::Here(format!("no memory to measure the bandwidth with: {e}")))?;
        Ok(Self {
            name: HERE.to_string(),
            about: format!("this machine, {} free", readable(memory)),
            cores: threads(),
            memory,
            bandwidth,
            isa: Isa::here(),
            concurrency: 2,
            context: 4096,
            kv: KvType::default(),
            preset: "server".to_string(),
        })
    }

    /// The options of the preset, as its file has them.
    pub(crate) fn preset_text(&self) -> &'static str {
        BUILT_IN.iter().find(|(name, ..)| *name == self.preset).map_or("", |(_, _, text)| *text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn built_in_targets_agree_with_their_presets() {
        for (name, _, preset) in BUILT_IN {
            let target = Target::named(name).unwrap();
            let preset: toml::Table = toml::from_str(preset).unwrap();
            assert_eq!(preset["concurrency"].as_integer(), Some(target.concurrency as i64), "{name}");
            if let Some(threads) = preset.get("threads") {
                assert_eq!(threads.as_integer(), Some(target.cores as i64), "{name}");
            }
            assert_eq!(&target.preset, name);
            assert!(!target.about.is_empty());
        }
    }

    #[test]
    fn what_is_wrong_with_a_file_is_named() {
        let good =
            "cores = 4\nmemory = \"1 GiB\"\nbandwidth = 10\nisa = \"avx2\"\nconcurrency = 2\ncontext = 512\n";
        assert!(Target::from_toml("t", "t.toml", good).is_ok());
        for (from, to, expected) in [
            ("cores = 4", "cores = 0", "cores 0: expected 1 to 1024"),
            ("cores = 4", "", "missing field `cores`"),
            ("\"1 GiB\"", "true", "memory: boolean"),
            ("\"1 GiB\"", "-5", "memory \"-5\""),
            ("\"1 GiB\"", "\"lots\"", "memory \"lots\""),
            ("= 10", "= 0", "bandwidth 0"),
            ("= 10", "= nan", "bandwidth NaN"),
            ("avx2", "sse", "isa \"sse\": expected scalar"),
            ("concurrency = 2", "concurrency = 257", "concurrency 257: expected 1 to 256"),
            ("context = 512", "context = 512\ncontxt = 3", "unknown field `contxt`"),
            (
                "context = 512",
                "context = 512\nkv = \"q4\"",
                "kv: unknown type of keys and values \"q4\": expected f32",
            ),
            ("context = 512", "context = 512\npreset = \"x\"", "preset \"x\": expected mobile"),
        ] {
            let error =
                Target::from_toml("t", "t.toml", &good.replacen(from, to, 1)).unwrap_err().to_string();
            assert!(error.contains("t.toml") && error.contains(expected), "{error}");
        }
        let error = Target::named("nowhere").unwrap_err().to_string();
        assert!(error.contains("mobile, edge, server, cloud, here"), "{error}");
    }

    #[test]
    fn every_instruction_set_has_a_name() {
        for (name, isa) in ISAS {
            assert_eq!(isa.to_string(), name);
        }
        // What the engine does on this machine is what a plan for its instruction set says.
        assert_eq!(Isa::here().layout(), EngineLayout::here());
    }
}
