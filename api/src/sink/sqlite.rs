//! Sink `sqlite`: a table in a file.

use serde::{Deserialize, Serialize};

/// A table in an SQLite file. A decimal is kept as a number where it has at most 15 digits, all that SQLite keeps
/// exactly; one with more ends the run: cast it to string.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "crd", derive(schemars::JsonSchema))]
pub struct SqliteSink {
    /// The file, which is created where it is missing. In the pod an absolute path on a volume.
    #[cfg_attr(feature = "crd", schemars(length(min = 1, max = 1024)))]
    pub path: String,
    /// The table.
    #[cfg_attr(feature = "crd", schemars(length(min = 1, max = 63), regex(pattern = r"^[A-Za-z_][A-Za-z0-9_]*$")))]
    pub table: String,
}
