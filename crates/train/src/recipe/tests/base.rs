//! Shapes that come from a file or from a base.

use super::*;

#[test]
fn a_shape_comes_from_a_file_and_inline_keys_go_before_it() {
    let dir = tempfile::tempdir().unwrap();
    let (recipes, configs) = (dir.path().join("recipes"), dir.path().join("configs"));
    fs::create_dir_all(&recipes).unwrap();
    fs::create_dir_all(&configs).unwrap();
    let shape = "vocab_size = 500\nhidden_size = 256\nintermediate_size = 768\nnum_hidden_layers = 2\n\
                 num_attention_heads = 4\nmax_position_embeddings = 512\nhidden_act = \"relu2\"\n";
    fs::write(configs.join("s.toml"), shape).unwrap();
    fs::write(recipes.join("text.txt"), "text").unwrap();
    let path = recipes.join("r.toml");
    let text = "[model]\nconfig = \"../configs/s.toml\"\nnum_hidden_layers = 6\n[data]\ntrain = [\"text.txt\", \"no.txt\"]\n\
                [train]\nsteps = 10\n";
    fs::write(&path, text).unwrap();
    let r = Recipe::load(&path, &[]).unwrap();
    assert_eq!((r.model.num_hidden_layers, r.model.hidden_act), (6, HiddenAct::Relu2));
    assert_eq!((r.model.vocab_size, r.tokenizer.vocab_size, r.expected_vocab_size()), (None, 500, 500));
    assert_eq!(r.data.train, [recipes.join("text.txt"), PathBuf::from("no.txt")]);
    // The recipe's own vocabulary goes before the one that the shape was made for.
    let r = Recipe::load(&path, &["tokenizer.vocab_size=600".to_string()]).unwrap();
    assert_eq!(r.model_config(590).unwrap().vocab_size, 590);
    let r = Recipe::load(&path, &["model.vocab_size=600".to_string()]).unwrap();
    let error = r.model_config(590).unwrap_err().to_string();
    assert!(error.contains("model.vocab_size = 600: the tokenizer has 590 tokens"), "{error}");
    // Faults of the shape are reported in its file.
    fs::write(configs.join("s.toml"), format!("{shape}hiden_size = 1\n")).unwrap();
    let error = Recipe::load(&path, &[]).unwrap_err().to_string();
    assert!(
        error.contains("s.toml:8:1: model.hiden_size: unknown key; did you mean model.hidden_size?"),
        "{error}"
    );
    fs::remove_file(configs.join("s.toml")).unwrap();
    let error = Recipe::load(&path, &[]).unwrap_err().to_string();
    assert!(error.contains("r.toml:2:10: model.config: no file"), "{error}");
}

/// Writes what a recipe looks at of a base, and returns the override that names it.
pub(super) fn base_of_the_default_shape(dir: &Path) -> [String; 1] {
    let base = dir.join("base");
    let mut writer = tritforge_checkpoint::Writer::create(&base).unwrap();
    writer.write_config(&tritforge_config::ModelConfig::default()).unwrap();
    writer.commit().unwrap();
    [format!("model.base={}", base.display())]
}

#[test]
fn a_base_gives_shape_and_tokenizer_and_is_named_where_it_is_missing() {
    let dir = tempfile::tempdir().unwrap();
    let overrides = base_of_the_default_shape(dir.path());
    let text = "[model]\nbase = \"nowhere\"\n[data]\ntrain = [\"x.txt\"]\n[train]\nsteps = 10\n";
    let recipe = parse(text, &[&overrides[0]]).unwrap();
    assert_eq!((recipe.model.hidden_size, recipe.model.max_position_embeddings), (256, 512));
    assert_eq!(recipe.tokenizer.kind, TokenizerKind::Base);
    // The base may have rows that its tokenizer does not fill, not the other way round.
    assert_eq!(recipe.model_config(4000).unwrap().vocab_size, 4096);
    assert!(recipe.model_config(5000).unwrap_err().to_string().contains("4096"));
    assert_eq!(parse(&recipe.to_toml().unwrap(), &[]).unwrap(), recipe);
    let message = &faults(text, &[])[0];
    assert!(
        message.starts_with(
            "dir/r.toml:2:8: model.base: nowhere: no such file or directory: expected a checkpoint"
        ),
        "{message}"
    );
    let both = text.replace("[data]", "config = \"c.toml\"\n[data]");
    let message = faults(&both, &[&overrides[0]]).join("\n");
    assert!(message.contains("model.config contradicts model.base"), "{message}");
}
