//! `etl-worker preview`.

use std::collections::BTreeMap;
use std::path::Path;

use arrow::util::pretty::pretty_format_batches;
use futures::TryStreamExt;
use report_api::checked::Checked;
use report_api::template::Values;

use super::{environment, progress, say};
use crate::env::Env;
use crate::error::{Code, Result, RunError};
use crate::session::{self, Parameters};
use crate::source::Reading;
use crate::tables::Tables;
use crate::{fill, manifest};

/// Shows the first rows of a source or model, and their types.
pub(super) async fn preview(path: &Path, name: &str, rows_max: usize) -> Result<()> {
    let (manifest, mut checked) = manifest::read(path)?;
    let names: Vec<_> = names(&checked).map(str::to_owned).collect();
    if !names.iter().any(|other| other == name) {
        let near = report_api::problem::near(name, names.iter().map(String::as_str));
        let remedy =
            near.map_or_else(|| format!("there are {}", names.join(", ")), |near| format!("did you mean {near}?"));
        return Err(RunError::new(Code::ManifestInvalid, format!("no source or model is called {name}; {remedy}")));
    }
    // As if one sink wanted it and nothing were checked.
    checked.checks.clear();
    checked.sinks.truncate(1);
    for sink in &mut checked.sinks {
        sink.from = name.into();
    }
    let env = environment(path, progress())?;
    let parameters = Parameters::of_a_look(&checked, &env);
    let values = Values {
        interval: parameters.interval,
        run_id: parameters.run_id.clone(),
        pipeline: manifest.metadata.name.clone(),
        namespace: manifest.metadata.namespace.clone(),
    };
    let checked = fill::templates(&checked, &values)?;
    let is_masked = checked.sources.iter().any(|source| !source.masks.is_empty());
    let shown = rows(&checked, name, rows_max, parameters, &env).await;
    say(&shown.map_err(|error| if is_masked { error.without_values() } else { error })?);
    Ok(())
}

/// The first rows as a table, and below it the columns with their types.
async fn rows(checked: &Checked, name: &str, rows_max: usize, parameters: Parameters, env: &Env) -> Result<String> {
    let watermarks = BTreeMap::new();
    let reading = Reading { watermarks: &watermarks, until: None, raw: None };
    let mut tables = Tables::open(session::open(env, parameters)?, checked, env, reading).await?;
    tables.transform().await?;
    let (schema, mut rows) = tables.rows(name, &[], name).await?;
    let mut batches = Vec::new();
    let mut left = rows_max;
    while left > 0
        && let Some(batch) = rows.try_next().await?
    {
        let part = batch.slice(0, batch.num_rows().min(left));
        left -= part.num_rows();
        batches.push(part);
    }
    let shown = pretty_format_batches(&batches)
        .map_err(|error| RunError::new(Code::Internal, "the rows can't be shown").caused_by(error))?;
    let columns = schema.fields().iter().map(|field| {
        let required = if field.is_nullable() { "" } else { ", required" };
        format!("\n{}: {}{required}", field.name(), field.data_type())
    });
    Ok(format!("{shown}{}", columns.collect::<String>()))
}

fn names(checked: &Checked) -> impl Iterator<Item = &str> {
    let sources = checked.sources.iter().map(|source| source.name.as_str());
    sources.chain(checked.models.iter().map(|model| model.name.as_str()))
}
