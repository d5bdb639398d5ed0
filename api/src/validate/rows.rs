//! What a source says of its rows: how values are written, what happens to bad ones, and what is masked.

use std::collections::HashMap;

use jiff::civil::datetime;
use jiff::fmt::strtime::{self, BrokenDownTime};
use jiff::tz::{Offset, TimeZone};

use super::Problems;
use crate::bad_rows::{BAD_ROWS_RATIO, OnBadRow};
use crate::checked::{BadRows, BadRowsMax, CheckedColumn, CheckedMask, FormatKind, MaskKind, Written};
use crate::column::{Column, ColumnType, ContractMode, NumberFormat};
use crate::mask::{MASK_LENGTH_MAX, MASKS_MAX, Mask, MaskDatePart, MaskMethod};
use crate::source::Source;

/// The longest record where nothing else is said: collecting one, its values and their batch takes up to five times as
/// much, so that a quote that is never closed ends with a message in a pod of 256 MiB, and not with the pod.
const RECORD_BYTES: u64 = 32 << 20;
const RECORD_BYTES_MIN: u64 = 1 << 20;
const RECORD_BYTES_MAX: u64 = 512 << 20;
const TIME_FORMAT_CHARS_MAX: usize = 64;

/// What happens to bad rows.
pub(super) fn bad_rows(field: &str, source: &Source, problems: &mut Problems) -> BadRows {
    let at = format!("{field}.maxBadRows");
    let on = source.on_bad_row.unwrap_or_default();
    let max = match &source.max_bad_rows {
        None => BadRowsMax { count: None, ratio: Some(BAD_ROWS_RATIO) },
        Some(max) => {
            if max.count.is_none() && max.ratio.is_none() {
                problems.add(&at, "it is empty; set count, ratio or both");
            }
            if max.ratio.is_some_and(|ratio| !(0.0..=1.0).contains(&ratio)) {
                problems.add(format!("{at}.ratio"), "it has to be a number from 0 to 1, such as 0.01");
            }
            BadRowsMax { count: max.count, ratio: max.ratio }
        }
    };
    match on {
        OnBadRow::Fail => {
            if source.max_bad_rows.is_some() {
                problems.add(at, "the first bad row ends the run; set onBadRow to quarantine or skip, or leave it out");
            }
            BadRows::Fail
        }
        OnBadRow::Quarantine => BadRows::Quarantine(max),
        OnBadRow::Skip => BadRows::Skip(max),
    }
}

/// What happens when the input's columns change.
pub(super) fn contract(
    field: &str,
    source: &Source,
    format: Option<&FormatKind>,
    problems: &mut Problems,
) -> ContractMode {
    let mode = source.contract.unwrap_or_default();
    let at = format!("{field}.contract");
    if matches!(format, Some(FormatKind::Csv(csv)) if !csv.header) && mode != ContractMode::Freeze {
        problems.add(&at, "without a header the input's columns have no names to tell new ones by; leave it out");
    }
    if mode == ContractMode::Evolve && !source.mask.is_empty() {
        problems.add(at, "evolve would let new columns in that no mask knows; write discard, or list all columns");
    }
    mode
}

/// The longest record.
pub(super) fn record_bytes_max(field: &str, source: &Source, problems: &mut Problems) -> u64 {
    let at = format!("{field}.maxRecordSize");
    let Some(bytes) = problems.size(&at, source.max_record_size.as_ref()) else { return RECORD_BYTES };
    if !(RECORD_BYTES_MIN..=RECORD_BYTES_MAX).contains(&bytes) {
        problems.add(at, "it has to be from 1Mi to 512Mi");
    }
    bytes
}

