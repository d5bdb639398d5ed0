//! Sources: where they come from, how they are written, and their columns.

use url::Url;

use super::{Problems, incremental, is_identifier, rows};
use crate::checked::{CheckedColumn, CheckedSource, CsvFormat, FormatKind, PostgresRead, SourceKind};
use crate::column::{COLUMN_NAME_BYTES_MAX, COLUMNS_MAX, Column, ColumnType};
use crate::format::{Csv, Format, Json};
use crate::model::SQL_BYTES_MAX;
use crate::source::http::Header;
use crate::source::{FileSource, HttpSource, PostgresSource, Source};

const URL_CHARS_MAX: usize = 2048;
const PATH_CHARS_MAX: usize = 1024;
const HEADERS_MAX: usize = 32;
const HEADER_NAME_BYTES_MAX: usize = 128;
const HEADER_VALUE_CHARS_MAX: usize = 4096;
const FROM_CHARS_MAX: usize = 256;
const ROWS_CHARS_MAX: usize = 256;
const NULL_VALUES_MAX: usize = 16;
const NULL_VALUE_CHARS_MAX: usize = 64;
const SKIP_LINES_MAX: u32 = 1000;
/// Headers that are about the connection or about parts of a file: the worker sets them as it needs them.
const OWN_HEADERS: [&str; 6] = ["connection", "content-length", "host", "range", "te", "transfer-encoding"];

pub(super) fn check(field: String, source: &Source, problems: &mut Problems) -> Option<CheckedSource> {
    problems.description(&field, source.description.as_deref());
    let kinds =
        [("http", source.http.is_some()), ("file", source.file.is_some()), ("postgres", source.postgres.is_some())];
    let one = problems.one_of(&field, &kinds);
    let from_http = source.http.as_ref().map(|http| {
        let ending = http_source(&format!("{field}.http"), http, problems);
        (SourceKind::Http(http.clone()), ending)
    });
    let from_file = source.file.as_ref().map(|file| {
        file_source(&format!("{field}.file"), file, problems);
        (SourceKind::File(file.clone()), Some(file.path.clone()))
    });
    let from_postgres = source.postgres.as_ref().map(|postgres| {
        let read = postgres_source(&format!("{field}.postgres"), postgres, problems);
        read.map(|read| SourceKind::Postgres { connection: (&postgres.connection.secret_ref).into(), read })
    });
    let from = from_http.or(from_file);
    let (kind, format) = match from_postgres {
        Some(kind) => {
            if one {
                no_format(&field, source, problems);
            }
            (kind, Some(FormatKind::Rows))
        }
        None => {
            let path = from.as_ref().and_then(|(_, path)| path.as_deref());
            let format = format(&field, source.format.as_ref(), path, problems);
            (from.map(|(kind, _)| kind), format)
        }
    };
    let columns = columns(&field, source, format.as_ref(), problems);
    let contract = rows::contract(&field, source, format.as_ref(), problems);
    let bad_rows = rows::bad_rows(&field, source, problems);
    let record_bytes_max = rows::record_bytes_max(&field, source, problems);
    let masks = rows::masks(&field, source, &columns, problems);
    let incremental = source.incremental.as_ref().and_then(|incremental| {
        incremental::check(format!("{field}.incremental"), incremental, &columns, kind.as_ref(), problems)
    });
    Some(CheckedSource {
        field,
        name: source.name.clone(),
        kind: kind?,
        format: format?,
        compression: source.compression.unwrap_or_default(),
        columns,
        contract,
        bad_rows,
        record_bytes_max,
        masks,
        incremental,
    })
}

/// Gives the path of a URL that can be read: its ending may say the format.
fn http_source(field: &str, http: &HttpSource, problems: &mut Problems) -> Option<String> {
    let at = format!("{field}.url");
    problems.plain_text(&at, &http.url, URL_CHARS_MAX);
    let path = problems.rendered(&at, &http.url).and_then(|url| match parse(&url) {
        Ok(url) => {
            if !url.username().is_empty() || url.password().is_some() {
                problems.add(at, "there is a user or password in it; send it as a header with valueFrom");
            }
            Some(url.path().to_owned())
        }
        Err(message) => {
            problems.add(at, message);
            None
        }
    });
    problems.list_len(&format!("{field}.headers"), http.headers.len(), 0, HEADERS_MAX);
    for (n, one) in http.headers.iter().enumerate() {
        let at = format!("{field}.headers[{n}]");
        header(&at, one, problems);
        if let Some(first) = http.headers[..n].iter().position(|other| other.name.eq_ignore_ascii_case(&one.name)) {
            problems
                .add(format!("{at}.name"), format!("{} is the name of headers[{first}] too; send it once", one.name));
        }
    }
    problems.span(&format!("{field}.timeout"), http.timeout.as_ref());
    problems.size(&format!("{field}.maxSize"), http.max_size.as_ref());
    path
}

