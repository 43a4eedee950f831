//! Sizes that people write.

/// The bytes of a size such as `4 GiB`, `500 MB` or `1048576`.
pub(crate) fn parse(text: &str) -> Result<u64, String> {
    let fault = || {
        format!(
            "memory {text:?}: expected bytes, or a number with KiB, MiB, GiB, KB, MB or GB, such as \"4 GiB\""
        )
    };
    let text_of_unit = text.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.' || c == ' ');
    let unit = match text_of_unit.trim() {
        "" | "B" => 1u64,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "KB" | "kB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        _ => return Err(fault()),
    };
    let number: f64 = text[..text.len() - text_of_unit.len()].trim().parse().map_err(|_| fault())?;
    let bytes = number * unit as f64;
    if !(1.0..=(1u64 << 50) as f64).contains(&bytes) {
        return Err(format!("memory {text:?}: expected 1 byte to 1048576 GiB"));
    }
    Ok(bytes as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read() {
        for (text, bytes) in
            [("4 GiB", 4 << 30), ("1.5MiB", 3 << 19), ("2 GB", 2_000_000_000), ("77", 77), ("8 B", 8)]
        {
            assert_eq!(parse(text), Ok(bytes), "{text}");
        }
        for text in ["", "GiB", "4 gigs", "-1 GiB", "0", "1e9", "1.2.3 MB", "9999999 GiB", "4 GiB GiB"] {
            assert!(parse(text).unwrap_err().contains("memory"), "{text}");
        }
    }
}