/// How a column's values are written.
pub(super) fn written(
    field: &str,
    column: &Column,
    type_: ColumnType,
    format: Option<&FormatKind>,
    problems: &mut Problems,
) -> Written {
    let number = column.number.as_ref().map(|number| {
        let at = format!("{field}.number");
        match type_ {
            ColumnType::Int16
            | ColumnType::Int32
            | ColumnType::Int64
            | ColumnType::Float32
            | ColumnType::Float64
            | ColumnType::Decimal { .. } => {}
            ColumnType::String
            | ColumnType::Boolean
            | ColumnType::Date
            | ColumnType::Timestamp
            | ColumnType::TimestampTz
            | ColumnType::Binary
            | ColumnType::Uuid
            | ColumnType::Json => problems.add(&at, format!("a {type_} is no number; leave it out")),
        }
        if matches!(format, Some(FormatKind::Json { .. } | FormatKind::NdJson | FormatKind::Parquet | FormatKind::Rows))
        {
            problems.add(&at, "only a csv input can have its own; leave it out");
        }
        number_format(&at, number, problems)
    });
    let time = column.format.as_ref().map(|text| {
        let at = format!("{field}.format");
        match (time_format(text, type_), format) {
            (Err(message), _) => problems.add(at, message),
            (Ok(()), Some(FormatKind::Rows)) => problems.add(at, "a database has dates of its own; leave it out"),
            (Ok(()), Some(FormatKind::Parquet)) => problems.add(at, "parquet has dates of its own; leave it out"),
            (Ok(()), Some(FormatKind::Csv(_) | FormatKind::Json { .. } | FormatKind::NdJson) | None) => {}
        }
        Written::Time(text.clone())
    });
    number.or(time).unwrap_or_default()
}

fn number_format(field: &str, number: &NumberFormat, problems: &mut Problems) -> Written {
    let mut one = |name: &str, text: &str| {
        let mut characters = text.chars();
        match (characters.next(), characters.next()) {
            (Some(c), None) if !c.is_alphanumeric() && !"+-\"\r\n".contains(c) => Some(c),
            _ => {
                problems.add(
                    format!("{field}.{name}"),
                    format!("{text:?} can't stand in a number; write one character such as \",\" or \".\""),
                );
                None
            }
        }
    };
    let decimal = number.decimal.as_deref().map_or(Some('.'), |text| one("decimal", text));
    let group = number.group.as_deref().and_then(|text| one("group", text));
    if decimal.is_some() && decimal == group {
        problems.add(format!("{field}.group"), "it is the character before the fraction too; write decimal as well");
    }
    Written::Number { decimal: decimal.unwrap_or('.'), group }
}

/// Whether a format of strptime says all that the type needs: a time that is written by it has to read back.
fn time_format(format: &str, type_: ColumnType) -> Result<(), String> {
    let chars = format.chars().count();
    if !(2..=TIME_FORMAT_CHARS_MAX).contains(&chars) || format.chars().any(char::is_control) {
        return Err(format!("it has to be 2 to {TIME_FORMAT_CHARS_MAX} characters, such as %d/%m/%Y"));
    }
    let needed = match type_ {
        ColumnType::Date => "%Y, %m and %d",
        ColumnType::Timestamp => "%Y, %m, %d and %H",
        ColumnType::TimestampTz => "%Y, %m, %d, %H and %z, or %s",
        ColumnType::String
        | ColumnType::Boolean
        | ColumnType::Int16
        | ColumnType::Int32
        | ColumnType::Int64
        | ColumnType::Float32
        | ColumnType::Float64
        | ColumnType::Decimal { .. }
        | ColumnType::Binary
        | ColumnType::Uuid
        | ColumnType::Json => return Err(format!("a {type_} is no date; leave it out")),
    };
    // In the afternoon, on a day that is no month, east of Greenwich.
    let sample = datetime(2033, 11, 29, 13, 0, 0, 0);
    let zone = TimeZone::fixed(Offset::constant(1));
    let instant = sample.to_zoned(zone).map_err(|error| error.to_string())?;
    let says = |error: jiff::Error| format!("{format:?} can't be read ({error}); write one such as %d/%m/%Y %H:%M");
    let text = strtime::format(format, &instant).map_err(says)?;
    let read = BrokenDownTime::parse(format, &text).map_err(says)?;
    let same = match type_ {
        ColumnType::Date => read.to_date().is_ok_and(|date| date == sample.date()),
        ColumnType::Timestamp => read.to_datetime().is_ok_and(|time| time == sample),
        _ => read.to_timestamp().is_ok_and(|time| time == instant.timestamp()),
    };
    if same { Ok(()) } else { Err(format!("{format:?} does not say all of a {type_}; it needs {needed}")) }
}

