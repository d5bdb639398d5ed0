//! The CronJob: the pipeline's clock. Its controller makes the Jobs, so runs go on while the operator is away.

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{CronJob, CronJobSpec, JobTemplateSpec};
use kube::core::ObjectMeta;

use super::{ANNOTATION_APPLIED, Resolved, hash, job, labels, owned_by_pipeline};

/// Finished Jobs that the CronJob controller keeps. The operator deletes those that it has recorded long before; this
/// bounds what piles up while it is away.
const JOBS_KEPT: i32 = 20;

/// The CronJob, with the hash of itself as an annotation. Ticks before `epoch` end as Skipped.
pub fn build(resolved: &Resolved, schedule: &str, suspended: bool, epoch: Timestamp) -> CronJob {
    let spec = &resolved.checked.spec;
    let mut cron_job = CronJob {
        metadata: ObjectMeta {
            name: Some(resolved.name.clone()),
            namespace: Some(resolved.namespace.clone()),
            labels: Some(labels(&resolved.name)),
            owner_references: Some(vec![owned_by_pipeline(&resolved.name, &resolved.uid)]),
            ..Default::default()
        },
        spec: Some(CronJobSpec {
            schedule: schedule.into(),
            time_zone: Some(spec.time_zone().into()),
            suspend: Some(suspended),
            concurrency_policy: Some("Forbid".into()),
            starting_deadline_seconds: Some(i64::try_from(spec.starting_deadline_seconds()).unwrap_or(i64::MAX)),
            successful_jobs_history_limit: Some(JOBS_KEPT),
            failed_jobs_history_limit: Some(JOBS_KEPT),
            job_template: JobTemplateSpec {
                metadata: Some(job::metadata(resolved)),
                spec: Some(job::spec(resolved, &job::Asked::BySchedule { epoch })),
            },
        }),
        status: None,
    };
    let json = serde_json::to_vec(&cron_job).expect("a CronJob is JSON");
    cron_job.metadata.annotations = Some([(ANNOTATION_APPLIED.to_owned(), hash([json.as_slice()]))].into());
    cron_job
}

/// The hash of a CronJob that was built here.
pub fn applied_hash(cron_job: &CronJob) -> Option<&str> {
    cron_job.metadata.annotations.as_ref()?.get(ANNOTATION_APPLIED).map(String::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures;

    #[test]
    fn the_cron_job() {
        let resolved = fixtures::resolved("daily");
        insta::assert_snapshot!(fixtures::yaml(&build(
            &resolved,
            "0 3 * * *",
            false,
            fixtures::at("2027-03-01T00:00:00Z")
        )));
    }

    #[test]
    fn every_difference_is_in_the_hash() {
        let resolved = fixtures::resolved("daily");
        let (noon, one) = (fixtures::at("2027-03-01T12:00:00Z"), fixtures::at("2027-03-01T13:00:00Z"));
        let base = build(&resolved, "0 3 * * *", false, noon);
        for other in [
            build(&resolved, "0 4 * * *", false, noon),
            build(&resolved, "0 3 * * *", true, noon),
            build(&resolved, "0 3 * * *", false, one),
        ] {
            assert_ne!(applied_hash(&base), applied_hash(&other));
        }
        assert_eq!(applied_hash(&base), applied_hash(&build(&resolved, "0 3 * * *", false, noon)));
    }
}
