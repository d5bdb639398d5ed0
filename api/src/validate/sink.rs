//! Sinks: what they write, where, and that no two of them write the same place.

use super::{IDENTIFIER_BYTES_MAX, Problems, Tables};
use crate::checked::{CheckedSink, SinkKind, SinkMode};
use crate::sink::{LakeSink, Mode, PostgresSink, Sink, SqliteSink};

const KEY_COLUMNS_MAX: usize = 32;
const PARTITION_COLUMNS_MAX: usize = 8;
const PATH_CHARS_MAX: usize = 1024;
/// The schema of the ledger.
const LEDGER_SCHEMA: &str = "report_operator";
/// What the names of tables with staged rows begin with.
const STAGING_PREFIX: &str = "_report_";
/// What the names of tables begin with that SQLite, and the operator in an SQLite file, keep for themselves.
const SQLITE_PREFIXES: [(&str, &str); 3] =
    [("sqlite_", "SQLite's"), ("report_operator_", "the operator's"), (STAGING_PREFIX, "the operator's")];

pub(super) fn check(field: String, sink: &Sink, tables: &Tables, problems: &mut Problems) -> Option<CheckedSink> {
    if let Some(message) = tables.unknown(&sink.from) {
        problems.add(format!("{field}.from"), message);
    }
    let options =
        [("postgres", sink.postgres.is_some()), ("sqlite", sink.sqlite.is_some()), ("lake", sink.lake.is_some())];
    let one = problems.one_of(&field, &options);
    let postgres =
        sink.postgres.as_ref().and_then(|postgres| postgres_table(&format!("{field}.postgres"), postgres, problems));
    let sqlite = sink.sqlite.as_ref().map(|sqlite| sqlite_table(&format!("{field}.sqlite"), sqlite, problems));
    let lake =
        sink.lake.as_ref().and_then(|lake| lake_root(&format!("{field}.lake"), lake, &sink.from, tables, problems));

    let mode = mode(&format!("{field}.mode"), sink.mode.as_ref(), &sink.from, tables, problems);
    tables.columns(&format!("{field}.primaryKey"), &sink.from, &sink.primary_key, (0, KEY_COLUMNS_MAX), problems);
    let mut primary_key = sink.primary_key.clone();
    if let Some(SinkMode::Merge { key }) = &mode {
        if !primary_key.is_empty() && primary_key != *key {
            problems.add(
                format!("{field}.primaryKey"),
                format!("merge takes its own key; write [{}], or leave it out", key.join(", ")),
            );
        }
        primary_key.clone_from(key);
    }
    if one && sink.lake.is_some() {
        not_for_a_lake(&field, sink, problems);
    }
    if one && sink.postgres.is_none() && sink.mode.as_ref().and_then(|mode| mode.replace.as_ref()?.by).is_some() {
        problems.add(format!("{field}.mode.replace.by"), "it is about PostgreSQL tables only; leave it out");
    }
    let kind = if one { postgres.or(sqlite).or(lake) } else { None };
    Some(CheckedSink {
        field,
        name: sink.name.clone(),
        from: sink.from.clone(),
        kind: kind?,
        mode: mode?,
        primary_key,
        allow_empty: sink.allow_empty,
        adopt: sink.adopt,
    })
}

fn not_for_a_lake(field: &str, sink: &Sink, problems: &mut Problems) {
    if sink.mode.as_ref().is_some_and(|mode| mode.merge.is_some()) {
        problems.add(format!("{field}.mode"), "a lake takes replace or append; merge needs a database table");
    }
    if !sink.primary_key.is_empty() {
        problems.add(
            format!("{field}.primaryKey"),
            "a lake has no primary key; leave it out, and write a check with unique to have it looked at",
        );
    }
    if sink.adopt {
        problems.add(format!("{field}.adopt"), "it is about database tables only; leave it out");
    }
}

