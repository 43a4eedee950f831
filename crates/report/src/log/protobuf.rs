//! The wire format of protobuf, as far as event files need it: fields one after the other, each with its number and the
//! kind of its value. A field that has its default, 0 or nothing, is left out, as protobuf 3 does.

/// A field's number and wire type: 0 varint, 1 eight bytes, 2 bytes with a length, 5 four bytes.
pub(super) fn key(message: &mut Vec<u8>, field: u64, wire: u64) {
    varint(message, field << 3 | wire);
}

/// A field of bytes: a string, or a message. It is written even if it is empty: a message that is there.
pub(super) fn bytes(message: &mut Vec<u8>, field: u64, value: &[u8]) {
    key(message, field, 2);
    varint(message, value.len() as u64);
    message.extend(value);
}

/// A field of text.
pub(super) fn text(message: &mut Vec<u8>, field: u64, value: &str) {
    if !value.is_empty() {
        bytes(message, field, value.as_bytes());
    }
}

/// A field of a whole number or of a choice.
pub(super) fn whole(message: &mut Vec<u8>, field: u64, value: u64) {
    if value != 0 {
        key(message, field, 0);
        varint(message, value);
    }
}

/// A field of an f64. -0 is not the default.
pub(super) fn double(message: &mut Vec<u8>, field: u64, value: f64) {
    if value.to_bits() != 0 {
        key(message, field, 1);
        message.extend(value.to_le_bytes());
    }
}

/// Seven bits a byte, the lowest first; the highest bit says that more follow.
pub(super) fn varint(message: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        message.push(value as u8 | 0x80);
        value >>= 7;
    }
    message.push(value as u8);
}
