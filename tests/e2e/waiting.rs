//! Runs whose pod does not start: why, in the run's and the pipeline's words, and how they heal.

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::ResourceQuota;
use kube::api::DeleteParams;
use report_api::pipeline::ReportPipeline;
use serde_json::json;

use crate::cluster::{
    A_TICK, Manifest, OPERATOR, OPERATOR_NAMESPACE, SOON, Space, alone_in_space, condition, in_space, now,
    wait_operator,
};
use crate::user::sh;

/// The words are in the run's message, in the pipeline's Ready condition, which stays True, and in an event.
async fn assert_told(space: &Space, run: &str, words: &str) {
    space.wait_message(run, words).await;
    let told = |pipeline: &ReportPipeline| {
        condition(pipeline, "Ready")
            .is_some_and(|(status, _, message)| status == "True" && message.contains(words) && message.contains(run))
    };
    space.wait("shop", SOON, words, told).await;
    space.wait_event("RunWaits", words).await;
}

fn with_secret() -> Manifest {
    let mut manifest = Manifest::new("shop").reading("http://127.0.0.1:9/orders.csv").with(json!({"retries": 0}));
    manifest.spec["sources"][0]["http"]["headers"] =
        json!([{"name": "Authorization", "valueFrom": {"secretKeyRef": {"name": "token", "key": "value"}}}]);
    manifest
}

#[tokio::test]
async fn a_missing_secret_is_named_and_the_run_goes_on_when_it_is_there() {
    in_space("secret", async |space| {
        with_secret().apply(&space).await;
        space.run_now("now", "shop").await;
        assert_told(&space, "now", &format!("the Secret \"token\" is not in the namespace {}; create it", space.namespace)).await;
        space.apply(&json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "token"}, "stringData": {"other": "x"}}).to_string()).await;
        space.wait_message("now", "has no key \"value\"; add it").await;
        space.apply(&json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "token"}, "stringData": {"value": "x"}}).to_string()).await;
        // The pod starts, and its source is refused: the worker has had its say.
        let run = space.wait_state("now", "Failed", A_TICK).await;
        assert!(run.status.unwrap().result.is_some(), "the worker's own words");
    })
    .await;
}

#[tokio::test]
async fn a_run_that_no_node_takes_is_superseded_by_an_edit() {
    in_space("node", async |space| {
        let small = json!({"requests": {"cpu": "10m", "memory": "32Mi"}});
        let mut manifest = Manifest::new("shop");
        manifest.spec["worker"]["resources"] = json!({"requests": {"cpu": "1000"}});
        manifest.apply(&space).await;
        space.run_now("now", "shop").await;
        assert_told(&space, "now", "no node takes the pod: 0/1 nodes are available: 1 Insufficient cpu").await;
        let before: Job = space.api().get("now").await.unwrap();

        manifest.spec["worker"]["resources"] = small;
        manifest.apply(&space).await;
        let run = space.wait_state("now", "Succeeded", SOON).await;
        space.wait_event("Superseded", "its pod never started and the manifest has changed").await;
        assert_ne!(run.status.unwrap().job_uid, before.metadata.uid, "the Job was made anew under the same run");
    })
    .await;
}

#[tokio::test]
async fn a_scheduled_run_that_can_not_start_is_made_anew_under_its_ticks_name() {
    in_space("node-tick", async |space| {
        let mut manifest = Manifest::new("shop").every_minute();
        manifest.spec["worker"]["resources"] = json!({"requests": {"cpu": "1000"}});
        manifest.apply(&space).await;
        let run = space.wait_scheduled("shop", now(), "Pending").await;
        assert_told(&space, &run, "no node takes the pod").await;
        manifest.spec["worker"]["resources"] = json!({"requests": {"cpu": "10m", "memory": "32Mi"}});
        manifest.apply(&space).await;
        let ended = space.wait_state(&run, "Succeeded", SOON).await;
        let tick = crate::cluster::tick("shop", &run).unwrap();
        assert_eq!(ended.status.unwrap().result.unwrap().interval.unwrap().end, tick);
        space.wait_event("Superseded", &run).await;
    })
    .await;
}

#[tokio::test]
async fn a_quota_that_allows_no_pod_is_told_from_the_jobs_events() {
    in_space("quota", async |space| {
        space.apply(&json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "none"}, "spec": {"hard": {"pods": "0"}}}).to_string()).await;
        let counted = |quota: &ResourceQuota| quota.status.as_ref().is_some_and(|status| status.hard.is_some());
        space.wait("none", SOON, "the quota holds", counted).await;
        Manifest::new("shop").apply(&space).await;
        space.run_now("now", "shop").await;
        assert_told(&space, "now", "exceeded quota: none").await;
        space.api::<ResourceQuota>().delete("none", &DeleteParams::default()).await.unwrap();
        space.wait_state("now", "Succeeded", A_TICK).await;
    })
    .await;
}

#[tokio::test]
async fn a_config_map_that_a_volume_needs_is_told_from_the_pods_events() {
    in_space("volume", async |space| {
        space.apply(&Manifest::new("shop").yaml()).await;
        space.run_now("now", "shop").await;
        space
            .wait("now", A_TICK, "it names the ConfigMap", |run| {
                crate::cluster::message_of(run).contains("configmap \"shop-data\" not found")
            })
            .await;
        Manifest::new("shop").apply(&space).await;
        space.wait_state("now", "Succeeded", std::time::Duration::from_secs(150)).await;
    })
    .await;
}

#[tokio::test]
async fn an_image_that_does_not_exist_is_told_and_healed_by_the_next_upgrade() {
    alone_in_space("image", async |space| {
        let chart = concat!(env!("CARGO_MANIFEST_DIR"), "/charts/report-operator");
        let upgrade = ["upgrade", OPERATOR, chart, "--namespace", OPERATOR_NAMESPACE, "--reuse-values", "--wait"];
        let wrong = ["--set", "worker.image.repository=127.0.0.1:9/etl-worker,worker.image.tag=nope"];
        // An upgrade with a wrong value, and its taking back, as an administrator has them.
        let spoil = move || sh("helm", &[upgrade.as_slice(), &wrong].concat(), None);
        let repair = || sh("helm", &["rollback", OPERATOR, "--namespace", OPERATOR_NAMESPACE, "--wait"], None);
        Manifest::new("shop").apply(&space).await;
        tokio::task::spawn_blocking(spoil).await.unwrap();
        wait_operator(&space.client).await;
        space.run_now("now", "shop").await;
        let words = "the worker's image \"127.0.0.1:9/etl-worker:nope\" can't be pulled";
        space.wait_message("now", words).await;
        tokio::task::spawn_blocking(repair).await.unwrap();
        wait_operator(&space.client).await;
        space.wait_state("now", "Succeeded", A_TICK).await;
        space.wait_event("RunWaits", words).await;
        space.wait_event("Superseded", "run now").await;
    })
    .await;
}
