//! Sources and models as tables: which are read how often, which stream, which are kept in scratch in between.
//!
//! Each source is read once and each model runs once. A table with one reader streams into it; one with several is
//! written to scratch as Parquet, once, and read from there. Memory: what DataFusion's pool allows, and one row group.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use datafusion::catalog::streaming::StreamingTable;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::datasource::empty::EmptyTable;
use datafusion::error::DataFusionError;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::PartitionStream;
use datafusion::prelude::{DataFrame, ParquetReadOptions, SessionContext};
use futures::{Stream, StreamExt, TryStreamExt};
use report_api::checked::{CheckRule, Checked, CheckedModel, CheckedSource};
use tokio::sync::mpsc;

use crate::env::Env;
use crate::error::{Code, Result, RunError};
use crate::mask::Masks;
use crate::observe::{Observer, RowStream, observed};
use crate::rejected::{SourceLog, SourceLogs};
use crate::session::sql_error;
use crate::source::window::{Window, Windowed};
use crate::source::{Input, Opener, Reading};
use crate::{check, decode, quote, scratch, session, types};

/// Batches on their way from a decoder to the SQL engine.
const BATCHES_IN_FLIGHT: usize = 2;

/// What is known of a pipeline's tables without reading any input.
#[derive(Debug)]
pub struct Planned {
    /// The columns of sources and models, by name.
    pub schemas: BTreeMap<String, SchemaRef>,
    /// The sources and models whose columns only their input can tell.
    pub unknown: Vec<String>,
}

/// All tables of a run.
pub struct Tables<'a> {
    context: SessionContext,
    checked: &'a Checked,
    env: &'a Env,
    /// The sources and models that a sink or a check reads, directly or through models.
    needed: BTreeSet<String>,
    /// How often each table is read, by name.
    readers: HashMap<String, usize>,
    /// What is seen of each table while its rows pass, by name.
    observers: BTreeMap<String, Arc<Observer>>,
    inputs: BTreeMap<String, Input>,
    reading: Reading<'a>,
    /// What is read of incremental sources, by name.
    windows: BTreeMap<String, Arc<Window>>,
    logs: SourceLogs,
}

impl<'a> Tables<'a> {
    /// Plans all SQL without reading any input.
    pub async fn plan(context: SessionContext, checked: &'a Checked, env: &'a Env) -> Result<Planned> {
        let watermarks = BTreeMap::new();
        let mut known = checked.clone();
        let mut unknown: Vec<String> = checked
            .sources
            .iter()
            .filter(|source| !decode::has_known_columns(source))
            .map(|source| source.name.clone())
            .collect();
        for model in &checked.models {
            if model.reads.iter().any(|name| unknown.contains(name)) {
                unknown.push(model.name.clone());
            }
        }
        known.models.retain(|model| !unknown.contains(&model.name));
        known.sinks.retain(|sink| !unknown.contains(&sink.from));
        known.checks.retain(|check| !check.rule.reads().iter().any(|name| unknown.iter().any(|other| other == name)));
        let needed =
            known.sources.iter().map(|s| s.name.clone()).chain(known.models.iter().map(|m| m.name.clone())).collect();
        let mut tables = Tables {
            context,
            checked: &known,
            env,
            needed,
            readers: HashMap::new(),
            observers: BTreeMap::new(),
            inputs: BTreeMap::new(),
            logs: SourceLogs::default(),
            reading: Reading { watermarks: &watermarks, until: None, raw: None },
            windows: BTreeMap::new(),
        };
        for source in known.sources.iter().filter(|source| decode::has_known_columns(source)) {
            let schema = decode::contract_schema(source)?;
            tables.observer(&source.name, &source.field).know(&schema)?;
            tables.register(&source.name, Arc::new(EmptyTable::new(schema)), &source.field)?;
        }
        tables.count_readers().await?;
        let mut schemas = BTreeMap::new();
        for name in &tables.needed {
            if !unknown.contains(name) {
                schemas.insert(name.clone(), Arc::clone(tables.frame(name, "spec").await?.schema().inner()));
            }
        }
        Ok(Planned { schemas, unknown })
    }

