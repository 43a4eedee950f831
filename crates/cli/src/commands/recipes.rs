//! `tritforge recipes`: the recipes that come with the program, their reference, their JSON Schema.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use clap::{Args as ClapArgs, Subcommand};
use tritforge_train::recipe::{Recipe, VERSION, json_schema, markdown, upgrade};

use crate::table;

/// A file of the repository, by its name without extension.
type Embedded = (&'static str, &'static str);

macro_rules! embed {
    ($folder:literal: $($name:literal),* $(,)?) => {
        [$(($name, include_str!(concat!("../../../../", $folder, "/", $name, ".toml")))),*]
    };
}

/// Everything in `recipes/`, the smallest first.
const RECIPES: [Embedded; 20] = embed!("recipes":
    "quickstart", "shakespeare-char", "sft", "finetune", "lora", "qat-lora", "lota", "convert", "distill", "dpo", "orpo", "kto", "ablation-int8-backward", "pretrain-english", "pretrain-125m", "pretrain-350m", "pretrain-700m",
    "pretrain-1.3b", "pretrain-2b4t", "pretrain-3b",
);

/// Everything in `configs/`: recipes name the shapes that they train.
const CONFIGS: [Embedded; 10] =
    embed!("configs": "tiny", "15m", "125m", "350m", "700m", "1.3b", "3b", "2b4t", "2b4t-silu", "qwen3-1.7b");

#[derive(ClapArgs)]
#[command(after_help = "Examples:\n  \
    tritforge recipes list\n  \
    tritforge recipes copy pretrain-english my-run\n  \
    tritforge recipes schema > recipe.schema.json\n  \
    tritforge recipes upgrade old.toml --check")]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// List all recipes with their size and purpose.
    List,
    /// Print a recipe.
    Show {
        /// Its name, as `list` prints it.
        name: String,
    },
    /// Copy a recipe and the model config that it names into a directory, to edit and train.
    Copy {
        /// Its name, as `list` prints it.
        name: String,
        /// Target directory, created if needed.
        #[arg(default_value = ".")]
        dir: PathBuf,
    },
    /// Print the JSON Schema, with which editors complete and check recipes.
    Schema,
    /// Print the reference of all keys in Markdown.
    Reference,
    /// Rewrite a recipe in place with the present names of keys and values, and its version.
    Upgrade {
        /// The recipe.
        file: PathBuf,
        /// Only print the lines that would change, and fail if there are any.
        #[arg(long)]
        check: bool,
    },
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    match &args.command {
        Command::List => list()?,
        Command::Show { name } => print!("{}", find(name)?),
        Command::Copy { name, dir } => copy(name, dir)?,
        Command::Schema => println!("{}", serde_json::to_string_pretty(&json_schema())?),
        Command::Reference => print!("{}", markdown()),
        Command::Upgrade { file, check } => return upgrade_file(file, *check),
    }
    Ok(ExitCode::SUCCESS)
}

fn list() -> Result<()> {
    let rows = RECIPES.iter().map(|(name, text)| {
        if needs_base(text) {
            // Its shape is that of a checkpoint which need not be here.
            let number = |section, key, default| number(text, section, key).unwrap_or(default);
            let rows = number("train", "batch_size", 8.0) * number("train", "gradient_accumulation", 1.0);
            let tokens = rows * number("data", "seq_len", 256.0) * number("train", "steps", 0.0) / 1e6;
            return Ok(vec![
                name.to_string(),
                "as base".to_string(),
                format!("{tokens:.1} M"),
                purpose(text),
            ]);
        }
        let recipe = parse(name, text)?;
        let config = recipe.model_config(recipe.expected_vocab_size())?;
        let parameters = config.parameters().total() as f64 / 1e6;
        let train = &recipe.train;
        let tokens = (train.batch_size * train.gradient_accumulation * recipe.data.seq_len) as f64
            * train.steps as f64
            / 1e6;
        Ok(vec![name.to_string(), format!("{parameters:.1} M"), format!("{tokens:.1} M"), purpose(text)])
    });
    let rows: Vec<Vec<String>> = rows.collect::<Result<_>>()?;
    table::print(&["recipe", "parameters", "tokens", "purpose"], &rows);
    Ok(())
}

/// Whether a recipe names a checkpoint to begin with.
fn needs_base(text: &str) -> bool {
    text.contains("\nbase = ")
}

/// A number that an embedded recipe gives.
fn number(text: &str, section: &str, key: &str) -> Option<f64> {
    let mut lines = text.lines().skip_while(|line| *line != format!("[{section}]")).skip(1);
    let own = lines.by_ref().take_while(|line| !line.starts_with('['));
    own.filter_map(|line| line.split_once(" = ")).find(|(name, _)| *name == key)?.1.parse().ok()
}

/// The first sentence of a recipe's comment.
fn purpose(text: &str) -> String {
    let comment: Vec<&str> = text.lines().map_while(|line| line.strip_prefix('#')).map(str::trim).collect();
    let comment = comment.join(" ");
    let end = [": ", ". "].iter().filter_map(|mark| comment.find(mark)).min().unwrap_or(comment.len());
    comment[..end].trim_end_matches('.').to_string()
}

fn find(name: &str) -> Result<&'static str> {
    match RECIPES.iter().find(|(known, _)| *known == name) {
        Some((_, text)) => Ok(text),
        None => {
            let names: Vec<&str> = RECIPES.iter().map(|(known, _)| *known).collect();
            bail!("no recipe named {name}: expected one of {}", names.join(", "))
        }
    }
}

/// The config that a recipe names, as it stands in `recipes/`.
fn config_of(text: &str) -> Option<&'static Embedded> {
    CONFIGS.iter().find(|(name, _)| text.contains(&format!("\"../configs/{name}.toml\"")))
}

