//! Every format from bytes to rows: one line, one case.

use std::io::Write;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use flate2::write::GzEncoder;
use report_api::checked::{BadRows, CheckedColumn, CheckedSource, CsvFormat, FormatKind, SourceKind, Written};
use report_api::column::{ColumnType, ContractMode};
use report_api::format::{Compression, Encoding};
use report_api::source::FileSource;
use tempfile::NamedTempFile;

use super::{BATCH_ROWS_MAX, Decoder};
use crate::error::{Code, Result};
use crate::mask::Masks;
use crate::rejected::SourceLog;
use crate::source::RawInput;

pub(super) const CSV: CsvFormat = CsvFormat::PLAIN;
const RECORD_BYTES_MAX: u64 = 32 << 20;

/// Columns from short texts: `name:type`, `name!:type` for a required one, `name:type from Input Name`.
pub(super) fn columns(texts: &[&str]) -> Vec<CheckedColumn> {
    let column = |(index, text): (usize, &&str)| {
        let (name, rest) = text.split_once(':').unwrap();
        let (type_, from) =
            rest.split_once(" from ").map_or((rest, None), |(type_, from)| (type_, Some(from.to_owned())));
        CheckedColumn {
            field: format!("spec.sources[0].columns[{index}]"),
            name: name.trim_end_matches('!').to_owned(),
            from,
            type_: ColumnType::parse(type_).unwrap(),
            required: name.ends_with('!'),
            description: None,
            written: Written::Plain,
        }
    };
    texts.iter().enumerate().map(column).collect()
}

pub(super) fn source(format: FormatKind, contract: &[&str]) -> CheckedSource {
    CheckedSource {
        field: "spec.sources[0]".into(),
        name: "given".into(),
        kind: SourceKind::File(FileSource { path: "given".into() }),
        format,
        compression: Compression::Auto,
        columns: columns(contract),
        contract: ContractMode::Freeze,
        bad_rows: BadRows::Fail,
        record_bytes_max: RECORD_BYTES_MAX,
        masks: Vec::new(),
        incremental: None,
    }
}

/// A log of a first run.
pub(super) fn log(source: &CheckedSource) -> Arc<SourceLog> {
    Arc::new(SourceLog::new(source, Masks::keyless(source).unwrap(), None))
}

fn open(input: &RawInput, source: &CheckedSource) -> Result<Decoder> {
    super::open(input, source, &log(source))
}

fn input(bytes: &[u8]) -> (NamedTempFile, RawInput) {
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(bytes).unwrap();
    let raw = RawInput { path: file.path().to_owned(), bytes: bytes.len() as u64, sha256: None };
    (file, raw)
}

fn batches(bytes: &[u8], source: &CheckedSource) -> Result<Vec<RecordBatch>> {
    let (_file, raw) = input(bytes);
    open(&raw, source)?.batches.collect()
}

/// Rows as `a|b`, separated by spaces; NULL as ∅.
fn rows(bytes: &[u8], source: &CheckedSource) -> Result<String> {
    let options = FormatOptions::new().with_null("∅");
    let mut rows = Vec::new();
    for batch in batches(bytes, source)? {
        let cells: Vec<_> =
            batch.columns().iter().map(|array| ArrayFormatter::try_new(array, &options).unwrap()).collect();
        for row in 0..batch.num_rows() {
            rows.push(cells.iter().map(|cell| cell.value(row).to_string()).collect::<Vec<_>>().join("|"));
        }
    }
    Ok(rows.join(" "))
}

