//! The one DataFusion session of a run: its SQL dialect, its memory and its disk, and what its errors mean.

mod checked;
mod sums;
pub(crate) mod times;

use std::fmt;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex};

use arrow::datatypes::SchemaRef;
use datafusion::catalog::streaming::StreamingTable;
use datafusion::error::DataFusionError;
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::FairSpillPool;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::PartitionStream;
use datafusion::prelude::{DataFrame, SessionConfig, SessionContext};
use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast::{Expr, Value, visit_expressions_mut};
use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
use datafusion::sql::sqlparser::parser::Parser;
use futures::{StreamExt, TryStreamExt};
use report_api::checked::Checked;
use report_api::interval::Interval;

use crate::env::Env;
use crate::error::{Code, Result, RunError};
use crate::observe::RowStream;
use crate::{intervals, quote};

/// Rows in a batch: DataFusion's own choice, large enough to be quick and small enough for wide rows.
pub const BATCH_ROWS: usize = 8192;
/// Memory that is not DataFusion's: the program, buffers of connections and files, and the allocator's slack.
const OTHER_BYTES: u64 = 112 << 20;
/// The least that DataFusion gets: below it, sorting can't spill.
const POOL_BYTES_MIN: u64 = 32 << 20;
/// Memory that another partition of the SQL engine is worth: operators that work beside each other each hold some.
const PARTITION_BYTES: u64 = 256 << 20;
/// Partitions that any container has room for, if it has as many cores.
const PARTITIONS_MIN: usize = 2;

/// What SQL may ask of its run: `$interval_start`, `$interval_end` and `$run_id`.
#[derive(Clone, Debug)]
pub struct Parameters {
    /// The time that the run is for.
    pub interval: Interval,
    /// The run's id.
    pub run_id: String,
}

impl Parameters {
    /// Those of a look at a pipeline, outside of a run.
    pub fn of_a_look(checked: &Checked, env: &Env) -> Self {
        Self { interval: intervals::of_a_look(checked, env.now()), run_id: uuid::Uuid::nil().to_string() }
    }
}

/// Plans a SELECT with the session's parameters filled in: as typed values in what was parsed, never as text.
pub async fn query(context: &SessionContext, sql: &str, field: &str) -> Result<DataFrame> {
    let state = context.state();
    let failed = |error| sql_error(error, field);
    let dialect = state.config().options().sql_parser.dialect;
    let mut statement = state.sql_to_statement(sql, &dialect).map_err(failed)?;
    if let (Statement::Statement(statement), Some(parameters)) =
        (&mut statement, state.config().get_extension::<Parameters>())
    {
        fill_in(statement, &parameters).map_err(failed)?;
    }
    let plan = state.statement_to_plan(statement).await.map_err(failed)?;
    Ok(DataFrame::new(state, plan))
}

fn fill_in(
    statement: &mut datafusion::sql::sqlparser::ast::Statement,
    parameters: &Parameters,
) -> datafusion::error::Result<()> {
    let time = |time: jiff::Timestamp| format!("arrow_cast('{time}', 'Timestamp(Microsecond, Some(\"UTC\"))')");
    let parse = |text: &str| Parser::new(&PostgreSqlDialect {}).try_with_sql(text)?.parse_expr();
    let values = [
        ("$interval_start", parse(&time(parameters.interval.start))),
        ("$interval_end", parse(&time(parameters.interval.end))),
        ("$run_id", parse(&quote::literal(&parameters.run_id))),
    ];
    let filled = visit_expressions_mut(statement, |expr| {
        if let Expr::Value(value) = expr
            && let Value::Placeholder(name) = &value.value
            && let Some((_, value)) = values.iter().find(|(known, _)| known == name)
        {
            match value {
                Ok(value) => *expr = value.clone(),
                Err(error) => return ControlFlow::Break(error.clone()),
            }
        }
        ControlFlow::Continue(())
    });
    match filled {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(error) => Err(error.into()),
    }
}

/// Makes the session of a run.
pub fn open(env: &Env, parameters: Parameters) -> Result<SessionContext> {
    let spill = env.scratch().join("spill");
    std::fs::create_dir_all(&spill)
        .map_err(|error| RunError::new(Code::DiskExceeded, "can't make a folder for spilled data").caused_by(error))?;
    let runtime = RuntimeEnvBuilder::new()
        .with_memory_pool(Arc::new(FairSpillPool::new(pool_bytes(env.memory_bytes))))
        .with_disk_manager_builder(
            DiskManagerBuilder::default()
                .with_mode(DiskManagerMode::Directories(vec![spill]))
                .with_max_temp_directory_size(env.scratch_bytes),
        )
        .build_arc()
        .map_err(|error| RunError::new(Code::Internal, "can't set up the SQL engine").caused_by(error))?;

    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let by_memory = usize::try_from(env.memory_bytes / PARTITION_BYTES).unwrap_or(usize::MAX);
    let mut config = SessionConfig::new()
        .with_extension(Arc::new(parameters))
        .with_batch_size(BATCH_ROWS)
        .with_target_partitions(cores.min(by_memory.max(PARTITIONS_MIN)))
        .with_information_schema(false);
    let options = config.options_mut();
    options.sql_parser.dialect = datafusion::common::config::Dialect::PostgreSQL;
    // 0.1 is a decimal, as in PostgreSQL, not the nearest float.
    options.sql_parser.parse_float_as_decimal = true;
    options.sql_parser.map_string_types_to_utf8view = false;
    options.execution.parquet.schema_force_view_types = false;
    // A hash join holds its smaller side in memory and can't spill; a sort-merge join can.
    options.optimizer.prefer_hash_join = false;
    // Each sort sets this aside to be able to merge what it spilled. A join of eight tables has some 30 sorts at a time,
    // which the default of 10 MB would leave nothing for in a small container.
    options.execution.sort_spill_reservation_bytes = 1 << 20;
    let context = SessionContext::new_with_config_rt(config, runtime);
    context.register_udf(times::now());
    context.register_udaf(sums::sum());
    context.add_analyzer_rule(Arc::new(checked::CheckedArithmetic));
    Ok(context)
}

