//! A cursor over foreign bytes: every read is checked against what is left, and says which field it was for.

use std::fmt::Arguments;

use tritforge_support::counted;

use crate::error::Fault;

/// A position in a file's bytes.
///
/// The `field` arguments name what is being read; they are turned into text only when a read fails.
///
/// A count promises bytes: a million entries need at least 13 million of them. Promised bytes cannot be used
/// a second time to justify the length of a string or another count, so that each byte of a file justifies
/// one allocation.
pub(crate) struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
    reserved: u64,
}

impl<'a> Cursor<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0, reserved: 0 }
    }

    /// The offset of the next byte.
    pub(crate) fn offset(&self) -> u64 {
        self.at as u64
    }

    /// The bytes left.
    pub(crate) fn left(&self) -> u64 {
        (self.bytes.len() - self.at) as u64
    }

    /// The next `n` bytes.
    pub(crate) fn take(&mut self, n: u64, field: Arguments<'_>) -> Result<&'a [u8], Fault> {
        let left = &self.bytes[self.at..];
        match usize::try_from(n).ok().and_then(|n| left.get(..n)) {
            Some(taken) => {
                self.at += taken.len();
                Ok(taken)
            }
            None => Err(Fault::new(
                self.offset(),
                field,
                format_args!("{} to the end of the file", counted(left.len(), "byte")),
                format_args!("{n} (is the file truncated?)", n = counted(n, "byte")),
            )),
        }
    }

    /// The next `N` bytes as an array.
    pub(crate) fn array<const N: usize>(&mut self, field: Arguments<'_>) -> Result<[u8; N], Fault> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N as u64, field)?);
        Ok(array)
    }

    pub(crate) fn u32(&mut self, field: Arguments<'_>) -> Result<u32, Fault> {
        Ok(u32::from_le_bytes(self.array(field)?))
    }

    pub(crate) fn u64(&mut self, field: Arguments<'_>) -> Result<u64, Fault> {
        Ok(u64::from_le_bytes(self.array(field)?))
    }

    /// A u64 count of things that each take at least `least` bytes of those that are left and not promised:
    /// the guard before any allocation for them. Promises those bytes; [`Cursor::release_reserved`] takes
    /// each back.
    pub(crate) fn count(&mut self, least: u64, field: Arguments<'_>) -> Result<usize, Fault> {
        let start = self.offset();
        let count = self.u64(field)?;
        let most = self.unreserved() / least;
        match usize::try_from(count) {
            Ok(checked) if count <= most => {
                self.reserved += count * least;
                Ok(checked)
            }
            _ => Err(Fault::new(
                start,
                field,
                count,
                format_args!("at most {most} ({}, each takes at least {least})", self.what_is_left()),
            )),
        }
    }

    /// Takes back the promise for one thing of a count: its bytes are about to be read.
    pub(crate) fn release_reserved(&mut self, least: u64) {
        self.reserved = self.reserved.saturating_sub(least);
    }

    fn unreserved(&self) -> u64 {
        self.left().saturating_sub(self.reserved)
    }

    fn what_is_left(&self) -> String {
        match self.reserved {
            0 => format!("{} left", counted(self.left(), "byte")),
            reserved => {
                format!("{} left, {reserved} of which later fields need", counted(self.left(), "byte"))
            }
        }
    }

    /// A string of at most `most` bytes, borrowed from the file.
    pub(crate) fn str(&mut self, most: u64, field: Arguments<'_>) -> Result<&'a str, Fault> {
        let start = self.offset();
        let length = self.u64(format_args!("{field} length"))?;
        let most = most.min(self.unreserved());
        if length > most {
            return Err(Fault::new(
                start,
                format_args!("{field} length"),
                length,
                format_args!("at most {most} ({})", self.what_is_left()),
            ));
        }
        let start = self.offset();
        std::str::from_utf8(self.take(length, field)?).map_err(|error| {
            let at = error.valid_up_to();
            Fault::new(
                start + at as u64,
                field,
                format_args!("byte {:#04x} at {at} of {length}", self.bytes[start as usize + at]),
                "UTF-8",
            )
        })
    }
}
