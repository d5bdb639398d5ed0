//! `--local DIR`: the same manifest on a laptop. Database sinks become tables of `DIR/reporting.db`, lakes folders under
//! `DIR/lake`, raw copies under `DIR/raw`.

use std::collections::BTreeSet;
use std::path::Path;

use report_api::checked::{Checked, SinkKind};
use url::Url;

use crate::error::{Code, Result, RunError};

/// The SQLite file that takes the place of every database.
pub const DATABASE: &str = "reporting.db";

/// Sends every sink of a pipeline into a folder, which is made where it is missing.
pub fn redirect(checked: Checked, folder: &Path) -> Result<Checked> {
    let failed = |error: std::io::Error| {
        RunError::new(Code::PermissionDenied, format!("can't make the folder {}", folder.display())).caused_by(error)
    };
    std::fs::create_dir_all(folder).map_err(failed)?;
    inside(checked, &folder.canonicalize().map_err(failed)?)
}

/// Sends every sink of a pipeline into a folder, given by its absolute path. Makes nothing.
pub fn inside(mut checked: Checked, folder: &Path) -> Result<Checked> {
    let mut taken = BTreeSet::new();
    for sink in &mut checked.sinks {
        sink.kind = match &sink.kind {
            SinkKind::Postgres { schema, table, .. } => {
                // A file has no schemas: two tables of one name are told apart by their schema's.
                let name = if taken.insert(table.clone()) { table.clone() } else { format!("{schema}_{table}") };
                database(folder, name)
            }
            SinkKind::Mysql { database: schema, table, .. } => {
                let name = match schema {
                    Some(schema) if !taken.insert(table.clone()) => format!("{schema}_{table}"),
                    _ => table.clone(),
                };
                taken.insert(name.clone());
                database(folder, name)
            }
            SinkKind::Sqlite { table, .. } => {
                taken.insert(table.clone());
                database(folder, table.clone())
            }
            SinkKind::Lake { url, partition_by, compression } => SinkKind::Lake {
                url: under(&folder.join("lake"), url, &format!("{}.lake.url", sink.field))?,
                partition_by: partition_by.clone(),
                compression: *compression,
            },
        };
    }
    if let Some(raw) = &mut checked.raw {
        raw.url = under(&folder.join("raw"), &raw.url, "spec.raw.url")?;
    }
    Ok(checked)
}

fn database(folder: &Path, table: String) -> SinkKind {
    SinkKind::Sqlite { path: folder.join(DATABASE).display().to_string(), table }
}

/// `s3://bucket/silver/series` becomes `FOLDER/silver/series`.
fn under(folder: &Path, url: &str, field: &str) -> Result<String> {
    let invalid = |message: String| RunError::at(Code::ManifestInvalid, field, message);
    let parsed = Url::parse(url).map_err(|error| invalid(format!("{url} is no URL: {error}")))?;
    let path = folder.join(parsed.path().trim_matches('/'));
    Url::from_file_path(&path)
        .map(|url| url.to_string())
        .map_err(|()| invalid(format!("{} is no folder", path.display())))
}
