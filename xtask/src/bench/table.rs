//! What was measured, as tables: for a terminal, for `docs/performance.md`, as JSON.

use serde_json::{Map, Value, json};
use std::fmt::Write as _;

/// A column of numbers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Column {
    /// Its name in JSON.
    pub(crate) key: &'static str,
    /// Its heading, with the unit.
    pub(crate) title: &'static str,
    /// Digits behind the point.
    pub(crate) decimals: usize,
}

impl Column {
    pub(crate) const fn new(key: &'static str, title: &'static str, decimals: usize) -> Self {
        Self { key, title, decimals }
    }
}

/// One table; each row is something measured, each cell its samples in the order they were taken.
#[derive(Clone, Debug)]
pub(crate) struct Table {
    /// Its name in JSON and in the marks of `docs/performance.md`.
    pub(crate) name: &'static str,
    /// What it shows.
    pub(crate) title: String,
    /// What the rows are.
    pub(crate) of: &'static str,
    pub(crate) columns: Vec<Column>,
    rows: Vec<(String, Vec<Vec<f64>>)>,
    /// What could not be measured here, and why.
    pub(crate) left_out: Vec<String>,
    /// Share of the processors that others used just before and just after, in percent.
    pub(crate) beside: Option<[f64; 2]>,
}

impl Table {
    pub(crate) fn new(name: &'static str, title: String, of: &'static str, columns: &[Column]) -> Self {
        let columns = columns.to_vec();
        Self { name, title, of, columns, rows: Vec::new(), left_out: Vec::new(), beside: None }
    }

    /// Adds a sample to the row of this name, one number a column; `None`: it was not to be had.
    pub(crate) fn add(&mut self, row: &str, sample: &[Option<f64>]) {
        let index = self.rows.iter().position(|(name, _)| name == row).unwrap_or_else(|| {
            self.rows.push((row.to_owned(), vec![Vec::new(); self.columns.len()]));
            self.rows.len() - 1
        });
        for (cell, number) in self.rows[index].1.iter_mut().zip(sample) {
            cell.extend(number.filter(|number| number.is_finite()));
        }
    }

    /// Puts the rows into the order of a key of their names; those of one key stay as they are.
    pub(crate) fn sort_rows<K: Ord>(&mut self, key: impl Fn(&str) -> K) {
        self.rows.sort_by_key(|(name, _)| key(name));
    }

    /// For a terminal.
    pub(crate) fn text(&self) -> String {
        let mut text = format!("\n{}{}\n", self.title, self.beside_note());
        let cells = self.cells();
        if cells.len() > 1 {
            let width =
                |column: usize| cells.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
            let widths: Vec<usize> = (0..=self.columns.len()).map(width).collect();
            for row in &cells {
                let mut line = format!("  {:<1$}", row[0], widths[0]);
                for (cell, width) in row.iter().zip(&widths).skip(1) {
                    // Writing to a String cannot fail.
                    let _ = write!(line, "  {cell:>width$}");
                }
                text.push_str(line.trim_end());
                text.push('\n');
            }
        }
        for reason in &self.left_out {
            let _ = writeln!(text, "  left out: {reason}");
        }
        text
    }

    /// For `docs/performance.md`.
    pub(crate) fn markdown(&self) -> String {
        let mut text = format!("{}{}\n\n", self.title, self.beside_note());
        let cells = self.cells();
        if cells.len() > 1 {
            for (number, row) in cells.iter().enumerate() {
                let _ = writeln!(text, "| {} |", row.join(" | "));
                if number == 0 {
                    let _ = writeln!(text, "|---|{}", "--:|".repeat(self.columns.len()));
                }
            }
        }
        for reason in &self.left_out {
            let _ = writeln!(text, "\nLeft out: {reason}.");
        }
        text
    }

    pub(crate) fn json(&self) -> Value {
        let cell = |samples: &Vec<f64>| json!({ "median": median(samples), "samples": samples });
        let row = |(name, cells): &(String, Vec<Vec<f64>>)| {
            let named = self
                .columns
                .iter()
                .zip(cells)
                .map(|(column, cell_of)| (column.key.to_owned(), cell(cell_of)));
            let mut row: Map<String, Value> = named.collect();
            row.insert("of".to_owned(), json!(name));
            Value::Object(row)
        };
        json!({
            "name": self.name,
            "title": self.title,
            "rows": self.rows.iter().map(row).collect::<Vec<_>>(),
            "left_out": self.left_out,
            "beside_percent": self.beside,
        })
    }

