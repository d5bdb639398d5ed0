//! What a check says: counts and names, never a value of the data.

use report_api::check::Rows;
use report_api::checked::CheckRule;

/// A number with commas between its thousands.
pub(super) fn number(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

pub(super) fn rows(count: u64) -> String {
    format!("{} row{}", number(count), if count == 1 { "" } else { "s" })
}

/// A part as a percentage, with as many digits as tell something.
pub(super) fn percent(part: f64) -> String {
    if part < 0.1 { format!("{:.1}%", part * 100.0) } else { format!("{:.0}%", part * 100.0) }
}

/// A span of time in its largest unit that leaves a whole number above one.
pub(super) fn span(seconds: u64) -> String {
    let units = [(86_400, "d"), (3600, "h"), (60, "m")];
    let unit = units.iter().find(|(size, _)| seconds >= 2 * size);
    unit.map_or_else(|| format!("{seconds}s"), |(size, unit)| format!("{}{unit}", seconds / size))
}

/// What is wrong with the rows that fail. `nulls` are those of notNull's columns, `keys` the values of unique that occur
/// more than once.
pub(super) fn failing(rule: &CheckRule, nulls: &[u64], keys: u64) -> String {
    match rule {
        CheckRule::NotNull { columns, .. } => {
            let found: Vec<_> = columns.iter().zip(nulls).filter(|(_, count)| **count > 0).collect();
            match found[..] {
                [(one, _)] => format!("{one} is NULL"),
                _ => found
                    .iter()
                    .map(|(column, count)| format!("{column} is NULL in {}", number(**count)))
                    .collect::<Vec<_>>()
                    .join(", "),
            }
        }
        CheckRule::Unique { columns, .. } => {
            let values = if keys == 1 { "1 value occurs".into() } else { format!("{} values occur", number(keys)) };
            format!("{values} more than once in {}", list(columns))
        }
        CheckRule::Accepted { column, values, .. } => match &values[..] {
            [one] => format!("{column} is not {one}"),
            _ => format!("{column} is none of the {} accepted values", values.len()),
        },
        CheckRule::Range { column, min, max, .. } => match (min, max) {
            (Some(min), Some(max)) => format!("{column} is below {min} or above {max}"),
            (Some(min), None) => format!("{column} is below {min}"),
            (None, Some(max)) => format!("{column} is above {max}"),
            (None, None) => format!("{column} is in no range"),
        },
        CheckRule::Regex { column, pattern, .. } => format!("{column} does not match {pattern}"),
        CheckRule::References { columns, to, to_columns, .. } => {
            format!("{} is not in {to}.{}", list(columns), list(to_columns))
        }
        CheckRule::Sql { .. } => "should not be there".into(),
        CheckRule::Rows { .. }
        | CheckRule::RowsChange { .. }
        | CheckRule::MeanChange { .. }
        | CheckRule::Fresh { .. } => String::new(),
    }
}

/// What is wrong with a number of rows.
pub(super) fn row_count(on: &str, wanted: Rows, count: u64) -> Option<String> {
    let below = wanted.min.filter(|min| count < u64::try_from(*min).unwrap_or(0));
    let above = wanted.max.filter(|max| count > u64::try_from(*max).unwrap_or(0));
    below
        .map(|min| format!("{on} has {}, fewer than {min}", rows(count)))
        .or_else(|| above.map(|max| format!("{on} has {}, more than {max}", rows(count))))
}

fn list(columns: &[String]) -> String {
    match columns {
        [one] => one.clone(),
        many => format!("({})", many.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use report_api::check::Rows;

    use super::{number, percent, row_count, span};

    #[test]
    fn row_counts_are_held_against_both_bounds() {
        let rows = |min, max| Rows { min, max };
        for (wanted, count, want) in [
            (rows(Some(1), None), 0, Some("t has 0 rows, fewer than 1")),
            (rows(Some(1), None), 1, None),
            (rows(None, Some(2)), 3, Some("t has 3 rows, more than 2")),
            (rows(None, Some(0)), 1, Some("t has 1 row, more than 0")),
            (rows(Some(0), Some(2)), 2, None),
        ] {
            assert_eq!(row_count("t", wanted, count).as_deref(), want);
        }
    }

    #[test]
    fn numbers_are_easy_to_read() {
        for (value, want) in [(0, "0"), (999, "999"), (1204, "1,204"), (123_456, "123,456"), (1_000_000, "1,000,000")] {
            assert_eq!(number(value), want);
        }
        for (seconds, want) in [(59, "59s"), (150, "2m"), (7200, "2h"), (86_400, "24h"), (200_000, "2d")] {
            assert_eq!(span(seconds), want);
        }
        for (part, want) in [(0.004, "0.4%"), (0.5, "50%"), (12.0, "1200%")] {
            assert_eq!(percent(part), want);
        }
    }
}