/// A recipe as it is copied: with its shape beside it.
fn beside(text: &str) -> String {
    text.replace("\"../configs/", "\"")
}

/// Reads an embedded recipe, with its shape's keys in place of the shape's name.
fn parse(name: &str, text: &str) -> Result<Recipe> {
    let text = match config_of(text) {
        Some((config, keys)) => {
            text.replace(&format!("config = \"../configs/{config}.toml\""), &model_keys(text, keys))
        }
        None => text.to_string(),
    };
    Ok(Recipe::from_toml(Path::new(&format!("{name}.toml")), &text, &[])?)
}

/// The keys of a shape that a recipe does not give itself. The vocabulary is the tokenizer's.
fn model_keys(recipe: &str, shape: &str) -> String {
    let key = |line: &str| Some(line.split_once('=')?.0.trim().to_string());
    let given: Vec<String> = recipe.lines().filter_map(key).collect();
    let keys =
        shape.lines().filter(|line| key(line).is_some_and(|k| k != "vocab_size" && !given.contains(&k)));
    keys.collect::<Vec<_>>().join("\n")
}

fn copy(name: &str, dir: &Path) -> Result<()> {
    let text = find(name)?;
    let mut files = vec![(format!("{name}.toml"), beside(text))];
    if let Some((config, keys)) = config_of(text) {
        files.push((format!("{config}.toml"), keys.to_string()));
    }
    std::fs::create_dir_all(dir).with_context(|| format!("{}: cannot create", dir.display()))?;
    let paths: Vec<PathBuf> = files.iter().map(|(file, _)| dir.join(file)).collect();
    if let Some(path) = paths.iter().find(|path| path.exists()) {
        bail!("{}: already exists; copy into another directory", path.display());
    }
    for (path, (_, text)) in paths.iter().zip(&files) {
        let file = OpenOptions::new().write(true).create_new(true).open(path);
        file.and_then(|mut file| file.write_all(text.as_bytes()))
            .with_context(|| format!("{}: cannot write", path.display()))?;
        println!("{}", path.display());
    }
    Ok(())
}

fn upgrade_file(file: &Path, check: bool) -> Result<ExitCode> {
    let name = file.display();
    let text = fs::read_to_string(file).with_context(|| format!("{name}: cannot read"))?;
    let upgraded = upgrade(file, &text)?;
    if upgraded.changes.is_empty() {
        println!("{name}: nothing to change, it is of version {VERSION}");
        return Ok(ExitCode::SUCCESS);
    }
    for change in &upgraded.changes {
        let line = change.line;
        if let Some(before) = &change.before {
            println!("{name}:{line}: - {before}");
        }
        println!("{name}:{line}: + {}", change.after);
    }
    if check {
        return Ok(ExitCode::FAILURE);
    }
    replace(file, &upgraded.text).with_context(|| format!("{name}: cannot write"))?;
    Ok(ExitCode::SUCCESS)
}

/// Gives a file another content, whole or not at all. A link stays one.
fn replace(file: &Path, text: &str) -> std::io::Result<()> {
    let file = fs::canonicalize(file)?;
    let mut name = file.clone().into_os_string();
    name.push(format!(".{}.tmp", std::process::id()));
    let new = PathBuf::from(name);
    let write = || {
        let mut out = OpenOptions::new().write(true).create_new(true).open(&new)?;
        out.write_all(text.as_bytes())?;
        out.set_permissions(fs::metadata(&file)?.permissions())?;
        out.sync_all()?;
        fs::rename(&new, &file)
    };
    write().inspect_err(|_| {
        let _ = fs::remove_file(&new);
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &str) -> Vec<String> {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(folder);
        // `configs/serve` has options of the service.
        let stems = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()).filter(|p| p.is_file());
        let mut names: Vec<String> =
            stems.map(|p| p.file_stem().unwrap().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    #[test]
    fn every_recipe_and_every_shape_is_embedded() {
        for (folder, embedded) in [("recipes", &RECIPES[..]), ("configs", &CONFIGS)] {
            let mut known: Vec<&str> = embedded.iter().map(|(name, _)| *name).collect();
            known.sort_unstable();
            assert_eq!(known, names(folder), "{folder}");
        }
    }

    #[test]
    fn a_copy_is_the_recipe_itself() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../recipes");
        let temp = tempfile::tempdir().unwrap();
        let mut writer = tritforge_checkpoint::Writer::create(&temp.path().join("base")).unwrap();
        writer.write_config(&tritforge_config::ModelConfig::default()).unwrap();
        writer.commit().unwrap();
        let base = [format!("model.base={}", temp.path().join("base").display())];
        for (name, text) in RECIPES {
            let dir = tempfile::tempdir().unwrap();
            copy(name, dir.path()).unwrap();
            let overrides = if needs_base(text) { &base[..] } else { &[] };
            let copied = Recipe::load(&dir.path().join(format!("{name}.toml")), overrides).unwrap();
            let original = Recipe::load(&root.join(format!("{name}.toml")), overrides).unwrap();
            assert_eq!(copied, original, "{name}");
            if needs_base(text) {
                assert_eq!(number(text, "train", "steps"), Some(original.train.steps as f64), "{name}");
                assert_eq!(number(text, "data", "seq_len"), Some(original.data.seq_len as f64), "{name}");
            } else {
                assert_eq!(parse(name, text).unwrap().train, original.train, "{name}");
            }
            assert!(copy(name, dir.path()).unwrap_err().to_string().contains("already exists"));
            assert!(purpose(text).len() > 20, "{name}: {}", purpose(text));
        }
        assert!(find("absent").unwrap_err().to_string().contains("quickstart"));
    }
}
