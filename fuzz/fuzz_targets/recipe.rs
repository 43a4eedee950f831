//! A recipe: refused with all its faults, or written back to the same recipe.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use tritforge_train::recipe::Recipe;

fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    // Files that a recipe names are looked for in an empty place.
    let path = Path::new("/nonexistent/recipe.toml");
    let Ok(recipe) = Recipe::from_toml(path, text, &[]) else { return };
    if let Ok(written) = recipe.to_toml() {
        assert!(Recipe::from_toml(path, &written, &[]).is_ok(), "{written}");
    }
});
