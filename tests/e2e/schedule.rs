//! What the CronJob controller really does, and what the operator makes of it.

use std::time::Duration;

use k8s_openapi::api::batch::v1::{CronJob, Job};
use kube::ResourceExt;
use report_api::interval::job_of_tick;
use report_api::pipeline::ReportPipeline;
use report_api::run::ReportRun;
use report_api::status::condition;
use serde_json::json;

use crate::cluster::{
    A_TICK, Manifest, SOON, Space, in_space, message_of, next_minute, now, silent_server, sleep_until, state_of, tick,
};

/// A CronJob without an operator. Its Jobs are suspended: they need no pod.
async fn bare_cron_job(space: &Space, name: &str, suspended: bool) {
    let cron_job = json!({
        "apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": name},
        "spec": {
            "schedule": "* * * * *", "timeZone": "Etc/UTC", "suspend": suspended, "startingDeadlineSeconds": 900, "concurrencyPolicy": "Forbid",
            "jobTemplate": {"spec": {"suspend": true, "template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "none"}]}}}},
        },
    });
    space.apply(&cron_job.to_string()).await;
}

async fn jobs(space: &Space, prefix: &str) -> Vec<String> {
    space.list::<Job>().await.iter().map(ResourceExt::name_any).filter(|name| tick(prefix, name).is_some()).collect()
}

#[tokio::test]
async fn a_tick_is_the_suffix_of_its_jobs_name_and_the_end_of_the_runs_interval() {
    in_space("tick", async |space| {
        Manifest::new("shop").every_minute().apply(&space).await;
        let run = space.wait_scheduled("shop", now(), "Succeeded").await;
        let job: Job = space.api().get(&run).await.unwrap();
        let noted = &job.annotations()["batch.kubernetes.io/cronjob-scheduled-timestamp"];
        let tick = tick("shop", &run).unwrap();
        assert_eq!(noted.parse::<jiff::Timestamp>().unwrap(), tick);
        let record: ReportRun = space.api().get(&run).await.unwrap();
        let status = record.status.unwrap();
        assert_eq!(status.result.unwrap().interval.unwrap().end, tick);
        assert_eq!(status.conditions[0].type_, condition::COMPLETE);
        let is_told = |pipeline: &ReportPipeline| {
            let status = pipeline.status.as_ref().unwrap();
            status.last_successful_run.as_ref().is_some_and(|last| last.name == run)
                && status.data_as_of.as_ref().is_some_and(|time| time.0 == tick)
        };
        let pipeline = space.wait("shop", SOON, "it says how fresh its data is", is_told).await;
        assert!(pipeline.status.unwrap().next_schedule_time.unwrap().0 > tick);
    })
    .await;
}

#[tokio::test]
async fn resuming_fires_the_missed_tick_of_a_bare_cron_job_at_once_but_none_of_a_pipeline() {
    in_space("resume", async |space| {
        bare_cron_job(&space, "bare", true).await;
        Manifest::new("shop").every_minute().with(json!({"suspend": true})).apply(&space).await;
        space.wait_condition("shop", "Ready", "True", "Suspended").await;
        sleep_until(next_minute(), 20).await;
        assert_eq!(
            (jobs(&space, "bare").await, jobs(&space, "shop").await),
            (vec![], vec![]),
            "no run while suspended"
        );

        space.edit::<CronJob>("bare", json!({"spec": {"suspend": false}})).await;
        space.edit::<ReportPipeline>("shop", json!({"spec": {"suspend": false}})).await;
        let resumed = now();
        tokio::time::sleep(Duration::from_secs(10)).await;
        assert_eq!(jobs(&space, "bare").await.len(), 1, "the CronJob controller runs the missed tick at once");
        assert_eq!(jobs(&space, "shop").await, [""; 0], "the pipeline's missed tick is not run");
        let run = space.wait_scheduled("shop", resumed, "Succeeded").await;
        assert!(tick("shop", &run).unwrap() > resumed);
        assert_eq!(jobs(&space, "shop").await, [run], "the first run is the next tick");
    })
    .await;
}

#[tokio::test]
async fn another_schedule_fires_no_tick_of_the_past() {
    in_space("change", async |space| {
        Manifest::new("shop").with(json!({"schedule": "0 0 1 1 *"})).apply(&space).await;
        space.wait_condition("shop", "Ready", "True", "Scheduled").await;
        // A tick of the new schedule has passed since the CronJob was made: its controller would run it.
        sleep_until(next_minute(), 15).await;
        let changed = now();
        space.edit::<ReportPipeline>("shop", json!({"spec": {"schedule": "* * * * *"}})).await;
        let run = space.wait_scheduled("shop", changed, "Succeeded").await;
        assert_eq!(jobs(&space, "shop").await, [run], "only ticks after the change are run");
    })
    .await;
}

#[tokio::test]
async fn a_tick_that_was_forbidden_runs_when_the_active_job_ends() {
    in_space("forbid", async |space| {
        // The first run hangs over the next tick, until its timeout.
        let url = silent_server(&space).await;
        Manifest::new("shop")
            .every_minute()
            .with(json!({"retries": 0, "timeout": "75s"}))
            .reading(&url)
            .apply(&space)
            .await;
        let first = space.wait_scheduled("shop", now(), "Running").await;
        let ended = space.wait_state(&first, "Failed", Duration::from_secs(110)).await;
        let end = ended.status.unwrap().completion_time.unwrap().0;
        let second = space.wait_scheduled("shop", tick("shop", &first).unwrap(), "Running").await;
        let job: Job = space.api().get(&second).await.unwrap();
        let made = job.metadata.creation_timestamp.unwrap().0;
        let late = made.duration_since(tick("shop", &second).unwrap());
        assert!(
            made >= end && late.as_secs() >= 3,
            "made at {made}, {late} after its tick; the first one ended at {end}"
        );
    })
    .await;
}

#[tokio::test]
async fn a_foreign_job_with_a_ticks_name_is_told_and_the_schedule_goes_on() {
    in_space("tick-name", async |space| {
        Manifest::new("shop").every_minute().apply(&space).await;
        space.wait_condition("shop", "Ready", "True", "Scheduled").await;
        // The next tick but one, so that it is not yet made.
        let taken = jiff::Timestamp::from_second(next_minute().as_second() + 60).unwrap();
        let name = job_of_tick("shop", taken);
        let foreign = json!({
            "apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name},
            "spec": {"suspend": true, "template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "none"}]}}},
        });
        space.apply(&foreign.to_string()).await;
        sleep_until(taken, 0).await;
        let run = space.wait_state(&name, "Failed", A_TICK).await;
        assert!(message_of(&run).contains(&format!("a Job {name} exists that is not this pipeline's; delete it")), "{}", message_of(&run));
        space.wait_event("NameTaken", &name).await;
        // Without help the CronJob controller would stay silent for good.
        space.wait_scheduled("shop", taken, "Succeeded").await;
    })
    .await;
}

#[tokio::test]
async fn somebody_elses_change_of_the_cron_job_is_undone() {
    in_space("drift", async |space| {
        Manifest::new("shop").with(json!({"schedule": "0 3 * * *"})).apply(&space).await;
        space.wait_condition("shop", "Ready", "True", "Scheduled").await;
        space.edit::<CronJob>("shop", json!({"spec": {"schedule": "0 4 * * *", "concurrencyPolicy": "Allow"}})).await;
        let is_back = |cron_job: &CronJob| {
            cron_job.spec.as_ref().is_some_and(|spec| {
                spec.schedule == "0 3 * * *" && spec.concurrency_policy.as_deref() == Some("Forbid")
            })
        };
        space.wait("shop", SOON, "it is as before", is_back).await;
    })
    .await;
}

#[tokio::test]
async fn a_secret_that_is_no_longer_named_leaves_the_cron_job() {
    in_space("unnamed", async |space| {
        let headers =
            json!([{"name": "Authorization", "valueFrom": {"secretKeyRef": {"name": "token", "key": "value"}}}]);
        let mut manifest =
            Manifest::new("shop").with(json!({"schedule": "0 3 * * *"})).reading("http://127.0.0.1:9/orders.csv");
        manifest.spec["sources"][0]["http"]["headers"] = headers;
        manifest.apply(&space).await;
        let variables = |cron_job: &CronJob| -> Vec<String> {
            let pod = cron_job
                .spec
                .as_ref()
                .and_then(|spec| spec.job_template.spec.as_ref())
                .and_then(|job| job.template.spec.as_ref())
                .unwrap();
            pod.containers[0].env.iter().flatten().map(|variable| variable.name.clone()).collect()
        };
        let named = |cron_job: &CronJob| variables(cron_job).contains(&"SECRET_TOKEN_VALUE".to_owned());
        space.wait("shop", SOON, "the variable is there", named).await;
        manifest.spec["sources"][0]["http"].as_object_mut().unwrap().remove("headers");
        manifest.apply(&space).await;
        space.wait("shop", SOON, "the variable is gone", |cron_job| !named(cron_job)).await;
    })
    .await;
}

#[tokio::test]
async fn a_schedule_that_is_removed_takes_the_cron_job_along() {
    in_space("removed", async |space| {
        Manifest::new("shop").with(json!({"schedule": "0 3 * * *"})).apply(&space).await;
        space.wait_condition("shop", "Ready", "True", "Scheduled").await;
        space.edit::<ReportPipeline>("shop", json!({"spec": {"schedule": null}})).await;
        space.wait_gone::<CronJob>("shop").await;
        space.wait_condition("shop", "Ready", "True", "OnDemand").await;
        space.run_now("still", "shop").await;
        let run = space.wait_state("still", "Succeeded", SOON).await;
        assert_eq!(state_of(&run), "Succeeded");
    })
    .await;
}
