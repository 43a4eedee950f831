//! `--lora`: adapters beside a model.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use clap::Args as ClapArgs;
use tritforge_config::{ADAPTER_CONFIG, LoraConfig, LoraMode};
use tritforge_gguf::Override;
use tritforge_infer::{Adapter, Model, ScaledAdapter};

#[derive(ClapArgs)]
pub(crate) struct LoraArgs {
    /// A GGUF adapter to put on the model, with a factor if it is not 1: adapter.gguf or adapter.gguf:0.5.
    /// May be given several times.
    #[arg(long, value_name = "FILE[:SCALE]")]
    lora: Vec<String>,
    #[command(flatten)]
    overrides: OverrideArgs,
}

/// `--override-kv`: metadata of a GGUF file, set from outside.
#[derive(ClapArgs)]
pub(crate) struct OverrideArgs {
    /// Set a metadata key of the GGUF file, as in llama.cpp: KEY=TYPE:VALUE, where TYPE is int, float, bool
    /// or str. A file without a pre-tokenizer's name needs tokenizer.ggml.pre=str:NAME. May be given several
    /// times.
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
    /// Loads a model and puts the adapters on it.
    pub(crate) fn open(&self, model: &Path) -> Result<Arc<Model>> {
        let model = Model::open_with(model, self.overrides.list())?;
        self.attach(&model)?;
        Ok(Arc::new(model))
    }

    /// Puts the adapters on a model.
    pub(crate) fn attach(&self, model: &Model) -> Result<()> {
        let applied = self.lora.iter().map(|text| open(text, model));
        model.set_adapters(applied.collect::<Result<Vec<_>>>()?);
        Ok(())
    }

    /// The option for GGUF files that was given, if one was.
    #[cfg(feature = "train")]
    pub(crate) fn given(&self) -> Option<&'static str> {
        let options = [("--lora", self.lora.is_empty()), ("--override-kv", self.overrides.list().is_empty())];
        options.into_iter().find(|(_, absent)| !absent).map(|(name, _)| name)
    }
}

/// Reads the adapter `FILE[:SCALE]` for a model.
pub(crate) fn open(text: &str, model: &Model) -> Result<ScaledAdapter> {
    let (path, scale) = parse(text)?;
    if path.is_dir() {
        let dir = path.display();
        if let Some(mode) = mode_of(&path).filter(|mode| *mode != LoraMode::Adapter) {
            let mode = mode.name();
            bail!(
                "--lora {dir}: an adapter of mode {mode} is part of the ternary weights and cannot stand beside them: `tritforge merge {dir} \
                 -o DIR` makes a checkpoint of it and its base, exactly"
            );
        }
        bail!(
            "--lora {dir}: a directory: `tritforge export {dir} -o adapter.gguf` makes a GGUF adapter of it"
        );
    }
    Ok(ScaledAdapter { adapter: Arc::new(Adapter::open(&path, model)?), scale })
}

/// The mode of the adapter in the newest checkpoint of a directory, as far as it can be told.
fn mode_of(dir: &Path) -> Option<LoraMode> {
    let dir = super::checkpoint_dir(dir).ok()?;
    let text = std::fs::read_to_string(dir.join(ADAPTER_CONFIG)).ok()?;
    LoraConfig::from_json(&text).ok().map(|(config, _)| config.mode)
}

/// A path and a factor. A file whose own name has a colon goes first.
fn parse(text: &str) -> Result<(PathBuf, f32)> {
    match text.rsplit_once(':') {
        Some((path, scale)) if !Path::new(text).exists() => {
            let scale: f32 =
                scale.parse().ok().filter(|scale: &f32| scale.is_finite()).with_context(|| {
                    format!("--lora {text}: {scale} is no number: expected FILE or FILE:SCALE")
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
