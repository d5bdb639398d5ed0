//! Checks: what each asserts, and of which table.

use super::{Problems, Tables, model};
use crate::check::{Check, Rows};
use crate::checked::{CheckRule, CheckedCheck};

const COLUMNS_MAX: usize = 64;

pub(super) fn check(field: String, check: &Check, tables: &Tables, problems: &mut Problems) -> Option<CheckedCheck> {
    problems.description(&field, check.description.as_deref());
    let Check { not_null, unique, rows, sql, .. } = check;
    let options = [
        ("notNull", not_null.is_some()),
        ("unique", unique.is_some()),
        ("rows", rows.is_some()),
        ("sql", sql.is_some()),
    ];
    let one = problems.one_of(&field, &options);
    if one {
        match (&check.on, sql) {
            (Some(_), Some(_)) => {
                problems.add(format!("{field}.from"), "a sql check names its tables itself; leave it out")
            }
            (None, None) => problems.add(&field, "from is missing; name the source or model that is checked"),
            _ => {}
        }
    }
    let on = check.on.as_deref().unwrap_or_default();
    if let Some(message) = check.on.as_deref().and_then(|on| tables.unknown(on)) {
        problems.add(format!("{field}.from"), message);
    }
    for (name, columns) in [("notNull", not_null), ("unique", unique)] {
        if let Some(columns) = columns {
            tables.columns(&format!("{field}.{name}"), on, columns, (1, COLUMNS_MAX), problems);
        }
    }
    if let Some(rows) = rows {
        bounds(&format!("{field}.rows"), rows, problems);
    }
    let reads = sql.as_ref().map(|sql| model::select(&format!("{field}.sql"), sql, tables, problems));
    if !one {
        return None;
    }
    let on = on.to_owned();
    let rule = if let Some(columns) = not_null.clone() {
        CheckRule::NotNull { on, columns }
    } else if let Some(columns) = unique.clone() {
        CheckRule::Unique { on, columns }
    } else if let Some(rows) = *rows {
        CheckRule::Rows { on, rows }
    } else {
        CheckRule::Sql { sql: sql.clone()?, reads: reads? }
    };
    Some(CheckedCheck { field, name: check.name.clone(), rule, severity: check.severity.unwrap_or_default() })
}

fn bounds(field: &str, rows: &Rows, problems: &mut Problems) {
    for (name, value) in [("min", rows.min), ("max", rows.max)] {
        if let Some(value) = value.filter(|value| *value < 0) {
            problems.add(format!("{field}.{name}"), format!("{value} is less than nothing; write 0 or more"));
        }
    }
    match (rows.min, rows.max) {
        (None, None) => problems.add(field, "none is set; set min, max or both"),
        (Some(min), Some(max)) if min > max => {
            problems.add(field, format!("min {min} is more than max {max}; no count can be both"))
        }
        _ => {}
    }
}
