//! Every file in `configs/` describes a model with the number of parameters that it says, in widths that
//! every packing holds.

use std::fs;
use std::path::Path;

use tritforge_config::ModelConfig;
use tritforge_train::recipe::Recipe;

#[test]
fn configs_have_the_parameters_that_they_state() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut seen = 0;
    for entry in fs::read_dir(root.join("configs")).unwrap() {
        let path = entry.unwrap().path();
        // Options of the service.
        if path.is_dir() {
            continue;
        }
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let text = fs::read_to_string(&path).unwrap();
        let stated =
            text.lines().find_map(|line| line.strip_suffix(" parameters.")?.rsplit([' ', '#']).next());
        let stated: usize = stated.expect("the parameters are stated").replace(',', "").parse().unwrap();
        let recipe = format!(
            "[run]\nname = \"x\"\n[model]\nconfig = \"../configs/{name}\"\n[tokenizer]\nkind = \"bpe\"\n\
             [data]\nsource = \"rust-sources\"\nseq_len = 256\n[train]\nsteps = 1\n[optim]\nlr = 1e-3\n"
        );
        let recipe = Recipe::from_toml(&root.join("recipes/x.toml"), &recipe, &[]).unwrap();
        let config = recipe.model_config(recipe.expected_vocab_size()).unwrap();
        assert_eq!(config.parameters().total(), stated, "{name}");
        for width in [config.hidden_size, config.intermediate_size, config.q_size()] {
            assert!(width.is_multiple_of(256), "{name}: width {width}");
        }
        seen += 1;
    }
    assert!(seen >= 8, "{seen} configs");
}

#[test]
fn recipes_resolve() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../recipes");
    let dir = tempfile::tempdir().unwrap();
    let base = dir.path().join("base");
    let mut writer = tritforge_checkpoint::Writer::create(&base).unwrap();
    writer.write_config(&ModelConfig::default()).unwrap();
    writer.commit().unwrap();
    let overrides = [format!("model.base={}", base.display())];
    for entry in fs::read_dir(root).unwrap() {
        let path = entry.unwrap().path();
        // A recipe that goes on from a base needs one to be there.
        let based = fs::read_to_string(&path).unwrap().contains("\nbase = ");
        let recipe = Recipe::load(&path, if based { &overrides } else { &[] }).unwrap();
        recipe.model_config(recipe.expected_vocab_size()).unwrap();
        // What a run keeps beside its checkpoints is a recipe again.
        let text = recipe.to_toml().unwrap();
        let again = Recipe::from_toml(&path, &text, &[]).unwrap();
        assert_eq!(again.to_toml().unwrap(), text, "{}", path.display());
    }
}
