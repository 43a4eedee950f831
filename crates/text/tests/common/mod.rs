//! What the tests share: a corpus and texts that a tokenizer must not change.

/// Small, mixed, and with enough repetition that there is something to merge.
pub(crate) fn corpus() -> Vec<String> {
    let mut texts = Vec::new();
    for i in 0..40 {
        texts.push(format!(
            "pub fn function_{i}(argument: &mut Vec<u32>) -> Option<u32> {{\n    argument.push({});\n    \
             // returns the largest value, or nothing at all\n    argument.iter().copied().max()\n}}\n",
            i * 37
        ));
        texts.push(
            "The quick brown fox jumps over the lazy dog; it isn't what they'll expect.\r\n".to_string(),
        );
        texts.push("größer, naïve café — 世界 こんにちは 🦀🦀\n\n\n\tindented".to_string());
    }
    texts
}

/// Code, digits, spaces, line ends, contractions in both cases, scripts, emoji with joiners, controls,
/// combining marks.
pub(crate) const MIXED: [&str; 14] = [
    "",
    "fn main() {\n    println!(\"{}\", 12345 + 0x1F);\n}\n",
    "a  b   c    d\t\te \n \n  f   ",
    "line\r\nline\r\n\r\n  \r\nend\r",
    "It's THEY'LL don't I'M we'Ve 'tis",
    "1234567890 3.14159 1e-5 ٣٤٥ ½ Ⅷ",
    "世界こんにちは안녕하세요",
    "👩‍👩‍👧‍👦🦀🇩🇪",
    "école, São Paulo, Ελληνικά, Кириллица, עברית",
    "\u{0}\u{1b}[0m\u{7f}\u{a0}\u{ad}\u{3000}\u{200b}",
    "e\u{301}n\u{303}o",
    "======== -->> != <|endoftext|> <|im_start|>",
    "snake_case CamelCase kebab-case $x ~/.bashrc ^_^",
    "\u{10ffff}\u{feff}",
];
