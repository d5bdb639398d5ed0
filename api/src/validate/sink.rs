//! Sinks: what they write, where, and that no two of them write the same place.

use super::{IDENTIFIER_BYTES_MAX, Problems, Tables};
use crate::checked::{CheckedSink, DeleteBy, SinkKind, SinkMode};
use crate::sink::{DeleteInsert, LakeSink, Merge, Mode, MysqlSink, PostgresSink, Sink, SqliteSink};

const KEY_COLUMNS_MAX: usize = 32;
const PARTITION_COLUMNS_MAX: usize = 8;
/// Indexes of a table that a sink creates, and columns of one: MySQL takes 16 columns.
const INDEXES_MAX: usize = 16;
const PATH_CHARS_MAX: usize = 1024;
/// Connections of one sink: a database serves a hundred or so in all.
const CONNECTIONS_MAX: u32 = 16;
/// As many as the CPUs that most workers have.
const CONNECTIONS_DEFAULT: u32 = 2;
/// The schema of the ledger.
const LEDGER_SCHEMA: &str = "report_operator";
/// MySQL's own databases.
const MYSQL_DATABASES: [&str; 4] = ["mysql", "information_schema", "performance_schema", "sys"];
/// What the names of tables with staged rows begin with.
const STAGING_PREFIX: &str = "_report_";
/// What the names of tables begin with that SQLite, and the operator in an SQLite file, keep for themselves.
const SQLITE_PREFIXES: [(&str, &str); 3] =
    [("sqlite_", "SQLite's"), ("report_operator_", "the operator's"), (STAGING_PREFIX, "the operator's")];

