//! Sink `mysql`: a table, staged by LOAD DATA LOCAL and committed in one transaction or by one RENAME TABLE.

use serde::{Deserialize, Serialize};

use crate::connection::Connection;

/// A table in MySQL 8 or MariaDB 10.6 or later. It is created where it is missing, with the primary key, indexes and
/// comments of the manifest. What the operator remembers is in the database report_operator: let the user create it, or
/// create it once and grant the user all rights on it. Timestamps with a zone are kept as datetime(6) in UTC, real
/// numbers as double, text as longtext; text in a key or index as varchar(255). NaN, infinity, and dates before the year
/// 1000 end the run.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "crd", derive(schemars::JsonSchema))]
pub struct MysqlSink {
    /// How to reach the server: mysql://user:password@host:3306/database, with ?ssl-mode=verify_identity for TLS that
    /// proves the server, ?ssl-mode=required for TLS alone, and &ssl-ca=/path/ca.pem for a certificate authority of
    /// your own.
    pub connection: Connection,
    /// The table, as database.table or, in the database of the URL, table.
    #[cfg_attr(
        feature = "crd",
        schemars(length(min = 1, max = 127), regex(pattern = r"^([A-Za-z_][A-Za-z0-9_]*\.)?[A-Za-z_][A-Za-z0-9_]*$"))
    )]
    pub table: String,
}
