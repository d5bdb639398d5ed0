//! The Job: one run. The CronJob's template, the Job of a ReportRun, and the Job that takes the place of a superseded one
//! differ in name, owner and what they tell the worker about its interval.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{
    Job, JobSpec, PodFailurePolicy, PodFailurePolicyOnExitCodesRequirement, PodFailurePolicyOnPodConditionsPattern,
    PodFailurePolicyRule,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::core::ObjectMeta;
use report_api::contract::{
    ENV_FULL_REFRESH, ENV_INTERVAL_END, ENV_INTERVAL_START, ENV_SCHEDULE_EPOCH, LABEL_SPEC_HASH, WORKER_CONTAINER,
};
use report_api::result::ErrorClass;

use super::{Resolved, labels, pod};

/// How much later than the worker's own timeout the Job's deadline is, so that the worker ends first and leaves its
/// result: the Job controller deletes the pods of a Job whose deadline has passed.
const DEADLINE_MARGIN_SECONDS: u64 = 120;
/// Where the CronJob controller notes the tick.
const ANNOTATION_TICK: &str = "batch.kubernetes.io/cronjob-scheduled-timestamp";

/// What a run was asked by, which decides its interval.
pub enum Asked {
    /// The schedule: the tick is in the Job's name, and counts only from `epoch` on.
    BySchedule {
        /// When the schedule became what it is.
        epoch: Timestamp,
    },
    /// A ReportRun.
    ByRun {
        /// The start of the interval, where it names one.
        start: Option<Timestamp>,
        /// The end of the interval.
        end: Timestamp,
        /// Whether it reads everything again.
        full_refresh: bool,
    },
}

/// The Job of a ReportRun that a person made, under the run's name and owned by it.
pub fn of_run(resolved: &Resolved, run: &str, run_uid: &str, asked: &Asked) -> Job {
    let owner = OwnerReference {
        api_version: format!("{}/{}", report_api::GROUP, report_api::VERSION),
        kind: "ReportRun".into(),
        name: run.into(),
        uid: run_uid.into(),
        controller: Some(true),
        block_owner_deletion: None,
    };
    build(resolved, run, owner, asked)
}

/// The Job of a tick whose first Job never started, as the CronJob controller would make it now.
pub fn of_tick(resolved: &Resolved, name: &str, cron_job_uid: &str, tick: Timestamp, epoch: Timestamp) -> Job {
    let owner = OwnerReference {
        api_version: "batch/v1".into(),
        kind: "CronJob".into(),
        name: resolved.name.clone(),
        uid: cron_job_uid.into(),
        controller: Some(true),
        block_owner_deletion: None,
    };
    let mut job = build(resolved, name, owner, &Asked::BySchedule { epoch });
    job.metadata.annotations.get_or_insert_default().insert(ANNOTATION_TICK.into(), tick.to_string());
    job
}

fn build(resolved: &Resolved, name: &str, owner: OwnerReference, asked: &Asked) -> Job {
    Job {
        metadata: ObjectMeta {
            name: Some(name.into()),
            namespace: Some(resolved.namespace.clone()),
            owner_references: Some(vec![owner]),
            ..metadata(resolved)
        },
        spec: Some(spec(resolved, asked)),
        status: None,
    }
}

/// The labels and annotations of every Job.
pub(super) fn metadata(resolved: &Resolved) -> ObjectMeta {
    ObjectMeta {
        labels: Some(labels(&resolved.name)),
        annotations: Some(BTreeMap::from([(LABEL_SPEC_HASH.to_owned(), resolved.hash.clone())])),
        ..Default::default()
    }
}

/// What every Job does.
pub(super) fn spec(resolved: &Resolved, asked: &Asked) -> JobSpec {
    let mut template = resolved.pod.clone();
    match asked {
        Asked::BySchedule { epoch } => pod::set_env(&mut template, ENV_SCHEDULE_EPOCH, &epoch.to_string()),
        Asked::ByRun { start, end, full_refresh } => {
            if let Some(start) = start {
                pod::set_env(&mut template, ENV_INTERVAL_START, &start.to_string());
            }
            pod::set_env(&mut template, ENV_INTERVAL_END, &end.to_string());
            if *full_refresh {
                pod::set_env(&mut template, ENV_FULL_REFRESH, "true");
            }
        }
    }
    let deadline_seconds = resolved.checked.timeout_seconds + DEADLINE_MARGIN_SECONDS;
    JobSpec {
        backoff_limit: Some(i32::try_from(resolved.checked.spec.retries()).unwrap_or(i32::MAX)),
        active_deadline_seconds: Some(i64::try_from(deadline_seconds).unwrap_or(i64::MAX)),
        pod_failure_policy: Some(pod_failure_policy()),
        // The only one that a pod failure policy allows, and what we want: no second pod beside one that still ends.
        pod_replacement_policy: Some("Failed".into()),
        template,
        ..Default::default()
    }
}

/// The first rule that matches a failed pod decides. An evicted pod says nothing about the run, whatever its exit code;
/// a busy worker waits its turn; what a new attempt can't help ends the Job. All else counts against the retries.
fn pod_failure_policy() -> PodFailurePolicy {
    let exit_codes = |action: &str, classes: &[ErrorClass]| PodFailurePolicyRule {
        action: action.into(),
        on_exit_codes: Some(PodFailurePolicyOnExitCodesRequirement {
            container_name: Some(WORKER_CONTAINER.into()),
            operator: "In".into(),
            values: classes.iter().map(|class| i32::from(class.exit_code())).collect(),
        }),
        on_pod_conditions: None,
    };
    let last: Vec<_> = ErrorClass::ALL.into_iter().filter(|class| class.is_final()).collect();
    PodFailurePolicy {
        rules: vec![
            PodFailurePolicyRule {
                action: "Ignore".into(),
                on_pod_conditions: Some(vec![PodFailurePolicyOnPodConditionsPattern {
                    type_: "DisruptionTarget".into(),
                    status: "True".into(),
                }]),
                on_exit_codes: None,
            },
            exit_codes("Ignore", &[ErrorClass::Busy]),
            exit_codes("FailJob", &last),
        ],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures;

    #[test]
    fn the_job_of_a_run() {
        let asked = Asked::ByRun { start: None, end: fixtures::at("2027-03-01T12:34:56Z"), full_refresh: false };
        let job = of_run(&fixtures::resolved("daily"), "now", "run-uid", &asked);
        insta::assert_snapshot!(fixtures::yaml(&job));
    }

    #[test]
    fn the_job_of_a_superseded_tick_is_what_the_cron_job_would_make() {
        let (resolved, epoch) = (fixtures::resolved("daily"), fixtures::at("2027-03-01T00:00:00Z"));
        let job = of_tick(&resolved, "daily-30064500", "cron-uid", fixtures::at("2027-03-01T03:00:00Z"), epoch);
        let cron_job = crate::build::cron_job::build(&resolved, "0 3 * * *", false, epoch);
        assert_eq!(job.spec, cron_job.spec.unwrap().job_template.spec);
        insta::assert_snapshot!(fixtures::yaml(&job.metadata));
    }
}
