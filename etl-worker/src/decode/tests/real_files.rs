//! CSV as real files have it, values as people write them, and texts that nobody would write.

use proptest::prelude::*;
use report_api::checked::{BadRows, BadRowsMax, CheckedSource, CsvFormat, FormatKind, Written};
use report_api::format::Encoding;

use super::{CSV, batches, check, input, log, open, rows, source};

/// A source whose bad rows are left out.
fn skipping(format: FormatKind, contract: &[&str]) -> CheckedSource {
    let any = BadRowsMax { count: None, ratio: Some(1.0) };
    CheckedSource { bad_rows: BadRows::Skip(any), ..source(format, contract) }
}

#[test]
fn an_empty_text_is_not_null() {
    let nulls = CsvFormat { null_values: vec!["NA".into(), "-".into()], ..CSV };
    let quoted = CsvFormat { quoted_nulls: true, ..nulls.clone() };
    let trimmed = CsvFormat { trim: true, ..nulls.clone() };
    let plain = CsvFormat { quote: None, ..CSV };
    let ab = &["a:string", "b:int32"];
    for (format, bytes, want) in [
        (CSV, &b"a,b\n\"\",\"\"\n,\n"[..], "|∅ ∅|∅"),
        (CSV, b"a,b\nNA,\n", "NA|∅"),
        (nulls.clone(), b"a,b\nNA,NA\n-,-\n\"NA\",1\n\"\",\n", "∅|∅ ∅|∅ NA|1 |∅"),
        (quoted, b"a,b\n\"NA\",\"-\"\n\"\",\"\"\nx,\"1\"\n", "∅|∅ ∅|∅ x|1"),
        (trimmed, b"a,b\n NA , - \n\"  \" , 1\n", "∅|∅ |1"),
        (plain, b"a,b\n\"\",1\n", "\"\"|1"),
    ] {
        check(FormatKind::Csv(format), ab, bytes, Ok(want));
    }
}

#[test]
fn lines_that_are_no_records_are_passed_over() {
    let format = CsvFormat { comment: Some(b'#'), skip_lines: 2, ..CSV };
    for bytes in [
        &b"A title, with \"a quote\n\n# note\na,b\n#x,1\nx,1\n\n#"[..],
        b"\r\nTitle\r\n#\r\na,b\r\n#x,1\r\nx,1\r\n",
        b"\rTitle\r#\ra,b\r#x,1\rx,1",
        b"\xef\xbb\xbfTitle\n\na,b\nx,1",
    ] {
        check(FormatKind::Csv(format.clone()), &["a:string", "b:int32"], bytes, Ok("x|1"));
    }
    let error = b"1\n2\na,b\n#\n\nx,no\n";
    let want = "spec.sources[0].columns[1]: line 6, column b: \"no\"";
    check(FormatKind::Csv(format), &["a:string", "b:int32"], error, Err(want));
}

#[test]
fn text_after_a_quote_is_a_bad_row() {
    let want =
        "spec.sources[0]: line 2, field 1: text follows a closing quote; double the quotes inside of quoted fields,";
    check(FormatKind::Csv(CSV), &["a:string"], b"a\n\"x\" y\n", Err(want));
    let trim = CsvFormat { trim: true, ..CSV };
    check(FormatKind::Csv(trim), &["a:string", "b:string"], b"a,b\n\"x\" \t,\"y\" \n", Ok("x|y"));
}

#[test]
fn bad_rows_are_taken_out_wherever_they_are() {
    let contract = &["a!:int32", "b:string", "c:decimal(5,2)"];
    let good: Vec<String> = (0..20_000).map(|row| format!("{row},b{row},{row}.5")).collect();
    for (format, encode) in [
        (FormatKind::Csv(CSV), (|row: &str| row.to_owned()) as fn(&str) -> String),
        (FormatKind::NdJson, |row| {
            let cells: Vec<_> = row.split(',').collect();
            match cells[..] {
                [a, b, c] => format!("{{\"c\": \"{c}\", \"b\": \"{b}\", \"a\": \"{a}\"}}"),
                _ => format!("{{\"b\": \"{row}\""),
            }
        }),
    ] {
        let mut lines = if format == FormatKind::NdJson { vec![] } else { vec!["a,b,c".to_owned()] };
        let (mut want, mut bad) = (Vec::new(), 0);
        for (at, row) in good.iter().enumerate() {
            let small = at < 1000;
            lines.push(encode(row));
            if small {
                want.push(format!("{at}|b{at}|{at}.50"));
            } else {
                // 1000 does not fit decimal(5,2).
                bad += 1;
            }
            for broken in [",b,1", "1,b", "1,b,x"].iter().take(at % 4) {
                lines.push(encode(broken));
                bad += 1;
            }
        }
        let source = skipping(format, contract);
        let (_file, raw) = input(lines.join("\n").as_bytes());
        let log = log(&source);
        let decoder = super::super::open(&raw, &source, &log).unwrap();
        let got: usize = decoder.batches.map(|batch| batch.unwrap().num_rows()).sum();
        assert_eq!((got, log.bad_rows()), (want.len(), bad));
        assert_eq!(rows(lines.join("\n").as_bytes(), &source).unwrap(), want.join(" "));
    }
}

