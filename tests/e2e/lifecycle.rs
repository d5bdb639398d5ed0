//! Deleting, applying again, restarting.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use kube::{Api, ResourceExt};
use report_api::pipeline::ReportPipeline;
use report_api::run::ReportRun;
use serde_json::json;

use crate::cluster::{
    A_TICK, Manifest, OPERATOR, OPERATOR_NAMESPACE, SOON, alone_in_space, in_space, next_minute, now, silent_server,
    sleep_until, tick, wait_operator, writes_since,
};

#[tokio::test]
async fn deleting_a_pipeline_takes_its_children_along_and_stops_runs_by_hand() {
    in_space("delete", async |space| {
        let url = silent_server(&space).await;
        Manifest::new("shop").every_minute().reading(&url).apply(&space).await;
        let run = space.wait_scheduled("shop", now(), "Running").await;
        let other = Manifest::new("hand").reading(&url);
        other.apply(&space).await;
        space.run_now("now", "hand").await;
        space.wait_state("now", "Running", SOON).await;

        for pipeline in ["shop", "hand"] {
            space.api::<ReportPipeline>().delete(pipeline, &DeleteParams::default()).await.unwrap();
            space.wait_gone::<ReportPipeline>(pipeline).await;
        }
        space.wait_gone::<CronJob>("shop").await;
        space.wait_gone::<Job>(&run).await;
        space.wait_gone::<ReportRun>(&run).await;
        space.wait_gone::<Job>("now").await;
        let stopped = space.wait_state("now", "Failed", SOON).await;
        assert_eq!(stopped.status.unwrap().conditions[0].reason, "PipelineDeleted");
        let maps = space.list::<ConfigMap>().await;
        for map in maps.iter().filter(|map| map.labels().contains_key("report-operator.dev/pipeline")) {
            space.wait_gone::<ConfigMap>(&map.name_any()).await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_pipeline_that_is_deleted_and_applied_again_just_works() {
    in_space("again", async |space| {
        let manifest = Manifest::new("shop").with(json!({"schedule": "0 3 * * *"}));
        manifest.apply(&space).await;
        space.wait_condition("shop", "Ready", "True", "Scheduled").await;
        space.api::<ReportPipeline>().delete("shop", &DeleteParams::default()).await.unwrap();
        manifest.apply(&space).await;
        let pipeline = space.wait_condition("shop", "Ready", "True", "Scheduled").await;
        let is_ours = |cron_job: &CronJob| {
            cron_job.owner_references().iter().any(|owner| Some(&owner.uid) == pipeline.metadata.uid.as_ref())
        };
        space.wait("shop", SOON, "the CronJob is the new pipeline's", is_ours).await;
        space.run_now("now", "shop").await;
        space.wait_state("now", "Succeeded", SOON).await;
    })
    .await;
}

#[tokio::test]
async fn applying_the_same_manifest_and_restarting_the_operator_writes_nothing() {
    in_space("restart", async |space| {
        let manifest = Manifest::new("shop").with(json!({"schedule": "0 3 1 1 *", "freshness": {"maxAge": "7d"}}));
        manifest.apply(&space).await;
        space.run_now("now", "shop").await;
        space.wait_state("now", "Succeeded", SOON).await;
        space.wait_condition("shop", "LastRunSucceeded", "True", "Succeeded").await;
        tokio::time::sleep(std::time::Duration::from_secs(15)).await;

        let since = now();
        manifest.apply(&space).await;
        let pods: Api<Pod> = Api::namespaced(space.client.clone(), OPERATOR_NAMESPACE);
        pods.delete_collection(
            &DeleteParams::default(),
            &ListParams::default().labels("app.kubernetes.io/name=report-operator"),
        )
        .await
        .unwrap();
        wait_operator(&space.client).await;
        tokio::time::sleep(std::time::Duration::from_secs(10)).await;
        assert_eq!(writes_since(&space.namespace, since), [""; 0]);

        // It works after the restart, too.
        space.run_now("later", "shop").await;
        space.wait_state("later", "Succeeded", SOON).await;
    })
    .await;
}

#[tokio::test]
async fn runs_go_on_while_the_operator_is_away_and_are_recorded_when_it_is_back() {
    alone_in_space("away", async |space| {
        Manifest::new("shop").every_minute().apply(&space).await;
        space.wait_condition("shop", "Ready", "True", "Scheduled").await;
        let deployments: Api<Deployment> = Api::namespaced(space.client.clone(), OPERATOR_NAMESPACE);
        let scale = async |replicas: u32| {
            let patch = Patch::Merge(json!({"spec": {"replicas": replicas}}));
            deployments.patch(OPERATOR, &PatchParams::default(), &patch).await.unwrap();
            wait_operator(&space.client).await;
        };
        scale(0).await;
        let gone = now();
        sleep_until(next_minute(), 0).await;
        let ended = |job: &Job| job.status.as_ref().is_some_and(|status| status.succeeded == Some(1));
        let started = tokio::time::Instant::now();
        let run = loop {
            let jobs = space.list::<Job>().await;
            if let Some(job) = jobs.iter().find(|job| ended(job) && tick("shop", &job.name_any()).unwrap() > gone) {
                break job.name_any();
            }
            assert!(started.elapsed() < A_TICK, "no Job while the operator is away");
            tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        };
        assert!(space.api::<ReportRun>().get_opt(&run).await.unwrap().is_none(), "nobody is there to record it");
        scale(1).await;
        let recorded = space.wait_state(&run, "Succeeded", SOON).await;
        assert!(recorded.status.unwrap().result.is_some());
    })
    .await;
}
