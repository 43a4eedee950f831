//! Damage to files, seeded and the same on every machine: flipped bits, cuts, awkward numbers, pieces that
//! stand twice or in another place. Parsers of foreign bytes answer it with an error or a sound result, never
//! with a panic.

/// splitmix64.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }

    /// A number that parsers get wrong: around the file's size, powers of two, the largest ones, small ones.
    fn awkward(&mut self, file: usize) -> u64 {
        let base = match self.below(5) {
            0 => 0,
            1 => file as u64 >> self.below(6),
            2 => 1 << self.below(64),
            3 => u64::MAX >> self.below(4),
            _ => self.below(40) as u64,
        };
        base.wrapping_add(self.below(5) as u64).wrapping_sub(2)
    }
}

/// One or two changes to a file.
pub(crate) fn mutate(file: &[u8], random: &mut Random) -> Vec<u8> {
    let mut bytes = file.to_vec();
    for _ in 0..1 + random.below(2) {
        let size = bytes.len();
        let at = random.below(size);
        match random.below(7) {
            0 => bytes.truncate(at),
            1 => flip(&mut bytes, random),
            // A length or an offset of a binary format.
            2 => {
                let (width, value) = ([1, 2, 4, 8][random.below(4)], random.awkward(size));
                if let Some(field) = bytes.get_mut(at..at + width) {
                    field.copy_from_slice(&value.to_le_bytes()[..width]);
                }
            }
            // A number of a text.
            3 => digits(&mut bytes, at, random),
            // A piece of the file again, somewhere else.
            4 => {
                let piece = bytes[at..size.min(at + random.below(80))].to_vec();
                let to = random.below(size);
                bytes.splice(to..to, piece);
            }
            // A piece missing.
            5 => {
                bytes.drain(at..size.min(at + 1 + random.below(40)));
            }
            // A piece in the place of another.
            _ => {
                let length = random.below(40).min(size - at);
                let piece = bytes[at..at + length].to_vec();
                let to = random.below(size - length + 1);
                bytes[to..to + length].copy_from_slice(&piece);
            }
        }
        if bytes.is_empty() {
            break;
        }
    }
    bytes
}

fn flip(bytes: &mut [u8], random: &mut Random) {
    for _ in 0..1 + random.below(3) {
        let at = random.below(bytes.len());
        if let Some(byte) = bytes.get_mut(at) {
            *byte ^= 1 << random.below(8);
        }
    }
}

/// Another number for the next one that is written out after a place.
fn digits(bytes: &mut Vec<u8>, at: usize, random: &mut Random) {
    let Some(start) = bytes[at..].iter().position(u8::is_ascii_digit).map(|offset| at + offset) else {
        return;
    };
    let end =
        bytes[start..].iter().position(|byte| !byte.is_ascii_digit()).map_or(bytes.len(), |n| start + n);
    let size = bytes.len();
    let number = match random.below(4) {
        0 => "-1".to_string(),
        1 => "1e308".to_string(),
        _ => random.awkward(size).to_string(),
    };
    bytes.splice(start..end, number.into_bytes());
}
