//! Plain tables for the terminal.

pub(crate) use tritforge_support::readable_size as bytes;

/// Prints rows under a header, each column as wide as it needs to be; a column of numbers stands to the
/// right.
pub(crate) fn print(header: &[&str], rows: &[Vec<String>]) {
    let is_number =
        |cell: &String| cell.is_empty() || cell.starts_with(|c: char| c.is_ascii_digit() || c == '-');
    let columns: Vec<(usize, bool)> = header
        .iter()
        .enumerate()
        .map(|(i, name)| {
            let cells = || rows.iter().filter_map(|row| row.get(i));
            let width = cells().map(|c| c.chars().count()).chain([name.chars().count()]).max().unwrap_or(0);
            (width, cells().all(is_number))
        })
        .collect();
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let mut text = String::new();
        for (cell, (width, right)) in cells.zip(&columns) {
            let pad = " ".repeat(width - cell.chars().count());
            let (before, after) = if *right { (pad.as_str(), "") } else { ("", pad.as_str()) };
            text.extend([before, cell, after, "  "]);
        }
        println!("{}", text.trim_end());
    };
    line(&mut header.iter().copied());
    for row in rows {
        line(&mut row.iter().map(String::as_str));
    }
}
