//! Manifests that are refused: by the API server, and by the operator.

use k8s_openapi::api::batch::v1::CronJob;
use report_api::pipeline::ReportPipeline;
use serde_json::json;

use crate::cluster::{Manifest, condition, in_space};

#[tokio::test]
async fn the_api_server_refuses_with_words_what_cel_can_tell() {
    in_space("cel", async |space| {
        for (manifest, want) in [
            (Manifest::new("every").with(json!({"schedule": "@every 5m"})), "write @every as five cron fields"),
            (
                Manifest::new("zone").with(json!({"schedule": "TZ=Etc/UTC 0 3 * * *"})),
                "write the time zone in spec.timeZone",
            ),
            (Manifest::new(&"x".repeat(41)), "metadata.name may have at most 40 characters"),
            (Manifest::new("unit").with(json!({"timeout": "12"})), "spec.timeout"),
        ] {
            let refused = space.try_apply(&manifest.yaml()).await.unwrap_err();
            assert!(refused.contains(want), "{refused} lacks {want}");
        }
    })
    .await;
}

#[tokio::test]
async fn what_only_a_parser_can_refuse_stalls_the_pipeline_and_recovers_when_edited() {
    in_space("invalid", async |space| {
        Manifest::new("shop").with(json!({"schedule": "0 3 * * *"})).apply(&space).await;
        space.wait_condition("shop", "Ready", "True", "Scheduled").await;

        space.edit::<ReportPipeline>("shop", json!({"spec": {"schedule": "61 3 * * *"}})).await;
        let stalled = space.wait_condition("shop", "Stalled", "True", "InvalidManifest").await;
        let (status, reason, message) = condition(&stalled, "Ready").unwrap();
        assert_eq!((status.as_str(), reason.as_str()), ("False", "InvalidManifest"));
        assert!(message.contains("spec.schedule") && message.contains("61"), "{message}");
        space.wait_event("InvalidManifest", "spec.schedule").await;
        let cron_job = space
            .wait("shop", crate::cluster::SOON, "suspended", |cron_job: &CronJob| {
                cron_job.spec.as_ref().unwrap().suspend == Some(true)
            })
            .await;
        assert_eq!(cron_job.spec.unwrap().schedule, "0 3 * * *");

        space.edit::<ReportPipeline>("shop", json!({"spec": {"schedule": "0 4 * * *"}})).await;
        space.wait_condition("shop", "Ready", "True", "Scheduled").await;
        space.wait_condition("shop", "Stalled", "False", "Settled").await;
        let is_back = |cron_job: &CronJob| {
            cron_job.spec.as_ref().is_some_and(|spec| spec.suspend == Some(false) && spec.schedule == "0 4 * * *")
        };
        space.wait("shop", crate::cluster::SOON, "it goes on", is_back).await;
    })
    .await;
}
