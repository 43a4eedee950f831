//! One hand-made file a lie: the error must name the byte and the field of the lie.

use tritforge_gguf::{Error, Gguf, Value};

use crate::raw::{Raw, every_value, sample, strings};

/// Asserts that the file is refused at this byte and field, in words that contain these.
fn refused(raw: &Raw, at: usize, expected_field: &str, words: &[&str]) {
    let error = Gguf::from_bytes(raw.bytes.clone()).expect_err("a file that must be refused");
    let message = error.to_string();
    let Error::Parse { offset, field, .. } = error else { panic!("not a parse error: {message}") };
    assert_eq!((offset, field.as_str()), (at as u64, expected_field), "{message}");
    for word in words {
        assert!(message.contains(word), "{message:?} does not say {word:?}");
    }
}

/// The same for the sample file with one field overwritten, refused at that field.
fn edit_refused(field: &str, value: &[u8], expected_field: &str, words: &[&str]) {
    let raw = sample();
    refused(&raw.with(field, value), raw.at(field), expected_field, words);
}

#[test]
fn the_sample_itself_is_read() {
    let raw = sample();
    let model = Gguf::from_bytes(raw.bytes.clone()).unwrap();
    assert_eq!(model.metadata().get_str("general.name").unwrap(), "ternär");
    assert_eq!(model.metadata().get_str_array("tokens").unwrap(), ["<s>", "", "木"]);
    assert_eq!(model.metadata().get_i64_array("types").unwrap(), [1, 2, -1]);
    assert!(model.metadata().get_bool("flag").unwrap());
    let names: Vec<_> = model.tensors().iter().map(|t| (t.name.as_str(), t.nbytes)).collect();
    assert_eq!(names, [("embd", 48), ("attn_q", 96), ("ffn_up", 66)]);
    let start = raw.bytes.len() - 256;
    assert_eq!(model.data_offset(), start as u64);
    let data = model.data(model.tensor("attn_q").unwrap());
    assert_eq!(data, &raw.bytes[start + 64..start + 160]);
    assert_eq!(Gguf::from_bytes(every_value().bytes).unwrap().metadata().len(), 24);
}

#[test]
fn version_2_is_read() {
    let raw = sample().with("version", &2u32.to_le_bytes());
    assert_eq!(Gguf::from_bytes(raw.bytes).unwrap().version(), 2);
}

#[test]
fn other_files_and_versions_are_named() {
    let file = |bytes: &[u8]| Raw { bytes: bytes.to_vec(), fields: Vec::new() };
    refused(&file(b""), 0, "magic", &["0 bytes to the end", "4 bytes"]);
    refused(&file(b"GG"), 0, "magic", &["2 bytes"]);
    refused(&file(b"GGUF\x03\0"), 4, "version", &["2 bytes to the end"]);
    refused(&file(b"\x80\x02safetensors"), 0, "magic", &["\\x80\\x02sa", "is it a GGUF file?"]);
    edit_refused("version", &1u32.to_le_bytes(), "version", &["found 1", "32-bit"]);
    edit_refused("version", &4u32.to_le_bytes(), "version", &["found 4", "2 or 3"]);
    edit_refused("version", &0u32.to_le_bytes(), "version", &["found 0"]);
    edit_refused("version", &3u32.to_be_bytes(), "version", &["3 in big-endian", "gguf-convert-endian"]);
}

#[test]
fn counts_beyond_the_file_are_refused_before_allocation() {
    for count in [u64::MAX, 1 << 32, 1 << 60, 100] {
        edit_refused(
            "tensor count",
            &count.to_le_bytes(),
            "tensor count",
            &[&format!("found {count}"), "at most"],
        );
        edit_refused("metadata count", &count.to_le_bytes(), "metadata count", &["at most", "at least 13"]);
    }
}

#[test]
fn counts_that_run_into_the_next_section_are_refused() {
    // One tensor more than there is: its name is read from the data section.
    let raw = sample();
    let more = raw.with("tensor count", &4u64.to_le_bytes());
    let end = raw.at("ffn_up offset") + 8;
    let error = Gguf::from_bytes(more.bytes).unwrap_err();
    assert!(matches!(error, Error::Parse { offset, .. } if offset >= end as u64), "{error}");
}

