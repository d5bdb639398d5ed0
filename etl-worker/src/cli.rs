//! The command line: `run`, `validate`, `plan`, `preview` and `test`.

mod plan;
mod preview;
mod test;

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Args, Parser, Subcommand};
use jiff::Timestamp;
use report_api::contract;
use report_api::interval::{Interval, tick_of_job};
use report_api::manifest::Manifest;
use report_api::result::{ErrorClass, State};

use crate::env::Env;
use crate::error::{Code, Result, RunError};
use crate::events::{Log, Progress, Terminal};
use crate::run::{self, Report, Request, Wanted};
use crate::session::{self, Parameters};
use crate::tables::Tables;
use crate::{local, manifest, memory, summary};

/// Scratch space without a limit of its own.
const SCRATCH_BYTES: u64 = 10 << 30;

/// Loads what a ReportPipeline manifest says: sources, SQL models, checks and sinks, in one run that is committed whole
/// or not at all.
#[derive(Debug, Parser)]
#[command(version, after_help = EXIT_CODES)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXIT_CODES: &str = "Exit codes: 0 done or skipped, 10 bad manifest, 11 access denied, 12 contract broken, \
13 a check failed, 14 out of time or memory, 20 may pass if tried again, 21 another run is under way, 143 asked to stop";

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs a pipeline once.
    ///
    /// On a laptop: etl-worker run examples/quickstart/pipeline.yaml --local out
    Run(RunArgs),
    /// Checks a manifest: its fields, its SQL, its columns and types. Reads no input and writes nothing.
    Validate {
        /// The manifest.
        manifest: PathBuf,
    },
    /// Shows what a run would do: its interval, the columns of sources and models, the checks, and for each sink whether
    /// its target exists and which statements would make it.
    ///
    /// Looks into the databases and lakes of the sinks in read-only transactions. Reads no input, takes no lock and writes
    /// nothing. The exit code is not 0 when a sink would refuse the run.
    Plan(plan::PlanArgs),
    /// Runs the unit tests of models: given rows, expected rows.
    ///
    /// The tests are in pipeline.tests.yaml beside pipeline.yaml. Each names a model, rows of what it reads and the rows
    /// that it should give; docs/testing.md says how. Reads no input and writes nothing. The exit code is 13 when a test
    /// fails.
    Test(test::TestArgs),
    /// Shows the first rows of a source or model, and their types. Writes nothing.
    Preview {
        /// The manifest.
        manifest: PathBuf,
        /// The source or model.
        name: String,
        /// How many rows to show.
        #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=10_000))]
        rows: u32,
    },
}

#[derive(Debug, Args)]
struct RunArgs {
    /// The manifest: YAML, or what the operator made of it.
    manifest: PathBuf,
    /// Write into this folder: databases become tables of DIR/reporting.db (SQLite), lakes folders under DIR/lake.
    #[arg(long, value_name = "DIR")]
    local: Option<PathBuf>,
    /// The start of the interval to run for, such as 2026-01-01T00:00:00Z. Default: where the last run ended.
    #[arg(long, value_name = "TIME", requires = "interval_end", env = contract::ENV_INTERVAL_START)]
    interval_start: Option<Timestamp>,
    /// The end of the interval to run for. Default: the scheduled time, or now.
    #[arg(long, value_name = "TIME", env = contract::ENV_INTERVAL_END)]
    interval_end: Option<Timestamp>,
    /// Read all sources from their beginning and take the place of all rows, also where a sink appends or merges.
    #[arg(long, env = contract::ENV_FULL_REFRESH)]
    full_refresh: bool,
    /// Where to write the result as JSON.
    #[arg(long, value_name = "FILE", env = contract::ENV_RESULT)]
    result: Option<PathBuf>,
    /// How many bytes the result may take.
    #[arg(long, value_name = "BYTES", env = contract::ENV_RESULT_BYTES, default_value_t = 4096, hide = true)]
    result_bytes: usize,
}

/// Does what the command line says. Gives the exit code.
pub async fn main(cli: Cli) -> u8 {
    let outcome = match cli.command {
        Command::Run(args) => return run_command(args).await,
        Command::Validate { manifest } => validate_command(&manifest).await,
        Command::Plan(args) => plan::main(&args).await,
        Command::Test(args) => test::main(&args).await,
        Command::Preview { manifest, name, rows } => preview::preview(&manifest, &name, rows as usize).await,
    };
    match outcome {
        Ok(()) => 0,
        Err(error) => {
            complain(&error);
            error.code.class().exit_code()
        }
    }
}

async fn run_command(args: RunArgs) -> u8 {
    let progress = progress();
    let request_time = crate::env::now();
    let mut report = Report::unknown(request_time);
    let outcome = Box::pin(run_manifest(&args, &mut report, Arc::clone(&progress))).await;
    if let Err(error) = &outcome
        && report.result.error.is_none()
    {
        report.result.error = Some(error.failure());
        report.result.finished = Some(crate::env::now());
    }
    if let Some(path) = &args.result {
        // The kubelet made the file; its folder can't be written.
        if let Err(error) = std::fs::write(path, report.result.to_json(args.result_bytes)) {
            tracing::error!("the result can't be written to {}: {error}", path.display());
        }
    }
    match outcome {
        Ok(()) => {
            if std::io::stdout().is_terminal() || args.local.is_some() {
                say(&summary::text(&report.result));
            } else {
                tracing::info!(result = report.result.to_json(usize::MAX), "done");
            }
            debug_assert_ne!(report.result.state, State::Failed);
            0
        }
        Err(error) => {
            complain(&error);
            error.code.class().exit_code()
        }
    }
}

