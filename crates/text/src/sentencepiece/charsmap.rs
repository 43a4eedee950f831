//! sentencepiece's compiled normalization rules, checked before the library that follows them sees them: it
//! reads past the end of damaged ones.
//!
//! The format: the size of the trie in bytes as u32, the trie as units of u32 (a double array of darts-clone,
//! whose values are offsets), then the replacements, each ended by a zero byte.

/// Checks that no text leads out of the trie and that all replacements are text. Empty rules are none.
///
/// # Errors
/// What is wrong.
pub(crate) fn check(bytes: &[u8]) -> Result<(), String> {
    let Some((size, rest)) = bytes.split_first_chunk::<4>() else {
        return if bytes.is_empty() { Ok(()) } else { Err("cut off".to_string()) };
    };
    let size = u32::from_le_bytes(*size) as usize;
    let Some((trie, replacements)) = rest.split_at_checked(size / 4 * 4) else {
        return Err(format!("a trie of {size} bytes in {}", rest.len()));
    };
    let replacements = std::str::from_utf8(replacements).map_err(|e| format!("its replacements: {e}"))?;
    let units: Vec<u32> = trie.as_chunks().0.iter().map(|unit| u32::from_le_bytes(*unit)).collect();
    let damaged = |unit: usize| Err(format!("its trie is damaged at unit {unit}"));

    let mut seen = vec![false; units.len()];
    let mut open = vec![0usize];
    while let Some(at) = open.pop() {
        let Some(unit) = units.get(at) else { return damaged(at) };
        let offset = ((unit >> 10) as usize) << ((unit & (1 << 9)) >> 6);
        let base = at ^ offset;
        // Any next byte is looked up within these 256.
        if base | 0xff >= units.len() {
            return damaged(at);
        }
        if unit >> 8 & 1 == 1 {
            let value = (units[base] & 0x7fff_ffff) as usize;
            if !replacements.is_char_boundary(value) {
                return damaged(base);
            }
        }
        for byte in 1..=255u32 {
            let child = base ^ byte as usize;
            // A unit with the topmost bit holds a value.
            if units[child] & 0x8000_00ff == byte && !seen[child] {
                seen[child] = true;
                open.push(child);
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damage_is_found() {
        assert!(check(&[]).is_ok());
        assert!(check(&[1, 0]).is_err());
        assert!(check(&[8, 0, 0, 0, 1, 2]).unwrap_err().contains("8 bytes"));
        // The root leads to byte `a`, whose value, in the second block of 256 units, is the offset of the
        // replacement.
        let mut units = [0u32; 512];
        units[usize::from(b'a')] = u32::from(b'a') | 1 << 8 | (0x161 << 10);
        units[0x100] = 0x8000_0000;
        let bytes = |units: &[u32], text: &[u8]| {
            let trie: Vec<u8> = units.iter().flat_map(|unit| unit.to_le_bytes()).collect();
            [&(trie.len() as u32).to_le_bytes()[..], &trie, text].concat()
        };
        assert_eq!(check(&bytes(&units, b"b\0")), Ok(()));
        let mut past = units;
        past[0x100] |= 3;
        assert!(check(&bytes(&past, b"b\0")).is_err());
        let mut out = units;
        out[usize::from(b'a')] |= 1 << 20;
        assert!(check(&bytes(&out, b"b\0")).is_err());
        assert!(check(&bytes(&units, b"\xff\0")).is_err());
        assert!(check(&bytes(&units[..200], b"b\0")).is_err());
    }
}