fn mode(field: &str, mode: Option<&Mode>, from: &str, tables: &Tables, problems: &mut Problems) -> Option<SinkMode> {
    let Some(Mode { replace, append, merge }) = mode else {
        return Some(SinkMode::Replace(Default::default()));
    };
    let options = [("replace", replace.is_some()), ("append", append.is_some()), ("merge", merge.is_some())];
    let one = problems.one_of(field, &options);
    if let Some(merge) = merge {
        tables.columns(&format!("{field}.merge.key"), from, &merge.key, (1, KEY_COLUMNS_MAX), problems);
    }
    match (replace, append, merge) {
        _ if !one => None,
        (Some(replace), ..) => Some(SinkMode::Replace(replace.by.unwrap_or_default())),
        (_, Some(_), _) => Some(SinkMode::Append),
        (_, _, merge) => Some(SinkMode::Merge { key: merge.as_ref()?.key.clone() }),
    }
}

fn postgres_table(field: &str, postgres: &PostgresSink, problems: &mut Problems) -> Option<SinkKind> {
    let at = format!("{field}.table");
    let (schema, table) = postgres.table.split_once('.').unwrap_or(("public", &postgres.table));
    let usable = table_name(&at, schema, "schema", problems) & table_name(&at, table, "table", problems);
    if schema == LEDGER_SCHEMA || schema == "information_schema" || schema.starts_with("pg_") {
        problems.add(&at, format!("the schema {schema} is not for data; name another one"));
    }
    if table.starts_with(STAGING_PREFIX) {
        problems.add(at, format!("tables that begin with {STAGING_PREFIX} are the operator's own; write another one"));
    }
    usable.then(|| SinkKind::Postgres {
        connection: (&postgres.connection.secret_ref).into(),
        schema: schema.to_owned(),
        table: table.to_owned(),
    })
}

fn sqlite_table(field: &str, sqlite: &SqliteSink, problems: &mut Problems) -> SinkKind {
    let at = format!("{field}.path");
    problems.plain_text(&at, &sqlite.path, PATH_CHARS_MAX);
    problems.no_template(&at, &sqlite.path);
    if sqlite.path.is_empty() || sqlite.path.ends_with('/') || sqlite.path.starts_with(':') {
        problems.add(at, "it names no file; write one such as /data/reporting.db");
    } else if sqlite.path.contains("://") || sqlite.path.starts_with("file:") || sqlite.path.contains('?') {
        problems.add(at, "it is an address, not a path; write the path alone, such as /data/reporting.db");
    }
    let at = format!("{field}.table");
    // SQLite's names do not tell case apart.
    let name = sqlite.table.to_ascii_lowercase();
    let own = SQLITE_PREFIXES.iter().find(|(prefix, _)| name.starts_with(prefix));
    if table_name(&at, &sqlite.table, "table", problems)
        && let Some((prefix, whose)) = own
    {
        problems.add(at, format!("names that begin with {prefix} are {whose} own; write another one"));
    }
    SinkKind::Sqlite { path: sqlite.path.clone(), table: sqlite.table.clone() }
}

fn table_name(field: &str, name: &str, what: &str, problems: &mut Problems) -> bool {
    let plain = |(n, b): (usize, u8)| b.is_ascii_alphabetic() || b == b'_' || (n > 0 && b.is_ascii_digit());
    if name.len() > IDENTIFIER_BYTES_MAX {
        problems.add(field, format!("the {what} has {} bytes; the most is {IDENTIFIER_BYTES_MAX}", name.len()));
    } else if name.is_empty() || !name.bytes().enumerate().all(plain) {
        problems.add(
            field,
            format!("{name:?} can't be a {what}; write letters, digits and underscores, such as reporting.best_year"),
        );
    } else {
        return true;
    }
    false
}

fn lake_root(field: &str, lake: &LakeSink, from: &str, tables: &Tables, problems: &mut Problems) -> Option<SinkKind> {
    tables.columns(&format!("{field}.partitionBy"), from, &lake.partition_by, (0, PARTITION_COLUMNS_MAX), problems);
    let at = format!("{field}.url");
    problems.plain_text(&at, &lake.url, PATH_CHARS_MAX);
    let url = lake_url(&lake.url).map_err(|message| problems.add(at, message)).ok()?;
    Some(SinkKind::Lake {
        url,
        partition_by: lake.partition_by.clone(),
        compression: lake.compression.unwrap_or_default(),
    })
}

