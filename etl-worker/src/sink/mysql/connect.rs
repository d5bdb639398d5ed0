//! Connecting to MySQL and MariaDB, what their errors mean to a run, and the tables that the operator keeps there.

use std::time::Duration;

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Opts, OptsBuilder, ServerError, SslOpts};
use url::Url;

use crate::error::{Code, Result, RunError};
use crate::sink::postgres::Database;

/// How long connecting may take.
const CONNECT_SECONDS_MAX: u64 = 15;
/// How often connecting is tried, with growing pauses.
const ATTEMPTS_MAX: usize = 4;
/// What is set in every session.
///
/// - Names are quoted as in standard SQL, and a value that a column can't hold is an error.
/// - Times are UTC.
/// - A snapshot for each statement, which takes no locks on gaps between rows.
/// - 20 seconds for locks on tables, as in PostgreSQL; longer than [`COMMIT_IDLE_SECONDS_MAX`] for those on rows, so that
///   a run outwaits one that stands still in its commit.
/// - The server waits an hour for rows that are loaded: a sort or a slow source lies before them.
const SESSION: &[&str] = &[
    "SET SESSION sql_mode = 'ANSI_QUOTES,STRICT_ALL_TABLES,STRICT_TRANS_TABLES,NO_ZERO_DATE,NO_ZERO_IN_DATE,ERROR_FOR_DIVISION_BY_ZERO,NO_ENGINE_SUBSTITUTION',
     time_zone = '+00:00', lock_wait_timeout = 20, innodb_lock_wait_timeout = 50, net_read_timeout = 3600",
    "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED",
];
/// How long a commit may be silent before the server takes its locks away. It waits for nobody but the server, whose
/// longest answer is a RENAME that waits 3 seconds for readers.
pub(super) const COMMIT_IDLE_SECONDS_MAX: u32 = 15;

/// Reads a connection URL. The error does not repeat it, since it holds a password.
pub fn options(url: &str, field: &str) -> Result<Opts> {
    let wrong = |what: &str| {
        RunError::at(
            Code::SecretInvalid,
            field,
            format!(
                "the Secret's value is no connection URL{what}; write mysql://user:password@host:3306/database?ssl-mode=verify_identity, with %XX for special characters"
            ),
        )
    };
    let mut parsed = Url::parse(url).map_err(|_| wrong(""))?;
    if parsed.scheme() != "mysql" || parsed.host_str().is_none_or(str::is_empty) {
        return Err(wrong(" of MySQL"));
    }
    let (mut mode, mut authority) = (None, None);
    for (name, value) in parsed.query_pairs() {
        match name.as_ref() {
            "ssl-mode" => mode = Some(value.to_ascii_lowercase()),
            "ssl-ca" => authority = Some(value.into_owned()),
            _ => return Err(wrong(": of options it knows ssl-mode and ssl-ca")),
        }
    }
    parsed.set_query(None);
    let options = Opts::from_url(parsed.as_str()).map_err(|_| wrong(""))?;
    let mut tls = SslOpts::default();
    if let Some(path) = authority {
        tls = tls.with_root_certs(vec![std::path::PathBuf::from(path).into()]).with_disable_built_in_roots(true);
    }
    let tls = match mode.as_deref() {
        None | Some("disabled") => None,
        Some("required") => Some(tls.with_danger_accept_invalid_certs(true).with_danger_skip_domain_validation(true)),
        Some("verify_ca") => Some(tls.with_danger_skip_domain_validation(true)),
        Some("verify_identity") => Some(tls),
        Some(_) => return Err(wrong(": ssl-mode is disabled, required, verify_ca or verify_identity")),
    };
    let setup: Vec<String> = SESSION.iter().map(|sql| (*sql).to_owned()).collect();
    Ok(OptsBuilder::from_opts(options)
        .ssl_opts(tls)
        // It would leave the address of the URL for a socket that the server names.
        .prefer_socket(false)
        .tcp_keepalive(Some(Duration::from_secs(30)))
        .init(setup)
        .into())
}

