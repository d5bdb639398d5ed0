//! How a run that fails is told, and which failures are tried again: the order of the pod failure policy, with the real
//! worker's exit codes.

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{EvictParams, ListParams};
use report_api::pipeline::ReportPipeline;
use report_api::run::ReportRun;
use serde_json::json;

use crate::cluster::{A_TICK, Manifest, SOON, condition, in_space, message_of, silent_server};

fn attempts(run: &ReportRun) -> i32 {
    run.status.as_ref().and_then(|status| status.attempts).unwrap_or_default()
}

#[tokio::test]
async fn what_a_new_attempt_can_not_help_fails_at_once() {
    in_space("final", async |space| {
        let text = json!([{"name": "orders", "file": {"path": "orders.csv"}, "columns": [{"name": "id", "type": "boolean", "required": true}]}]);
        let models = json!([{"name": "wrong", "sql": "SELECT nope FROM orders"}]);
        let sinks = json!([{"name": "s", "from": "wrong", "sqlite": {"path": "/scratch/out.db", "table": "t"}}]);
        let checks = json!([{"name": "many", "from": "orders", "rows": {"min": 1000}}]);
        let url = silent_server(&space).await;
        let silent = json!([{"name": "orders", "http": {"url": url}, "format": {"csv": {}}, "columns": [{"name": "id", "type": "int64"}]}]);
        for (name, fields, exit_code, words) in [
            ("manifest", json!({"models": models, "sinks": sinks}), 10, "nope"),
            ("contract", json!({"sources": text}), 12, "id"),
            ("check", json!({"checks": checks}), 13, "many"),
            ("time", json!({"sources": silent, "timeout": "5s"}), 14, "has taken 5 s"),
        ] {
            Manifest::new(name).with(fields).apply(&space).await;
            space.run_now(&format!("{name}-now"), name).await;
            let run = space.wait_state(&format!("{name}-now"), "Failed", SOON).await;
            assert_eq!(attempts(&run), 1, "{}", message_of(&run));
            assert!(message_of(&run).contains(words), "{}", message_of(&run));
            let class = run.status.as_ref().unwrap().result.as_ref().unwrap().error.as_ref().unwrap().class;
            assert_eq!(class.exit_code(), exit_code);
            let reason = run.status.as_ref().unwrap().conditions[0].reason.clone();
            let pipeline = space.wait_condition(name, "LastRunSucceeded", "False", &reason).await;
            assert_eq!(condition(&pipeline, "Ready").unwrap().0, "True", "a failed run does not change Ready");
            space.wait_event(&reason, words).await;
        }
    })
    .await;
}

#[tokio::test]
async fn what_may_pass_is_tried_again_and_the_next_good_run_heals() {
    in_space("transient", async |space| {
        Manifest::new("shop").with(json!({"retries": 1})).reading("http://127.0.0.1:9/orders.csv").apply(&space).await;
        space.run_now("first", "shop").await;
        let run = space.wait_state("first", "Failed", A_TICK).await;
        assert_eq!(attempts(&run), 2);
        assert!(message_of(&run).contains("the last of 2 attempts"), "{}", message_of(&run));
        space.wait_event("AttemptFailed", "attempt 1 failed and is tried again").await;

        let good = Manifest::new("shop");
        space.api::<ReportPipeline>().delete("shop", &kube::api::DeleteParams::default()).await.unwrap();
        space.wait_gone::<ReportPipeline>("shop").await;
        good.apply(&space).await;
        space.run_now("second", "shop").await;
        space.wait_state("second", "Succeeded", SOON).await;
        space.wait_condition("shop", "LastRunSucceeded", "True", "Succeeded").await;
    })
    .await;
}

#[tokio::test]
async fn an_evicted_pod_does_not_count_as_an_attempt() {
    in_space("evicted", async |space| {
        let url = silent_server(&space).await;
        Manifest::new("shop").with(json!({"retries": 0})).reading(&url).apply(&space).await;
        space.run_now("now", "shop").await;
        space.wait_state("now", "Running", SOON).await;
        let of_job = ListParams::default().labels("batch.kubernetes.io/job-name=now");
        let pod = space.api::<Pod>().list(&of_job).await.unwrap().items[0].name_any();
        space.api::<Pod>().evict(&pod, &EvictParams::default()).await.unwrap();
        // With no retries left, only the first rule, DisruptionTarget, lets the Job go on.
        let has_new_pod = |job: &Job| {
            job.status.as_ref().is_some_and(|status| status.active == Some(1) && status.failed.unwrap_or(0) == 0)
        };
        let started = tokio::time::Instant::now();
        loop {
            let pods = space.api::<Pod>().list(&of_job).await.unwrap().items;
            if pods.iter().any(|other| other.name_any() != pod) {
                break;
            }
            assert!(started.elapsed() < A_TICK, "no new pod after the eviction");
            tokio::time::sleep(std::time::Duration::from_millis(500)).await;
        }
        space.wait("now", SOON, "the Job goes on", has_new_pod).await;
    })
    .await;
}

#[tokio::test]
async fn a_deadline_that_passes_before_the_pod_starts_says_what_it_waited_for() {
    in_space("deadline", async |space| {
        let mut manifest = Manifest::new("shop").with(json!({"timeout": "1s"}));
        manifest.spec["worker"]["resources"] = json!({"requests": {"cpu": "1000"}});
        manifest.apply(&space).await;
        space.run_now("now", "shop").await;
        let run = space.wait_state("now", "Failed", std::time::Duration::from_secs(170)).await;
        assert_eq!(run.status.as_ref().unwrap().conditions[0].reason, "DeadlineExceeded");
        assert!(message_of(&run).contains("it had not started: no node takes the pod"), "{}", message_of(&run));
    })
    .await;
}
