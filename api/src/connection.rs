//! Where a secret value comes from, and under which environment variable the worker finds it.

use serde::{Deserialize, Serialize};

/// How to reach a database. The operator never reads the Secret: the worker's pod gets it by reference.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[cfg_attr(feature = "crd", derive(schemars::JsonSchema))]
pub struct Connection {
    /// A key of a Secret in the pipeline's namespace that holds a connection URL, such as
    /// postgres://user:password@host:5432/database?sslmode=verify-full
    pub secret_ref: SecretRef,
}

/// A key of a Secret that holds a connection URL.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "crd", derive(schemars::JsonSchema))]
pub struct SecretRef {
    /// The Secret's name.
    #[cfg_attr(
        feature = "crd",
        schemars(length(min = 1, max = 253), regex(pattern = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"))
    )]
    pub name: String,
    /// The key in the Secret. Default: url.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "crd", schemars(length(min = 1, max = 253), regex(pattern = r"^[-._a-zA-Z0-9]+$")))]
    pub key: Option<String>,
}

/// Where a value comes from.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[cfg_attr(feature = "crd", derive(schemars::JsonSchema))]
pub struct ValueFrom {
    /// A key of a Secret in the pipeline's namespace.
    pub secret_key_ref: SecretKeyRef,
}

/// A key of a Secret.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "crd", derive(schemars::JsonSchema))]
pub struct SecretKeyRef {
    /// The Secret's name.
    #[cfg_attr(
        feature = "crd",
        schemars(length(min = 1, max = 253), regex(pattern = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"))
    )]
    pub name: String,
    /// The key in the Secret.
    #[cfg_attr(feature = "crd", schemars(length(min = 1, max = 253), regex(pattern = r"^[-._a-zA-Z0-9]+$")))]
    pub key: String,
}

/// A secret value that a pipeline names: a Secret's name and a key in it.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct SecretKey {
    /// The Secret's name.
    pub name: String,
    /// The key in the Secret.
    pub key: String,
}

impl SecretKey {
    /// The environment variable that holds the value: `SECRET_REPORTING_DB_URL` for the key `url` of `reporting-db`.
    /// Two keys may give the same variable; validation refuses that.
    pub fn variable(&self) -> String {
        let shout = |text: &str| -> String {
            text.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' }).collect()
        };
        format!("SECRET_{}_{}", shout(&self.name), shout(&self.key))
    }
}

impl From<&SecretRef> for SecretKey {
    fn from(reference: &SecretRef) -> Self {
        Self { name: reference.name.clone(), key: reference.key.clone().unwrap_or_else(|| "url".into()) }
    }
}

impl From<&SecretKeyRef> for SecretKey {
    fn from(reference: &SecretKeyRef) -> Self {
        Self { name: reference.name.clone(), key: reference.key.clone() }
    }
}
