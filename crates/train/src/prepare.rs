//! From a recipe's data section to a tokenizer and token shards, kept beside the run so that the next start finds them.

use std::fs;
use std::path::Path;

use tritforge_data::{
    BigramBaseline, Corpus, Document, Fingerprint, RustSources, Shard, Split, TokenizeOptions,
    bigram_baseline, cached_or_tokenize, rust_sources, split,
};
use tritforge_text::{SpecialTokens, Tokenizer};

use crate::TrainError;
use crate::recipe::{DataSource, Recipe, SplitKind, TokenizerKind};

/// What a run trains on and is measured by.
#[derive(Debug)]
pub struct Prepared {
    /// The tokenizer.
    pub tokenizer: Tokenizer,
    /// Tokens for training.
    pub train: Shard,
    /// Tokens for evaluation.
    pub held_out: Shard,
    /// Changes with the text, the split and the tokenizer.
    pub fingerprint: String,
    documents: (Vec<Document>, Vec<Document>),
}

impl Prepared {
    /// The held-out text, one document after the other.
    pub fn held_out_text(&self) -> String {
        self.documents.1.iter().map(|d| d.text.as_str()).collect()
    }

    /// What bigram models of tokens and of bytes reach on the held-out text.
    ///
    /// # Errors
    /// If there is too little text.
    pub fn bigram(&self) -> Result<BigramBaseline, TrainError> {
        let (train, held_out) = &self.documents;
        Ok(bigram_baseline(&self.train, &self.held_out, train, held_out)?)
    }
}

/// Reads the text, makes or loads the tokenizer, and writes the token shards into `<run.out>/data`. What is there already
/// from the same text and tokenizer is used again. `say` hears what is going on.
///
/// # Errors
/// If text or tokenizer cannot be read, there is too little text, or the directory cannot be written.
pub fn prepare(recipe: &Recipe, mut say: impl FnMut(&str)) -> Result<Prepared, TrainError> {
    let dir = recipe.run.out.join("data");
    fs::create_dir_all(&dir).map_err(TrainError::io(&dir, "create"))?;
    let documents = documents(recipe, &mut say)?;
    let fraction = recipe.data.held_out;
    let how = match recipe.data.split {
        SplitKind::Contiguous => Split::Contiguous { fraction },
        SplitKind::Document => Split::ByDocument { fraction, seed: recipe.run.seed },
    };
    let (train, held_out) = split(documents, how)?;
    let tokenizer = tokenizer(recipe, &train, &held_out, &dir, &mut say)?;
    let json = tokenizer.to_json()?;
    let shard = |documents: &[Document], name: &str| {
        let options = TokenizeOptions {
            vocab_size: tokenizer.vocab_size(),
            eos: tokenizer.eos(),
            fingerprint: Fingerprint::of(json.as_bytes(), documents, tokenizer.eos()),
        };
        let encode = |text: &str| tokenizer.encode(text, false);
        cached_or_tokenize(documents, &dir.join(name), &options, encode, |_| {})
    };
    let (train_shard, held_out_shard) = (shard(&train, "train.bin")?, shard(&held_out, "held_out.bin")?);
    say(&format!(
        "{} tokens for training, {} held out; vocabulary {}, {:.2} bytes a token",
        train_shard.len(),
        held_out_shard.len(),
        tokenizer.vocab_size(),
        held_out_shard.bytes_per_token()
    ));
    let fingerprint = format!("{}-{}", train_shard.fingerprint(), held_out_shard.fingerprint());
    Ok(Prepared {
        tokenizer,
        train: train_shard,
        held_out: held_out_shard,
        fingerprint,
        documents: (train, held_out),
    })
}

fn documents(recipe: &Recipe, say: &mut impl FnMut(&str)) -> Result<Vec<Document>, TrainError> {
    match recipe.data.source {
        DataSource::Files => {
            let corpus = Corpus::read(&recipe.data.train)?;
            say(&format!("{} documents, {} bytes", corpus.documents.len(), corpus.bytes()));
            Ok(corpus.documents)
        }
        DataSource::RustSources => {
            let (documents, report) = rust_sources(&RustSources::default())?;
            say(&format!(
                "Rust sources of {} packages: {} files, {:.1} MB",
                report.packages,
                report.files,
                report.bytes as f64 / 1e6
            ));
            Ok(documents)
        }
    }
}

fn tokenizer(
    recipe: &Recipe,
    train: &[Document],
    held_out: &[Document],
    dir: &Path,
    say: &mut impl FnMut(&str),
) -> Result<Tokenizer, TrainError> {
    let texts = || train.iter().map(|d| d.text.as_str());
    match recipe.tokenizer.kind {
        TokenizerKind::File => {
            // The recipe's validation made sure of the path.
            Ok(Tokenizer::from_file(recipe.tokenizer.path.as_deref().unwrap_or(Path::new("tokenizer.json")))?)
        }
        // A character that only the held-out text has would have no token: as in nanoGPT, all text counts.
        TokenizerKind::Characters => {
            let all = texts().chain(held_out.iter().map(|d| d.text.as_str()));
            Ok(Tokenizer::characters(all, &SpecialTokens::none())?)
        }
        TokenizerKind::Bpe => {
            let size = recipe.tokenizer.vocab_size;
            let key = format!("bpe {size} {}", Fingerprint::of_text(train));
            let (key_path, path) = (dir.join("tokenizer.key"), dir.join("tokenizer.json"));
            if fs::read_to_string(&key_path).is_ok_and(|found| found == key)
                && let Ok(tokenizer) = Tokenizer::from_file(&path)
            {
                return Ok(tokenizer);
            }
            say(&format!("training a byte-level BPE of {size} tokens"));
            let tokenizer = Tokenizer::train_bpe(texts(), size, &SpecialTokens::default())?;
            // The key comes last: without it the file counts as absent.
            let _ = fs::remove_file(&key_path);
            fs::write(&path, tokenizer.to_json()?).map_err(TrainError::io(&path, "write"))?;
            fs::write(&key_path, key).map_err(TrainError::io(&key_path, "write"))?;
            Ok(tokenizer)
        }
    }
}