#[test]
fn string_lengths_past_the_end_are_refused() {
    for length in [u64::MAX, u64::MAX - 7, 1 << 63, 10_000] {
        let (value, found) = (length.to_le_bytes(), format!("found {length}"));
        edit_refused("general.name length", &value, "metadata[0] key length", &[&found]);
        edit_refused("general.name value length", &value, "metadata[0] `general.name` length", &[&found]);
        edit_refused("embd length", &value, "tensor[0] name length", &[&found, "at most 64"]);
        let raw = sample();
        let at = raw.at("tokens elements");
        let mut edited = raw.clone();
        edited.bytes[at..at + 8].copy_from_slice(&value);
        refused(&edited, at, "metadata[3] `tokens`[0] length", &[&found]);
    }
}

#[test]
fn names_and_keys_beyond_their_limits_are_refused() {
    for (length, accepted) in [(64, true), (65, false)] {
        let mut raw = Raw::new(1, 0);
        raw.tensor(&"t".repeat(length), &[1], 0, 0);
        raw.data(32, 32);
        if accepted {
            Gguf::from_bytes(raw.bytes).unwrap();
        } else {
            refused(&raw, 24, "tensor[0] name length", &["found 65", "at most 64"]);
        }
    }
    let mut raw = Raw::new(0, 1);
    raw.entry(&"k".repeat(65_536), 0, &[1]);
    refused(&raw, 24, "metadata[0] key length", &["found 65536", "at most 65535"]);
}

#[test]
fn strings_that_are_not_utf8_are_refused() {
    let raw = sample();
    for (field, name) in
        [("general.name", "metadata[0] key"), ("general.name value", "metadata[0] `general.name`")]
    {
        let at = raw.at(field) + 2;
        let mut edited = raw.clone();
        edited.bytes[at] = 0xff;
        refused(&edited, at, name, &["0xff at 2", "UTF-8"]);
    }
    edit_refused("embd", &[0xc3], "tensor[0] name", &["0xc3 at 0 of 4"]);
}

#[test]
fn unknown_value_types_are_refused() {
    for ty in [13u32, 255, u32::MAX] {
        let words = [&*format!("found {ty}"), "0 (u8) to 12 (f64)"];
        edit_refused("flag type", &ty.to_le_bytes(), "metadata[2] `flag` type", &words);
        let field = "metadata[4] `types` element type";
        edit_refused("types element type", &ty.to_le_bytes(), field, &[words[0]]);
    }
}

#[test]
fn nested_arrays_are_refused() {
    edit_refused(
        "types element type",
        &[9, 0, 0, 0],
        "metadata[4] `types` element type",
        &["array of arrays"],
    );
    // A thousand arrays inside each other.
    let mut raw = Raw::new(0, 1);
    let inner: Vec<u8> = [&9u32.to_le_bytes()[..], &1u64.to_le_bytes()].concat().repeat(1000);
    raw.array("deep", 9, 1, &inner);
    refused(&raw, raw.at("deep element type"), "metadata[0] `deep` element type", &["array of arrays"]);
}

#[test]
fn array_lengths_past_the_end_are_refused() {
    // 2^61 elements of 8 bytes would wrap to 0 in 64 bits.
    for count in [u64::MAX, 1 << 61, 1 << 32, 5_000] {
        let (value, found) = (count.to_le_bytes(), format!("found {count}"));
        edit_refused("tokens count", &value, "metadata[3] `tokens` count", &[&found, "at least 8"]);
        edit_refused("types count", &value, "metadata[4] `types` count", &[&found, "at least 4"]);
        for ty in [0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 11, 12] {
            let raw = every_value();
            let key = format!("a{ty}");
            let edited = raw.with(&format!("{key} count"), &value);
            let index = raw.fields.iter().filter(|f| f.0.ends_with(" type") && !f.0.contains("element"));
            let index = index.map(|f| f.0.as_str()).position(|name| name == format!("{key} type")).unwrap();
            let field = format!("metadata[{index}] `{key}` count");
            refused(&edited, raw.at(&format!("{key} count")), &field, &[&found, "at most"]);
        }
    }
}

