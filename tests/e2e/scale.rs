//! Many pipelines.

use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::batch::v1::CronJob;
use report_api::pipeline::ReportPipeline;
use serde_json::json;

use crate::cluster::{Manifest, condition, in_space, now, writes_since};

const PIPELINES: usize = 500;
/// The CRD's validation takes the API server some milliseconds each.
const LIMIT: Duration = Duration::from_secs(180);

#[tokio::test]
async fn five_hundred_pipelines_at_once_settle_and_then_an_idle_minute_has_no_write() {
    in_space("many", async |space| {
        let names: Vec<String> = (0..PIPELINES).map(|n| format!("p-{n}")).collect();
        futures::stream::iter(&names)
            .for_each_concurrent(32, async |name| {
                space.apply(&Manifest::new(name).with(json!({"schedule": "0 3 1 1 *"})).yaml()).await
            })
            .await;
        let started = tokio::time::Instant::now();
        loop {
            let cron_jobs = space.list::<CronJob>().await.len();
            let pipelines = space.list::<ReportPipeline>().await;
            let ready = pipelines
                .iter()
                .filter(|pipeline| condition(pipeline, "Ready").is_some_and(|ready| ready.0 == "True"))
                .count();
            if (cron_jobs, ready) == (PIPELINES, PIPELINES) {
                break;
            }
            assert!(
                started.elapsed() < LIMIT,
                "after {LIMIT:?} there are {cron_jobs} CronJobs, and {ready} pipelines are ready"
            );
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        tokio::time::sleep(Duration::from_secs(5)).await;
        let since = now();
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(writes_since(&space.namespace, since), [""; 0]);
    })
    .await;
}
