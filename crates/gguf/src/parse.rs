//! From a file's bytes to its header, trusting none of them.
//!
//! Each count and length is checked against the bytes that are left before anything is allocated for it, each
//! sum and product is checked for overflow, and so is that names are unique and tensors apart. Memory is
//! therefore bounded by the size of the file (the test `mutations` measures it) and time by its size times a
//! logarithm.

use std::collections::HashSet;

use crate::{
    cursor::Cursor,
    error::{Fault, Quoted},
    format::{self, ALIGNMENT_KEY, MAGIC, MAX_DIMS, MIN_ENTRY, MIN_TENSOR_INFO, OLDEST_VERSION, VERSION},
    metadata::Metadata,
    mxfp4, q2_0,
    reader::TensorInfo,
    types::GgmlType,
    value::{self, ARRAY, Array, STRING, Value},
};

/// Everything before the tensors' data.
pub(crate) struct Header {
    pub(crate) version: u32,
    pub(crate) metadata: Metadata,
    pub(crate) tensors: Vec<TensorInfo>,
    pub(crate) alignment: u64,
    pub(crate) data_offset: u64,
}

/// Parses and checks a whole file; the tensors it lists lie inside it.
pub(crate) fn header(bytes: &[u8]) -> Result<Header, Fault> {
    let mut cursor = Cursor::new(bytes);
    let version = magic_and_version(&mut cursor)?;
    let tensor_count = cursor.count(MIN_TENSOR_INFO, format_args!("tensor count"))?;
    let entry_count = cursor.count(MIN_ENTRY, format_args!("metadata count"))?;
    let (metadata, alignment) = metadata(&mut cursor, entry_count)?;
    let (mut tensors, offset_fields) = tensor_infos(&mut cursor, tensor_count)?;
    let end = cursor.offset();
    let data_offset = format::align_up(end, alignment)
        .ok_or_else(|| Fault::new(end, "data section", "no aligned offset", "an offset that fits 64 bits"))?;
    let available = (bytes.len() as u64).saturating_sub(data_offset);
    q2_0::tell_apart(&mut tensors, &offset_fields, alignment, available)?;
    mxfp4::check(&tensors, &offset_fields, available)?;
    check_places(&tensors, &offset_fields, alignment, data_offset, bytes.len() as u64)?;
    Ok(Header { version, metadata, tensors, alignment, data_offset })
}

fn magic_and_version(cursor: &mut Cursor<'_>) -> Result<u32, Fault> {
    let magic: [u8; 4] = cursor.array(format_args!("magic"))?;
    if magic != MAGIC {
        return Err(Fault::new(
            0,
            "magic",
            format_args!("\"{}\"", magic.escape_ascii()),
            "\"GGUF\" (is it a GGUF file?)",
        ));
    }
    let start = cursor.offset();
    let version = cursor.u32(format_args!("version"))?;
    let fault = |found: &dyn std::fmt::Display, expected| Err(Fault::new(start, "version", found, expected));
    match version {
        OLDEST_VERSION..=VERSION => Ok(version),
        1 => fault(&"1", "version 2 or 3 (version 1 has 32-bit lengths: convert the model again)"),
        // A small number in the other byte order.
        _ if version.swap_bytes() <= 0xffff => fault(
            &format_args!("{} in big-endian order", version.swap_bytes()),
            "a little-endian file (`gguf-convert-endian` of the Python package gguf converts it)",
        ),
        _ => fault(&version, "version 2 or 3"),
    }
}

/// The metadata, and the alignment it declares.
fn metadata(cursor: &mut Cursor<'_>, count: usize) -> Result<(Metadata, u64), Fault> {
    let mut keys = HashSet::with_capacity(count);
    let mut entries = Vec::with_capacity(count);
    let mut alignment = format::DEFAULT_ALIGNMENT;
    for i in 0..count {
        cursor.release_reserved(MIN_ENTRY);
        let key_start = cursor.offset();
        let key = cursor.str(format::MAX_KEY, format_args!("metadata[{i}] key"))?;
        let field = Quoted(key);
        if !keys.insert(key) {
            return Err(Fault::new(
                key_start,
                format_args!("metadata[{i}] key"),
                format_args!("{field} a second time"),
                "each key once",
            ));
        }
        let ty = cursor.u32(format_args!("metadata[{i}] {field} type"))?;
        let value_start = cursor.offset();
        let value = value(cursor, ty, format_args!("metadata[{i}] {field}"))?;
        if key == ALIGNMENT_KEY {
            alignment = format::alignment(&value).ok_or_else(|| {
                Fault::new(
                    value_start,
                    format_args!("metadata[{i}] {field}"),
                    value::Described(&value),
                    format::ALIGNMENT_EXPECTED,
                )
            })?;
        }
        entries.push((key.to_owned(), value));
    }
    Ok((Metadata::from_unique(entries), alignment))
}