/// Connects, with a few attempts for what may pass.
pub async fn connect(options: &Opts, field: &str, database: Database) -> Result<Conn> {
    use backon::{ExponentialBuilder, Retryable};
    let place = format!("{}:{}", options.ip_or_hostname(), options.tcp_port());
    let attempt = || async {
        match tokio::time::timeout(Duration::from_secs(CONNECT_SECONDS_MAX), Conn::new(options.clone())).await {
            Ok(Ok(connection)) => Ok(connection),
            Ok(Err(error)) => Err(run_error(error, field, &place, database)),
            Err(_) => Err(RunError::at(
                database.unreachable(),
                field,
                format!("{place} does not answer within {CONNECT_SECONDS_MAX} s"),
            )),
        }
    };
    attempt
        .retry(
            ExponentialBuilder::default().with_min_delay(Duration::from_millis(300)).with_max_times(ATTEMPTS_MAX - 1),
        )
        .when(|error: &RunError| error.code == database.unreachable())
        .await
}

/// An error of MySQL in our terms. Where its words hold values of rows, ours take their place.
pub fn run_error(error: mysql_async::Error, field: &str, target: &str, database: Database) -> RunError {
    match error {
        mysql_async::Error::Server(error) => server_error(&error, field, target, database),
        mysql_async::Error::Url(_) => {
            RunError::at(Code::SecretInvalid, field, format!("{target}: the connection's settings are wrong"))
        }
        error @ (mysql_async::Error::Io(_) | mysql_async::Error::Driver(_) | mysql_async::Error::Other(_)) => {
            RunError::at(database.unreachable(), field, format!("{target}: the connection failed or broke off"))
                .caused_by(error)
        }
    }
}

/// The number of a server's error.
pub(super) fn code(error: &mysql_async::Error) -> Option<u16> {
    match error {
        mysql_async::Error::Server(error) => Some(error.code),
        mysql_async::Error::Io(_)
        | mysql_async::Error::Driver(_)
        | mysql_async::Error::Other(_)
        | mysql_async::Error::Url(_) => None,
    }
}

fn server_error(error: &ServerError, field: &str, target: &str, database: Database) -> RunError {
    let at = |code, words: &str| RunError::at(code, field, format!("{target}: {words}"));
    let said = |code, remedy: &str| at(code, &format!("{}{remedy}", error.message));
    // https://dev.mysql.com/doc/mysql-errors/8.4/en/server-error-reference.html and
    // https://mariadb.com/kb/en/mariadb-error-code-reference/
    match error.code {
        1045 | 1698 | 1820 | 1862 => said(
            Code::LoginDenied,
            "; correct the user and password in the Secret; a user who must use TLS needs ssl-mode",
        ),
        1044 | 1142 | 1143 | 1227 | 1370 | 1410 => {
            said(Code::PermissionDenied, "; grant the right to the user of the connection URL")
        }
        1046 | 1049 => said(Code::SecretInvalid, "; create the database, or correct the connection URL"),
        1290 | 1792 | 1836 => {
            at(Code::SecretInvalid, "the connection URL leads to a read-only server: use the primary")
        }
        // These repeat the values.
        1022 | 1062 | 1586 => {
            at(Code::KeyInvalid, "rows have a unique key in common; keep one row per key in the model")
        }
        1292 | 1366 | 1367 | 1411 | 1690 | 3140 => {
            at(Code::ValueInvalid, "a value does not fit into its column; cast the column in the model")
        }
        1048 | 1263 | 1364 => said(Code::ValueInvalid, "; fill the column in the model"),
        1264 | 1265 | 1406 => said(Code::ValueInvalid, "; cast the column in the model, or widen the table's"),
        1216 | 1217 | 1451 | 1452 | 3819 | 4025 => {
            said(Code::ValueInvalid, "; correct the rows in the model, or the table's constraint")
        }
        1050 | 1051 | 1054 | 1060 | 1061 | 1068 | 1071 | 1072 | 1091 | 1113 | 1117 | 1118 | 1146 | 1347 => {
            said(Code::SchemaMismatch, "")
        }
        1021 | 1041 | 1114 | 3675 => said(Code::SinkUnreachable, "; the database's disk is full"),
        1099 | 1100 | 1205 | 1213 | 1412 | 1969 | 3024 | 3572 => {
            said(database.unreachable(), "; another session holds a lock on it")
        }
        1040
        | 1042
        | 1043
        | 1047
        | 1053
        | 1077
        | 1079
        | 1080
        | 1129
        | 1152
        | 1153
        | 1156..=1161
        | 1184
        | 1203
        | 1226
        | 1927
        | 4031 => said(database.unreachable(), ""),
        number => said(Code::Internal, &format!(" (error {number})")),
    }
}

