//! What goes: Jobs that are recorded, and records past the pipeline's history.

use report_api::status::RunState;

use super::run::Known;
use super::{Plan, Scene, Write};

/// Finished Jobs to keep, for their pods' logs.
const JOBS_SUCCEEDED_KEPT: usize = 1;
/// The same for failed ones.
const JOBS_FAILED_KEPT: usize = 2;

/// Deletes what is past the history. A run stays as long as its Job is there, else it would be recorded again; so a Job
/// goes first, and a person's run stays until they delete it.
pub fn prune(scene: &Scene, runs: &[Known], plan: &mut Plan) {
    let ended = |well: bool| {
        let mut runs: Vec<&Known> =
            runs.iter().filter(|run| run.has_ended() && ended_well(run) == well && !run.uid.is_empty()).collect();
        runs.sort_by_key(|run| std::cmp::Reverse((run.at(), run.name.clone())));
        runs
    };
    for (runs, runs_kept, jobs_kept) in [
        (ended(true), scene.spec.history_successful(), JOBS_SUCCEEDED_KEPT),
        (ended(false), scene.spec.history_failed(), JOBS_FAILED_KEPT),
    ] {
        let (mut jobs, mut records) = (0, 0);
        for run in runs {
            let past = run.ours && records >= runs_kept as usize;
            records += usize::from(run.ours);
            let job = scene.jobs.get(run.name.as_str()).filter(|own| own.scheduled == run.ours && !own.job.is_active());
            match job {
                Some(own) if past || jobs >= jobs_kept => {
                    plan.writes.push(Write::DeleteJob(own.job.meta.name.clone(), own.job.meta.uid.clone()));
                }
                Some(_) => jobs += 1,
                None if past && !scene.jobs.contains_key(run.name.as_str()) && !is_rerun(run) => {
                    plan.writes.push(Write::DeleteRun(run.name.clone(), run.uid.clone()));
                }
                None => {}
            }
        }
    }
}

fn ended_well(run: &Known) -> bool {
    matches!(run.status.state, Some(RunState::Succeeded | RunState::Skipped))
}

/// The record of a superseded run goes on under the same name.
fn is_rerun(run: &Known) -> bool {
    run.status.state == Some(RunState::Superseded)
}