    /// Opens the inputs that somebody reads: files are fetched, databases hold still.
    pub async fn open(
        context: SessionContext,
        checked: &'a Checked,
        env: &'a Env,
        reading: Reading<'a>,
    ) -> Result<Self> {
        let needed = needed(checked);
        let mut inputs = BTreeMap::new();
        let mut windows = BTreeMap::new();
        let mut opener = Opener::new(checked, env, reading);
        for source in checked.sources.iter().filter(|source| needed.contains(&source.name)) {
            let opened = opener.open(source).await?;
            let what = match &opened.input {
                Input::File(input) => format!("{} bytes", input.bytes),
                Input::Rows(rows) => rows.target().to_owned(),
            };
            env.progress.step("extract", &format!("source {}", source.name), &what);
            inputs.insert(source.name.clone(), opened.input);
            windows.extend(opened.window.map(|window| (source.name.clone(), window)));
        }
        crate::crash::point("after_extract");
        let (readers, observers, logs) = (HashMap::new(), BTreeMap::new(), SourceLogs::default());
        Ok(Self { context, checked, env, needed, readers, observers, inputs, reading, windows, logs })
    }

    /// Registers all sources and models, and keeps in scratch the tables that have several readers.
    pub async fn transform(&mut self) -> Result<()> {
        let mut sources = Vec::new();
        for source in &self.checked.sources {
            let Some(input) = self.inputs.get(&source.name).cloned() else { continue };
            let observer = self.observer(&source.name, &source.field);
            let log = self.logs.open(source, Masks::open(source, self.env)?);
            let (table, window) = SourceTable::open(source, input, self.reading, Arc::clone(&observer), log).await?;
            self.windows.extend(window.map(|window| (source.name.clone(), window)));
            observer.know(&table.schema)?;
            self.register(&source.name, Arc::new(EmptyTable::new(Arc::clone(&table.schema))), &source.field)?;
            sources.push((source, table));
        }
        self.count_readers().await?;

        for (source, table) in sources {
            let schema = Arc::clone(&table.schema);
            let provider =
                StreamingTable::try_new(schema, vec![Arc::new(table)]).map_err(|e| sql_error(e, &source.field))?;
            self.register(&source.name, Arc::new(provider), &source.field)?;
            if self.must_keep(&source.name) {
                self.keep(&source.name, &source.field, None).await?;
            }
        }
        for model in self.checked.models.iter().filter(|model| self.needed.contains(&model.name)) {
            let frame = self.model(model).await?;
            let observer = Arc::clone(&self.observers[&model.name]);
            self.register(&model.name, frame.into_view(), &model.field)?;
            if self.must_keep(&model.name) {
                self.keep(&model.name, &model.field, Some(observer)).await?;
            }
        }
        Ok(())
    }

    /// The rows of a source or model, in the types that sinks know, seen by the table's checks as they pass. With
    /// `order_by`, sorted by these columns.
    pub async fn rows(&self, name: &str, order_by: &[String], field: &str) -> Result<(SchemaRef, RowStream)> {
        // What goes wrong while a model runs is told of the model, whoever reads it.
        let model = self.checked.models.iter().find(|model| model.name == name);
        let of_model = model.map(|model| format!("{}.sql", model.field));
        let field = of_model.as_deref().unwrap_or(field);
        let mut frame = self.frame(name, field).await?;
        if !order_by.is_empty() {
            use datafusion::prelude::{Expr, ident};
            let keys: Vec<_> = order_by.iter().map(|column| Expr::sort(ident(column), true, true)).collect();
            frame = frame.sort(keys).map_err(|e| sql_error(e, field))?;
        }
        let schema = Arc::clone(frame.schema().inner());
        let is_kept = self.must_keep(name);
        // A source observes its own rows, and a kept table was observed while it was written.
        let observer = (model.is_some() && !is_kept).then(|| self.observers.get(name).cloned()).flatten();
        let stream = frame.execute_stream().await.map_err(|e| sql_error(e, field))?;
        Ok((schema, observed(stream, observer, field)))
    }

    /// The session in which all of this is.
    pub fn session(&self) -> SessionContext {
        self.context.clone()
    }

    /// The rows of a SELECT.
    pub async fn query(&self, sql: &str, field: &str) -> Result<(SchemaRef, RowStream)> {
        let frame = session::query(&self.context, sql, field).await?;
        let schema = Arc::clone(frame.schema().inner());
        let owned = field.to_owned();
        let stream = frame.execute_stream().await.map_err(|e| sql_error(e, field))?;
        Ok((schema, stream.map_err(move |e| sql_error(e, &owned)).boxed()))
    }

    /// Reads to the end every table that only checks are about, so that they see all rows.
    pub async fn drain(&self) -> Result<()> {
        for (name, observer) in &self.observers {
            if observer.has_checks() && !observer.is_complete() {
                let (_, mut rows) = self.rows(name, &[], observer.field()).await?;
                while rows.try_next().await?.is_some() {}
            }
        }
        Ok(())
    }

    /// What was seen of a table, if it was read.
    pub fn seen(&self, name: &str) -> Option<&Arc<Observer>> {
        self.observers.get(name)
    }

    /// What sources said besides rows: bad ones, and their columns.
    pub fn logs(&self) -> &SourceLogs {
        &self.logs
    }

