//! Names that someone else has, and names that nobody may take.

use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::ResourceExt;
use kube::api::DeleteParams;
use report_api::interval::job_of_tick;
use report_api::pipeline::ReportPipeline;
use report_api::run::ReportRun;
use serde_json::json;

use crate::cluster::{Manifest, SOON, condition, in_space, message_of, next_minute};

const FOREIGN_JOB_SPEC: &str = r#"{"suspend": true, "template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "none"}]}}}"#;

#[tokio::test]
async fn a_foreign_cron_job_stalls_the_pipeline_untouched_until_it_is_gone() {
    in_space("cron-name", async |space| {
        let foreign = format!(
            r#"{{"apiVersion": "batch/v1", "kind": "CronJob", "metadata": {{"name": "shop"}}, "spec": {{"schedule": "0 5 * * *", "jobTemplate": {{"spec": {FOREIGN_JOB_SPEC}}}}}}}"#
        );
        space.apply(&foreign).await;
        let before: CronJob = space.api().get("shop").await.unwrap();
        Manifest::new("shop").with(json!({"schedule": "0 3 * * *"})).apply(&space).await;
        let stalled = space.wait_condition("shop", "Stalled", "True", "NameTaken").await;
        assert_eq!(condition(&stalled, "Ready").unwrap().2, "the CronJob shop is there already and is nobody's; delete it, or rename the pipeline");
        let after: CronJob = space.api().get("shop").await.unwrap();
        assert_eq!(before.metadata.resource_version, after.metadata.resource_version, "nothing of it is written");
        space.wait_event("NameTaken", "the CronJob shop").await;

        space.api::<CronJob>().delete("shop", &DeleteParams::default()).await.unwrap();
        space.wait_condition("shop", "Ready", "True", "Scheduled").await;
    })
    .await;
}

#[tokio::test]
async fn a_foreign_config_map_stalls_the_pipeline() {
    in_space("map-name", async |space| {
        let manifest = Manifest::new("shop").with(json!({"schedule": "0 3 * * *"}));
        manifest.apply(&space).await;
        space.wait_condition("shop", "Ready", "True", "Scheduled").await;
        let named = |map: &ConfigMap| map.labels().contains_key("report-operator.dev/spec-hash");
        let name = space.list::<ConfigMap>().await.into_iter().find(named).unwrap().name_any();
        space.api::<ReportPipeline>().delete("shop", &DeleteParams::default()).await.unwrap();
        space.wait_gone::<ConfigMap>(&name).await;

        space
            .apply(
                &json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"a": "b"}})
                    .to_string(),
            )
            .await;
        manifest.apply(&space).await;
        let stalled = space.wait_condition("shop", "Stalled", "True", "NameTaken").await;
        assert!(
            condition(&stalled, "Stalled").unwrap().2.starts_with(&format!("the ConfigMap {name} is there already"))
        );
        assert!(
            space.api::<CronJob>().get_opt("shop").await.unwrap().is_none(),
            "no Job may run what it was not given"
        );
    })
    .await;
}

#[tokio::test]
async fn runs_by_hand_with_impossible_names_fail_in_words() {
    in_space("run-names", async |space| {
        Manifest::new("shop").with(json!({"schedule": "0 3 * * *"})).apply(&space).await;
        space.wait_condition("shop", "Ready", "True", "Scheduled").await;
        let reserved = job_of_tick("shop", next_minute());
        space.apply(&format!(r#"{{"apiVersion": "batch/v1", "kind": "Job", "metadata": {{"name": "held"}}, "spec": {FOREIGN_JOB_SPEC}}}"#)).await;
        let long = "x".repeat(64);
        for (name, reason, words) in [
            (reserved.as_str(), "NameReserved", "is the name of a scheduled run"),
            ("held", "NameTaken", "the Job held exists and is not this run's"),
            (long.as_str(), "NameTooLong", "the name has 64 characters"),
        ] {
            space.run_now(name, "shop").await;
            let run: ReportRun = space.wait_state(name, "Failed", SOON).await;
            let ending = run.status.as_ref().unwrap().conditions[0].clone();
            assert_eq!((ending.type_.as_str(), ending.reason.as_str()), ("Failed", reason));
            assert!(message_of(&run).contains(words), "{}", message_of(&run));
        }
        let held: Job = space.api().get("held").await.unwrap();
        assert!(held.owner_references().is_empty());
        assert!(space.api::<Job>().get_opt(&reserved).await.unwrap().is_none());
    })
    .await;
}

#[tokio::test]
async fn a_run_of_no_pipeline_says_so() {
    in_space("no-pipeline", async |space| {
        space.run_now("now", "nowhere").await;
        space.wait_message("now", "waits for the pipeline nowhere").await;
        Manifest::new("nowhere").apply(&space).await;
        space.wait_state("now", "Succeeded", SOON).await;
    })
    .await;
}
