//! A check: an assertion over a source or a model that must hold before anything is committed.

mod value;

use serde::{Deserialize, Serialize};

pub use self::value::Value;
use crate::units::Span;

/// An assertion over the rows of a run. Set exactly one of `notNull`, `unique`, `accepted`, `range`, `regex`,
/// `references`, `rows`, `rowsChange`, `meanChange`, `fresh` and `sql`.
///
/// The number of failing rows and a few of them are kept in the ledger with the run's whole result, also when the check
/// passes; messages, logs and the resource's status never show values.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[cfg_attr(feature = "crd", derive(kube::KubeSchema))]
#[cfg_attr(feature = "crd", x_kube(validation = kube::core::Rule::new("[has(self.notNull), has(self.unique), has(self.accepted), has(self.range), has(self.regex), has(self.references), has(self.rows), has(self.rowsChange), has(self.meanChange), has(self.fresh), has(self.sql)].filter(set, set).size() == 1").message("set exactly one of notNull, unique, accepted, range, regex, references, rows, rowsChange, meanChange, fresh and sql")))]
#[cfg_attr(feature = "crd", x_kube(validation = kube::core::Rule::new("has(self.from) != has(self.sql)").message("from: name the source or model that the check is about; a sql check names its tables itself")))]
#[cfg_attr(feature = "crd", x_kube(validation = kube::core::Rule::new("!has(self.severity) || !(has(self.warnIf) || has(self.errorIf))").message("leave severity out where warnIf or errorIf is set: they say what a failure does")))]
pub struct Check {
    /// The name in results and messages.
    #[cfg_attr(
        feature = "crd",
        schemars(length(min = 1, max = 40), regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))
    )]
    pub name: String,
    /// What the check is for, in a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "crd", schemars(length(max = 1024)))]
    pub description: Option<String>,
    /// The source or model whose rows are checked.
    // Not `on` in manifests: kubectl and Helm read YAML 1.1, where an unquoted `on:` is the key `true`.
    #[serde(default, rename = "from", skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "crd", schemars(length(min = 1, max = 63)))]
    pub on: Option<String>,
    /// Columns that may hold no NULL. A row fails when one of them is NULL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "crd", schemars(length(min = 1, max = 64), inner(length(min = 1, max = 63))))]
    pub not_null: Option<Vec<String>>,
    /// Columns whose values together may occur only once. NULL counts as a value. All rows that share their values with
    /// another row fail.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "crd", schemars(length(min = 1, max = 64), inner(length(min = 1, max = 63))))]
    pub unique: Option<Vec<String>>,
    /// A column that may hold only these values. NULL passes; add a notNull check if it should not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accepted: Option<Accepted>,
    /// A column of numbers, dates or times whose values must lie within bounds. NULL passes; NaN fails.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub range: Option<ValueRange>,
    /// A text column whose values must match a pattern. NULL passes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub regex: Option<Pattern>,
    /// Columns whose values together must occur in another source or model, as a foreign key's do. A row with NULL in
    /// one of the columns passes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub references: Option<References>,
    /// How many rows there may be: set min, max or both.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows: Option<Rows>,
    /// How much the number of rows may differ from that of the last good run. Without one, or when it had no rows, the
    /// check passes and says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows_change: Option<RowsChange>,
    /// How much the mean of a column of numbers may differ from its mean in the last good runs. Without one the check
    /// passes and says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mean_change: Option<MeanChange>,
    /// How old the newest value of a column of dates or times may be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fresh: Option<Fresh>,
    /// A SELECT that gives the rows that should not be there: the check passes when it gives none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "crd", schemars(length(min = 1, max = 65536)))]
    pub sql: Option<String>,
    /// error (the default): a failure commits nothing. warn: it is reported only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub severity: Option<Severity>,
    /// The check warns when more rows fail than this, and passes otherwise. For checks that count failing rows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warn_if: Option<Threshold>,
    /// The run fails when more rows fail than this; otherwise the check passes, or warns by warnIf. For checks that count
    /// failing rows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_if: Option<Threshold>,
}

/// A column that may hold only some values.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "crd", derive(schemars::JsonSchema))]
pub struct Accepted {
    /// The column.
    #[cfg_attr(feature = "crd", schemars(length(min = 1, max = 63)))]
    pub column: String,
    /// The values, each of the column's type: texts, numbers, booleans, or dates and times as texts.
    #[cfg_attr(feature = "crd", schemars(length(min = 1, max = 1000)))]
    pub values: Vec<Value>,
}

/// Bounds of a column's values. Set `min`, `max` or both; both belong to the range.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "crd", derive(schemars::JsonSchema))]
pub struct ValueRange {
    /// The column.
    #[cfg_attr(feature = "crd", schemars(length(min = 1, max = 63)))]
    pub column: String,
    /// The smallest value, of the column's type, such as 0, 0.01, "2024-01-01" or "2024-01-01T00:00:00Z". Numbers of
    /// more than 15 digits must be in quotes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min: Option<Value>,
    /// The largest value, written like min.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<Value>,
}

/// A text column whose values must match a pattern.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "crd", derive(schemars::JsonSchema))]
pub struct Pattern {
    /// The column.
    #[cfg_attr(feature = "crd", schemars(length(min = 1, max = 63)))]
    pub column: String,
    /// The pattern, in the dialect of the SQL operator ~ (Rust's regex crate: no look-around, no back-references). It may
    /// match anywhere in the text; write ^…$ for the whole text, and (?i) in front to ignore case.
    #[cfg_attr(feature = "crd", schemars(length(min = 1, max = 1024)))]
    pub pattern: String,
}