/// A value of the type whose id was just read.
fn value(cursor: &mut Cursor<'_>, ty: u32, field: std::fmt::Arguments<'_>) -> Result<Value, Fault> {
    Ok(match ty {
        0 => Value::U8(u8::from_le_bytes(cursor.array(field)?)),
        1 => Value::I8(i8::from_le_bytes(cursor.array(field)?)),
        2 => Value::U16(u16::from_le_bytes(cursor.array(field)?)),
        3 => Value::I16(i16::from_le_bytes(cursor.array(field)?)),
        4 => Value::U32(cursor.u32(field)?),
        5 => Value::I32(i32::from_le_bytes(cursor.array(field)?)),
        6 => Value::F32(f32::from_le_bytes(cursor.array(field)?)),
        7 => {
            let start = cursor.offset();
            let [byte] = cursor.array(field)?;
            Value::Bool(boolean(byte).ok_or_else(|| bad_bool(start, field, byte))?)
        }
        STRING => Value::String(cursor.str(u64::MAX, field)?.to_owned()),
        ARRAY => Value::Array(array(cursor, field)?),
        10 => Value::U64(cursor.u64(field)?),
        11 => Value::I64(i64::from_le_bytes(cursor.array(field)?)),
        12 => Value::F64(f64::from_le_bytes(cursor.array(field)?)),
        _ => {
            let start = cursor.offset() - 4;
            return Err(Fault::new(
                start,
                format_args!("{field} type"),
                ty,
                "a value type from 0 (u8) to 12 (f64)",
            ));
        }
    })
}

/// An array's element type, count and elements.
fn array(cursor: &mut Cursor<'_>, field: std::fmt::Arguments<'_>) -> Result<Array, Fault> {
    let start = cursor.offset();
    let ty = cursor.u32(format_args!("{field} element type"))?;
    let Some(least) = value::min_size(ty) else {
        let found = if ty == ARRAY { "9 (an array of arrays)".to_owned() } else { ty.to_string() };
        let expected = "a scalar type: 0 to 8 or 10 to 12";
        return Err(Fault::new(start, format_args!("{field} element type"), found, expected));
    };
    let count = cursor.count(least, format_args!("{field} count"))?;
    if ty != STRING {
        // The elements are read at once.
        cursor.release_reserved(count as u64 * least);
    }
    Ok(match ty {
        0 => Array::U8(numbers(cursor, count, field, u8::from_le_bytes)?),
        1 => Array::I8(numbers(cursor, count, field, i8::from_le_bytes)?),
        2 => Array::U16(numbers(cursor, count, field, u16::from_le_bytes)?),
        3 => Array::I16(numbers(cursor, count, field, i16::from_le_bytes)?),
        4 => Array::U32(numbers(cursor, count, field, u32::from_le_bytes)?),
        5 => Array::I32(numbers(cursor, count, field, i32::from_le_bytes)?),
        6 => Array::F32(numbers(cursor, count, field, f32::from_le_bytes)?),
        7 => {
            let start = cursor.offset();
            let bytes = cursor.take(count as u64, field)?;
            let mut flags = Vec::with_capacity(count);
            for (i, &byte) in bytes.iter().enumerate() {
                let flag = boolean(byte);
                flags.push(
                    flag.ok_or_else(|| bad_bool(start + i as u64, format_args!("{field}[{i}]"), byte))?,
                );
            }
            Array::Bool(flags)
        }
        STRING => {
            let mut strings = Vec::with_capacity(count);
            for i in 0..count {
                cursor.release_reserved(least);
                strings.push(cursor.str(u64::MAX, format_args!("{field}[{i}]"))?.to_owned());
            }
            Array::String(strings)
        }
        10 => Array::U64(numbers(cursor, count, field, u64::from_le_bytes)?),
        11 => Array::I64(numbers(cursor, count, field, i64::from_le_bytes)?),
        // `min_size` knows no other id.
        _ => Array::F64(numbers(cursor, count, field, f64::from_le_bytes)?),
    })
}

/// `count` numbers of `N` bytes each. The caller has checked the count against the bytes left.
fn numbers<T, const N: usize>(
    cursor: &mut Cursor<'_>,
    count: usize,
    field: std::fmt::Arguments<'_>,
    from_le_bytes: fn([u8; N]) -> T,
) -> Result<Vec<T>, Fault> {
    let bytes = cursor.take(count as u64 * N as u64, field)?;
    Ok(bytes.as_chunks::<N>().0.iter().map(|&chunk| from_le_bytes(chunk)).collect())
}

