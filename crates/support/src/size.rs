//! Sizes as people read them.

/// A number of bytes in the largest binary unit that it fills.
///
/// ```
/// use tritforge_support::readable_size;
///
/// let sizes = [1000, 1024, 3 << 19, 5 << 29].map(readable_size);
/// assert_eq!(sizes, ["1000 B", "1.0 KiB", "1.5 MiB", "2.50 GiB"]);
/// ```
pub fn readable_size(bytes: u64) -> String {
    match bytes {
        0..0x400 => format!("{bytes} B"),
        0x400..0x10_0000 => format!("{:.1} KiB", bytes as f64 / 1024.0),
        0x10_0000..0x4000_0000 => format!("{:.1} MiB", bytes as f64 / 1_048_576.0),
        _ => format!("{:.2} GiB", bytes as f64 / 1_073_741_824.0),
    }
}