    /// The same, to tell it what the last run remembered.
    pub fn logs_mut(&mut self) -> &mut SourceLogs {
        &mut self.logs
    }

    /// The input of a source, if it was opened.
    pub fn input(&self, source: &str) -> Option<&Input> {
        self.inputs.get(source)
    }

    /// What is read of an incremental source, and whether all of its rows have passed.
    pub fn window(&self, source: &str) -> Option<(&Window, bool)> {
        let window = self.windows.get(source)?;
        Some((window.as_ref(), self.seen(source).is_some_and(|seen| seen.is_complete())))
    }

    /// Whether a table goes to scratch: it has several readers, or checks must see all its rows and its one reader is a
    /// model, which may stop early.
    fn must_keep(&self, name: &str) -> bool {
        let has_checks = self.observers.get(name).is_some_and(|observer| observer.has_checks());
        match self.readers_of(name) {
            0 => false,
            1 => has_checks && !self.checked.sinks.iter().any(|sink| sink.from == name),
            _ => true,
        }
    }

    fn readers_of(&self, name: &str) -> usize {
        self.readers.get(name).copied().unwrap_or(0)
    }

    /// Plans all SQL over empty tables and counts who reads what: a model that joins a table with itself reads it twice,
    /// and DataFusion repeats a common table expression wherever it is named. Also finds what is wrong with the SQL
    /// before anything runs.
    async fn count_readers(&mut self) -> Result<()> {
        let checked = self.checked;
        for model in &checked.models {
            if !self.needed.contains(&model.name) {
                continue;
            }
            let frame = self.model(model).await?;
            self.readers_in(frame.logical_plan());
            let schema = Arc::clone(frame.schema().inner());
            self.observer(&model.name, &model.field).know(&schema)?;
            self.register(&model.name, Arc::new(EmptyTable::new(schema)), &model.field)?;
        }
        for check in &self.checked.checks {
            if let CheckRule::References { on, to, .. } = &check.rule {
                let (here, there) = (self.frame(on, &check.field).await?, self.frame(to, &check.field).await?);
                check::check_types(check, here.schema().as_arrow(), there.schema().as_arrow())?;
            }
            if let Some((sql, field)) = check::query(check) {
                let frame = session::query(&self.context, &sql, &field).await?;
                self.readers_in(frame.logical_plan());
            }
        }
        for sink in &self.checked.sinks {
            *self.readers.entry(sink.from.clone()).or_default() += 1;
        }
        Ok(())
    }

    fn readers_in(&mut self, plan: &LogicalPlan) {
        let readers = &mut self.readers;
        let _ = plan.apply_with_subqueries(|node| {
            if let LogicalPlan::TableScan(scan) = node {
                *readers.entry(scan.table_name.table().to_owned()).or_default() += 1;
            }
            Ok(TreeNodeRecursion::Continue)
        });
    }

    fn observer(&mut self, name: &str, field: &str) -> Arc<Observer> {
        let rules = self.checked.checks.iter().filter(|check| check.rule.watches(name)).cloned().collect();
        let observer = self.observers.entry(name.to_owned()).or_insert_with(|| Arc::new(Observer::new(field, rules)));
        Arc::clone(observer)
    }

    fn register(&self, name: &str, table: Arc<dyn datafusion::catalog::TableProvider>, field: &str) -> Result<()> {
        self.context.deregister_table(quote::ident(name)).map_err(|e| sql_error(e, field))?;
        self.context.register_table(quote::ident(name), table).map_err(|e| sql_error(e, field))?;
        Ok(())
    }

    async fn frame(&self, name: &str, field: &str) -> Result<DataFrame> {
        self.context.table(quote::ident(name)).await.map_err(|e| sql_error(e, field))
    }

    /// A model's rows in the types that sinks know.
    async fn model(&self, model: &CheckedModel) -> Result<DataFrame> {
        let frame = session::query(&self.context, &model.sql, &format!("{}.sql", model.field)).await?;
        types::settle(frame, &model.field)
    }

    /// Writes a table to scratch and registers the file in its place.
    async fn keep(&self, name: &str, field: &str, observer: Option<Arc<Observer>>) -> Result<()> {
        let frame = self.frame(name, field).await?;
        let path = self.env.scratch().join(format!("{name}.parquet"));
        let schema = Arc::clone(frame.schema().inner());
        let stream = frame.execute_stream().await.map_err(|e| sql_error(e, field))?;
        let rows = scratch::write(&path, schema, observed(stream, observer, field), field).await?;
        self.env.progress.step("transform", name, &format!("{rows} rows"));
        let text =
            path.to_str().ok_or_else(|| RunError::new(Code::Internal, "the scratch folder's name is not UTF-8"))?;
        // With the descriptions of columns, which become comments.
        let options = ParquetReadOptions::default().skip_metadata(false);
        self.context.deregister_table(quote::ident(name)).map_err(|e| sql_error(e, field))?;
        self.context.register_parquet(quote::ident(name), text, options).await.map_err(|e| sql_error(e, field))?;
        Ok(())
    }
}

