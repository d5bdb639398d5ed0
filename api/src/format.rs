//! How an input is written: CSV, JSON, NDJSON or Parquet, and its compression.

use serde::{Deserialize, Serialize};

/// How the input is written. Set exactly one of `csv`, `json`, `ndjson` and `parquet`.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "crd", derive(kube::KubeSchema))]
#[cfg_attr(feature = "crd", x_kube(validation = kube::core::Rule::new("[has(self.csv), has(self.json), has(self.ndjson), has(self.parquet)].filter(set, set).size() == 1").message("set exactly one of csv, json, ndjson and parquet; csv: {} takes the defaults")))]
pub struct Format {
    /// Separated values, one record after another (RFC 4180).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub csv: Option<Csv>,
    /// One JSON document with an array of objects somewhere inside.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub json: Option<Json>,
    /// One JSON object per line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ndjson: Option<NdJson>,
    /// A Parquet file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parquet: Option<Parquet>,
}

/// Separated values. An empty field is NULL; an empty field in quotes is an empty text in a string column and NULL in
/// others. A record with too few or too many fields is a bad row.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[cfg_attr(feature = "crd", derive(schemars::JsonSchema))]
pub struct Csv {
    /// The character between fields. Default: a comma; "\t" for tabs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "crd", schemars(length(min = 1, max = 1)))]
    pub delimiter: Option<String>,
    /// The character around fields that hold a delimiter or a line break. Default: ". An empty text turns quoting off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "crd", schemars(length(max = 1)))]
    pub quote: Option<String>,
    /// True removes white space around fields and around the names in the header.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub trim: bool,
    /// False when the first record is data: the columns are then taken in the order of `columns`. Default: true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub header: Option<bool>,
    /// How text is encoded: utf-8 (the default), latin-1 or windows-1252. A row with bytes that are none is a bad row.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encoding: Option<Encoding>,
    /// Texts that mean NULL besides the empty one, such as NA or -. Only a field that is not in quotes is compared.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "crd", schemars(length(max = 16), inner(length(min = 1, max = 64))))]
    pub null_values: Vec<String>,
    /// True when fields in quotes can be NULL too: for programs that put every field in quotes.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub quoted_nulls: bool,
    /// A line that begins with this character is passed over, such as "#". Default: none is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "crd", schemars(length(min = 1, max = 1)))]
    pub comment: Option<String>,
    /// How many lines to pass over before the header, such as a title. Default: 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "crd", schemars(range(max = 1000)))]
    pub skip_lines: Option<u32>,
}

/// One JSON document with an array of objects somewhere inside.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "crd", derive(schemars::JsonSchema))]
pub struct Json {
    /// Where the array is: $ (the default) for the document itself, $.data for its field data, $.result.rows, and so on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "crd", schemars(length(min = 1, max = 256)))]
    pub rows: Option<String>,
}

/// One JSON object per line; empty lines are passed over.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "crd", derive(schemars::JsonSchema))]
pub struct NdJson {}

/// A Parquet file. Timestamps finer than a microsecond are refused.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "crd", derive(schemars::JsonSchema))]
pub struct Parquet {}

/// How text is encoded.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[cfg_attr(feature = "crd", derive(schemars::JsonSchema))]
pub enum Encoding {
    /// UTF-8, with or without a byte order mark.
    #[default]
    #[serde(rename = "utf-8")]
    Utf8,
    /// ISO 8859-1.
    #[serde(rename = "latin-1")]
    Latin1,
    /// Windows-1252, the superset of Latin-1 that many exports really are.
    #[serde(rename = "windows-1252")]
    Windows1252,
}

/// How an input is compressed.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "crd", derive(schemars::JsonSchema))]
pub enum Compression {
    /// By its first bytes.
    #[default]
    Auto,
    /// Not at all.
    None,
    /// Gzip (RFC 1952), also of several members.
    Gzip,
}
