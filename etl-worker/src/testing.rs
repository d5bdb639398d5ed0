//! `test`: a model over given rows gives the expected rows. Nothing is read from sources and nothing is written.
//!
//! [`file`] reads the tests and their rows, [`compare`] holds what came against what was expected. Memory: all rows of one
//! test, which are bounded.

mod compare;
mod file;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use datafusion::catalog::MemTable;
use datafusion::prelude::SessionContext;
use futures::TryStreamExt;
use report_api::checked::Checked;
use report_api::problem::near;

use self::file::{Rows, Test};
use crate::env::Env;
use crate::error::{Code, Result, RunError};
use crate::session::{self, Parameters, sql_error};
use crate::tables::{Planned, Tables};
use crate::{quote, types};

/// Most rows that a model may give in a test, where a forgotten join condition multiplies them.
const ROWS_MAX: usize = 100_000;

/// How a test came out.
#[derive(Debug)]
pub enum Outcome {
    /// The rows are those expected.
    Passed,
    /// They are not, and why.
    Failed(String),
}

/// Runs the tests of a file, those whose names contain `filter`. An error says what is wrong with the file itself.
pub async fn run(path: &Path, filter: Option<&str>, checked: &Checked, env: &Env) -> Result<Vec<(String, Outcome)>> {
    let tests = file::read(path)?;
    let planned = Tables::plan(session::open(env, Parameters::of_a_look(checked, env))?, checked, env).await?;
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut results = Vec::new();
    for (n, test) in tests.iter().enumerate() {
        if filter.is_none_or(|filter| test.name.contains(filter)) {
            let place = Place { field: format!("tests[{n}]"), folder, checked, planned: &planned };
            results.push((test.name.clone(), one(test, &place, env).await?));
        }
    }
    if results.is_empty() {
        let names: Vec<_> = tests.iter().map(|test| test.name.as_str()).collect();
        let message = format!("no test is called so; there are {}", names.join(", "));
        return Err(RunError::new(Code::ManifestInvalid, message));
    }
    Ok(results)
}

/// Where a test is, and what is known of its pipeline.
struct Place<'a> {
    field: String,
    folder: &'a Path,
    checked: &'a Checked,
    planned: &'a Planned,
}

impl Place<'_> {
    fn wrong(&self, part: &str, message: impl Into<String>) -> RunError {
        RunError::at(Code::ManifestInvalid, format!("{}.{part}", self.field), message)
    }

    /// The columns of a source or model.
    fn columns(&self, part: &str, table: &str) -> Result<&SchemaRef> {
        let known = || self.planned.schemas.keys().map(String::as_str);
        match self.planned.schemas.get(table) {
            Some(schema) => Ok(schema),
            None if self.planned.unknown.iter().any(|name| name == table) => Err(self.wrong(
                part,
                format!("the columns of {table} are known only from its file; write columns into the manifest"),
            )),
            None => Err(self.wrong(
                part,
                match near(table, known()) {
                    Some(near) => format!("no source or model is called {table}; did you mean {near}?"),
                    None => {
                        let names = known().collect::<Vec<_>>().join(", ");
                        format!("no source or model is called {table}; there are {names}")
                    }
                },
            )),
        }
    }

    /// Rows as a table of these columns.
    fn rows(&self, part: &str, rows: &Rows, schema: &SchemaRef) -> Result<RecordBatch> {
        let field = format!("{}.{part}", self.field);
        rows.load(self.folder, &field)?.batch(schema, &field)
    }
}

