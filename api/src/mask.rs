//! Masking: columns that nobody behind the source may see as they are.

use serde::{Deserialize, Serialize};

use crate::connection::ValueFrom;

/// Most masked columns of a source.
pub const MASKS_MAX: usize = 64;
/// Most characters that a truncated text keeps.
pub const MASK_LENGTH_MAX: u32 = 1000;

/// Masks one column of a source, before its rows are written anywhere or any SQL sees them. NULL stays NULL. No error
/// and no log shows a value of a source with masks, and its rejected rows are kept without their values.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "crd", derive(kube::KubeSchema))]
#[cfg_attr(feature = "crd", x_kube(validation = kube::core::Rule::new("(self.method == 'hmac-sha256') == has(self.key)").message("hmac-sha256 needs key, the other methods have none")))]
#[cfg_attr(feature = "crd", x_kube(validation = kube::core::Rule::new("self.method == 'truncate' ? has(self.length) != has(self.to) : !has(self.length) && !has(self.to)").message("truncate needs one of length (for text) and to (for dates), the other methods have neither")))]
pub struct Mask {
    /// The column, by its name in SQL.
    #[cfg_attr(feature = "crd", schemars(length(min = 1, max = 63)))]
    pub column: String,
    /// hmac-sha256: the column becomes text, a keyed hash of 64 hexadecimal digits; equal values of one type have equal
    /// hashes under one key, so that joins and counts still work. redact: the column becomes text, `***`. truncate: a
    /// text keeps its first characters, a date or timestamp the first day of its year or month.
    pub method: MaskMethod,
    /// The key of hmac-sha256: a key of a Secret in the pipeline's namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<ValueFrom>,
    /// How many characters truncate keeps of a text, 1 to 1000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "crd", schemars(range(min = 1, max = 1000)))]
    pub length: Option<u32>,
    /// What truncate keeps of a date or timestamp: year or month.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<MaskDatePart>,
}

/// How a column is masked.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "crd", derive(schemars::JsonSchema))]
pub enum MaskMethod {
    /// A keyed hash.
    #[serde(rename = "hmac-sha256")]
    HmacSha256,
    /// Three asterisks.
    Redact,
    /// Only its beginning.
    Truncate,
}

/// What is kept of a date.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "crd", derive(schemars::JsonSchema))]
pub enum MaskDatePart {
    /// The year.
    Year,
    /// The year and the month.
    Month,
}