fn boolean(byte: u8) -> Option<bool> {
    match byte {
        0 => Some(false),
        1 => Some(true),
        _ => None,
    }
}

fn bad_bool(offset: u64, field: std::fmt::Arguments<'_>, byte: u8) -> Fault {
    Fault::new(offset, field, format_args!("byte {byte}"), "a bool: 0 or 1")
}

/// The tensor infos, and where in the file each one's offset field stands (for later messages).
fn tensor_infos(cursor: &mut Cursor<'_>, count: usize) -> Result<(Vec<TensorInfo>, Vec<u64>), Fault> {
    // Metadata values of more than the least size may have eaten into the bytes promised here.
    let most = usize::try_from(cursor.left() / MIN_TENSOR_INFO).unwrap_or(usize::MAX);
    let capacity = count.min(most);
    let mut names = HashSet::with_capacity(capacity);
    let mut tensors = Vec::with_capacity(capacity);
    let mut offset_fields = Vec::with_capacity(capacity);
    for i in 0..count {
        cursor.release_reserved(MIN_TENSOR_INFO);
        let start = cursor.offset();
        let name = cursor.str(format::MAX_TENSOR_NAME, format_args!("tensor[{i}] name"))?;
        let field = Quoted(name);
        if !names.insert(name) {
            return Err(Fault::new(
                start,
                format_args!("tensor[{i}] name"),
                format_args!("{field} a second time"),
                "each name once",
            ));
        }
        let start = cursor.offset();
        let n_dims = cursor.u32(format_args!("tensor[{i}] {field} n_dims"))?;
        if n_dims > MAX_DIMS {
            let field = format_args!("tensor[{i}] {field} n_dims");
            return Err(Fault::new(start, field, n_dims, format_args!("at most {MAX_DIMS}")));
        }
        let dims_start = cursor.offset();
        let mut dims = Vec::with_capacity(n_dims as usize);
        for d in 0..n_dims {
            dims.push(cursor.u64(format_args!("tensor[{i}] {field} dims[{d}]"))?);
        }
        let start = cursor.offset();
        let id = cursor.u32(format_args!("tensor[{i}] {field} type"))?;
        let ty = GgmlType::from_id(id).map_err(|error| {
            let field = format_args!("tensor[{i}] {field} type");
            Fault::new(start, field, id, format_args!("a known tensor type ({error})"))
        })?;
        let nbytes = ty.checked_nbytes(&dims).map_err(|expected| {
            let field = format_args!("tensor[{i}] {field} dims");
            Fault::new(dims_start, field, format_args!("{dims:?} for {ty}"), expected)
        })?;
        offset_fields.push(cursor.offset());
        let offset = cursor.u64(format_args!("tensor[{i}] {field} offset"))?;
        tensors.push(TensorInfo { name: name.to_owned(), dims, ty, offset, nbytes, part: 0 });
    }
    Ok((tensors, offset_fields))
}

/// Checks that every tensor's data is aligned, inside the file, and apart from the others'.
fn check_places(
    tensors: &[TensorInfo],
    offset_fields: &[u64],
    alignment: u64,
    data_offset: u64,
    file_size: u64,
) -> Result<(), Fault> {
    let fault = |i: usize, found: &dyn std::fmt::Display, expected: &dyn std::fmt::Display| {
        let field = format_args!("tensor[{i}] {} offset", Quoted(&tensors[i].name));
        Err(Fault::new(offset_fields[i], field, found, expected))
    };
    let available = file_size.saturating_sub(data_offset);
    for (i, tensor) in tensors.iter().enumerate() {
        let TensorInfo { offset, nbytes, .. } = *tensor;
        if offset % alignment != 0 {
            return fault(i, &offset, &format_args!("a multiple of the alignment, {alignment}"));
        }
        if offset.checked_add(nbytes).is_none_or(|end| end > available) {
            return fault(
                i,
                &format_args!("{offset} with {nbytes} bytes of data"),
                &format_args!(
                    "data within the {available} bytes from byte {data_offset} to the end of the file (is it \
                     truncated?)"
                ),
            );
        }
    }
    let mut by_place: Vec<usize> = (0..tensors.len()).collect();
    by_place.sort_unstable_by_key(|&i| (tensors[i].offset, i));
    for pair in by_place.windows(2) {
        let (before, after) = (&tensors[pair[0]], &tensors[pair[1]]);
        let end = before.offset + before.nbytes;
        if after.offset < end {
            let name = Quoted(&before.name);
            return fault(
                pair[1],
                &format_args!("{}, inside tensor {name}", after.offset),
                &format_args!("{end} or more, after that tensor"),
            );
        }
    }
    Ok(())
}