async fn one(test: &Test, place: &Place<'_>, env: &Env) -> Result<Outcome> {
    if !place.checked.models.iter().any(|model| model.name == test.model) {
        let names = || place.checked.models.iter().map(|model| model.name.as_str());
        let remedy = near(&test.model, names()).map_or_else(
            || format!("there are {}", names().collect::<Vec<_>>().join(", ")),
            |near| format!("did you mean {near}?"),
        );
        return Err(place.wrong("model", format!("no model is called {}; {remedy}", test.model)));
    }
    let mut parameters = Parameters::of_a_look(place.checked, env);
    parameters.interval = test.interval.unwrap_or(parameters.interval);
    let context = session::open(env, parameters)?;
    let mut given = BTreeMap::new();
    for (n, table) in test.given.iter().enumerate() {
        let part = format!("given[{n}]");
        let schema = place.columns(&format!("{part}.table"), &table.table)?;
        if table.table == test.model {
            return Err(place.wrong(&part, "the model itself can't be given; name what it reads"));
        }
        if given.insert(table.table.as_str(), place.rows(&part, &table.rows(), schema)?).is_some() {
            return Err(place.wrong(&part, format!("{} is given twice; put its rows together", table.table)));
        }
    }
    let order = models(test, &given, place)?;
    for (name, batch) in given {
        let table = MemTable::try_new(batch.schema(), vec![vec![batch]]).map_err(|e| sql_error(e, &place.field))?;
        context.register_table(quote::ident(name), Arc::new(table)).map_err(|e| sql_error(e, &place.field))?;
    }
    let schema = place.columns("model", &test.model)?;
    let expected = place.rows("expect", &test.expect, schema)?;
    let wanted = test.expect.load(place.folder, &format!("{}.expect", place.field))?.columns();
    match model_rows(&context, &order, place).await {
        Ok(rows) => compare::compare(&rows, &expected, &wanted, &test.model),
        // The test has found what is wrong with the model.
        Err(error) => Ok(Outcome::Failed(error.to_string())),
    }
}

/// The models to run, in their order, the tested one last. All sources that they read must be given, and nothing else.
fn models<'a>(test: &Test, given: &BTreeMap<&str, RecordBatch>, place: &'a Place<'_>) -> Result<Vec<&'a str>> {
    let (mut needed, mut order) = (vec![test.model.as_str()], Vec::new());
    // Each model comes after what it reads, so that one walk back finds all.
    for model in place.checked.models.iter().rev() {
        if needed.contains(&model.name.as_str()) && !given.contains_key(model.name.as_str()) {
            needed.extend(model.reads.iter().map(String::as_str));
            order.push(model.name.as_str());
        }
    }
    for source in &place.checked.sources {
        if needed.contains(&source.name.as_str()) && !given.contains_key(source.name.as_str()) {
            let name = &source.name;
            let message = format!("{} reads {name}, which is not given; write rows: [] if it has none", test.model);
            return Err(place.wrong("given", message));
        }
    }
    if let Some(name) = given.keys().find(|name| !needed.contains(name)) {
        let message = format!("{name} is given, and {} does not read it; leave it out", test.model);
        return Err(place.wrong("given", message));
    }
    order.reverse();
    Ok(order)
}

/// Runs models, each of which can read those before it, and gives the rows of the last one.
async fn model_rows(context: &SessionContext, order: &[&str], place: &Place<'_>) -> Result<RecordBatch> {
    let mut last = RecordBatch::new_empty(Arc::new(Schema::empty()));
    for (n, name) in order.iter().enumerate() {
        let Some(model) = place.checked.models.iter().find(|model| model.name == *name) else { continue };
        let frame = session::query(context, &model.sql, &format!("{}.sql", model.field)).await?;
        let frame = types::settle(frame, &model.field)?;
        if n + 1 < order.len() {
            context.register_table(quote::ident(name), frame.into_view()).map_err(|e| sql_error(e, &model.field))?;
            continue;
        }
        let schema = Arc::clone(frame.schema().inner());
        let mut rows = frame.execute_stream().await.map_err(|e| sql_error(e, &model.field))?;
        let (mut batches, mut count) = (Vec::new(), 0);
        while let Some(batch) = rows.try_next().await.map_err(|e| sql_error(e, &model.field))? {
            count += batch.num_rows();
            if count > ROWS_MAX {
                let message = format!("{name} gives more than {ROWS_MAX} rows; is a join's condition missing?");
                return Err(RunError::at(Code::CheckFailed, &model.field, message));
            }
            batches.push(batch);
        }
        last = arrow::compute::concat_batches(&schema, &batches)
            .map_err(|error| RunError::new(Code::Internal, "the rows can't be put together").caused_by(error))?;
    }
    Ok(last)
}