#[test]
fn bytes_promised_to_later_fields_justify_nothing_else() {
    // 30 entries need 390 bytes: the array may not claim them for its 40 strings.
    let mut raw = Raw::new(0, 30);
    raw.array("s", 8, 40, &[0; 400]);
    let field = "metadata[0] `s` count";
    refused(
        &raw,
        raw.at("s count"),
        field,
        &["found 40", "at most 2 (400 bytes left, 377 of which later fields need"],
    );
}

#[test]
fn bools_other_than_0_and_1_are_refused() {
    edit_refused("flag value", &[2], "metadata[2] `flag`", &["byte 2", "0 or 1"]);
    let mut raw = Raw::new(0, 1);
    raw.array("flags", 7, 3, &[0, 1, 128]);
    refused(&raw, raw.at("flags elements") + 2, "metadata[0] `flags`[2]", &["byte 128"]);
}

#[test]
fn duplicate_keys_are_refused() {
    let mut raw = Raw::new(0, 3);
    raw.entry("first", 0, &[1]);
    raw.entry("other", 0, &[2]);
    let at = raw.bytes.len();
    raw.entry("first", 0, &[1]);
    refused(&raw, at, "metadata[2] key", &["`first` a second time"]);
}

#[test]
fn duplicate_tensor_names_are_refused() {
    let mut raw = Raw::new(2, 0);
    raw.tensor("twin", &[8], 0, 0);
    let at = raw.bytes.len();
    raw.tensor("twin", &[8], 0, 32);
    raw.data(32, 64);
    refused(&raw, at, "tensor[1] name", &["`twin` a second time"]);
}

#[test]
fn more_than_four_dimensions_are_refused() {
    for n in [5u32, 1 << 20, u32::MAX] {
        let words = [&*format!("found {n}"), "at most 4"];
        edit_refused("embd n_dims", &n.to_le_bytes(), "tensor[0] `embd` n_dims", &words);
    }
}

#[test]
fn dimensions_whose_product_overflows_are_refused() {
    // 2^32 * 2^32 is 0 in 64 bits; 2^62 * 4 bytes too.
    for dims in [[1u64 << 32, 1 << 32], [1 << 62, 1], [u64::MAX, u64::MAX], [u64::MAX, 1]] {
        let raw = sample()
            .with("embd dims[0]", &dims[0].to_le_bytes())
            .with("embd dims[1]", &dims[1].to_le_bytes());
        let at = raw.at("embd dims[0]");
        refused(&raw, at, "tensor[0] `embd` dims", &[&format!("{dims:?} for F32"), "fits 64 bits"]);
    }
    // A product that fits, of data that the file does not have.
    let raw = sample().with("embd dims[1]", &(1u64 << 40).to_le_bytes());
    refused(
        &raw,
        raw.at("embd offset"),
        "tensor[0] `embd` offset",
        &["0 with 17592186044416 bytes", "truncated?"],
    );
}

#[test]
fn dimensions_that_the_type_cannot_store_are_refused() {
    edit_refused("embd dims[0]", &[0; 8], "tensor[0] `embd` dims", &["[0, 3]", "at least 1"]);
    edit_refused(
        "attn_q dims[0]",
        &64u64.to_le_bytes(),
        "tensor[1] `attn_q` dims",
        &["I2_S", "multiple of 128"],
    );
    edit_refused(
        "ffn_up dims[0]",
        &128u64.to_le_bytes(),
        "tensor[2] `ffn_up` dims",
        &["TQ2_0", "multiple of 256"],
    );
}

#[test]
fn unknown_tensor_types_are_refused() {
    for (id, words) in [(38u32, "TL1"), (4, "runtime"), (u32::MAX, "runtime")] {
        let words = [&*format!("found {id}"), words];
        edit_refused("embd type", &id.to_le_bytes(), "tensor[0] `embd` type", &words);
    }
}

