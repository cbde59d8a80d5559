//! Values as text: how an answer's cells are written, and when two texts are one value.

use datafusion::arrow::array::Array;
use datafusion::arrow::datatypes::DataType;
use datafusion::arrow::util::display::{ArrayFormatter, FormatOptions};
use fluence_gateway::text_of;
use sqllogictest::{DefaultColumnType, Normalizer};

/// A cell as it stands in a file: PostgreSQL's text, `NULL`, and `(empty)` for a text of no characters.
pub(crate) fn cell(array: &dyn Array, row: usize) -> String {
    match text_of(array, row) {
        Ok(None) => "NULL".to_owned(),
        Ok(Some(text)) if text.is_empty() => "(empty)".to_owned(),
        Ok(Some(text)) => text,
        // Lists and the like have no words in PostgreSQL's sense here.
        Err(_) => {
            let options = FormatOptions::default().with_null("NULL");
            ArrayFormatter::try_new(array, &options)
                .map_or_else(|e| format!("no text: {e}"), |f| f.value(row).to_string())
        }
    }
}

/// The letter of a column in a file.
pub(crate) fn letter(data_type: &DataType) -> DefaultColumnType {
    match data_type {
        t if t.is_integer() => DefaultColumnType::Integer,
        t if t.is_numeric() => DefaultColumnType::FloatingPoint,
        _ => DefaultColumnType::Text,
    }
}

/// Whether two texts are one value: numbers with a fraction may differ in what floating point loses when sums change their order.
pub(crate) fn alike(a: &str, b: &str) -> bool {
    let plain = |t: &str| t.parse::<f64>().ok().filter(|v| v.is_finite());
    let fraction = |t: &str| t.contains(['.', 'e', 'E']);
    match (plain(a), plain(b)) {
        _ if a == b => true,
        (Some(x), Some(y)) if fraction(a) || fraction(b) => (x - y).abs() <= 1e-9 * x.abs().max(y.abs()).max(1e-3),
        _ => false,
    }
}

/// Whether two answers hold the same rows, in any order.
pub(crate) fn same_rows(a: &[Vec<String>], b: &[Vec<String>]) -> bool {
    let sorted = |rows: &[Vec<String>]| {
        let mut rows = rows.to_vec();
        rows.sort();
        rows
    };
    let same = |(a, b): (&Vec<String>, &Vec<String>)| a.len() == b.len() && a.iter().zip(b).all(|(a, b)| alike(a, b));
    a.len() == b.len() && sorted(a).iter().zip(&sorted(b)).all(same)
}

/// Whether an answer is the one that PostgreSQL gives. An average has as many digits as the dividing gives: here fewer than there.
pub(crate) fn postgres_validator(_: Normalizer, actual: &[Vec<String>], expected: &[String]) -> bool {
    let digits = |t: &str| t.split_once('.').map_or(0, |(_, fraction)| fraction.len());
    let long = |a: &str, b: &str| digits(a).min(digits(b)) >= 10 && alike(a, b);
    let same = |(actual, expected): (&Vec<String>, &String)| {
        let line = actual.join(" ");
        let (a, b): (Vec<&str>, Vec<&str>) = (line.split_whitespace().collect(), expected.split_whitespace().collect());
        a.len() == b.len() && a.iter().zip(&b).all(|(a, b)| a == b || long(a, b))
    };
    actual.len() == expected.len() && actual.iter().zip(expected).all(same)
}

/// Whether an answer is the one that DataFusion's files show, whose dialect writes some values otherwise than PostgreSQL.
pub(crate) fn datafusion_validator(_: Normalizer, actual: &[Vec<String>], expected: &[String]) -> bool {
    let same = |(actual, expected): (&Vec<String>, &String)| {
        let (actual, expected) = (neutral(&actual.join(" ")), neutral(expected));
        let (mut a, mut b) = (actual.split_whitespace(), expected.split_whitespace());
        loop {
            match (a.next(), b.next()) {
                (None, None) => return true,
                (Some(a), Some(b)) if alike(word(a), word(b)) => {}
                _ => return false,
            }
        }
    };
    actual.len() == expected.len() && actual.iter().zip(expected).all(same)
}

/// One way to write what the dialects write in two: booleans, and bytes.
fn word(word: &str) -> &str {
    match word {
        "true" => "t",
        "false" => "f",
        other => other.strip_prefix("\\x").unwrap_or(other),
    }
}

/// A line whose times have a space between day and hour, and no zone, which is UTC everywhere here.
fn neutral(line: &str) -> String {
    let bytes: Vec<char> = line.trim_end().chars().collect();
    let digit = |i: Option<usize>| i.and_then(|i| bytes.get(i)).is_some_and(char::is_ascii_digit);
    let mut out = String::with_capacity(line.len());
    for (i, c) in bytes.iter().enumerate() {
        let after_digit = digit(i.checked_sub(1));
        match c {
            'T' if after_digit && digit(Some(i + 1)) => out.push(' '),
            'Z' if after_digit && bytes.get(i + 1).is_none_or(|c| c.is_whitespace()) => {}
            c => out.push(*c),
        }
    }
    out.split(' ')
        .map(|w| if w.contains(':') { w.trim_end_matches("+00:00").trim_end_matches("+00") } else { w })
        .collect::<Vec<_>>()
        .join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(text: &str) -> Vec<Vec<String>> {
        vec![text.split('|').map(str::to_owned).collect()]
    }

    #[test]
    fn values_are_one_where_only_their_writing_differs() {
        for (actual, expected) in [
            ("t|1", "true 1"),
            ("2020-01-01 10:00:00", "2020-01-01T10:00:00"),
            ("2020-01-01 10:00:00+00", "2020-01-01T10:00:00Z"),
            ("\\x00ff", "00ff"),
            ("0.30000000000000004", "0.3"),
            ("1.50", "1.5"),
        ] {
            assert!(datafusion_validator(|s| s.clone(), &row(actual), &[expected.to_owned()]), "{actual} {expected}");
        }
        for (actual, expected) in [
            ("9007199254740993", "9007199254740992"),
            ("1.5", "1.6"),
            ("f", "true"),
            ("a|b", "a"),
            ("a", "a b"),
            ("NULL", "(empty)"),
            ("TZ", "T"),
        ] {
            assert!(!datafusion_validator(|s| s.clone(), &row(actual), &[expected.to_owned()]), "{actual} {expected}");
        }
        assert!(!datafusion_validator(|s| s.clone(), &row("1"), &[]));
    }

    #[test]
    fn postgresql_is_taken_at_its_word_but_for_the_last_digits_of_a_quotient() {
        for (actual, expected, same) in [
            ("0.214285714285", "0.21428571428571428571", true),
            ("a|NULL", "a NULL", true),
            ("1.5", "1.50", false),
            ("t", "true", false),
            ("0.214285714285", "0.21428571", false),
            ("1", "2", false),
        ] {
            assert_eq!(postgres_validator(|s| s.clone(), &row(actual), &[expected.to_owned()]), same, "{actual}");
        }
    }

    #[test]
    fn rows_are_the_same_in_any_order_but_each_as_often() {
        let rows = |words: &[&str]| words.iter().map(|w| vec![(*w).to_owned()]).collect::<Vec<_>>();
        assert!(same_rows(&rows(&["a", "b", "b"]), &rows(&["b", "a", "b"])));
        assert!(!same_rows(&rows(&["a", "b", "b"]), &rows(&["a", "a", "b"])));
        assert!(!same_rows(&rows(&["a"]), &rows(&["a", "a"])));
    }
}