pub(super) fn check(field: String, sink: &Sink, tables: &Tables, problems: &mut Problems) -> Option<CheckedSink> {
    if let Some(message) = tables.unknown(&sink.from) {
        problems.add(format!("{field}.from"), message);
    }
    problems.description(&field, sink.description.as_deref());
    let options = [
        ("postgres", sink.postgres.is_some()),
        ("mysql", sink.mysql.is_some()),
        ("sqlite", sink.sqlite.is_some()),
        ("lake", sink.lake.is_some()),
    ];
    let one = problems.one_of(&field, &options);
    let postgres =
        sink.postgres.as_ref().and_then(|postgres| postgres_table(&format!("{field}.postgres"), postgres, problems));
    let mysql = sink.mysql.as_ref().and_then(|mysql| mysql_table(&format!("{field}.mysql"), mysql, problems));
    let sqlite = sink.sqlite.as_ref().map(|sqlite| sqlite_table(&format!("{field}.sqlite"), sqlite, problems));
    let lake =
        sink.lake.as_ref().and_then(|lake| lake_root(&format!("{field}.lake"), lake, &sink.from, tables, problems));

    let mode = mode(&format!("{field}.mode"), sink.mode.as_ref(), &sink.from, tables, problems);
    tables.columns(&format!("{field}.primaryKey"), &sink.from, &sink.primary_key, (0, KEY_COLUMNS_MAX), problems);
    problems.list_len(&format!("{field}.indexes"), sink.indexes.len(), 0, INDEXES_MAX);
    for (n, index) in sink.indexes.iter().enumerate() {
        let at = format!("{field}.indexes[{n}]");
        tables.columns(&at, &sink.from, index, (1, INDEXES_MAX), problems);
        if sink.indexes[..n].contains(index) {
            problems.add(at, "the same columns are indexed above; leave one out");
        }
    }
    let mut primary_key = sink.primary_key.clone();
    if let Some(SinkMode::Merge { key, .. }) = &mode {
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
    if one && sink.postgres.is_none() && sink.mysql.is_none() {
        if sink.mode.as_ref().and_then(|mode| mode.replace.as_ref()?.by).is_some() {
            problems
                .add(format!("{field}.mode.replace.by"), "it is about PostgreSQL and MySQL tables only; leave it out");
        }
        if sink.description.is_some() {
            problems.add(
                format!("{field}.description"),
                "only tables in PostgreSQL and MySQL have a comment; leave it out, or describe the model",
            );
        }
    }
    let kind = if one { postgres.or(mysql).or(sqlite).or(lake) } else { None };
    Some(CheckedSink {
        field,
        name: sink.name.clone(),
        from: sink.from.clone(),
        kind: kind?,
        mode: mode?,
        primary_key,
        indexes: sink.indexes.clone(),
        description: sink.description.clone(),
        on_schema_change: sink.on_schema_change.unwrap_or_default(),
        allow_empty: sink.allow_empty,
        adopt: sink.adopt,
    })
}

fn not_for_a_lake(field: &str, sink: &Sink, problems: &mut Problems) {
    if sink.mode.as_ref().is_some_and(|mode| mode.merge.is_some() || mode.delete_insert.is_some()) {
        problems.add(
            format!("{field}.mode"),
            "a lake takes replace or append; merge and deleteInsert need a database table",
        );
    }
    if !sink.indexes.is_empty() {
        problems.add(format!("{field}.indexes"), "a lake has no indexes; leave it out, or set lake.partitionBy");
    }
    if sink.on_schema_change.is_some() {
        problems.add(format!("{field}.onSchemaChange"), "it is about database tables only; leave it out");
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
    let Some(Mode { replace, append, merge, delete_insert }) = mode else {
        return Some(SinkMode::Replace(Default::default()));
    };
    let options = [
        ("replace", replace.is_some()),
        ("append", append.is_some()),
        ("merge", merge.is_some()),
        ("deleteInsert", delete_insert.is_some()),
    ];
    let one = problems.one_of(field, &options);
    let merge = merge.as_ref().map(|merge| merge_mode(&format!("{field}.merge"), merge, from, tables, problems));
    let delete_insert = delete_insert
        .as_ref()
        .map(|mode| delete_insert_mode(&format!("{field}.deleteInsert"), mode, from, tables, problems));
    match (replace, append, merge, delete_insert) {
        _ if !one => None,
        (Some(replace), ..) => Some(SinkMode::Replace(replace.by.unwrap_or_default())),
        (_, Some(_), ..) => Some(SinkMode::Append),
        (_, _, Some(merge), _) => Some(merge),
        (_, _, _, delete_insert) => delete_insert?,
    }
}

fn merge_mode(field: &str, merge: &Merge, from: &str, tables: &Tables, problems: &mut Problems) -> SinkMode {
    tables.columns(&format!("{field}.key"), from, &merge.key, (1, KEY_COLUMNS_MAX), problems);
    let latest_by = merge.dedupe.as_ref().map(|dedupe| dedupe.latest_by.clone());
    for (option, column) in
        [("dedupe.latestBy", &latest_by), ("onlyIfNewer", &merge.only_if_newer), ("deleteWhen", &merge.delete_when)]
    {
        let Some(column) = column else { continue };
        let at = format!("{field}.{option}");
        if merge.key.contains(column) {
            problems.add(&at, format!("{column} is part of the key, and so the same in all rows of it; name another"));
        }
        tables.column(&at, from, column, problems);
    }
    if merge.delete_when.is_some() && (merge.delete_when == latest_by || merge.delete_when == merge.only_if_newer) {
        let message = "the column that deletes says nothing about which row is newer; name another";
        problems.add(format!("{field}.deleteWhen"), message);
    }
    SinkMode::Merge {
        key: merge.key.clone(),
        latest_by,
        only_if_newer: merge.only_if_newer.clone(),
        delete_when: merge.delete_when.clone(),
    }
}

fn delete_insert_mode(
    field: &str,
    mode: &DeleteInsert,
    from: &str,
    tables: &Tables,
    problems: &mut Problems,
) -> Option<SinkMode> {
    let options = [("interval", mode.interval.is_some()), ("partition", !mode.partition.is_empty())];
    let one = problems.one_of(field, &options);
    let by = match &mode.interval {
        Some(column) => {
            tables.column(&format!("{field}.interval"), from, column, problems);
            DeleteBy::Interval(column.clone())
        }
        None => {
            let columns = &mode.partition;
            tables.columns(&format!("{field}.partition"), from, columns, (0, PARTITION_COLUMNS_MAX), problems);
            DeleteBy::Partition(columns.clone())
        }
    };
    one.then_some(SinkMode::DeleteInsert(by))
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
    if let Some(connections) = postgres.max_connections
        && !(1..=CONNECTIONS_MAX).contains(&connections)
    {
        let message = format!("{connections} is not within 1 and {CONNECTIONS_MAX}");
        problems.add(format!("{field}.maxConnections"), message);
    }
    usable.then(|| SinkKind::Postgres {
        connection: (&postgres.connection.secret_ref).into(),
        schema: schema.to_owned(),
        table: table.to_owned(),
        connections_max: postgres.max_connections.unwrap_or(CONNECTIONS_DEFAULT),
    })
}

fn mysql_table(field: &str, mysql: &MysqlSink, problems: &mut Problems) -> Option<SinkKind> {
    let at = format!("{field}.table");
    let (database, table) = match mysql.table.split_once('.') {
        Some((database, table)) => (Some(database), table),
        None => (None, mysql.table.as_str()),
    };
    let usable = database.is_none_or(|database| table_name(&at, database, "database", problems))
        & table_name(&at, table, "table", problems);
    // Names of databases tell case apart or not, by the server's system.
    let own = |name: &&str| {
        let name = name.to_ascii_lowercase();
        name == LEDGER_SCHEMA || MYSQL_DATABASES.contains(&name.as_str())
    };
    if let Some(database) = database.filter(own) {
        problems.add(&at, format!("the database {database} is not for data; name another one"));
    }
    if table.to_ascii_lowercase().starts_with(STAGING_PREFIX) {
        problems.add(at, format!("tables that begin with {STAGING_PREFIX} are the operator's own; write another one"));
    }
    usable.then(|| SinkKind::Mysql {
        connection: (&mysql.connection.secret_ref).into(),
        database: database.map(str::to_owned),
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
            SinkKind::Postgres { connection, schema, table, .. },
            SinkKind::Postgres { connection: connection2, schema: schema2, table: table2, .. },
        ) => (connection == connection2 && schema == schema2 && table == table2)
            .then(|| format!("the table {schema}.{table}")),
        (
            SinkKind::Mysql { connection, database, table },
            SinkKind::Mysql { connection: connection2, database: database2, table: table2 },
        ) => (connection == connection2 && database == database2 && table.eq_ignore_ascii_case(table2))
            .then(|| format!("the table {table}")),
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
        (SinkKind::Postgres { .. } | SinkKind::Mysql { .. } | SinkKind::Sqlite { .. } | SinkKind::Lake { .. }, _) => {
            None
        }
    }
}

/// A path without `.` and empty parts.
fn plain_path(path: &str) -> (bool, Vec<&str>) {
    (path.starts_with('/'), path.split('/').filter(|part| !matches!(*part, "" | ".")).collect())
}