#[track_caller]
fn check(format: FormatKind, contract: &[&str], bytes: &[u8], want: Result<&str, &str>) {
    let got = rows(bytes, &source(format.clone(), contract)).map_err(|error| error.to_string());
    let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(200)]);
    match (&got, want) {
        (Err(got), Err(want)) => assert!(got.starts_with(want), "{shown:?} as {format:?}\n got: {got}\nwant: {want}"),
        _ => assert_eq!(got.as_deref().map_err(String::as_str), want, "{shown:?} as {format:?}"),
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn csv_reads_what_people_write() {
    let ab = &["a:string", "b:int32"];
    for (contract, bytes, want) in [
        (&ab[..], &b"a,b\nx,1\ny,2\n"[..], "x|1 y|2"),
        (ab, b"a,b\r\nx,1\r\ny,2", "x|1 y|2"),
        (ab, b"a,b\rx,1\r", "x|1"),
        (ab, b"\xef\xbb\xbfa,b\nx,1\n", "x|1"),
        (ab, b"a,b\n\n\nx,1\n\n", "x|1"),
        (ab, b"a,b\n", ""),
        (ab, b"a,b", ""),
        (ab, b"b,other,A\n1,z,x\n", "x|1"),
        (ab, b"a,b\n,\n\"\",\"\"\n", "∅|∅ |∅"),
        (ab, b"a,b\n\"x,\"\"y\"\"\n\",1\n", "x,\"y\"\n|1"),
        (ab, b"a,b\n\"x\r\n\",1\r\n", "x\r\n|1"),
        (ab, b"a,b\n5\" pipe,1\n", "5\" pipe|1"),
        (ab, b"a,c\nx,1\n", "x|∅"),
        (ab, b",,a,b\nq,q,x,1\n", "x|1"),
        (&["code:string"], b"code\n02\n", "02"),
        (
            &["v:decimal(18,3)", "d:date", "t:timestamptz"],
            b"v,d,t\n-1.5,2024-02-29,2024-02-29T01:00:00+01:00\n",
            "-1.500|2024-02-29|2024-02-29T00:00:00Z",
        ),
        (
            &["f:float64", "ok:boolean", "t:timestamp"],
            b"f,ok,t\n0.1,yes,2024-02-29 12:30\n",
            "0.1|true|2024-02-29T12:30:00",
        ),
        (&["p:string from Ñandú"], "Ñandú\nCórdoba\n".as_bytes(), "Córdoba"),
    ] {
        check(FormatKind::Csv(CSV), contract, bytes, Ok(want));
    }
}

#[test]
fn csv_follows_its_options() {
    let tab = CsvFormat { delimiter: b'\t', trim: true, ..CSV };
    let plain = CsvFormat { quote: None, ..CSV };
    let single = CsvFormat { quote: Some(b'\''), ..CSV };
    let ordered = CsvFormat { header: false, ..CSV };
    let latin_1 = CsvFormat { encoding: Encoding::Latin1, ..CSV };
    let windows = CsvFormat { encoding: Encoding::Windows1252, trim: true, ..CSV };
    let ab = &["a:string", "b:int32"];
    for (format, bytes, want) in [
        (tab, &b"a       \t   b\r\nx y  \t  1\r\n   \t\r\n"[..], Ok("x y|1 ∅|∅")),
        (CSV, b" a , b \n x ,1\n", Ok(" x |1")),
        (
            CSV,
            b"a,b\nx, 1\n",
            Err(
                "spec.sources[0].columns[1]: line 2, column b: \" 1\" is not int32; correct the input, or make the column a string and cast it in a model",
            ),
        ),
        (plain, b"a,b\n\"x,1\n", Ok("\"x|1")),
        (single, b"a,b\n'x,y',1\n", Ok("x,y|1")),
        (ordered.clone(), b"x,1\ny,2\n", Ok("x|1 y|2")),
        (ordered.clone(), b"", Ok("")),
        (ordered, b"x,1,2\n", Err("spec.sources[0]: line 1 has 3 fields, the contract has 2;")),
        (latin_1, b"a,b\na\xf1o,1\n", Ok("año|1")),
        (windows.clone(), b"a,b\n \x80 ,1\n", Ok("€|1")),
        (
            windows,
            b"a,b\nx\x81,1\n",
            Err(
                "spec.sources[0].columns[0]: line 2, column a: byte 0x81 at offset 1 of the field is not windows-1252;",
            ),
        ),
    ] {
        check(FormatKind::Csv(format), ab, bytes, want);
    }
}

#[test]
fn csv_errors_say_where() {
    let two = &["a!:string", "value:decimal(18,3)"];
    for (bytes, want) in [
        (&b""[..], "spec.sources[0]: the input is empty; its first line should name the columns"),
        (b"\n\n", "spec.sources[0]: the input is empty"),
        (
            b"a,value\nx,1\ny,\"12,x\"\n",
            "spec.sources[0].columns[1]: line 3, column value: \"12,x\" is not decimal(18,3); correct",
        ),
        (b"a,value\r\nx,1\r\ny,no\r\n", "spec.sources[0].columns[1]: line 3, column value: \"no\""),
        (b"a,value\n\"x\ny\n\",1\n\n\nz,no\n", "spec.sources[0].columns[1]: line 7, column value: \"no\""),
        (b"a,value\r\n\"x\r\ny\",no\r\n", "spec.sources[0].columns[1]: line 2, column value: \"no\""),
        (b"a,value\r\nx,no", "spec.sources[0].columns[1]: line 2, column value: \"no\""),
        (
            b"a,value\nx,1.2345\n",
            "spec.sources[0].columns[1]: line 2, column value: \"1.2345\" is not decimal(18,3), it has more digits after the point;",
        ),
        (b"a,value\n,1\n", "spec.sources[0].columns[0]: line 2, column a: NULL in a required column;"),
        (b"a,value\nx,1\ny\n", "spec.sources[0]: line 3 has 1 field, the header has 2;"),
        (b"a,value\nx,1,2\n", "spec.sources[0]: line 2 has 3 fields, the header has 2;"),
        (b"a,value\nx,1\n\"y,2\nz,3\n", "spec.sources[0]: line 3: a quote is opened that is never closed;"),
        (b"a,value\r\nx,1\r\n\"y,2\r\nz,3\r\n", "spec.sources[0]: line 3: a quote is opened that is never closed;"),
        (b"a,value\nx,\"", "spec.sources[0]: line 2: a quote is opened that is never closed;"),
        (b"\"a,value\nx,1\n", "spec.sources[0]: line 1: a quote is opened that is never closed;"),
        (b"b,value\nx,1\n", "spec.sources[0].columns[0]: the input has no column \"a\"; it has \"b\", \"value\""),
        (
            b"a,value\nm\xf1,1\n",
            "spec.sources[0].columns[0]: line 2, column a: byte 0xf1 at offset 1 of the field is not utf-8;",
        ),
        (b"a,value,m\xf1\n", "spec.sources[0]: the header is not utf-8;"),
        (b"\xff\xfea\0,\0", "spec.sources[0]: the input is in UTF-16;"),
    ] {
        check(FormatKind::Csv(CSV), two, bytes, Err(want));
    }
}

#[test]
fn csv_passes_over_bad_bytes_in_columns_that_are_not_read() {
    check(FormatKind::Csv(CSV), &["a:string"], b"x,a\nm\xf1,\xc3\xb1\n", Ok("ñ"));
}

#[test]
fn csv_ends_a_record_that_never_does() {
    let mut bytes = b"a\nx\n\"".to_vec();
    bytes.resize(bytes.len() + RECORD_BYTES_MAX as usize + (1 << 20), b'y');
    check(FormatKind::Csv(CSV), &["a:string"], &bytes, Err("spec.sources[0]: line 3: a record is longer than 32 MiB;"));
}

#[test]
fn gzip_is_seen_by_its_first_bytes() {
    let whole = gzip(b"a\nx\n");
    let members = [gzip(b"a\nx\n"), gzip(b"y\n")].concat();
    let broken = "spec.sources[0]: the gzip stream is cut off or broken;";
    for (bytes, compression, want) in [
        (&whole[..], Compression::Auto, Ok("x")),
        (&whole, Compression::Gzip, Ok("x")),
        (&members, Compression::Auto, Ok("x y")),
        (b"a\nx\n", Compression::Auto, Ok("x")),
        (b"a\nx\n", Compression::None, Ok("x")),
        (b"a\nx\n", Compression::Gzip, Err(broken)),
        (&whole[..whole.len() - 4], Compression::Auto, Err(broken)),
        (&whole[..12], Compression::Auto, Err(broken)),
    ] {
        let source = CheckedSource { compression, ..source(FormatKind::Csv(CSV), &["a:string"]) };
        let got = rows(bytes, &source).map_err(|error| (error.code, error.to_string()));
        match (&got, want) {
            (Err((code, got)), Err(want)) => assert!(*code == Code::InputMalformed && got.starts_with(want), "{got}"),
            _ => assert_eq!(got.as_deref().map_err(|(_, text)| text.as_str()), want, "{bytes:?} {compression:?}"),
        }
    }
}

#[test]
fn json_finds_its_rows() {
    let contract = &["year:int32", "n:int64 from Population", "name:string"];
    for (path, text, want) in [
        ("", r#"[{"Year": 2013, "Population": 4799277.0, "name": "Alabama"}]"#, "2013|4799277|Alabama"),
        ("", r#"[{"year": "2013"}, {"year": null, "name": ""}]"#, "2013|∅|∅ ∅|∅|"),
        ("data", r#"{"source": [{"a": {}}], "data": [{"year": 1}], "after": [[]]}"#, "1|∅|∅"),
        ("result.rows", r#"{"result": {"rows": [{"year": 1}, {"year": 2}]}}"#, "1|∅|∅ 2|∅|∅"),
        ("", r#"[{"year": 1, "name": "a\"\\\u00f1\n"}]"#, "1|∅|a\"\\ñ\n"),
        (
            "",
            r#"[{"year": 1, "name": {"k": [1, "x"]}}, {"year": 2, "name": true}]"#,
            "1|∅|{\"k\": [1, \"x\"]} 2|∅|true",
        ),
        ("", r#"[{"year": 1, "name": 1.50}]"#, "1|∅|1.50"),
        ("", "\u{feff}[]", ""),
        ("data", r#"{"data": []}"#, ""),
    ] {
        let path = path.split('.').filter(|key| !key.is_empty()).map(str::to_owned).collect();
        check(FormatKind::Json { path }, contract, text.as_bytes(), Ok(want));
    }
    let exact = br#"[{"v": 0.1}, {"v": 12345678901234567890.123}, {"v": 1e2}]"#;
    check(FormatKind::Json { path: vec![] }, &["v:decimal(38,3)"], exact, Ok("0.100 12345678901234567890.123 100.000"));
}

#[test]
fn json_errors_say_where() {
    let contract = &["year!:int32", "name:string", "list:int32"];
    for (path, text, want) in [
        ("", "", "spec.sources[0]: the document is cut off"),
        ("", "[{\"year\": 1},", "spec.sources[0]: the document is cut off"),
        (
            "",
            "[{\"year\": 1}] x",
            "spec.sources[0]: the document is not as it should be: trailing characters at line 1 column 15",
        ),
        (
            "",
            "[{\"year\" 1}]",
            "spec.sources[0]: the document is not as it should be: expected `:` at line 1 column 10",
        ),
        ("", "<html>", "spec.sources[0]: the document is not as it should be: expected value at line 1 column 1"),
        (
            "",
            "7",
            "spec.sources[0]: the document is not as it should be: invalid type: integer `7`, expected an array of rows at $",
        ),
        (
            "",
            r#"{"data": [], "n": 1}"#,
            r#"spec.sources[0].format.json.rows: $ is an object with the keys "data", "n", not an array; name the array of rows, such as $.data"#,
        ),
        (
            "data.rows",
            r#"{"data": {"values": []}}"#,
            r#"spec.sources[0].format.json.rows: $.data.rows is not in the document; $.data has the keys "values"; correct the path"#,
        ),
        (
            "data",
            "[]",
            "spec.sources[0].format.json.rows: $ is an array, it has no key data; name the array of rows, such as $",
        ),
        ("data", r#"{"data": [], "data": []}"#, "spec.sources[0].format.json.rows: $.data is in the document twice"),
        ("", "[{\"year\": 1}, 7]", "spec.sources[0]: row 2 is a number, it should be an object with a key per column"),
        ("", "[{\"year\": 1}, [1]]", "spec.sources[0]: row 2 is an array, it should"),
        ("", r#"[{"year": "x"}]"#, r#"spec.sources[0].columns[0]: row 1, column year: "x" is not int32;"#),
        (
            "",
            r#"[{"year": 1.5}]"#,
            r#"spec.sources[0].columns[0]: row 1, column year: "1.5" is not int32, it has more digits after the point;"#,
        ),
        ("", r#"[{"year": null}]"#, "spec.sources[0].columns[0]: row 1, column year: NULL in a required column;"),
        ("", r#"[{"name": "x"}]"#, "spec.sources[0].columns[0]: row 1, column year: NULL in a required column;"),
        ("", r#"[{"year": 1, "list": [1]}]"#, "spec.sources[0].columns[2]: row 1, column list: an array is not int32;"),
        ("", r#"[{"year": 1, "year": 2}]"#, r#"spec.sources[0].columns[0]: row 1: the input has two columns "year";"#),
        (
            "",
            r#"[{"year": 1, "Year": 2}]"#,
            r#"spec.sources[0].columns[0]: row 1: the input's "year" and "Year" both are the column year;"#,
        ),
        ("", r#"[{"year": 1, "name": "\ud800"}]"#, "spec.sources[0]: row 1, column name: "),
    ] {
        let path = path.split('.').filter(|key| !key.is_empty()).map(str::to_owned).collect();
        check(FormatKind::Json { path }, contract, text.as_bytes(), Err(want));
    }
    let optional = &["year:int32"];
    let root = FormatKind::Json { path: vec![] };
    check(
        root.clone(),
        optional,
        br#"[{"anno": 1}]"#,
        Err(r#"spec.sources[0].columns: the input has none of the columns; it has "anno";"#),
    );
    check(root, optional, b"[{\"year\": \"\xf1\"}]", Err("spec.sources[0]: the document is not utf-8;"));
}

#[test]
fn json_gives_up_on_an_element_without_end_but_not_on_what_it_passes_over() {
    let long = "y".repeat(RECORD_BYTES_MAX as usize + (1 << 20));
    let path = FormatKind::Json { path: vec!["data".into()] };
    let beside = format!(r#"{{"x": "{long}", "data": [{{"a": "b"}}], "z": "{long}"}}"#);
    check(path.clone(), &["a:string"], beside.as_bytes(), Ok("b"));
    let inside = format!(r#"{{"data": [{{"a": "{long}"}}]}}"#);
    check(path, &["a:string"], inside.as_bytes(), Err("spec.sources[0]: a record is longer than 32 MiB;"));
}

#[test]
fn json_ends_its_thread_when_nobody_reads_on() {
    let text = format!("[{}]", vec![r#"{"a": "x"}"#; 100_000].join(","));
    let (_file, raw) = input(text.as_bytes());
    let source = CheckedSource { name: "dropped".into(), ..source(FormatKind::Json { path: vec![] }, &["a:string"]) };
    let mut decoder = open(&raw, &source).unwrap();
    assert_eq!(decoder.batches.next().unwrap().unwrap().num_rows(), BATCH_ROWS_MAX);
    assert!(threads().contains(&"json dropped".to_owned()));
    drop(decoder);
    let gone = (0..1000).any(|_| {
        std::thread::park_timeout(std::time::Duration::from_millis(10));
        !threads().contains(&"json dropped".to_owned())
    });
    assert!(gone, "{:?}", threads());
}

/// Names of this process's threads.
fn threads() -> Vec<String> {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    // A thread may end between the listing and the reading.
    let name = |task: std::io::Result<std::fs::DirEntry>| std::fs::read_to_string(task.unwrap().path().join("comm"));
    tasks.filter_map(|task| name(task).ok()).map(|name| name.trim().to_owned()).collect()
}

#[test]
fn ndjson_is_an_object_per_line() {
    let contract = &["a!:int32", "b:string"];
    for (bytes, want) in [
        (&b"{\"a\": 1}\n{\"a\": 2, \"b\": \"x\"}"[..], Ok("1|∅ 2|x")),
        (b"\xef\xbb\xbf{\"a\": 1}\r\n\r\n  \n{\"a\": 2}\r\n", Ok("1|∅ 2|∅")),
        (b"", Ok("")),
        (b"{\"a\": 1}\n\n{\"a\": \"x\"}\n", Err("spec.sources[0].columns[0]: line 3, column a: \"x\" is not int32;")),
        (
            b"{\"a\": 1}\n{\"a\": 2",
            Err("spec.sources[0]: line 2 is not JSON: EOF while parsing an object at character 7"),
        ),
        (b"{\"a\": 1} {\"a\": 2}\n", Err("spec.sources[0]: line 1 is not JSON: trailing characters at character 10")),
        (b"[1]\n", Err("spec.sources[0]: line 1 is an array, it should be an object")),
        (
            b"{\"a\": 1}\n{\"a\": 1, \"b\": \"\xf1\"}\n",
            Err("spec.sources[0]: line 2: the byte at offset 15 is not utf-8;"),
        ),
    ] {
        check(FormatKind::NdJson, contract, bytes, want);
    }
}

#[test]
fn batches_have_at_most_so_many_rows_and_bytes() {
    let small = format!("a\n{}", "x\n".repeat(BATCH_ROWS_MAX + 1));
    let sizes = |bytes: &[u8], contract: &[&str]| -> Vec<usize> {
        let read = batches(bytes, &source(FormatKind::Csv(CSV), contract)).unwrap();
        read.iter().map(RecordBatch::num_rows).collect()
    };
    assert_eq!(sizes(small.as_bytes(), &["a:string"]), [BATCH_ROWS_MAX, 1]);
    let large = format!("a\n{}", format!("{}\n", "x".repeat(1 << 20)).repeat(7));
    // The last row may pass the limit: what a batch has is known after it. Large inputs are read in blocks besides.
    assert_eq!(sizes(large.as_bytes(), &["a:string"]), [7]);
    let larger = format!("a\n{}", format!("{}\n", "x".repeat(3 << 20)).repeat(4));
    let sizes = sizes(larger.as_bytes(), &["a:string"]);
    assert!(sizes.iter().all(|rows| *rows <= 3) && sizes.iter().sum::<usize>() == 4, "{sizes:?}");
}

#[test]
fn after_an_error_comes_nothing_more() {
    let (_file, raw) = input(b"a\n1\nx\n2\n");
    let mut decoder = open(&raw, &source(FormatKind::Csv(CSV), &["a:int32"])).unwrap();
    assert_eq!(decoder.batches.next().unwrap().unwrap_err().code, Code::ValueInvalid);
    assert!(decoder.batches.next().is_none());
}

#[test]
fn a_schema_says_what_is_required_and_what_it_means() {
    let mut source = source(FormatKind::Csv(CSV), &["a!:string", "b:decimal(18,3)"]);
    source.columns[0].description = Some("the first letter".into());
    let (_file, raw) = input(b"a,b\n");
    let schema = open(&raw, &source).unwrap().schema;
    assert!(!schema.field(0).is_nullable() && schema.field(1).is_nullable());
    assert_eq!(schema.field(0).metadata()["description"], "the first letter");
}

mod large_files;
mod real_files;

mod parquet {
    use std::sync::Arc;

    use arrow::array::{
        ArrayRef, Decimal128Array, DictionaryArray, Float64Array, Int32Array, Int64Array, LargeStringArray,
        RecordBatch, StringArray, StringViewArray, Time64MicrosecondArray, TimestampMillisecondArray,
        TimestampNanosecondArray, UInt64Array,
    };
    use arrow::datatypes::Int32Type;
    use parquet::arrow::ArrowWriter;
    use report_api::checked::FormatKind;

    use super::{BATCH_ROWS_MAX, batches, check, gzip, source};

    fn file(columns: Vec<(&str, ArrayRef)>) -> Vec<u8> {
        let batch =
            RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, array)| (name, array, true)));
        let batch = batch.unwrap();
        let mut bytes = Vec::new();
        let mut writer = ArrowWriter::try_new(&mut bytes, batch.schema(), None).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
        bytes
    }

    fn sample() -> Vec<u8> {
        file(vec![
            ("Series ID", Arc::new(StringArray::from(vec![Some("x"), None])) as ArrayRef),
            ("n", Arc::new(Int32Array::from(vec![1, 2]))),
            ("view", Arc::new(StringViewArray::from(vec!["a view of some length", "b"]))),
            ("large", Arc::new(LargeStringArray::from(vec!["l", "m"]))),
            ("dict", Arc::new(DictionaryArray::<Int32Type>::from_iter(["d", "d"]))),
            ("v", Arc::new(Decimal128Array::from(vec![1500, 2]).with_precision_and_scale(10, 3).unwrap())),
            ("millis", Arc::new(TimestampMillisecondArray::from(vec![0, 1]))),
            ("at", Arc::new(TimestampMillisecondArray::from(vec![0, 1]).with_timezone("Europe/Berlin"))),
        ])
    }

    #[test]
    fn a_file_brings_its_own_columns() {
        let want = "x|1|a view of some length|l|d|1.500|1970-01-01T00:00:00|1970-01-01T00:00:00Z \
                    ∅|2|b|m|d|0.002|1970-01-01T00:00:00.001|1970-01-01T00:00:00.001Z";
        check(FormatKind::Parquet, &[], &sample(), Ok(want));
        let read = batches(&sample(), &source(FormatKind::Parquet, &[])).unwrap();
        let schema = read[0].schema();
        let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
        assert_eq!(names, ["series_id", "n", "view", "large", "dict", "v", "millis", "at"]);
        let unsigned = file(vec![("u", Arc::new(UInt64Array::from(vec![u64::MAX])) as ArrayRef)]);
        check(FormatKind::Parquet, &[], &unsigned, Ok("18446744073709551615"));
    }

    #[test]
    fn a_contract_takes_types_that_fit() {
        for (contract, want) in [
            (&["n:int64", "series_id:string"][..], Ok("1|x 2|∅")),
            (&["n:int32", "twice:int32 from n", "gone:date"], Ok("1|1|∅ 2|2|∅")),
            (&["v:decimal(12,4)"], Ok("1.5000 0.0020")),
            (&["n:decimal(12,2)", "dict:string"], Ok("1.00|d 2.00|d")),
            (&["millis:timestamp"], Ok("1970-01-01T00:00:00 1970-01-01T00:00:00.001")),
            (
                &["n:int16"],
                Err(
                    "spec.sources[0].columns[0]: column n: the file has it as Int32, which is not int16; declare it as int32",
                ),
            ),
            (
                &["v:decimal(10,2)"],
                Err(
                    "spec.sources[0].columns[0]: column v: the file has it as Decimal128(10, 3), which is not decimal(10,2); declare it as decimal(10,3)",
                ),
            ),
            (
                &["n:string"],
                Err("spec.sources[0].columns[0]: column n: the file has it as Int32, which is not string;"),
            ),
            (&["at:timestamp"], Err("spec.sources[0].columns[0]: column at: ")),
            (
                &["series_id!:string"],
                Err("spec.sources[0].columns[0]: row 2, column series_id: NULL in a required column;"),
            ),
            (
                &["m!:int32"],
                Err("spec.sources[0].columns[0]: the input has no column \"m\"; it has \"Series ID\", \"n\","),
            ),
            (&["m:int32"], Err("spec.sources[0].columns: the input has none of the columns;")),
        ] {
            check(FormatKind::Parquet, contract, &sample(), want);
        }
    }

    #[test]
    fn types_that_do_not_fit_are_refused_by_name() {
        let nanos = file(vec![("at", Arc::new(TimestampNanosecondArray::from(vec![1000, 1])) as ArrayRef)]);
        let times = file(vec![("b", Arc::new(Time64MicrosecondArray::from(vec![0])) as ArrayRef)]);
        let twice = file(vec![
            ("a b", Arc::new(Int64Array::from(vec![0])) as ArrayRef),
            ("A-B", Arc::new(Float64Array::from(vec![0.0]))),
        ]);
        for (contract, file, want) in [
            (
                &[][..],
                &nanos,
                "spec.sources[0]: row 2, column at: a value is not timestamp, it is finer than a microsecond; correct",
            ),
            (
                &["at:timestamp"],
                &nanos,
                "spec.sources[0].columns[0]: row 2, column at: a value is not timestamp, it is finer than a microsecond; correct",
            ),
            (&[], &times, "spec.sources[0]: the column \"b\" has the type Time64(µs), which no column can have;"),
            (&[], &twice, "spec.sources[0]: the columns \"a b\" and \"A-B\" both become a_b;"),
        ] {
            check(FormatKind::Parquet, contract, file, Err(want));
        }
    }

    #[test]
    fn a_broken_file_is_malformed() {
        let sample = sample();
        for bytes in [&b""[..], b"a,b\n", &sample[..sample.len() / 2]] {
            check(FormatKind::Parquet, &[], bytes, Err("spec.sources[0]: the input is not a whole Parquet file: "));
        }
        check(
            FormatKind::Parquet,
            &[],
            &gzip(&sample),
            Err("spec.sources[0]: a Parquet file can't be read through gzip;"),
        );
    }

    #[test]
    fn wide_rows_make_small_batches() {
        let text = "x".repeat(1 << 10);
        let texts: Vec<String> = (0..BATCH_ROWS_MAX * 2).map(|row| format!("{row}{text}")).collect();
        let file = file(vec![("a", Arc::new(StringArray::from(texts)) as ArrayRef)]);
        let read = batches(&file, &source(FormatKind::Parquet, &[])).unwrap();
        assert!(read.iter().all(|batch| batch.num_rows() <= BATCH_ROWS_MAX), "{:?}", read.len());
        assert_eq!(read.iter().map(RecordBatch::num_rows).sum::<usize>(), BATCH_ROWS_MAX * 2);
    }
}
