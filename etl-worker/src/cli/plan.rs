//! `etl-worker plan`.

use std::path::PathBuf;

use clap::Args;
use jiff::Timestamp;
use report_api::contract;
use report_api::interval::Interval;

use super::{environment, say};
use crate::error::{Code, Result, RunError};
use crate::events::Log;
use crate::plan::{self, Asked};
use crate::{local, manifest};

#[derive(Debug, Args)]
pub(super) struct PlanArgs {
    /// The manifest: YAML, or what the operator made of it.
    manifest: PathBuf,
    /// Plan for this folder in place of databases and lakes, as run does with --local. It is not made.
    #[arg(long, value_name = "DIR")]
    local: Option<PathBuf>,
    /// The start of the interval to plan for. Default: where the last run ended.
    #[arg(long, value_name = "TIME", requires = "interval_end")]
    interval_start: Option<Timestamp>,
    /// The end of the interval to plan for. Default: now.
    #[arg(long, value_name = "TIME")]
    interval_end: Option<Timestamp>,
}

pub(super) async fn main(args: &PlanArgs) -> Result<()> {
    let (manifest, checked) = manifest::read(&args.manifest)?;
    let checked = match &args.local {
        Some(folder) => {
            let folder = std::path::absolute(folder).map_err(|error| {
                RunError::new(Code::ManifestInvalid, format!("{} is no folder", folder.display())).caused_by(error)
            })?;
            local::inside(checked, &folder)?
        }
        None => checked,
    };
    let env = environment(&args.manifest, std::sync::Arc::new(Log))?;
    let asked = match (args.interval_start, args.interval_end) {
        (Some(start), Some(end)) if start < end => Asked::Exactly(Interval { start, end }),
        (Some(start), Some(end)) => {
            let message = format!("the interval [{start}, {end}) is empty; give a start before the end");
            return Err(RunError::at(Code::ManifestInvalid, "--interval-start", message));
        }
        (_, end) => Asked::Until(end.unwrap_or_else(|| env.now())),
    };
    let identity = manifest.identity(env.variable(contract::ENV_INSTALLATION));
    let plan = plan::plan(&identity, &checked, asked, &env).await?;
    say(&plan.to_string());
    match plan.problems().next() {
        None => Ok(()),
        // The plan has said it; the exit code is that of the run.
        Some(problem) => {
            Err(RunError { code: problem.code, field: problem.field.clone(), message: problem.text(), source: None })
        }
    }
}
