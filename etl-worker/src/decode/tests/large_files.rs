//! Inputs that several threads decode: what comes of them is what one reader makes of them.

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use report_api::checked::{BadRows, BadRowsMax, CheckedSource, FormatKind};

use super::{CSV, batches, input, log, source};
use crate::error::Code;

/// Enough for some ten blocks.
const ROWS: i64 = 400_000;

/// Rows of two lines each, `bad` of which have no number.
fn text(bad: &[i64]) -> Vec<u8> {
    let row = |n: i64| match bad.contains(&n) {
        true => "none,\"a text,\nof two lines\"\n".to_owned(),
        false => format!("{n},\"a text,\nof two lines\"\n"),
    };
    ["id,words\n".to_owned()].into_iter().chain((0..ROWS).map(row)).collect::<String>().into_bytes()
}

fn source_with(bad_rows: BadRows) -> CheckedSource {
    CheckedSource { bad_rows, ..source(FormatKind::Csv(CSV), &["id:int64", "words:string"]) }
}

#[test]
fn rows_come_in_the_order_of_the_file() {
    let mut next = 0;
    for batch in batches(&text(&[]), &source_with(BadRows::Fail)).unwrap() {
        for id in batch.column(0).as_primitive::<Int64Type>().values() {
            assert_eq!(*id, next);
            next += 1;
        }
        assert!(batch.column(1).as_string::<i32>().iter().all(|words| words == Some("a text,\nof two lines")));
    }
    assert_eq!(next, ROWS);
}

#[test]
fn the_first_bad_row_is_the_one_that_is_told() {
    let error = batches(&text(&[399_999, 250_000, 300_000]), &source_with(BadRows::Fail)).unwrap_err();
    assert_eq!(error.code, Code::ValueInvalid);
    assert!(error.message.starts_with("line 500002, column id: \"none\" is not int64"), "{}", error.message);
}

#[test]
fn bad_rows_are_kept_in_the_order_of_the_file() {
    let bad = [3, 150_000, 150_001, 399_999];
    let source = source_with(BadRows::Quarantine(BadRowsMax { count: Some(4), ratio: None }));
    let (_file, raw) = input(&text(&bad));
    let log = log(&source);
    let rows: usize =
        super::super::open(&raw, &source, &log).unwrap().batches.map(|batch| batch.unwrap().num_rows()).sum();
    assert_eq!((rows as i64, log.bad_rows()), (ROWS - 4, 4));
    let lines: Vec<_> = log.rejected().iter().map(|row| (row.line, row.raw.clone().unwrap())).collect();
    let raw = "none,\"a text,\nof two lines\"".to_owned();
    assert_eq!(lines, bad.map(|row| (2 + 2 * row.cast_unsigned(), raw.clone())));
}

#[test]
fn too_many_bad_rows_end_the_run_with_the_first_of_them() {
    let bad: Vec<i64> = (0..ROWS).step_by(1000).collect();
    let error =
        batches(&text(&bad), &source_with(BadRows::Skip(BadRowsMax { count: Some(20), ratio: None }))).unwrap_err();
    assert_eq!(error.code, Code::BadRowsExceeded);
    assert!(
        error.message.contains("the first are in line 2, column id (value_invalid); 2002, column id"),
        "{}",
        error.message
    );
}

#[test]
fn a_quote_that_stays_open_is_told_by_its_line() {
    let mut bytes = text(&[]);
    bytes.extend_from_slice(b"7,\"no end\n");
    let error = batches(&bytes, &source_with(BadRows::Fail)).unwrap_err();
    assert!(error.message.starts_with("line 800002: a quote is opened that is never closed"), "{}", error.message);
}