/// Columns whose values together must occur in another table.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[cfg_attr(feature = "crd", derive(schemars::JsonSchema))]
pub struct References {
    /// The columns that refer.
    #[cfg_attr(feature = "crd", schemars(length(min = 1, max = 32), inner(length(min = 1, max = 63))))]
    pub columns: Vec<String>,
    /// The source or model that they refer to. Tables of a database are sources of their own.
    #[cfg_attr(feature = "crd", schemars(length(min = 1, max = 63)))]
    pub to: String,
    /// The columns there, in the same order. Default: the same names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "crd", schemars(length(min = 1, max = 32), inner(length(min = 1, max = 63))))]
    pub to_columns: Option<Vec<String>>,
}

/// How many rows there may be. Set `min`, `max` or both.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "crd", derive(kube::KubeSchema))]
#[cfg_attr(feature = "crd", x_kube(validation = kube::core::Rule::new("has(self.min) || has(self.max)").message("set min, max or both")))]
#[cfg_attr(feature = "crd", x_kube(validation = kube::core::Rule::new("!has(self.min) || !has(self.max) || self.min <= self.max").message("min may not be more than max")))]
pub struct Rows {
    /// The fewest rows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "crd", schemars(range(min = 0)))]
    pub min: Option<i64>,
    /// The most rows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "crd", schemars(range(min = 0)))]
    pub max: Option<i64>,
}

/// How much the number of rows may differ from that of the last good run.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "crd", derive(schemars::JsonSchema))]
pub struct RowsChange {
    /// The largest change in either direction, as a part of the earlier number: with 0.5, after a run of 100 rows, 50 to
    /// 150 rows pass.
    #[cfg_attr(feature = "crd", schemars(range(min = 0)))]
    pub max: f64,
}

/// How much the mean of a column may differ from its mean in the last good runs.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "crd", derive(schemars::JsonSchema))]
pub struct MeanChange {
    /// The column, of numbers. NULL is left out of the mean.
    #[cfg_attr(feature = "crd", schemars(length(min = 1, max = 63)))]
    pub column: String,
    /// The largest change in either direction, as a part of the earlier mean: with 0.1, after a mean of 20, 18 to 22
    /// pass.
    #[cfg_attr(feature = "crd", schemars(range(min = 0)))]
    pub max: f64,
    /// The mean is compared with the mean of the means of this many of the last good runs, or of fewer where there are
    /// no more. Default: 5.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "crd", schemars(range(min = 1, max = 30)))]
    pub runs: Option<u32>,
}

/// How old the newest value of a column may be.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[cfg_attr(feature = "crd", derive(schemars::JsonSchema))]
pub struct Fresh {
    /// The column, of dates or times. Times without a zone are taken as UTC; a date is its midnight in UTC. A value in
    /// the future is fresh.
    #[cfg_attr(feature = "crd", schemars(length(min = 1, max = 63)))]
    pub column: String,
    /// The check fails when the column's newest value is older than this at the time of the run, such as 24h, or when
    /// the column has no values.
    pub max_age: Span,
}

/// How many failing rows are too many. Set `count`, `ratio` or both; with both, one of them is enough.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "crd", derive(kube::KubeSchema))]
#[cfg_attr(feature = "crd", x_kube(validation = kube::core::Rule::new("has(self.count) || has(self.ratio)").message("set count, ratio or both")))]
pub struct Threshold {
    /// More failing rows than this are too many.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "crd", schemars(range(min = 0)))]
    pub count: Option<i64>,
    /// A larger part of all rows than this is too much, from 0 to 1. Not for sql checks, which know no number of all
    /// rows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "crd", schemars(range(min = 0, max = 1)))]
    pub ratio: Option<f64>,
}

/// What a failed check does.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "crd", derive(schemars::JsonSchema))]
pub enum Severity {
    /// Nothing is committed and the run fails.
    #[default]
    Error,
    /// The failure is reported and the run goes on.
    Warn,
}

impl Threshold {
    /// Whether so many failing rows are too many of all rows.
    pub fn is_exceeded(&self, failing: u64, rows: u64) -> bool {
        let by_count = self.count.is_some_and(|count| failing > u64::try_from(count).unwrap_or(0));
        // Divided, not multiplied: 29 / 100 and a written 0.29 round to the same float, 0.29 * 100 is not 29.
        let by_ratio = self.ratio.is_some_and(|ratio| rows > 0 && failing as f64 / rows as f64 > ratio);
        by_count || by_ratio
    }
}

#[cfg(test)]
mod tests {
    use super::Threshold;

    #[test]
    fn more_than_a_threshold_is_too_many() {
        let threshold = |count, ratio| Threshold { count, ratio };
        for (threshold, failing, rows, want) in [
            (threshold(Some(10), None), 10, 100, false),
            (threshold(Some(10), None), 11, 100, true),
            (threshold(Some(0), None), 1, 100, true),
            (threshold(None, Some(0.01)), 1, 100, false),
            (threshold(None, Some(0.01)), 2, 100, true),
            (threshold(None, Some(0.29)), 29, 100, false),
            (threshold(None, Some(0.0)), 0, 0, false),
            (threshold(None, Some(1.0)), 100, 100, false),
            (threshold(Some(50), Some(0.01)), 2, 100, true),
            (threshold(Some(1), Some(0.5)), 2, 100, true),
        ] {
            assert_eq!(threshold.is_exceeded(failing, rows), want, "{failing} of {rows} by {threshold:?}");
        }
    }
}
