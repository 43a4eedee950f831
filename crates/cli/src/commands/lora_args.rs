//! `--lora`: adapters beside a model.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, Result};
use clap::Args as ClapArgs;
#[cfg(feature = "train")]
use tritforge_export::ImportOptions;
use tritforge_export::gguf_file;
use tritforge_gguf::Override;
use tritforge_infer::{Adapter, Model, ScaledAdapter};

use super::device_args::DeviceArgs;

#[derive(ClapArgs)]
pub(crate) struct LoraArgs {
    /// Adapter to apply, with an optional scale: adapter.gguf, adapter.gguf:0.5, a directory written by peft,
    /// or a run with a `[lora]` section. Can be repeated.
    #[arg(long, value_name = "ADAPTER[:SCALE]")]
    lora: Vec<String>,
    #[command(flatten)]
    overrides: OverrideArgs,
}

/// `--override-kv`: metadata of a GGUF file, set from outside.
#[derive(ClapArgs)]
pub(crate) struct OverrideArgs {
    /// Override a metadata key of the GGUF file, as in llama.cpp: KEY=TYPE:VALUE, where TYPE is int, float,
    /// bool or str. A file that does not name its pre-tokenizer needs tokenizer.ggml.pre=str:NAME. Can be
    /// repeated.
    #[arg(long, value_name = "KEY=TYPE:VALUE")]
    override_kv: Vec<Override>,
}

impl OverrideArgs {
    /// The keys and their values.
    pub(crate) fn list(&self) -> &[Override] {
        &self.override_kv
    }
}

impl LoraArgs {
    /// Loads a model onto a device and puts the adapters on it.
    pub(crate) fn open_on(&self, model: &Path, device: &DeviceArgs) -> Result<Arc<Model>> {
        let mut model = Model::open_with(&gguf_file(model)?, self.overrides.list())?;
        device.place(&mut model)?;
        self.attach(&model)?;
        Ok(Arc::new(model))
    }

    /// Puts the adapters on a model.
    pub(crate) fn attach(&self, model: &Model) -> Result<()> {
        let applied = self.lora.iter().map(|text| open(text, model));
        model.set_adapters(applied.collect::<Result<Vec<_>>>()?);
        Ok(())
    }

    /// The adapters and their factors.
    #[cfg(feature = "train")]
    pub(crate) fn adapters(&self) -> Result<Vec<(PathBuf, f32)>> {
        let each = self.lora.iter().map(|text| {
            let (path, scale) = parse(text)?;
            // What opens the adapter later names the path, not the option.
            std::fs::metadata(&path).with_context(|| format!("--lora {text}"))?;
            Ok((path, scale))
        });
        each.collect()
    }

    /// How a model is opened, with the metadata that is set from outside.
    #[cfg(feature = "train")]
    pub(crate) fn options(&self) -> ImportOptions {
        ImportOptions { overrides: self.overrides.list().to_vec(), ..ImportOptions::default() }
    }
}

/// Reads the adapter `ADAPTER[:SCALE]` for a model.
pub(crate) fn open(text: &str, model: &Model) -> Result<ScaledAdapter> {
    let (path, scale) = parse(text)?;
    let adapter = Adapter::open(&path, model).with_context(|| format!("--lora {text}"))?;
    Ok(ScaledAdapter { adapter: Arc::new(adapter), scale })
}

/// A path and a factor. A path that has a colon in its own name goes first.
fn parse(text: &str) -> Result<(PathBuf, f32)> {
    match text.rsplit_once(':') {
        Some((path, scale)) if !Path::new(text).exists() => {
            let scale: f32 =
                scale.parse().ok().filter(|scale: &f32| scale.is_finite()).with_context(|| {
                    format!("--lora {text}: {scale} is not a number: expected ADAPTER or ADAPTER:SCALE")
                })?;
            Ok((PathBuf::from(path), scale))
        }
        _ => Ok((PathBuf::from(text), 1.0)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_factor_may_follow_the_file() {
        assert_eq!(parse("a.gguf").unwrap(), (PathBuf::from("a.gguf"), 1.0));
        assert_eq!(parse("b/a.gguf:-0.5").unwrap(), (PathBuf::from("b/a.gguf"), -0.5));
        assert!(parse("a.gguf:half").unwrap_err().to_string().contains("half"));
    }
}