#[test]
fn alignments_that_are_not_sane_are_refused() {
    let field = "metadata[1] `general.alignment`";
    for alignment in [0u32, 1, 4, 12, 33, 1 << 21, 1 << 31, u32::MAX] {
        let words = [&*format!("found u32 {alignment},"), "power of two from 8 to 1048576"];
        edit_refused("general.alignment value", &alignment.to_le_bytes(), field, &words);
    }
    // An i32, which llama.cpp refuses too.
    let raw = sample();
    let signed = raw.with("general.alignment type", &5u32.to_le_bytes());
    refused(&signed, raw.at("general.alignment value"), field, &["found i32 32"]);
}

#[test]
fn offsets_off_the_alignment_are_refused() {
    for offset in [1u64, 16, 65] {
        let words = [&*format!("found {offset},"), "multiple of the alignment, 32"];
        edit_refused("attn_q offset", &offset.to_le_bytes(), "tensor[1] `attn_q` offset", &words);
    }
}

#[test]
fn data_outside_the_file_is_refused() {
    // The last two, with the size added, wrap to a small number in 64 bits.
    for offset in [192u64, 1 << 40, u64::MAX - 31, u64::MAX - 63] {
        let words = [&*format!("{offset} with 66 bytes"), "the 256 bytes from byte"];
        edit_refused("ffn_up offset", &offset.to_le_bytes(), "tensor[2] `ffn_up` offset", &words);
    }
    // Cut short: in the padding before the data, in the data, one byte before its end.
    let raw = sample();
    for missing in [256, 200, 31] {
        let mut cut = raw.clone();
        cut.bytes.truncate(raw.bytes.len() - missing);
        let error = Gguf::from_bytes(cut.bytes).unwrap_err();
        assert!(error.to_string().contains("truncated?"), "{error}");
    }
}

#[test]
fn overlapping_tensors_are_refused() {
    let words = ["found 32, inside tensor `embd`", "48 or more"];
    edit_refused("attn_q offset", &32u64.to_le_bytes(), "tensor[1] `attn_q` offset", &words);
    // Two tensors at one place; the file's order is not that of the data.
    let words = ["found 0, inside tensor `embd`"];
    edit_refused("ffn_up offset", &0u64.to_le_bytes(), "tensor[2] `ffn_up` offset", &words);
}

#[test]
fn tensors_may_lie_in_any_order_with_gaps() {
    let mut raw = Raw::new(2, 0);
    raw.tensor("late", &[8], 0, 96);
    raw.tensor("early", &[8], 0, 0);
    raw.data(32, 128);
    let model = Gguf::from_bytes(raw.bytes).unwrap();
    assert_eq!(model.tensors()[0].name, "late");
    assert_eq!(model.data(&model.tensors()[0])[0], 96);
}

#[test]
fn every_truncation_is_refused() {
    for raw in [sample(), every_value()] {
        // The data of the last tensor ends before the padding after it does.
        let needed =
            if raw.fields.iter().any(|f| f.0 == "embd") { raw.bytes.len() - 30 } else { raw.bytes.len() };
        for length in 0..raw.bytes.len() {
            let read = Gguf::from_bytes(raw.bytes[..length].to_vec());
            assert_eq!(read.is_ok(), length >= needed, "{length} of {} bytes: {read:?}", raw.bytes.len());
        }
    }
}

#[test]
fn hostile_names_do_not_fill_the_message() {
    let mut raw = Raw::new(0, 2);
    let key = "\u{1b}[31m".repeat(1000);
    raw.entry(&key, 0, &[1]);
    raw.entry(&key, 0, &[1]);
    let message = Gguf::from_bytes(raw.bytes).unwrap_err().to_string();
    assert!(message.len() < 800 && !message.contains('\u{1b}'), "{message}");
}

#[test]
fn not_a_number_and_odd_text_survive() {
    let mut raw = Raw::new(0, 2);
    raw.entry("nan", 6, &0x7fc0_1234u32.to_le_bytes());
    raw.entry("text", 8, &strings(&["\0\n"]));
    let model = Gguf::from_bytes(raw.bytes).unwrap();
    assert!(matches!(model.metadata().get("nan"), Some(Value::F32(v)) if v.to_bits() == 0x7fc0_1234));
    assert_eq!(model.metadata().get_str("text").unwrap(), "\0\n");
}
