//! What was varied: the values of a path, in order, as numbers where all of them are.

use serde_json::Value;

use super::{CellSummary, Study, plain, short};

/// A path that takes several values.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Varied {
    /// Its last steps, as many as tell it apart.
    pub name: String,
    /// Its values as they are written: by size where they are numbers, else in the order of the cells.
    pub texts: Vec<String>,
    /// The same as numbers, where all of them are.
    pub numbers: Option<Vec<f64>>,
    /// Which of them each cell has.
    pub of_cell: Vec<usize>,
}

/// The paths that differ between these cells.
pub(super) fn varied(study: &Study, cells: &[CellSummary]) -> Vec<Varied> {
    let names = short(&study.parameters);
    let paths = study.parameters.iter().zip(names);
    let one = |(path, name): (&String, String)| {
        let text = |cell: &CellSummary| cell.parameters.get(path).map_or("–".to_owned(), plain);
        let written: Vec<String> = cells.iter().map(text).collect();
        let mut texts: Vec<String> = Vec::new();
        for text in &written {
            if !texts.contains(text) {
                texts.push(text.clone());
            }
        }
        let numbers = numbers(&texts);
        if let Some(numbers) = &numbers {
            let mut order: Vec<usize> = (0..texts.len()).collect();
            order.sort_by(|a, b| numbers[*a].total_cmp(&numbers[*b]));
            texts = order.iter().map(|index| texts[*index].clone()).collect();
        }
        let numbers = numbers.map(|mut numbers| {
            numbers.sort_by(f64::total_cmp);
            numbers
        });
        let place = |text: &String| texts.iter().position(|other| other == text).unwrap_or(0);
        let of_cell = written.iter().map(place).collect();
        Varied { name, texts, numbers, of_cell }
    };
    paths.map(one).filter(|varied| varied.texts.len() > 1).collect()
}

/// What a unit is a unit of, and how many of the smallest it is.
const UNITS: [(&str, char, f64); 21] = [
    ("ns", 't', 1e-9),
    ("us", 't', 1e-6),
    ("µs", 't', 1e-6),
    ("ms", 't', 1e-3),
    ("s", 't', 1.0),
    ("m", 't', 60.0),
    ("min", 't', 60.0),
    ("h", 't', 3600.0),
    ("d", 't', 86_400.0),
    ("/s", 'r', 1.0),
    ("/m", 'r', 1.0 / 60.0),
    ("/min", 'r', 1.0 / 60.0),
    ("/h", 'r', 1.0 / 3600.0),
    ("B", 'b', 1.0),
    ("KiB", 'b', 1024.0),
    ("MiB", 'b', 1_048_576.0),
    ("GiB", 'b', 1_073_741_824.0),
    ("TiB", 'b', 1_099_511_627_776.0),
    ("MB", 'b', 1e6),
    ("GB", 'b', 1e9),
    ("TB", 'b', 1e12),
];

/// Texts as numbers of one unit; `None` if one is no number or they count different things.
fn numbers(texts: &[String]) -> Option<Vec<f64>> {
    let split: Vec<(f64, &str)> = texts.iter().map(|text| quantity(text)).collect::<Option<_>>()?;
    let first = split.first()?.1;
    if split.iter().all(|(_, unit)| *unit == first) {
        return Some(split.iter().map(|(number, _)| *number).collect());
    }
    let known = |unit: &str| UNITS.iter().find(|(name, ..)| *name == unit);
    let kind = known(first)?.1;
    let scaled = |(number, unit): &(f64, &str)| {
        known(unit).filter(|known| known.1 == kind).map(|known| number * known.2)
    };
    split.iter().map(scaled).collect()
}

/// `12/s` is 12 and `/s`.
fn quantity(text: &str) -> Option<(f64, &str)> {
    let text = text.trim();
    if !text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '-' | '+' | '.')) {
        return None;
    }
    let ends = text.char_indices().map(|(at, c)| at + c.len_utf8());
    let number = |end: usize| Some((text[..end].parse::<f64>().ok()?, text[end..].trim()));
    let longest = ends.rev().find_map(number);
    longest.filter(|(number, unit)| number.is_finite() && unit.len() <= 12)
}

/// `rate = 2/s, replicas = 3`, of what a cell sets.
pub(super) fn setting(study: &Study, cell: &CellSummary) -> String {
    let names = short(&study.parameters);
    let set = |(path, name): (&String, String)| {
        let value: &Value = cell.parameters.get(path)?;
        Some(format!("{name} = {}", plain(value)))
    };
    let set: Vec<String> = study.parameters.iter().zip(names).filter_map(set).collect();
    if set.is_empty() { "the file as it is".to_owned() } else { set.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_numbers_where_all_count_the_same() {
        let check = |texts: &[&str], expected: Option<&[f64]>| {
            let texts: Vec<String> = texts.iter().map(|text| (*text).to_owned()).collect();
            assert_eq!(numbers(&texts).as_deref(), expected, "{texts:?}");
        };
        check(&["1", "2.5", "1e3"], Some(&[1.0, 2.5, 1000.0]));
        check(&["12/s", "1/s"], Some(&[12.0, 1.0]));
        check(&["500ms", "2s"], Some(&[0.5, 2.0]));
        check(&["80GiB", "1TiB"], Some(&[85_899_345_920.0, 1_099_511_627_776.0]));
        check(&["30/min", "1/s"], Some(&[0.5, 1.0]));
        check(&["1s", "1GiB"], None);
        check(&["1", "fcfs"], None);
        check(&["nan", "inf"], None);
        check(&["–", "2"], None);
        check(&["", "2"], None);
    }
}
