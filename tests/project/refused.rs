//! Recipes that are refused.

use crate::project::Project;

/// What `train` says of a recipe with these keys, which it has to refuse.
pub(crate) fn refused(project: &Project, recipe: &str, set: &[&str]) -> String {
    let set = set.iter().flat_map(|key| ["--set", *key]);
    project.fails(&["train", recipe, "--quiet"].into_iter().chain(set).collect::<Vec<_>>())
}
