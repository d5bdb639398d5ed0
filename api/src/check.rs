//! A check: an assertion over a source or a model that must hold before anything is committed.

use serde::{Deserialize, Serialize};

/// An assertion. Set exactly one of `notNull`, `unique`, `rows` and `sql`.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[cfg_attr(feature = "crd", derive(kube::KubeSchema))]
#[cfg_attr(feature = "crd", x_kube(validation = kube::core::Rule::new("[has(self.notNull), has(self.unique), has(self.rows), has(self.sql)].filter(set, set).size() == 1").message("set exactly one of notNull, unique, rows and sql")))]
#[cfg_attr(feature = "crd", x_kube(validation = kube::core::Rule::new("has(self.from) != has(self.sql)").message("from: name the source or model that notNull, unique or rows is about; a sql check names its tables itself")))]
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
    /// Columns that may hold no NULL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "crd", schemars(length(min = 1, max = 64), inner(length(min = 1, max = 63))))]
    pub not_null: Option<Vec<String>>,
    /// Columns whose values together may occur only once. NULL counts as a value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "crd", schemars(length(min = 1, max = 64), inner(length(min = 1, max = 63))))]
    pub unique: Option<Vec<String>>,
    /// How many rows there may be: set min, max or both.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows: Option<Rows>,
    /// A SELECT that gives the rows that should not be there: the check passes when it gives none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "crd", schemars(length(min = 1, max = 65536)))]
    pub sql: Option<String>,
    /// error (the default): a failure commits nothing. warn: it is reported only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub severity: Option<Severity>,
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
