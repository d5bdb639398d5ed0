//! A model: a named SELECT over sources and other models.

use serde::{Deserialize, Serialize};

/// Longest SQL text of one model or check, in bytes.
pub const SQL_BYTES_MAX: usize = 64 << 10;

/// A named SELECT over sources and other models. The dialect is DataFusion's, which is close to PostgreSQL's: decimal
/// literals are decimals, timestamps count microseconds.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "crd", derive(schemars::JsonSchema))]
pub struct Model {
    /// The name that other models, checks and sinks use: lower case letters, digits and underscores.
    #[cfg_attr(feature = "crd", schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z_][a-z0-9_]*$")))]
    pub name: String,
    /// What a row of the result is, in a sentence; it becomes the comment of the tables that are filled from it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "crd", schemars(length(max = 1024)))]
    pub description: Option<String>,
    /// One SELECT. It may name sources and other models, but not itself.
    #[cfg_attr(feature = "crd", schemars(length(min = 1, max = 65536)))]
    pub sql: String,
    /// delta says that this SELECT is meant to see only the new rows of the incremental sources that it reads. Without
    /// it, what needs all rows is refused over them: sums, DISTINCT, window functions, LIMIT, joins of new rows with new
    /// rows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reads: Option<Reads>,
}

/// What a model over an incremental source sees of it.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "crd", derive(schemars::JsonSchema))]
pub enum Reads {
    /// Only the rows that are new in this run.
    Delta,
}
