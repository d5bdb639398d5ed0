//! Incremental sources: the cursor, what is done about late rows, and where the first run starts.

use super::{IDENTIFIER_BYTES_MAX, Problems, listed};
use crate::checked::{CheckedColumn, CheckedIncremental, Late, SourceKind};
use crate::column::ColumnType;
use crate::problem::near;
use crate::source::Incremental;
use crate::source::incremental::{Distance, Start, TEXT_BYTES_MAX, Text};

/// What the values of a cursor are.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Family {
    Time,
    Number,
}

/// Checks the options; `columns` are those that the manifest lists, and none where the input brings its own.
pub(super) fn check(
    field: String,
    incremental: &Incremental,
    columns: &[CheckedColumn],
    kind: Option<&SourceKind>,
    problems: &mut Problems,
) -> Option<CheckedIncremental> {
    let Incremental { cursor, lag, delay, initial } = incremental;
    let mut family = cursor_family(&format!("{field}.cursor"), cursor, columns, problems);
    let late = match (lag, delay) {
        (Some(lag), None) => distance(&format!("{field}.lag"), lag, &mut family, problems).map(Late::Lag),
        (None, Some(delay)) => distance(&format!("{field}.delay"), delay, &mut family, problems).map(Late::Delay),
        (Some(_), Some(_)) => {
            problems.add(&field, "lag and delay are set; set exactly one of lag and delay");
            None
        }
        (None, None) => {
            let remedy = "set lag: 1h to read the last hour again (for merge and deleteInsert), or delay: 15m to leave the last 15 minutes to the next run (for append); delay: 0s says that no row ever comes late";
            problems.add(&field, format!("it does not say what happens to rows that come late; {remedy}"));
            None
        }
    };
    let is_file = matches!(kind, Some(SourceKind::Http(_) | SourceKind::File(_)));
    if is_file && matches!(late, Some(Late::Delay(Distance::Count(1..)))) {
        let remedy = "its greatest number is known only when it is read; write delay: 0, or lag";
        problems.add(format!("{field}.delay"), format!("the newest rows of a file can't be left out: {remedy}"));
    }
    let initial = initial.as_ref().map(|initial| start(&format!("{field}.initial"), initial, &mut family, problems));
    let initial = match initial {
        Some(None) => return None,
        Some(start) => start,
        None => None,
    };
    Some(CheckedIncremental { cursor: cursor.clone(), late: late?, initial, field })
}

fn cursor_family(field: &str, cursor: &str, columns: &[CheckedColumn], problems: &mut Problems) -> Option<Family> {
    if cursor.is_empty() || cursor.len() > IDENTIFIER_BYTES_MAX {
        problems.add(field, format!("{cursor:?} can't be a column; names have 1 to {IDENTIFIER_BYTES_MAX} bytes"));
        return None;
    }
    if columns.is_empty() {
        return None;
    }
    let Some(column) = columns.iter().find(|column| column.name == cursor) else {
        let names: Vec<&str> = columns.iter().map(|column| column.name.as_str()).collect();
        let hint = near(cursor, names.iter().copied())
            .map_or_else(|| format!("there is {}", listed(&names)), |meant| format!("did you mean `{meant}`?"));
        problems.add(field, format!("there is no column `{cursor}`; {hint}"));
        return None;
    };
    match column.type_ {
        ColumnType::Int16 | ColumnType::Int32 | ColumnType::Int64 => Some(Family::Number),
        ColumnType::Date | ColumnType::Timestamp | ColumnType::TimestampTz => Some(Family::Time),
        ColumnType::String
        | ColumnType::Boolean
        | ColumnType::Float32
        | ColumnType::Float64
        | ColumnType::Decimal { .. }
        | ColumnType::Binary
        | ColumnType::Uuid
        | ColumnType::Json => {
            let remedy = "take a timestamp, a date or a whole number";
            problems.add(field, format!("`{cursor}` is {}, which can't be a cursor; {remedy}", column.type_));
            None
        }
    }
}

fn distance(field: &str, text: &Text, family: &mut Option<Family>, problems: &mut Problems) -> Option<Distance> {
    let distance = text.distance().map_err(|message| problems.add(field, message)).ok()?;
    let (of, zero) = match distance {
        Distance::Seconds(seconds) => (Family::Time, seconds == 0),
        Distance::Count(count) => (Family::Number, count == 0),
    };
    let expected = *family.get_or_insert(of);
    if expected != of {
        let remedy = match expected {
            Family::Number => "the cursor is a number: write a count, such as 1000",
            Family::Time => "the cursor is a time: write a span, such as 15m",
        };
        problems.add(field, format!("{:?} does not go with the cursor; {remedy}", text.0));
        return None;
    }
    if zero && field.ends_with(".lag") {
        problems.add(field, "a lag of nothing reads nothing again; write delay: 0s where no row ever comes late");
        return None;
    }
    Some(distance)
}

fn start(field: &str, text: &Text, family: &mut Option<Family>, problems: &mut Problems) -> Option<Start> {
    if text.0.len() > TEXT_BYTES_MAX {
        problems.add(field, format!("{} bytes are too many; the most is {TEXT_BYTES_MAX}", text.0.len()));
        return None;
    }
    let start = text.start().map_err(|message| problems.add(field, message)).ok()?;
    let of = match start {
        Start::Time(_) => Family::Time,
        Start::Number(_) => Family::Number,
    };
    if *family.get_or_insert(of) != of {
        let remedy = match of {
            Family::Number => "write a time, such as 2024-01-01T00:00:00Z",
            Family::Time => "write a whole number",
        };
        problems.add(field, format!("{:?} does not go with the cursor; {remedy}", text.0));
        return None;
    }
    Some(start)
}
