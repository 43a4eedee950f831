//! Run-time choice of the instruction set: detected once, or named by `TRITFORGE_BACKEND`.

use std::fmt;
use std::str::FromStr;
use std::sync::OnceLock;

use thiserror::Error;

/// The environment variable that overrides the detected backend.
const VARIABLE: &str = "TRITFORGE_BACKEND";

/// An implementation of the integer kernels. All give the same bits; they differ in speed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Backend {
    /// Portable Rust: the reference, and the only one outside x86-64 and aarch64.
    Scalar,
    /// 128-bit `smlal` with 16-bit partial sums: any aarch64 processor.
    Neon,
    /// 128-bit `sdot` (dotprod).
    NeonDot,
    /// 128-bit `smmla` for several tokens (i8mm), `sdot` for few.
    NeonI8mm,
    /// 256-bit `vpmaddubsw` with 16-bit partial sums.
    Avx2,
    /// 256-bit `vpdpbusd` (AVX-VNNI): processors without AVX-512 since Alder Lake. What is not a product of codes is
    /// the code of AVX2.
    AvxVnni,
    /// 512-bit `vpdpbusd` (AVX-512 F, BW, VL, VNNI).
    Avx512Vnni,
}

/// Why a backend that was asked for cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum BackendError {
    /// No backend has this name.
    #[error("unknown backend {found:?}: expected one of {}", names(&Backend::ALL))]
    Unknown {
        /// The name given.
        found: String,
    },
    /// The processor lacks the instructions.
    #[error("this processor does not support the {backend} backend; supported here: {}", names(supported))]
    Unsupported {
        /// The backend asked for.
        backend: Backend,
        /// What this processor can run, slowest first.
        supported: Vec<Backend>,
    },
}

impl Backend {
    /// All backends, those of one architecture slowest first.
    pub const ALL: [Backend; 7] = [
        Backend::Scalar,
        Backend::Neon,
        Backend::NeonDot,
        Backend::NeonI8mm,
        Backend::Avx2,
        Backend::AvxVnni,
        Backend::Avx512Vnni,
    ];

    /// The backend that functions without a backend argument use: the one that the environment variable
    /// `TRITFORGE_BACKEND` names (`scalar`, `neon`, `neon-dot`, `neon-i8mm`, `avx2`, `avx-vnni`, `avx512`), else the
    /// fastest supported one. Chosen once.
    ///
    /// A variable that cannot be honoured is warned of once, through `log`, and ignored; programs that want
    /// to stop instead call [`Backend::from_env`] first.
    pub fn active() -> Backend {
        static ACTIVE: OnceLock<Backend> = OnceLock::new();
        *ACTIVE.get_or_init(|| match Backend::from_env() {
            Ok(backend) => backend.unwrap_or_else(Backend::fastest),
            Err(error) => {
                let fastest = Backend::fastest();
                log::warn!("{VARIABLE} ignored: {error}; using {fastest}");
                fastest
            }
        })
    }

    /// The backend that `TRITFORGE_BACKEND` names; `None` if the variable is unset or empty.
    ///
    /// # Errors
    /// If the name is unknown or the processor does not support the backend.
    pub fn from_env() -> Result<Option<Backend>, BackendError> {
        match std::env::var_os(VARIABLE) {
            Some(name) if !name.is_empty() => Backend::named(&name.to_string_lossy()).map(Some),
            _ => Ok(None),
        }
    }

    fn named(name: &str) -> Result<Backend, BackendError> {
        let backend: Backend = name.parse()?;
        if backend.is_supported() {
            Ok(backend)
        } else {
            Err(BackendError::Unsupported { backend, supported: Backend::supported() })
        }
    }

    /// The backends that this processor can run, slowest first. Never empty.
    pub fn supported() -> Vec<Backend> {
        Backend::ALL.into_iter().filter(|backend| backend.is_supported()).collect()
    }