async fn run_manifest(args: &RunArgs, report: &mut Report, progress: Arc<dyn Progress>) -> Result<()> {
    let asked_to_stop = asked_to_stop();
    let (manifest, checked) = manifest::read(&args.manifest)?;
    let checked = match &args.local {
        Some(folder) => local::redirect(checked, folder)?,
        None => checked,
    };
    let env = environment(&args.manifest, progress)?;
    let request = request(args, &manifest, &env)?;
    *report = Report::new(&request, env.now());
    let interrupted = async {
        tokio::select! {
            error = memory::watch(|| "a stage of the run".into()) => error,
            error = asked_to_stop => error,
        }
    };
    let outcome = run::run(&request, &checked, &env, report, interrupted).await;
    run::finish(report, &outcome, &env);
    outcome
}

fn request(args: &RunArgs, manifest: &Manifest, env: &Env) -> Result<Request> {
    let name = env.variable(contract::ENV_RUN_NAME);
    let tick = name.and_then(|name| tick_of_job(&manifest.metadata.name, name));
    let wanted = match (args.interval_start, args.interval_end, tick) {
        (Some(start), Some(end), _) if start < end => Wanted::Exactly(Interval { start, end }),
        (Some(start), Some(end), _) => {
            let message = format!("the interval [{start}, {end}) is empty; give a start before the end");
            return Err(RunError::at(Code::ManifestInvalid, "--interval-start", message));
        }
        (_, Some(end), _) => Wanted::Until(end),
        (_, None, Some(tick)) => Wanted::Tick(tick),
        (_, None, None) => Wanted::Until(env.now()),
    };
    let schedule_epoch =
        env.variable(contract::ENV_SCHEDULE_EPOCH).map(str::parse).transpose().map_err(|error: jiff::Error| {
            RunError::new(Code::ManifestInvalid, contract::ENV_SCHEDULE_EPOCH).caused_by(error)
        })?;
    Ok(Request {
        identity: manifest.identity(env.variable(contract::ENV_INSTALLATION)),
        pipeline: manifest.metadata.name.clone(),
        namespace: manifest.metadata.namespace.clone(),
        run_id: env.variable(contract::ENV_RUN_ID).map_or_else(|| uuid::Uuid::new_v4().to_string(), str::to_owned),
        wanted,
        schedule_epoch,
        full_refresh: args.full_refresh,
    })
}

async fn validate_command(path: &Path) -> Result<()> {
    let (manifest, checked) = manifest::read(path)?;
    let env = environment(path, Arc::new(Log))?;
    let unknown =
        Tables::plan(session::open(&env, Parameters::of_a_look(&checked, &env))?, &checked, &env).await?.unknown;
    say(&format!(
        "{} is valid: {} sources, {} models, {} checks, {} sinks",
        manifest.metadata.name,
        checked.sources.len(),
        checked.models.len(),
        checked.checks.len(),
        checked.sinks.len()
    ));
    if !unknown.is_empty() {
        say(&format!(
            "columns and types were not checked for {}: they come from Parquet files or databases without columns in the manifest",
            unknown.join(", ")
        ));
    }
    Ok(())
}

/// What this process is given: its variables, the folder beside the manifest, its memory.
fn environment(manifest: &Path, progress: Arc<dyn Progress>) -> Result<Env> {
    // A value that is no UTF-8 is taken for missing, which the error about that Secret then says.
    let variables: BTreeMap<String, String> = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect();
    let beside = manifest.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let files = variables.get(contract::ENV_FILES).map_or_else(|| beside.to_owned(), PathBuf::from);
    let scratch = variables.get(contract::ENV_SCRATCH).map_or_else(std::env::temp_dir, PathBuf::from);
    let scratch_bytes =
        variables.get(contract::ENV_SCRATCH_BYTES).and_then(|bytes| bytes.parse().ok()).unwrap_or(SCRATCH_BYTES);
    Env::new(variables, files, &scratch, scratch_bytes, memory::planned_bytes(), progress)
}

fn progress() -> Arc<dyn Progress> {
    if std::io::stderr().is_terminal() { Arc::new(Terminal::default()) } else { Arc::new(Log) }
}

/// Ends when the process is asked to stop. The signals are heard from this call on, not from the first poll: one that comes
/// while the lock is waited for would end the process without a result, or be lost where it is process 1 of a container.
fn asked_to_stop() -> impl Future<Output = RunError> {
    use tokio::signal::unix::{SignalKind, signal};
    let signals = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()));
    async move {
        let (Ok(mut terminate), Ok(mut interrupt)) = signals else { return std::future::pending().await };
        tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
        RunError::new(Code::Stopped, "the worker was asked to stop; the next attempt goes on from here")
    }
}

fn complain(error: &RunError) {
    if std::io::stderr().is_terminal() {
        let _ = writeln!(std::io::stderr(), "error[{}]: {error}", error.code.as_str());
    } else {
        let class = error.code.class();
        let retried = matches!(class, ErrorClass::Transient | ErrorClass::Busy | ErrorClass::Stopped);
        tracing::error!(code = error.code.as_str(), field = error.field, retried, "{}", error.text());
    }
}

fn say(text: &str) {
    let _ = writeln!(std::io::stdout(), "{text}");
}
