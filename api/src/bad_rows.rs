//! What happens to rows of a source that are not what its contract says.

use serde::{Deserialize, Serialize};

/// The largest part of a source's rows that may be bad where nothing else is said: one in a hundred.
pub const BAD_ROWS_RATIO: f64 = 0.01;

/// What happens to a bad row: one with too few or too many fields, with bytes that are not in the encoding, with a value
/// that is not of its column's type, or with NULL in a required column.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "crd", derive(schemars::JsonSchema))]
pub enum OnBadRow {
    /// It ends the run.
    #[default]
    Fail,
    /// It is left out, and kept with its place and the reason among the ledger's rejected rows.
    Quarantine,
    /// It is left out and only counted.
    Skip,
}

/// How many bad rows are too many. A run with more fails before anything is committed.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "crd", derive(schemars::JsonSchema))]
pub struct MaxBadRows {
    /// The most bad rows of a run. Default: no limit by count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
    /// The largest part of the source's rows that may be bad, from 0 to 1. Default: 0.01, and no limit by ratio where
    /// only count is set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "crd", schemars(range(min = 0.0, max = 1.0)))]
    pub ratio: Option<f64>,
}
