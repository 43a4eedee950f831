//! A reader of the protobuf wire format, as much as sentencepiece's `ModelProto` needs: fields of a message,
//! one after the other, borrowed from the bytes. Nothing is allocated, and no length is believed before it is
//! checked.

/// The value of a field.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Field<'a> {
    /// Wire type 0.
    Varint(u64),
    /// Wire type 1.
    Fixed64,
    /// Wire type 2: bytes, a string or a message.
    Bytes(&'a [u8]),
    /// Wire type 5.
    Fixed32([u8; 4]),
}

impl<'a> Field<'a> {
    /// A `bool`; false of another type.
    pub(super) fn bool(self) -> bool {
        matches!(self, Field::Varint(value) if value != 0)
    }

    /// An `int32` or `enum`, which stands sign-extended in 64 bits.
    pub(super) fn int(self) -> Option<i32> {
        match self {
            Field::Varint(value) => i32::try_from(value as i64).ok(),
            _ => None,
        }
    }

    /// A `float`.
    pub(super) fn float(self) -> Option<f32> {
        match self {
            Field::Fixed32(bytes) => Some(f32::from_le_bytes(bytes)),
            _ => None,
        }
    }

    /// Bytes, or a message.
    pub(super) fn bytes(self) -> Option<&'a [u8]> {
        match self {
            Field::Bytes(bytes) => Some(bytes),
            _ => None,
        }
    }

    /// A string.
    pub(super) fn text(self) -> Option<&'a str> {
        std::str::from_utf8(self.bytes()?).ok()
    }
}

/// The fields of a message: number and value of each, or where the bytes stop to be a message.
#[derive(Debug, Clone)]
pub(super) struct Fields<'a> {
    rest: &'a [u8],
    length: usize,
}

impl<'a> Fields<'a> {
    pub(super) fn of(bytes: &'a [u8]) -> Self {
        Self { rest: bytes, length: bytes.len() }
    }

    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(count)?;
        self.rest = rest;
        Some(taken)
    }

    /// At most ten bytes of seven bits, the lowest first.
    fn varint(&mut self) -> Option<u64> {
        let mut value = 0u64;
        for shift in (0..70).step_by(7) {
            let byte = *self.take(1)?.first()?;
            value |= u64::from(byte & 0x7f).checked_shl(shift)?;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }

    fn field(&mut self) -> Option<(u64, Field<'a>)> {
        let key = self.varint()?;
        let value = match key & 7 {
            0 => Field::Varint(self.varint()?),
            1 => {
                self.take(8)?;
                Field::Fixed64
            }
            2 => {
                let length = usize::try_from(self.varint()?).ok()?;
                Field::Bytes(self.take(length)?)
            }
            5 => Field::Fixed32(self.take(4)?.try_into().ok()?),
            // Groups have been out of use since before sentencepiece.
            _ => return None,
        };
        (key >> 3 > 0).then_some((key >> 3, value))
    }
}

impl<'a> Iterator for Fields<'a> {
    /// A field, or the offset of the bytes that are none.
    type Item = Result<(u64, Field<'a>), usize>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let offset = self.length - self.rest.len();
        let field = self.field();
        if field.is_none() {
            self.rest = &[];
        }
        Some(field.ok_or(offset))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_examples_of_the_encoding_guide() {
        // protobuf.dev/programming-guides/encoding: 150 in field 1, "testing" in field 2; −2 as an int32.
        let bytes = [0x08, 0x96, 0x01, 0x12, 7, b't', b'e', b's', b't', b'i', b'n', b'g'];
        let fields: Result<Vec<_>, usize> = Fields::of(&bytes).collect();
        let fields = fields.unwrap();
        assert_eq!(fields[0], (1, Field::Varint(150)));
        assert_eq!((fields[1].0, fields[1].1.text()), (2, Some("testing")));
        let minus_two = [0x08, 0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
        assert_eq!(Fields::of(&minus_two).next().unwrap().unwrap().1.int(), Some(-2));
    }

    #[test]
    fn damage_has_an_offset() {
        // A length past the end, a varint of eleven bytes, a group, the field number 0.
        for bytes in [&[0x08, 1, 0x12, 200][..], &[0x08, 1, 0xff], &[0x08, 1, 0x0b], &[0x08, 1, 0x00, 1]] {
            let fields: Vec<_> = Fields::of(bytes).collect();
            assert_eq!(fields, [Ok((1, Field::Varint(1))), Err(2)]);
        }
        assert!(Fields::of(&[0x08; 12]).all(|field| field.is_ok()));
        assert_eq!(Fields::of(&[0xff; 12]).collect::<Vec<_>>(), [Err(0)]);
    }
}
