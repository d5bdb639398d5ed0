//! Finds the columns of a contract among the names of an input: by `from` exactly, else by the name's snake_case form.

use report_api::checked::CheckedColumn;
use report_api::column::snake_case;
use report_api::problem::near;

use super::text::quoted;
use crate::error::{Code, Result, RunError};

/// Most names of an input that a message shows.
pub(super) const NAMES_SHOWN_MAX: usize = 20;
/// Characters that are so often between fields that one of them in the only name of a header is a hint.
const DELIMITERS: [char; 4] = [';', '\t', '|', ','];

/// Whether an input's name is that of a column. `snake` is its snake_case form, which the caller makes once.
pub(super) fn matches(column: &CheckedColumn, name: &str, snake: &str) -> bool {
    match &column.from {
        Some(from) => from == name,
        None => column.name == snake || column.name == name,
    }
}

/// For each column the index of its name, or None for a column that is not required and not there. One name may serve
/// several columns; a column that finds two names is an error, and so is an input with none of the columns.
pub(crate) fn find(columns: &[CheckedColumn], names: &[&str], source_field: &str) -> Result<Vec<Option<usize>>> {
    let snakes: Vec<_> = names.iter().map(|name| snake_case(name)).collect();
    let found: Vec<Option<usize>> = columns
        .iter()
        .map(|column| {
            let mut hits = (0..names.len()).filter(|index| matches(column, names[*index], &snakes[*index]));
            let (first, second) = (hits.next(), hits.next());
            match (first, second) {
                (Some(first), Some(second)) => Err(ambiguous(column, names[first], names[second])),
                (None, _) if column.required => Err(missing(column, names)),
                (first, _) => Ok(first),
            }
        })
        .collect::<Result<_>>()?;
    if found.iter().all(Option::is_none) {
        return Err(none(names, source_field));
    }
    Ok(found)
}

/// Two names for one column.
pub(super) fn ambiguous(column: &CheckedColumn, one: &str, other: &str) -> RunError {
    let (one, other) = (quoted(one), quoted(other));
    let message = match one == other {
        true => format!("the input has two columns {one}; give it only one"),
        false => format!("the input's {one} and {other} both are the column {}; choose one with from", column.name),
    };
    RunError::at(Code::InputMalformed, &column.field, message)
}

/// A required column that is not there.
fn missing(column: &CheckedColumn, names: &[&str]) -> RunError {
    let wanted = column.from.as_deref().unwrap_or(&column.name);
    let like = near(wanted, names.iter().copied())
        .map_or_else(String::new, |name| format!(" (did you mean {}?)", quoted(name)));
    let message = format!(
        "the input has no column {}; it has {}{}{like}; correct the name or from, or set required: false",
        quoted(wanted),
        list(names),
        delimiter_hint(names),
    );
    RunError::at(Code::ColumnMissing, &column.field, message)
}

/// An input with none of the columns: all of its rows would be NULL.
pub(super) fn none(names: &[&str], source_field: &str) -> RunError {
    let message = format!(
        "the input has none of the columns; it has {}{}; correct the columns' names or from",
        list(names),
        delimiter_hint(names)
    );
    RunError::at(Code::ColumnMissing, format!("{source_field}.columns"), message)
}

/// Names as a message lists them.
pub(super) fn list(names: &[&str]) -> String {
    if names.is_empty() {
        return "none".into();
    }
    let mut text = names.iter().take(NAMES_SHOWN_MAX).map(|name| quoted(name)).collect::<Vec<_>>().join(", ");
    if names.len() > NAMES_SHOWN_MAX {
        text.push_str(&format!(" and {} more", names.len() - NAMES_SHOWN_MAX));
    }
    text
}

fn delimiter_hint(names: &[&str]) -> String {
    let [name] = names else { return String::new() };
    let hint = DELIMITERS.into_iter().find(|delimiter| name.contains(*delimiter));
    hint.map_or_else(String::new, |delimiter| format!(" (is the delimiter {:?}?)", delimiter.to_string()))
}

#[cfg(test)]
mod tests {
    use super::find;
    use crate::decode::tests::columns;

    #[test]
    fn columns_are_found_by_from_or_by_snake_case() {
        for (contract, names, want) in [
            (&["series_id:string"][..], &["Series ID", "year"][..], Ok(vec![Some(0)])),
            (&["b:string", "a:string"], &["a", "b", "", ""], Ok(vec![Some(1), Some(0)])),
            (&["year:int32 from Year"], &["year", "Year"], Ok(vec![Some(1)])),
            (&["a:string from X", "b:string from X"], &["X"], Ok(vec![Some(0), Some(0)])),
            (&["a:string", "gone:string"], &["a"], Ok(vec![Some(0), None])),
            (
                &["year:int32"],
                &["year", "Year"],
                Err(
                    r#"spec.sources[0].columns[0]: the input's "year" and "Year" both are the column year; choose one with from"#,
                ),
            ),
            (
                &["a:string"],
                &["a", "a"],
                Err(r#"spec.sources[0].columns[0]: the input has two columns "a"; give it only one"#),
            ),
            (
                &["x:string", "period!:string"],
                &["x", "perod"],
                Err(
                    r#"spec.sources[0].columns[1]: the input has no column "period"; it has "x", "perod" (did you mean "perod"?); correct the name or from, or set required: false"#,
                ),
            ),
            (
                &["year:string from Year", "a:string"],
                &["year;a"],
                Err(
                    r#"spec.sources[0].columns: the input has none of the columns; it has "year;a" (is the delimiter ";"?); correct the columns' names or from"#,
                ),
            ),
        ] {
            let got = find(&columns(contract), names, "spec.sources[0]").map_err(|error| error.to_string());
            assert_eq!(got, want.map_err(str::to_owned), "{contract:?} in {names:?}");
        }
    }

    #[test]
    fn a_message_lists_at_most_twenty_names() {
        let names: Vec<String> = (0..30).map(|index| format!("n{index}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let error = find(&columns(&["a!:string"]), &names, "spec.sources[0]").unwrap_err().to_string();
        assert!(error.contains(r#""n19" and 10 more; "#), "{error}");
    }
}