/// The parser guesses where it can: `https:///data` has the host `data` for it. The messages do not show the text, which
/// may hold a password.
fn parse(text: &str) -> Result<Url, String> {
    let lower = text.to_ascii_lowercase();
    let Some(rest) = ["http://", "https://"].iter().find_map(|scheme| lower.strip_prefix(scheme)) else {
        return Err("it has to begin with http:// or https://".into());
    };
    let url = if rest.starts_with('/') { Err(url::ParseError::EmptyHost) } else { Url::parse(text) };
    url.map_err(|error| format!("it is not an address ({error}); write one such as https://example.org/data.csv"))
}

fn header(field: &str, header: &Header, problems: &mut Problems) {
    let at = format!("{field}.name");
    let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+.^_`|~-".contains(&b);
    if header.name.is_empty() || header.name.len() > HEADER_NAME_BYTES_MAX || !header.name.bytes().all(token) {
        problems.add(
            at,
            format!(
                "{:?} can't be the name of a header; write letters, digits and dashes, such as User-Agent",
                header.name
            ),
        );
    } else if OWN_HEADERS.contains(&header.name.to_ascii_lowercase().as_str()) {
        problems.add(at, format!("{} is set by the worker itself; remove it", header.name));
    }
    match (&header.value, &header.value_from) {
        (Some(value), None) => {
            if value.chars().count() > HEADER_VALUE_CHARS_MAX {
                problems.add(
                    format!("{field}.value"),
                    format!("it is too long; the most is {HEADER_VALUE_CHARS_MAX} characters"),
                );
            } else if !value.chars().all(|c| c == '\t' || c == ' ' || c.is_ascii_graphic()) {
                problems.add(
                    format!("{field}.value"),
                    "there is a control character or one outside ASCII in it; a header can't carry that",
                );
            }
        }
        (None, Some(_)) => {}
        (Some(_), Some(_)) => {
            problems.add(field, "value and valueFrom are set; set exactly one of value and valueFrom")
        }
        (None, None) => problems.add(field, "none is set; set exactly one of value and valueFrom"),
    }
}

fn file_source(field: &str, file: &FileSource, problems: &mut Problems) {
    let at = format!("{field}.path");
    problems.plain_text(&at, &file.path, PATH_CHARS_MAX);
    let Some(path) = problems.rendered(&at, &file.path) else { return };
    if path.is_empty() || path.ends_with('/') {
        problems.add(at, "it names no file; write one such as data/orders.csv");
    } else if let Some((scheme, _)) = path.split_once("://") {
        let hint =
            if matches!(scheme, "http" | "https") { "write it as http: {url: …}" } else { "write the path alone" };
        problems.add(at, format!("{scheme}:// is an address, not a path; {hint}"));
    }
}

/// The table or query that is read.
fn postgres_source(field: &str, postgres: &PostgresSource, problems: &mut Problems) -> Option<PostgresRead> {
    let PostgresSource { connection: _, table, query } = postgres;
    let table = table.as_ref().map(|table| postgres_table(&format!("{field}.table"), table, problems));
    let query = query.as_ref().map(|query| postgres_query(&format!("{field}.query"), query, problems));
    match (table, query) {
        (Some(table), None) => table,
        (None, Some(query)) => query,
        (Some(_), Some(_)) => {
            problems.add(field, "table and query are set; set exactly one of table and query");
            None
        }
        (None, None) => {
            problems.add(field, "none is set; set exactly one of table and query");
            None
        }
    }
}

fn postgres_table(field: &str, text: &str, problems: &mut Problems) -> Option<PostgresRead> {
    let (schema, table) = text.split_once('.').unwrap_or(("public", text));
    let plain = |(n, b): (usize, u8)| b.is_ascii_alphabetic() || b == b'_' || (n > 0 && b.is_ascii_digit());
    let usable = |name: &str| (1..=COLUMN_NAME_BYTES_MAX).contains(&name.len()) && name.bytes().enumerate().all(plain);
    if !usable(schema) || !usable(table) {
        let remedy = "write letters, digits and underscores, such as public.orders; read another table by a query";
        problems.add(field, format!("{text:?} can't be a table; {remedy}"));
        return None;
    }
    Some(PostgresRead::Table { schema: schema.into(), table: table.into() })
}

/// The SQL is PostgreSQL's own, which only the server understands whole: here is only checked what it begins with.
fn postgres_query(field: &str, text: &str, problems: &mut Problems) -> Option<PostgresRead> {
    if text.len() > SQL_BYTES_MAX {
        problems.add(field, format!("{} bytes are too many; the most is {SQL_BYTES_MAX}: make it a view", text.len()));
        return None;
    }
    if text.contains('\0') {
        problems.add(field, "there is a NUL character in it; remove it");
        return None;
    }
    let query = text.trim_end_matches(|c: char| c.is_whitespace() || c == ';');
    let mut rest = query.trim_start();
    while let Some(after) = rest.strip_prefix("--") {
        rest = after.split_once('\n').map_or("", |(_, rest)| rest).trim_start();
    }
    let first: String = rest.chars().take_while(char::is_ascii_alphabetic).collect();
    let known = ["select", "with", "values", "table"].contains(&first.to_ascii_lowercase().as_str());
    if !known && !rest.starts_with(['(', '/']) {
        problems.add(field, "it is not a SELECT; write one SELECT that gives the rows to read");
        return None;
    }
    Some(PostgresRead::Query(query.into()))
}

fn no_format(field: &str, source: &Source, problems: &mut Problems) {
    for (name, set) in [
        ("format", source.format.is_some()),
        ("compression", source.compression.is_some()),
        ("contract", source.contract.is_some()),
        ("onBadRow", source.on_bad_row.is_some()),
        ("maxBadRows", source.max_bad_rows.is_some()),
        ("maxRecordSize", source.max_record_size.is_some()),
    ] {
        if set {
            problems
                .add(format!("{field}.{name}"), "it is about files; the rows of a database have none: leave it out");
        }
    }
}

/// The format that is set, or the one that the ending of the name says.
fn format(field: &str, format: Option<&Format>, path: Option<&str>, problems: &mut Problems) -> Option<FormatKind> {
    let field = format!("{field}.format");
    let Some(format) = format else {
        let path = path?;
        let known = by_ending(path);
        if known.is_none() {
            let name = path.rsplit('/').next().unwrap_or_default();
            problems.add(
                field,
                format!("the ending of {name:?} does not say the format; set format, such as format: {{csv: {{}}}}"),
            );
        }
        return known;
    };
    let Format { csv, json, ndjson, parquet } = format;
    let options = [
        ("csv", csv.is_some()),
        ("json", json.is_some()),
        ("ndjson", ndjson.is_some()),
        ("parquet", parquet.is_some()),
    ];
    let one = problems.one_of(&field, &options);
    let csv = csv.as_ref().map(|csv| FormatKind::Csv(csv_format(&format!("{field}.csv"), csv, problems)));
    let json = json.as_ref().map(|json| json_format(&format!("{field}.json"), json, problems));
    if !one {
        return None;
    }
    csv.or(json).or(ndjson.as_ref().map(|_| FormatKind::NdJson)).or(parquet.as_ref().map(|_| FormatKind::Parquet))
}

fn by_ending(path: &str) -> Option<FormatKind> {
    let path = path.to_ascii_lowercase();
    let (_, ending) = path.strip_suffix(".gz").unwrap_or(&path).rsplit_once('.')?;
    match ending {
        "csv" => Some(FormatKind::Csv(CsvFormat::PLAIN)),
        "tsv" => Some(FormatKind::Csv(CsvFormat { delimiter: b'\t', ..CsvFormat::PLAIN })),
        "json" => Some(FormatKind::Json { path: Vec::new() }),
        "ndjson" | "jsonl" => Some(FormatKind::NdJson),
        "parquet" => Some(FormatKind::Parquet),
        _ => None,
    }
}

fn csv_format(field: &str, csv: &Csv, problems: &mut Problems) -> CsvFormat {
    let mut one_byte = |name: &str, text: &str| -> Option<u8> {
        match text.as_bytes() {
            [byte] if byte.is_ascii() && !b"\r\n\0".contains(byte) => Some(*byte),
            _ => {
                let hint = if text == "\\t" {
                    "write \"\\t\" in double quotes for a tab"
                } else {
                    "write one ASCII character that is no line break"
                };
                problems.add(format!("{field}.{name}"), format!("{text:?} can't be the {name}; {hint}"));
                None
            }
        }
    };
    let delimiter = csv.delimiter.as_deref().map_or(Some(b','), |text| one_byte("delimiter", text));
    let quote = match csv.quote.as_deref() {
        None => Some(b'"'),
        Some("") => None,
        Some(text) => one_byte("quote", text),
    };
    let comment = csv.comment.as_deref().and_then(|text| one_byte("comment", text));
    if let (Some(delimiter), Some(quote)) = (delimiter, quote)
        && delimiter == quote
    {
        let hint = "write another one, or quote: \"\" where nothing is quoted";
        problems.add(format!("{field}.quote"), format!("{:?} is the delimiter too; {hint}", char::from(quote)));
    }
    if let Some(comment) = comment
        && (Some(comment) == delimiter || Some(comment) == quote)
    {
        problems.add(format!("{field}.comment"), format!("{:?} is the delimiter or quote too", char::from(comment)));
    }
    let at = format!("{field}.nullValues");
    problems.list_len(&at, csv.null_values.len(), 0, NULL_VALUES_MAX);
    for (n, text) in csv.null_values.iter().enumerate() {
        let at = format!("{at}[{n}]");
        problems.plain_text(&at, text, NULL_VALUE_CHARS_MAX);
        if text.is_empty() {
            problems
                .add(at, "the empty field is NULL anyway; remove it, or set quotedNulls for empty fields in quotes");
        }
    }
    if csv.skip_lines.is_some_and(|lines| lines > SKIP_LINES_MAX) {
        problems.add(format!("{field}.skipLines"), format!("the most is {SKIP_LINES_MAX}"));
    }
    CsvFormat {
        delimiter: delimiter.unwrap_or(b','),
        quote,
        trim: csv.trim,
        header: csv.header.unwrap_or(true),
        encoding: csv.encoding.unwrap_or_default(),
        null_values: csv.null_values.clone(),
        quoted_nulls: csv.quoted_nulls,
        comment,
        skip_lines: csv.skip_lines.unwrap_or(0),
    }
}

fn json_format(field: &str, json: &Json, problems: &mut Problems) -> FormatKind {
    let rows = json.rows.as_deref().unwrap_or("$");
    let at = format!("{field}.rows");
    problems.plain_text(&at, rows, ROWS_CHARS_MAX);
    let path: Vec<String> = rows.split('.').skip(1).map(str::to_owned).collect();
    let usable =
        |name: &String| !name.is_empty() && !name.contains(['[', ']', '*', '?', '(', ')', '\'', '"', '$', '@', ' ']);
    if !(rows == "$" || rows.starts_with("$.")) || !path.iter().all(usable) {
        problems.add(
            at,
            format!(
                "{rows:?} can't be read; write $ for the document itself or field names only, such as $.result.rows"
            ),
        );
    }
    FormatKind::Json { path }
}

fn columns(field: &str, source: &Source, format: Option<&FormatKind>, problems: &mut Problems) -> Vec<CheckedColumn> {
    let list = format!("{field}.columns");
    problems.list_len(&list, source.columns.len(), 0, COLUMNS_MAX);
    let headless = matches!(format, Some(FormatKind::Csv(csv)) if !csv.header);
    if headless && source.columns.is_empty() {
        problems.add(
            &list,
            "without a header the input does not say its columns; list them in their order, such as {name: id, type: int64}",
        );
    }
    let mut seen = std::collections::HashMap::new();
    (source.columns.iter().enumerate())
        .filter_map(|(n, column)| {
            let field = format!("{list}[{n}]");
            let first = *seen.entry(column.name.as_str()).or_insert(n);
            if first != n {
                problems.add(
                    format!("{field}.name"),
                    format!("`{}` is the name of columns[{first}] too; columns need names of their own", column.name),
                );
            }
            self::column(field, column, (headless, format), problems)
        })
        .collect()
}

fn column(
    field: String,
    column: &Column,
    (headless, format): (bool, Option<&FormatKind>),
    problems: &mut Problems,
) -> Option<CheckedColumn> {
    let at = format!("{field}.name");
    let snake = crate::column::snake_case(&column.name);
    if !is_identifier(&column.name) && is_identifier(&snake) {
        problems.add(
            at,
            format!(
                "{:?} can't be a name in SQL; write {snake}, and from: where the input's name differs by more",
                column.name
            ),
        );
    } else {
        problems.identifier(&at, &column.name);
    }
    if let Some(from) = &column.from {
        let at = format!("{field}.from");
        if from.is_empty() {
            problems.add(at, "it is empty; write the name in the input, or leave it out");
        } else if headless {
            problems
                .add(at, "without a header the input has no names; leave it out and list the columns in their order");
        } else {
            problems.plain_text(&at, from, FROM_CHARS_MAX);
        }
    }
    problems.description(&field, column.description.as_deref());
    let type_ =
        ColumnType::parse(&column.type_).map_err(|message| problems.add(format!("{field}.type"), message)).ok()?;
    let written = rows::written(&field, column, type_, format, problems);
    Some(CheckedColumn {
        written,
        name: column.name.clone(),
        from: column.from.clone(),
        type_,
        required: column.required,
        description: column.description.clone(),
        field,
    })
}
