//! The event files of TensorBoard, as far as a run needs them: scalars, texts, and the mark that a run goes
//! on.
//!
//! A file is a sequence of records (TFRecord): length as u64, its masked CRC-32C, the bytes, their masked
//! CRC-32C, all little-endian; the bytes are an `Event` of `tensorflow/core/util/event.proto` in protobuf.
//! The first has `file_version = "brain.Event:2"`. A `SessionLog` with status START and step s makes
//! TensorBoard forget all earlier events of step s and later.

use super::hparams;
use super::protobuf::{bytes, key, varint};

/// The value of a summary.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Value<'a> {
    /// A number, drawn over the steps.
    Scalar(f32),
    /// A text, shown in Markdown.
    Text(&'a str),
    /// What the HParams plugin reads: a message `HParamsPluginData`.
    Hparams(&'a [u8]),
}

/// The event that begins a file.
pub(super) fn version(wall_time: f64) -> Vec<u8> {
    let mut event = header(wall_time, 0);
    bytes(&mut event, 3, b"brain.Event:2");
    event
}

/// The event of a run that begins again with step `step`: what stands before of it and later steps does not
/// count.
pub(super) fn start(wall_time: f64, step: u64) -> Vec<u8> {
    let mut event = header(wall_time, step);
    // SessionLog { status = 1: START }
    bytes(&mut event, 7, &[1 << 3, 1]);
    event
}

/// The event of a step's values, each under its tag.
pub(super) fn summary(wall_time: f64, step: u64, values: &[(&str, Value<'_>)]) -> Vec<u8> {
    let mut summary = Vec::new();
    for (tag, value) in values {
        let mut message = Vec::new();
        bytes(&mut message, 1, tag.as_bytes());
        match value {
            Value::Scalar(x) => {
                key(&mut message, 2, 5);
                message.extend(x.to_le_bytes());
            }
            Value::Text(text) => {
                // TensorProto { dtype = 1: DT_STRING, tensor_shape = 2: one dimension of one, string_val = 8
                // }
                let mut tensor = vec![1 << 3, 7];
                bytes(&mut tensor, 2, &[2 << 3 | 2, 2, 1 << 3, 1]);
                bytes(&mut tensor, 8, text.as_bytes());
                bytes(&mut message, 8, &tensor);
                bytes(&mut message, 9, &metadata(b"text", &[]));
            }
            Value::Hparams(content) => {
                // TensorProto { dtype = 1: DT_FLOAT, tensor_shape = 2: one dimension of none }: the plugin's series have no
                // values.
                bytes(&mut message, 8, &[1 << 3, 1, 2 << 3 | 2, 2, 2 << 3 | 2, 0]);
                bytes(&mut message, 9, &metadata(hparams::PLUGIN.as_bytes(), content));
            }
        }
        bytes(&mut summary, 1, &message);
    }
    let mut event = header(wall_time, step);
    bytes(&mut event, 5, &summary);
    event
}

/// SummaryMetadata { plugin_data = 1: { plugin_name = 1, content = 2 } }
fn metadata(name: &[u8], content: &[u8]) -> Vec<u8> {
    let (mut plugin, mut metadata) = (Vec::new(), Vec::new());
    bytes(&mut plugin, 1, name);
    if !content.is_empty() {
        bytes(&mut plugin, 2, content);
    }
    bytes(&mut metadata, 1, &plugin);
    metadata
}

/// The records of a file that hold nothing of the HParams plugin, up to one that is cut off.
pub(super) fn without_hparams(file: &[u8]) -> Vec<u8> {
    let (mut kept, mut rest) = (Vec::with_capacity(file.len()), file);
    while let Some(length) = rest.first_chunk::<8>().map(|length| u64::from_le_bytes(*length)) {
        let Some(end) = usize::try_from(length).ok().and_then(|length| length.checked_add(16)) else { break };
        let Some((record, next)) = rest.split_at_checked(end) else { break };
        if !record.windows(hparams::TAGS.len()).any(|window| window == hparams::TAGS.as_bytes()) {
            kept.extend(record);
        }
        rest = next;
    }
    kept
}

/// An event as a record of a file.
pub(super) fn record(event: &[u8]) -> Vec<u8> {
    let length = (event.len() as u64).to_le_bytes();
    let mut record = Vec::with_capacity(event.len() + 16);
    record.extend(length);
    record.extend(masked_crc(&length).to_le_bytes());
    record.extend(event);
    record.extend(masked_crc(event).to_le_bytes());
    record
}

/// `wall_time = 1` in seconds since 1970, `step = 2`.
fn header(wall_time: f64, step: u64) -> Vec<u8> {
    let mut event = Vec::new();
    key(&mut event, 1, 1);
    event.extend(wall_time.to_le_bytes());
    key(&mut event, 2, 0);
    varint(&mut event, step);
    event
}

/// The CRC as TFRecord stores it, so that the CRC of data with a CRC in it is no special case.
fn masked_crc(data: &[u8]) -> u32 {
    crc32c(data).rotate_right(15).wrapping_add(0xa282_ead8)
}

/// CRC-32C (Castagnoli), reflected, as in RFC 3720.
fn crc32c(data: &[u8]) -> u32 {
    const TABLE: [u32; 256] = table();
    !data.iter().fold(!0u32, |crc, byte| TABLE[usize::from(crc as u8 ^ byte)] ^ (crc >> 8))
}

const fn table() -> [u32; 256] {
    let mut table = [0u32; 256];
    let mut i = 0;
    while i < 256 {
        let mut crc = i as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 };
            bit += 1;
        }
        table[i] = crc;
        i += 1;
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crc_is_that_of_the_rfc() {
        // RFC 3720, B.4; and the check value of the catalogue of CRCs.
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c(&[0xff; 32]), 0x62a8_ab43);
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    }

    #[test]
    fn a_scalar_is_the_bytes_that_protobuf_writes() {
        let event = summary(1.0, 300, &[("a", Value::Scalar(2.0))]);
        let expected: &[u8] = &[
            0x09, 0, 0, 0, 0, 0, 0, 0xf0, 0x3f, // wall_time: 1.0
            0x10, 0xac, 0x02, // step: 300
            0x2a, 0x0a, 0x0a, 0x08, // summary, value
            0x0a, 0x01, b'a', 0x15, 0, 0, 0, 0x40, // tag, simple_value
        ];
        assert_eq!(event, expected);
        let record = record(&event);
        assert_eq!(record[..8], (event.len() as u64).to_le_bytes());
        assert_eq!(record.len(), event.len() + 16);
        assert_eq!(record[12..12 + event.len()], event);
    }
}