/// The same rows in the order of these columns; what doesn't fit into memory goes to scratch.
pub async fn sorted(
    context: &SessionContext,
    schema: &SchemaRef,
    rows: RowStream,
    by: &[String],
    field: &str,
) -> Result<RowStream> {
    let once = Once { schema: Arc::clone(schema), rows: Mutex::new(Some(rows)) };
    let failed = |error| sql_error(error, field);
    let table = StreamingTable::try_new(Arc::clone(schema), vec![Arc::new(once)]).map_err(failed)?;
    let keys = by.iter().map(|column| datafusion::prelude::ident(column).sort(true, true)).collect();
    let frame = context.read_table(Arc::new(table)).and_then(|frame| frame.sort(keys)).map_err(failed)?;
    let owned = field.to_owned();
    let rows = frame.execute_stream().await.map_err(failed)?;
    Ok(rows.map_err(move |error| sql_error(error, &owned)).boxed())
}

/// Rows that can be read once.
struct Once {
    schema: SchemaRef,
    rows: Mutex<Option<RowStream>>,
}

impl fmt::Debug for Once {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Once").field("schema", &self.schema).finish_non_exhaustive()
    }
}

impl PartitionStream for Once {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _: Arc<TaskContext>) -> SendableRecordBatchStream {
        let rows = self.rows.lock().ok().and_then(|mut rows| rows.take());
        let rows = rows.unwrap_or_else(|| futures::stream::empty().boxed());
        let rows = rows.map_err(|error| DataFusionError::External(Box::new(error)));
        Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.schema), rows))
    }
}

/// DataFusion's share of the memory: half of what is left for data, since it counts only its large holders.
fn pool_bytes(memory_bytes: u64) -> usize {
    let bytes = (memory_bytes.saturating_sub(OTHER_BYTES) / 2).max(POOL_BYTES_MIN);
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

/// An error of the SQL engine in our terms. One of ours that passed through it comes out as it was.
pub fn sql_error(error: DataFusionError, field: &str) -> RunError {
    fn find_ours(error: DataFusionError) -> std::result::Result<RunError, DataFusionError> {
        match error {
            DataFusionError::External(inner) => match inner.downcast::<RunError>() {
                Ok(ours) => Ok(*ours),
                Err(inner) => match inner.downcast::<DataFusionError>() {
                    Ok(inner) => find_ours(*inner),
                    Err(inner) => Err(DataFusionError::External(inner)),
                },
            },
            DataFusionError::Context(text, inner) => {
                find_ours(*inner).map_err(|inner| DataFusionError::Context(text, Box::new(inner)))
            }
            DataFusionError::ArrowError(inner, backtrace) => match *inner {
                arrow::error::ArrowError::ExternalError(inner) => find_ours(DataFusionError::External(inner)),
                inner => Err(DataFusionError::ArrowError(Box::new(inner), backtrace)),
            },
            DataFusionError::Shared(inner) => match Arc::try_unwrap(inner) {
                Ok(inner) => find_ours(inner),
                Err(shared) => match shared.find_root() {
                    DataFusionError::External(inner) => match inner.downcast_ref::<RunError>() {
                        Some(ours) => Ok(RunError {
                            code: ours.code,
                            field: ours.field.clone(),
                            message: ours.text(),
                            source: None,
                        }),
                        None => Err(DataFusionError::Shared(shared)),
                    },
                    _ => Err(DataFusionError::Shared(shared)),
                },
            },
            other => Err(other),
        }
    }
    let error = match find_ours(error) {
        Ok(ours) => return ours,
        Err(error) => error,
    };
    let words = error.strip_backtrace();
    match error.find_root() {
        DataFusionError::ResourcesExhausted(text) if text.contains("isk") => RunError::at(
            Code::DiskExceeded,
            "spec.worker.scratch",
            format!("{field} needs more disk than there is: {words}; raise spec.worker.scratch"),
        ),
        DataFusionError::ResourcesExhausted(_) => RunError::at(
            Code::MemoryExceeded,
            "spec.worker.resources.limits.memory",
            format!("{field} needs more memory than there is; raise the limit, or make the step smaller"),
        )
        .caused_by(words.lines().last().unwrap_or_default().to_owned()),
        DataFusionError::IoError(io) if io.kind() == std::io::ErrorKind::StorageFull => {
            RunError::at(Code::DiskExceeded, "spec.worker.scratch", format!("the scratch folder is full at {field}"))
        }
        // A value that does not fit shows only when rows pass; what the planner refuses is the manifest's fault.
        DataFusionError::ArrowError(..) | DataFusionError::Execution(_) => {
            let text = "a value does not fit; use try_cast or CASE for such values";
            // The engine's words show the value: `without_values` takes them off where nobody may see it.
            RunError::at(Code::ValueInvalid, field, text).caused_by(words)
        }
        DataFusionError::Internal(_) => RunError::at(Code::Internal, field, words),
        _ => RunError::at(Code::SqlInvalid, field, words),
    }
}