    /// Whether this processor can run the backend.
    pub fn is_supported(self) -> bool {
        match self {
            Backend::Scalar => true,
            #[cfg(target_arch = "x86_64")]
            Backend::Avx2 => {
                is_x86_feature_detected!("avx2")
                    && is_x86_feature_detected!("fma")
                    && is_x86_feature_detected!("f16c")
            }
            #[cfg(target_arch = "x86_64")]
            Backend::AvxVnni => Backend::Avx2.is_supported() && is_x86_feature_detected!("avxvnni"),
            #[cfg(target_arch = "x86_64")]
            Backend::Avx512Vnni => {
                Backend::Avx2.is_supported()
                    && is_x86_feature_detected!("avx512dq")
                    && is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512vl")
                    && is_x86_feature_detected!("avx512vnni")
            }
            // The kernels load words of bytes, so they need the bytes of a word in the usual order.
            #[cfg(all(target_arch = "aarch64", target_endian = "little"))]
            Backend::Neon => std::arch::is_aarch64_feature_detected!("neon"),
            #[cfg(all(target_arch = "aarch64", target_endian = "little"))]
            Backend::NeonDot => {
                Backend::Neon.is_supported() && std::arch::is_aarch64_feature_detected!("dotprod")
            }
            #[cfg(all(target_arch = "aarch64", target_endian = "little"))]
            Backend::NeonI8mm => {
                Backend::NeonDot.is_supported() && std::arch::is_aarch64_feature_detected!("i8mm")
            }
            // The other architectures' backends.
            _ => false,
        }
    }

    fn fastest() -> Backend {
        Backend::supported().last().copied().unwrap_or(Backend::Scalar)
    }

    /// Panics unless the processor supports the backend. Every `unsafe` call of a `#[target_feature]`
    /// function in this crate stands behind this check.
    #[track_caller]
    pub(crate) fn assert_supported(self) {
        assert!(self.is_supported(), "this processor does not support the {self} backend");
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Backend::Scalar => "scalar",
            Backend::Neon => "neon",
            Backend::NeonDot => "neon-dot",
            Backend::NeonI8mm => "neon-i8mm",
            Backend::Avx2 => "avx2",
            Backend::AvxVnni => "avx-vnni",
            Backend::Avx512Vnni => "avx512",
        })
    }
}

impl FromStr for Backend {
    type Err = BackendError;

    /// Parses the name that [`Backend`] displays; case does not matter.
    fn from_str(name: &str) -> Result<Self, BackendError> {
        Backend::ALL
            .into_iter()
            .find(|backend| backend.to_string().eq_ignore_ascii_case(name.trim()))
            .ok_or_else(|| BackendError::Unknown { found: name.to_owned() })
    }
}

fn names(backends: &[Backend]) -> String {
    backends.iter().map(Backend::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_parse_back() {
        for backend in Backend::ALL {
            assert_eq!(backend.to_string().parse(), Ok(backend));
        }
        assert_eq!("AVX2".parse(), Ok(Backend::Avx2));
    }

    #[test]
    fn an_unknown_name_says_what_is_possible() {
        let error = Backend::named("sse9").unwrap_err();
        assert_eq!(
            error.to_string(),
            "unknown backend \"sse9\": expected one of scalar, neon, neon-dot, neon-i8mm, avx2, avx-vnni, avx512"
        );
    }

    #[test]
    fn an_unsupported_backend_is_refused() {
        for backend in Backend::ALL {
            match Backend::named(&backend.to_string()) {
                Ok(found) => assert!(found == backend && backend.is_supported()),
                Err(error) => {
                    assert!(!backend.is_supported());
                    assert!(error.to_string().contains("supported here: scalar"), "{error}");
                }
            }
        }
    }

    #[test]
    fn scalar_is_always_supported() {
        assert_eq!(Backend::supported().first(), Some(&Backend::Scalar));
        assert!(Backend::active().is_supported());
    }
}