/// The root without a slash at its end.
pub(super) fn lake_url(text: &str) -> Result<String, String> {
    const EXAMPLE: &str = "write s3://bucket/prefix or file:///absolute/folder";
    if text.contains("{{") {
        return Err("{{ }} is not filled in here; write the text as it is".into());
    }
    let (scheme, rest) = text.split_once("://").ok_or_else(|| format!("it is not an address; {EXAMPLE}"))?;
    if let Some(wrong) = rest.chars().find(|c| "?#%\\".contains(*c)) {
        return Err(format!("{wrong:?} can't be part of it; {EXAMPLE}"));
    }
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    match scheme {
        "s3" => {
            let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
            let usable = (3..=63).contains(&host.len()) && host.bytes().all(|b| inner(b) || b == b'-' || b == b'.');
            if !usable || !host.as_bytes().first().copied().is_some_and(inner) {
                let shown = if host.contains('@') { "what stands before the path".into() } else { format!("{host:?}") };
                return Err(format!("{shown} can't be a bucket; {EXAMPLE}"));
            }
        }
        "file" if !host.is_empty() => {
            return Err(format!("the path is not absolute; write file:///{rest} with three slashes"));
        }
        "file" if path.trim_matches('/').is_empty() => {
            return Err("the root of the file system can't be filled; name a folder".into());
        }
        "file" => {}
        other => return Err(format!("{other}:// is not known; {EXAMPLE}")),
    }
    let path = path.trim_end_matches('/');
    if !path.is_empty() && path.split('/').any(|part| matches!(part, "" | "." | "..")) {
        return Err("there is an empty part, . or .. in its path; write it without".into());
    }
    Ok(if path.is_empty() { format!("{scheme}://{host}") } else { format!("{scheme}://{host}/{path}") })
}

/// No two sinks may write the same place, or one inside the other.
pub(super) fn check_targets(sinks: &[CheckedSink], problems: &mut Problems) {
    for (n, sink) in sinks.iter().enumerate() {
        for other in &sinks[..n] {
            let Some(shared) = shared(&sink.kind, &other.kind) else {
                continue;
            };
            let hint = "one place has one sink: join the rows in a model";
            problems.add(&sink.field, format!("{shared} is written by {} (`{}`) too; {hint}", other.field, other.name));
        }
    }
}

fn shared(one: &SinkKind, other: &SinkKind) -> Option<String> {
    match (one, other) {
        (
            SinkKind::Postgres { connection, schema, table },
            SinkKind::Postgres { connection: connection2, schema: schema2, table: table2 },
        ) => (connection == connection2 && schema == schema2 && table == table2)
            .then(|| format!("the table {schema}.{table}")),
        (SinkKind::Sqlite { path, table }, SinkKind::Sqlite { path: path2, table: table2 }) => {
            // SQLite's names do not tell case apart.
            let same = plain_path(path) == plain_path(path2) && table.eq_ignore_ascii_case(table2);
            same.then(|| format!("the table {table} of {path}"))
        }
        (SinkKind::Lake { url, .. }, SinkKind::Lake { url: url2, .. }) => {
            let inside = |outer: &str, inner: &str| {
                inner.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            };
            (inside(url, url2) || inside(url2, url)).then(|| format!("the folder {url}, or one inside or around it,"))
        }
        (SinkKind::Postgres { .. } | SinkKind::Sqlite { .. } | SinkKind::Lake { .. }, _) => None,
    }
}

/// A path without `.` and empty parts.
fn plain_path(path: &str) -> (bool, Vec<&str>) {
    (path.starts_with('/'), path.split('/').filter(|part| !matches!(*part, "" | ".")).collect())
}