/// The sources and models that a sink or a check reads, directly or through models.
fn needed(checked: &Checked) -> BTreeSet<String> {
    let mut needed: BTreeSet<String> = checked.sinks.iter().map(|sink| sink.from.clone()).collect();
    for check in &checked.checks {
        needed.extend(check.rule.reads().into_iter().map(str::to_owned));
    }
    // Each model comes after what it reads, so that one walk back finds all.
    for model in checked.models.iter().rev() {
        if needed.contains(&model.name) {
            needed.extend(model.reads.iter().cloned());
        }
    }
    needed
}

type Batches = Box<dyn Iterator<Item = Result<RecordBatch>> + Send>;

/// The rows of a file that are read, and which these are.
fn windowed(
    source: &CheckedSource,
    decoder: decode::Decoder,
    reading: Reading<'_>,
) -> Result<(decode::Decoder, Option<Arc<Window>>)> {
    let Some(incremental) = &source.incremental else { return Ok((decoder, None)) };
    let decode::Decoder { schema, batches } = decoder;
    let window = Arc::new(Window::of_file(source, incremental, &schema, reading)?);
    let rows = Windowed::new(batches, Arc::clone(&window), incremental, &schema)?;
    Ok((decode::Decoder { schema, batches: Box::new(rows) }, Some(window)))
}

/// A source as a stream that can be read once. The decoder runs on a thread of its own.
struct SourceTable {
    schema: SchemaRef,
    field: String,
    observer: Arc<Observer>,
    batches: Mutex<Option<Batches>>,
    taken: AtomicBool,
}

impl SourceTable {
    /// Opens the rows of a source. Of an incremental file also what of them is read; a database has said that before.
    async fn open(
        source: &CheckedSource,
        input: Input,
        reading: Reading<'_>,
        observer: Arc<Observer>,
        log: Arc<SourceLog>,
    ) -> Result<(Self, Option<Arc<Window>>)> {
        let (decoder, window) = match input {
            Input::File(input) => {
                let (owned, log) = (source.clone(), Arc::clone(&log));
                let decoder = tokio::task::spawn_blocking(move || decode::open(&input, &owned, &log)).await.map_err(
                    |error| RunError::at(Code::Internal, &source.field, "the decoder broke").caused_by(error),
                )??;
                windowed(source, decoder, reading)?
            }
            Input::Rows(rows) => (rows.read()?, None),
        };
        // Cursors are read before they may be masked.
        let decoder = log.masks().over(decoder)?;
        let table = Self {
            schema: decoder.schema,
            field: source.field.clone(),
            observer,
            batches: Mutex::new(Some(decoder.batches)),
            taken: AtomicBool::new(false),
        };
        Ok((table, window))
    }

    fn start(&self) -> std::result::Result<impl Stream<Item = Result<RecordBatch>> + use<>, DataFusionError> {
        let batches = self.batches.lock().ok().and_then(|mut batches| batches.take());
        let Some(batches) = batches.filter(|_| !self.taken.swap(true, Ordering::Relaxed)) else {
            return Err(DataFusionError::Internal(format!("{} is read twice", self.field)));
        };
        let (sender, mut receiver) = mpsc::channel(BATCHES_IN_FLIGHT);
        let observer = Arc::clone(&self.observer);
        tokio::task::spawn_blocking(move || {
            for batch in batches {
                if let Ok(batch) = &batch {
                    observer.see(batch);
                }
                let stop = batch.is_err();
                if sender.blocking_send(batch).is_err() || stop {
                    return;
                }
            }
            observer.complete();
        });
        Ok(futures::stream::poll_fn(move |context| receiver.poll_recv(context)))
    }
}

impl fmt::Debug for SourceTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.field)
    }
}

impl PartitionStream for SourceTable {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _: Arc<TaskContext>) -> SendableRecordBatchStream {
        let schema = Arc::clone(&self.schema);
        match self.start() {
            Ok(stream) => {
                let stream = stream.map_err(|error| DataFusionError::External(Box::new(error)));
                Box::pin(RecordBatchStreamAdapter::new(schema, stream))
            }
            Err(error) => Box::pin(RecordBatchStreamAdapter::new(schema, futures::stream::iter([Err(error)]))),
        }
    }
}