    fn beside_note(&self) -> String {
        self.beside.map_or_else(String::new, |[before, after]| {
            format!(" (others used {before:.0} % of the processors just before, {after:.0} % just after)")
        })
    }

    /// The headings, then the rows: medians, with the least and the greatest sample where there are several.
    fn cells(&self) -> Vec<Vec<String>> {
        let headings = std::iter::once(self.of).chain(self.columns.iter().map(|column| column.title));
        let mut all = vec![headings.map(str::to_owned).collect()];
        for (name, cells) in &self.rows {
            let numbers = self.columns.iter().zip(cells).map(|(column, cell)| show(cell, column.decimals));
            all.push(std::iter::once(name.clone()).chain(numbers).collect());
        }
        all
    }
}

fn show(samples: &[f64], decimals: usize) -> String {
    let Some(middle) = median(samples) else { return "–".to_owned() };
    let (least, most) = samples.iter().fold((middle, middle), |(l, m), s| (l.min(*s), m.max(*s)));
    let [middle, least, most] = [middle, least, most].map(|number| format!("{number:.decimals$}"));
    if least == most { middle } else { format!("{middle} ({least}–{most})") }
}

/// The middle one; of an even number the mean of the middle two.
pub(crate) fn median(samples: &[f64]) -> Option<f64> {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let half = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        even if even % 2 == 0 => Some(f64::midpoint(sorted[half - 1], sorted[half])),
        _ => Some(sorted[half]),
    }
}

/// Replaces what stands between a table's marks in a document; `None` where it has no such marks.
pub(crate) fn insert(document: &str, name: &str, content: &str) -> Option<String> {
    let (begin, end) = (format!("<!-- bench {name} -->\n"), format!("<!-- end {name} -->"));
    let from = document.find(&begin)? + begin.len();
    let to = from + document[from..].find(&end)?;
    Some(format!("{}\n{}\n\n{}", &document[..from], content.trim(), &document[to..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> Table {
        let columns = [Column::new("kept", "kept", 2), Column::new("mib", "MiB", 0)];
        let mut table = Table::new("live", "Live".to_owned(), "tool", &columns);
        table.add("dnspath", &[Some(0.9), Some(40.0)]);
        table.add("tcpdump -w", &[Some(0.8), None]);
        table.add("dnspath", &[Some(0.95), Some(40.0)]);
        table.add("dnspath", &[Some(0.92), Some(f64::NAN)]);
        table.left_out.push("tshark: it is not here".to_owned());
        table
    }

    #[test]
    fn the_middle_of_samples() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 3.0, 2.0]), Some(2.5));
    }

    #[test]
    fn a_terminal_gets_aligned_columns() {
        let expected = "\nLive\n  tool                    kept  MiB\n  dnspath     0.92 (0.90–0.95)   40\n  \
                        tcpdump -w              0.80    –\n  left out: tshark: it is not here\n";
        assert_eq!(example().text(), expected);
    }

    #[test]
    fn json_has_medians_and_samples() {
        let json = example().json();
        assert_eq!(json["rows"][0]["kept"], json!({ "median": 0.92, "samples": [0.9, 0.95, 0.92] }));
        assert_eq!(json["rows"][1]["mib"]["median"], Value::Null);
    }

    #[test]
    fn a_document_gets_the_table_between_its_marks_and_keeps_the_rest() {
        let document = "# A\n<!-- bench live -->\nold\n<!-- end live -->\nB\n";
        let new = insert(document, "live", &example().markdown()).unwrap();
        assert!(
            new.starts_with("# A\n<!-- bench live -->\n\nLive\n\n| tool | kept | MiB |\n|---|--:|--:|\n"),
            "{new}"
        );
        assert!(new.ends_with("Left out: tshark: it is not here.\n\n<!-- end live -->\nB\n"), "{new}");
        assert_eq!(insert(&new, "live", &example().markdown()), Some(new));
        assert_eq!(insert(document, "kernel", ""), None);
    }
}
