//! Fills the templates of a manifest in: the addresses and paths of sources, for one interval.

use report_api::checked::{Checked, SourceKind};
use report_api::template::{self, Values};

use crate::error::{Code, Result, RunError};

/// The manifest with all templates filled in.
pub fn templates(checked: &Checked, values: &Values) -> Result<Checked> {
    let mut filled = checked.clone();
    for source in &mut filled.sources {
        let (text, part) = match &mut source.kind {
            SourceKind::Http(http) => (&mut http.url, "http.url"),
            SourceKind::File(file) => (&mut file.path, "file.path"),
            SourceKind::Postgres { .. } => continue,
        };
        *text = template::render(text, values)
            .map_err(|message| RunError::at(Code::ManifestInvalid, format!("{}.{part}", source.field), message))?;
    }
    Ok(filled)
}
