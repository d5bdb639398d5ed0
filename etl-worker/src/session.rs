//! The one DataFusion session of a run: its SQL dialect, its memory and its disk, and what its errors mean.

use std::sync::Arc;

use datafusion::error::DataFusionError;
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::FairSpillPool;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::prelude::{SessionConfig, SessionContext};

use crate::env::Env;
use crate::error::{Code, Result, RunError};

/// Rows in a batch: DataFusion's own choice, large enough to be quick and small enough for wide rows.
pub const BATCH_ROWS: usize = 8192;
/// Memory that is not DataFusion's: the program, buffers of connections and files, and the allocator's slack.
const OTHER_BYTES: u64 = 112 << 20;
/// The least that DataFusion gets: below it, sorting can't spill.
const POOL_BYTES_MIN: u64 = 32 << 20;
/// Operators that work beside each other each hold memory; two are enough for the containers that runs have.
const PARTITIONS_MAX: usize = 2;

/// Makes the session of a run.
pub fn open(env: &Env) -> Result<SessionContext> {
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
    let mut config = SessionConfig::new()
        .with_batch_size(BATCH_ROWS)
        .with_target_partitions(cores.min(PARTITIONS_MAX))
        .with_information_schema(false);
    let options = config.options_mut();
    options.sql_parser.dialect = datafusion::common::config::Dialect::PostgreSQL;
    // 0.1 is a decimal, as in PostgreSQL, not the nearest float.
    options.sql_parser.parse_float_as_decimal = true;
    options.sql_parser.map_string_types_to_utf8view = false;
    options.execution.parquet.schema_force_view_types = false;
    // A hash join holds its smaller side in memory and can't spill; a sort-merge join can.
    options.optimizer.prefer_hash_join = false;
    // Each sort sets this aside to be able to merge what it spilled; the default of 10 MB per partition is too much for
    // small containers.
    options.execution.sort_spill_reservation_bytes = 4 << 20;
    Ok(SessionContext::new_with_config_rt(config, runtime))
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
            format!("{field} needs more memory than there is: {words}; raise the limit, or make the step smaller"),
        ),
        DataFusionError::IoError(io) if io.kind() == std::io::ErrorKind::StorageFull => {
            RunError::at(Code::DiskExceeded, "spec.worker.scratch", format!("the scratch folder is full at {field}"))
        }
        // A value that does not fit shows only when rows pass; what the planner refuses is the manifest's fault.
        DataFusionError::ArrowError(..) | DataFusionError::Execution(_) => {
            RunError::at(Code::ValueInvalid, field, format!("{words}; use try_cast or CASE for values that don't fit"))
        }
        DataFusionError::Internal(_) => RunError::at(Code::Internal, field, words),
        _ => RunError::at(Code::SqlInvalid, field, words),
    }
}