/// The tables that the operator keeps on each server that it writes to, in a database of their own. They are created
/// once; afterwards no right to create a database is needed.
pub async fn create_tables(connection: &mut Conn, field: &str, database: Database) -> Result<()> {
    let failed = |error| run_error(error, field, "report_operator", database);
    let there: Option<u8> = connection
        .query_first(
            "SELECT 1 FROM information_schema.tables WHERE table_schema = 'report_operator' AND table_name = 'runs'",
        )
        .await
        .map_err(failed)?;
    if there.is_some() {
        return Ok(());
    }
    let known: Option<u8> = connection
        .query_first("SELECT 1 FROM information_schema.schemata WHERE schema_name = 'report_operator'")
        .await
        .map_err(failed)?;
    if known.is_none() {
        connection.query_drop("CREATE DATABASE IF NOT EXISTS report_operator").await.map_err(failed)?;
    }
    for statement in TABLES {
        let sql = format!("{statement} ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin");
        connection.query_drop(sql).await.map_err(failed)?;
    }
    Ok(())
}

/// `runs` is last: where it is, all are. `epoch` and `interval` are words of MySQL's only where no name can be.
const TABLES: &[&str] = &[
    "CREATE TABLE IF NOT EXISTS report_operator.fences (
        identity varchar(255) NOT NULL PRIMARY KEY,
        epoch bigint NOT NULL)",
    "CREATE TABLE IF NOT EXISTS report_operator.tables (
        table_schema varchar(64) NOT NULL,
        table_name varchar(64) NOT NULL,
        identity varchar(255) NOT NULL,
        sink varchar(64) NOT NULL,
        replaces boolean NOT NULL,
        PRIMARY KEY (table_schema, table_name, identity, sink))",
    "CREATE TABLE IF NOT EXISTS report_operator.commits (
        identity varchar(255) NOT NULL,
        sink varchar(64) NOT NULL,
        interval_start datetime(6) NOT NULL,
        interval_end datetime(6) NOT NULL,
        run_id varchar(255) NOT NULL,
        epoch bigint NOT NULL,
        staged_rows bigint NOT NULL,
        committed_at datetime(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6),
        PRIMARY KEY (identity, sink, interval_end, interval_start))",
    "CREATE TABLE IF NOT EXISTS report_operator.ledger (
        identity varchar(255) NOT NULL PRIMARY KEY,
        version bigint NOT NULL,
        state longtext NOT NULL,
        changed_at datetime(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6))",
    "CREATE TABLE IF NOT EXISTS report_operator.runs (
        identity varchar(255) NOT NULL,
        run_id varchar(255) NOT NULL,
        result longtext NOT NULL,
        finished_at datetime(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6),
        PRIMARY KEY (identity, run_id))",
];

/// A time as MySQL takes it, in UTC.
pub(super) fn datetime(time: jiff::Timestamp) -> String {
    arrow::temporal_conversions::timestamp_us_to_datetime(time.as_microsecond())
        .map(|time| time.format("%Y-%m-%d %H:%M:%S%.6f").to_string())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_read_and_never_repeated() {
        for (url, want) in [
            ("mysql://u:geheim@db.example:3307/shop", Ok(None)),
            ("mysql://u:geheim@db.example/shop?ssl-mode=DISABLED", Ok(None)),
            ("mysql://u:geheim@db.example/shop?ssl-mode=verify_identity", Ok(Some((false, false)))),
            ("mysql://u:geheim@db.example/shop?ssl-mode=verify_ca&ssl-ca=/ca.pem", Ok(Some((false, true)))),
            ("mysql://u:geheim@db.example/shop?ssl-mode=required", Ok(Some((true, true)))),
            ("mysql://u:geheim@db.example/shop?ssl-mode=maybe", Err("ssl-mode is disabled, required")),
            ("mysql://u:geheim@db.example/shop?compress=1", Err("it knows ssl-mode and ssl-ca")),
            ("postgres://u:geheim@db.example/shop", Err("no connection URL of MySQL")),
            ("geheim", Err("no connection URL")),
        ] {
            match (options(url, "f"), want) {
                (Ok(options), Ok(want)) => {
                    let tls = options.ssl_opts().map(|tls| (tls.accept_invalid_certs(), tls.skip_domain_validation()));
                    assert_eq!(tls, want, "{url}");
                }
                (Err(error), Err(words)) => {
                    assert!(error.message.contains(words) && !error.to_string().contains("geheim"), "{error}");
                }
                (found, want) => panic!("{url}: {found:?}, not {want:?}"),
            }
        }
    }
}