/// The masked columns.
pub(super) fn masks(
    field: &str,
    source: &Source,
    columns: &[CheckedColumn],
    problems: &mut Problems,
) -> Vec<CheckedMask> {
    let list = format!("{field}.mask");
    problems.list_len(&list, source.mask.len(), 0, MASKS_MAX);
    let open = columns.is_empty() || source.contract == Some(ContractMode::Evolve);
    let mut seen = HashMap::new();
    (source.mask.iter().enumerate())
        .filter_map(|(n, mask)| {
            let field = format!("{list}[{n}]");
            let at = format!("{field}.column");
            let first = *seen.entry(mask.column.as_str()).or_insert(n);
            if first != n {
                problems.add(&at, format!("`{}` is masked by mask[{first}] too; mask a column once", mask.column));
            }
            let column = columns.iter().find(|column| column.name == mask.column);
            if column.is_none() && !open {
                let names = columns.iter().map(|column| column.name.as_str());
                let hint = crate::problem::near(&mask.column, names)
                    .map_or_else(|| "name one of columns".to_owned(), |near| format!("did you mean `{near}`?"));
                problems.add(at, format!("the source has no column `{}`; {hint}", mask.column));
            } else if column.is_none() {
                problems.identifier(&at, &mask.column);
            }
            let kind = mask_kind(&field, mask, column.map(|column| column.type_), problems)?;
            Some(CheckedMask { field, column: mask.column.clone(), kind })
        })
        .collect()
}

fn mask_kind(field: &str, mask: &Mask, type_: Option<ColumnType>, problems: &mut Problems) -> Option<MaskKind> {
    let unwanted = [
        ("key", mask.key.is_some(), mask.method == MaskMethod::HmacSha256),
        ("length", mask.length.is_some(), mask.method == MaskMethod::Truncate),
        ("to", mask.to.is_some(), mask.method == MaskMethod::Truncate),
    ];
    for (name, set, fits) in unwanted {
        if set && !fits {
            problems.add(format!("{field}.{name}"), "the method does not use it; leave it out");
        }
    }
    match (mask.method, &mask.key, mask.length, mask.to) {
        (MaskMethod::HmacSha256, Some(key), ..) => Some(MaskKind::HmacSha256 { key: (&key.secret_key_ref).into() }),
        (MaskMethod::HmacSha256, None, ..) => {
            problems.add(field, "hmac-sha256 needs a key; write key: {secretKeyRef: {name: pii, key: salt}}");
            None
        }
        (MaskMethod::Redact, ..) => Some(MaskKind::Redact),
        (MaskMethod::Truncate, _, Some(length), None) => {
            if !(1..=MASK_LENGTH_MAX).contains(&length) {
                problems.add(format!("{field}.length"), format!("{length} is outside 1 to {MASK_LENGTH_MAX}"));
            }
            if let Some(type_) = type_.filter(|type_| *type_ != ColumnType::String) {
                let hint = "write to: year for a date, or redact it";
                problems.add(format!("{field}.length"), format!("a {type_} has no first characters; {hint}"));
            }
            Some(MaskKind::Characters(length))
        }
        (MaskMethod::Truncate, _, None, Some(to)) => {
            let dated = |type_| matches!(type_, ColumnType::Date | ColumnType::Timestamp | ColumnType::TimestampTz);
            if let Some(type_) = type_.filter(|type_| !dated(*type_)) {
                problems.add(format!("{field}.to"), format!("a {type_} has no year; write length, or redact it"));
            }
            Some(match to {
                MaskDatePart::Year => MaskKind::Year,
                MaskDatePart::Month => MaskKind::Month,
            })
        }
        (MaskMethod::Truncate, _, None, None) | (MaskMethod::Truncate, _, Some(_), Some(_)) => {
            problems.add(field, "truncate needs exactly one of length (for text) and to (for dates)");
            None
        }
    }
}
