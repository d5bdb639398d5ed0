//! Sink `postgres`: a table, staged by COPY and committed in one transaction.

use serde::{Deserialize, Serialize};

use crate::connection::Connection;

/// A table in PostgreSQL 13 or later. It is created where it is missing, with the primary key and the comments of the
/// manifest.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[cfg_attr(feature = "crd", derive(schemars::JsonSchema))]
pub struct PostgresSink {
    /// How to reach the database.
    pub connection: Connection,
    /// The table, as schema.table or, in the schema public, table.
    #[cfg_attr(
        feature = "crd",
        schemars(length(min = 1, max = 127), regex(pattern = r"^([A-Za-z_][A-Za-z0-9_]*\.)?[A-Za-z_][A-Za-z0-9_]*$"))
    )]
    pub table: String,
    /// The most connections that stage rows at the same time, 1 to 16. A large load uses as many as the worker has CPUs,
    /// up to this. Default: 2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "crd", schemars(range(min = 1, max = 16)))]
    pub max_connections: Option<u32>,
}
