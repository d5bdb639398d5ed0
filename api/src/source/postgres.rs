//! Source `postgres`: a table or query of a PostgreSQL database.

use serde::{Deserialize, Serialize};

use crate::connection::Connection;

/// A table or a query of a PostgreSQL database, read in one read-only transaction: the rows are as they were at one
/// moment, and all sources of one connection see the same moment. Set exactly one of `table` and `query`.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[cfg_attr(feature = "crd", derive(kube::KubeSchema))]
#[cfg_attr(feature = "crd", x_kube(validation = kube::core::Rule::new("has(self.table) != has(self.query)").message("set exactly one of table and query")))]
pub struct PostgresSource {
    /// Where the database is and who logs in: the role needs SELECT on what is read, nothing else. A read replica is as
    /// good as the primary.
    pub connection: Connection,
    /// The table or view to read, with its schema: public.orders. Default schema: public. Letters, digits and
    /// underscores; read a table with another name by a query.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(
        feature = "crd",
        schemars(length(min = 1, max = 127), regex(pattern = r"^([A-Za-z_][A-Za-z0-9_]*\.)?[A-Za-z_][A-Za-z0-9_]*$"))
    )]
    pub table: Option<String>,
    /// One SELECT in PostgreSQL's own SQL. Each of its columns needs a name of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "crd", schemars(length(min = 1, max = 65536)))]
    pub query: Option<String>,
}
