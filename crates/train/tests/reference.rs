//! The reference of recipes is what the program prints.

use std::fs;
use std::path::Path;

use tritforge_train::recipe::markdown;

#[test]
fn the_reference_in_docs_is_up_to_date() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/recipes.md");
    let stored = fs::read_to_string(&path).unwrap_or_default();
    assert!(stored == markdown(), "docs/recipes.md is old: tritforge recipes reference > docs/recipes.md");
}
