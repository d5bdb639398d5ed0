//! Source `http`: one URL, fetched once a run.

use serde::{Deserialize, Serialize};

use crate::connection::ValueFrom;
use crate::units::{Size, Span};

/// A file on a web server, or the answer of an API. Fetched once a run; failures that may pass (429, 5xx, a broken
/// connection) are tried again with growing pauses.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[cfg_attr(feature = "crd", derive(kube::KubeSchema))]
pub struct HttpSource {
    /// The address, with http or https. No user or password in it: use headers with valueFrom. It may be a template, such
    /// as https://example.org/{{ interval.start | date("%Y-%m-%d") }}.csv
    #[cfg_attr(feature = "crd", schemars(length(min = 8, max = 2048), regex(pattern = r"^https?://")))]
    pub url: String,

    /// Headers to send, such as User-Agent or Authorization.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "crd", schemars(length(max = 32)))]
    #[cfg_attr(feature = "crd", x_kube(merge_strategy = kube::core::ListMerge::Map(vec!["name".into()])))]
    pub headers: Vec<Header>,

    /// How long the server may stay silent, such as 30s (the default).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Span>,

    /// The most bytes to fetch, as they come over the wire, such as 10Gi (the default). More is an error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_size: Option<Size>,
}

/// A header of a request. Set exactly one of `value` and `valueFrom`.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[cfg_attr(feature = "crd", derive(kube::KubeSchema))]
#[cfg_attr(feature = "crd", x_kube(validation = kube::core::Rule::new("has(self.value) != has(self.valueFrom)").message("set exactly one of value and valueFrom")))]
pub struct Header {
    /// The header's name.
    #[cfg_attr(
        feature = "crd",
        schemars(length(min = 1, max = 128), regex(pattern = r"^[A-Za-z0-9!#$%&'*+.^_`|~-]+$"))
    )]
    pub name: String,
    /// The header's value, where it is no secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "crd", schemars(length(max = 4096)))]
    pub value: Option<String>,
    /// Where the header's value comes from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value_from: Option<ValueFrom>,
}

impl HttpSource {
    /// How long the server may stay silent, in seconds.
    pub fn timeout_seconds(&self) -> u64 {
        self.timeout.as_ref().map_or(30, Span::seconds)
    }

    /// The most bytes to fetch.
    pub fn bytes_max(&self) -> u64 {
        self.max_size.as_ref().map_or(10 << 30, Size::bytes)
    }
}
