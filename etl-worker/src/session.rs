//! The one DataFusion session of a run: its SQL dialect, its memory and its disk.

use std::sync::Arc;

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
