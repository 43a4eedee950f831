//! Lengths of time as people read them.

/// Seconds in the unit that suits them.
///
/// ```
/// use tritforge_support::duration;
///
/// assert_eq!([0.25, 90.0, 5400.0].map(duration), ["250 ms", "90.0 s", "90.0 min"]);
/// ```
pub fn duration(seconds: f64) -> String {
    match seconds {
        ..1.0 => format!("{:.0} ms", 1e3 * seconds),
        ..120.0 => format!("{seconds:.1} s"),
        ..7200.0 => format!("{:.1} min", seconds / 60.0),
        ..172_800.0 => format!("{:.1} h", seconds / 3600.0),
        _ => format!("{:.1} days", seconds / 86_400.0),
    }
}
