//! What is wrong with a manifest: where, what, and what to do.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Something in a manifest that has to be changed by a person.
#[derive(Clone, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
pub struct Problem {
    /// Where, such as `spec.sources[1].http.url`.
    pub field: String,
    /// What is wrong and what to write instead. Lower case, no full stop, no secret.
    pub message: String,
}

impl Problem {
    /// A problem at a field.
    pub fn new(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self { field: field.into(), message: message.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.message)
    }
}

/// The closest of some names to a misspelt one, if it is close enough to be meant.
pub fn near<'a>(name: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    names
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(name, candidate), candidate))
        .filter(|(distance, _)| *distance <= (name.len() / 3).clamp(1, 3))
        .min()
        .map(|(_, candidate)| candidate)
}
