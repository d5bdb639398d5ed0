//! `etl-worker test`.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;

use super::{environment, say};
use crate::error::{Code, Result, RunError};
use crate::events::Log;
use crate::manifest;
use crate::testing::{self, Outcome};

#[derive(Debug, Args)]
pub(super) struct TestArgs {
    /// The manifest.
    manifest: PathBuf,
    /// The file with the tests. Default: beside the manifest, pipeline.tests.yaml for pipeline.yaml.
    #[arg(long, value_name = "FILE")]
    tests: Option<PathBuf>,
    /// Run only the tests whose names contain this.
    name: Option<String>,
}

pub(super) async fn main(args: &TestArgs) -> Result<()> {
    let (_, checked) = manifest::read(&args.manifest)?;
    let path = args.tests.clone().unwrap_or_else(|| args.manifest.with_extension("tests.yaml"));
    let env = environment(&args.manifest, Arc::new(Log))?;
    let results = testing::run(&path, args.name.as_deref(), &checked, &env).await?;
    let mut failed = 0;
    for (name, outcome) in &results {
        match outcome {
            Outcome::Passed => say(&format!("ok      {name}")),
            Outcome::Failed(why) => {
                failed += 1;
                say(&format!("FAILED  {name}: {why}"));
            }
        }
    }
    say(&format!("tests: {} passed, {failed} failed", results.len() - failed));
    if failed > 0 {
        let message =
            format!("{failed} of {} tests failed; correct the model, or what the test expects", results.len());
        return Err(RunError::new(Code::CheckFailed, message));
    }
    Ok(())
}
