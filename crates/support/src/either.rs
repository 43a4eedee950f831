//! Names in a list that ends with "or".

use std::fmt::Display;

/// What may be chosen, in a sentence.
///
/// ```
/// use tritforge_support::either;
///
/// assert_eq!(either(["q8_0"]), "q8_0");
/// assert_eq!(either(["f32", "f16"]), "f32 or f16");
/// assert_eq!(either(["f32", "f16", "q8_0"]), "f32, f16 or q8_0");
/// ```
pub fn either(names: impl IntoIterator<Item: Display>) -> String {
    let names: Vec<String> = names.into_iter().map(|name| name.to_string()).collect();
    match names.split_last() {
        Some((last, [_, ..])) => format!("{} or {last}", names[..names.len() - 1].join(", ")),
        _ => names.concat(),
    }
}