#[test]
fn numbers_and_dates_are_read_as_they_are_written() {
    let format = CsvFormat { delimiter: b';', encoding: Encoding::Latin1, ..CSV };
    let mut source =
        source(FormatKind::Csv(format), &["n:decimal(12,2)", "i:int32", "d:date", "t:timestamp", "z:timestamptz"]);
    source.columns[0].written = Written::Number { decimal: ',', group: Some('.') };
    source.columns[1].written = Written::Number { decimal: '.', group: Some('\u{a0}') };
    source.columns[2].written = Written::Time("%d/%m/%Y".into());
    source.columns[3].written = Written::Time("%d.%m.%Y %H:%M".into());
    source.columns[4].written = Written::Time("%s".into());
    let bytes = b"n;i;d;t;z\n-1.234.567,89;1\xa0234;29/02/2024;1.2.2024 09:05;1700000000\n0,5;7;1/1/0001;;\n;;;;\n";
    assert_eq!(
        rows(bytes, &source).unwrap(),
        "-1234567.89|1234|2024-02-29|2024-02-01T09:05:00|2023-11-14T22:13:20Z 0.50|7|0001-01-01|∅|∅ ∅|∅|∅|∅|∅"
    );
    for (row, want) in [
        (
            "1.23;;;;",
            "column n: \"1.23\" is not decimal(12,2) with ',' before the fraction and '.' between thousands; correct",
        ),
        ("1234.567;;;;", "column n: \"1234.567\" is not"),
        (
            "1.234,567;;;;",
            "column n: \"1.234,567\" is not decimal(12,2) with ',' before the fraction and '.' between thousands, it has more digits",
        ),
        (";1.5;;;", "column i: \"1.5\" is not int32 with '.' before the fraction"),
        (";;30/02/2024;;", "column d: \"30/02/2024\" is not date as %d/%m/%Y; correct"),
        (";;2024-02-29;;", "column d: "),
        (";;1/1/-0001;;", "column d: "),
    ] {
        let message = rows(format!("n;i;d;t;z\n{row}\n").as_bytes(), &source).unwrap_err().to_string();
        assert!(message.contains(want), "{row}: {message}");
    }
}

#[test]
fn a_header_of_ten_thousand_columns_is_read() {
    let names: Vec<String> = (0..10_000).map(|at| format!("Column {at}")).collect();
    let row: Vec<String> = (0..10_000).map(|at| at.to_string()).collect();
    let text = format!("{}\n{}\n{}\n", names.join(","), row.join(","), row[1..].join(","));
    let contract = ["column_9999:int32", "column_0:int16"];
    check(
        FormatKind::Csv(CSV),
        &contract,
        text.as_bytes(),
        Err("spec.sources[0]: line 3 has 9999 fields, the header has 10000;"),
    );
    assert_eq!(rows(text.as_bytes(), &skipping(FormatKind::Csv(CSV), &contract)).unwrap(), "9999|0");
    // All of them are more than a table can have.
    let message = rows(text.as_bytes(), &source(FormatKind::Csv(CSV), &[])).unwrap_err().to_string();
    assert!(message.contains("the input has more than 2000 columns; list those to read"), "{message}");
}

#[test]
fn a_field_of_a_hundred_megabytes_is_read_where_the_manifest_allows_it() {
    let field = "x".repeat(100 << 20);
    let text = format!("a,b\n1,\"{field}\"\n2,y\n");
    let contract = &["a:int32", "b:string"];
    let want = "spec.sources[0]: line 2: a record is longer than 32 MiB; if that is right, raise spec.sources[0].maxRecordSize";
    check(FormatKind::Csv(CSV), contract, text.as_bytes(), Err(want));
    let large = CheckedSource { record_bytes_max: 128 << 20, ..source(FormatKind::Csv(CSV), contract) };
    let read = batches(text.as_bytes(), &large).unwrap();
    use arrow::array::AsArray;
    let lengths: Vec<usize> =
        read.iter().flat_map(|batch| batch.column(1).as_string::<i32>().iter().map(|b| b.unwrap().len())).collect();
    assert_eq!(lengths, [100 << 20, 1]);
}

/// Whatever the bytes are: rows or an error, and no panic.
fn survives(format: FormatKind, contract: &[&str], bytes: &[u8]) -> usize {
    let mut rows = 0;
    for source in [source(format.clone(), contract), skipping(format, contract)] {
        let (_file, raw) = input(bytes);
        if let Ok(decoder) = open(&raw, &source) {
            rows = decoder.batches.map_while(Result::ok).map(|batch| batch.num_rows()).sum();
        }
    }
    rows
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(300) })]

    #[test]
    fn no_bytes_make_a_decoder_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        for format in [FormatKind::Csv(CSV), FormatKind::NdJson, FormatKind::Json { path: vec![] }, FormatKind::Parquet] {
            survives(format.clone(), &["a:int32", "b:string"], &bytes);
            survives(format, &[], &bytes);
        }
    }

    #[test]
    fn no_text_makes_a_json_decoder_panic(text in r#"(\[|\{|\]|\}|,|:|"a"|"b"|"data"|1|-1\.5e3|null|true|"\\u12| |\n){0,40}"#) {
        for format in [FormatKind::NdJson, FormatKind::Json { path: vec![] }, FormatKind::Json { path: vec!["data".into(), "a".into()] }] {
            survives(format.clone(), &["a:int32", "b:string"], text.as_bytes());
            survives(format, &[], text.as_bytes());
        }
    }

    #[test]
    fn each_line_is_a_row_or_a_bad_row(lines in proptest::collection::vec("[0-9]{0,3}(,[a-z]{0,2}){0,2}|\"[a-z]\"[a-z]?", 0..30)) {
        let source = skipping(FormatKind::Csv(CSV), &["a:int16", "b:string"]);
        let text = format!("a,b\n{}\n", lines.join("\n"));
        let (_file, raw) = input(text.as_bytes());
        let log = log(&source);
        let good: usize =
            super::super::open(&raw, &source, &log).unwrap().batches.map(|batch| batch.unwrap().num_rows()).sum();
        let records = lines.iter().filter(|line| !line.is_empty()).count();
        prop_assert_eq!(good as u64 + log.bad_rows(), records as u64);
    }
}
