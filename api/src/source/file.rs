//! Source `file`: a file that is already there.

use serde::{Deserialize, Serialize};

/// A file in the worker's file system: on a laptop beside the manifest, in the cluster on a volume of the pod.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[cfg_attr(feature = "crd", derive(schemars::JsonSchema))]
pub struct FileSource {
    /// The path. A relative one starts at the manifest's folder on a laptop and at /files in the pod: mount the files
    /// there with worker.podTemplate. It may be a template, such as {{ interval.start | date("%Y/%m") }}/orders.csv
    #[cfg_attr(feature = "crd", schemars(length(min = 1, max = 1024)))]
    pub path: String,
}
