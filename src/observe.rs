//! Every read from the cluster. Nearly all of it is in the caches that the watches keep; what they can't answer is asked
//! of the API server, and only while something is wrong: events of a Job that gets no pod, and who holds a name.

pub mod cache;
pub mod view;

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Event;
use kube::Api;
use kube::api::ListParams;
use report_api::interval::tick_of_job;
use report_api::result::cut;
use report_api::run::Trigger;

use self::cache::{Cache, Key};
use self::view::{ConfigMapView, CronJobView, JobView, Meta, PipelineView, PodView, RunView};
use crate::build;
use crate::controller::Context;
use crate::plan::{self, Observed, Resolution, Taken};
use crate::{Error, Result};

/// Events read about one object.
const EVENTS_MAX: u32 = 20;
/// What of an event's words goes into a message.
const EVENT_BYTES_MAX: usize = 600;

/// What the watches have seen.
#[derive(Default)]
pub struct Caches {
    /// All pipelines.
    pub pipelines: Cache<PipelineView>,
    /// All runs.
    pub runs: Cache<RunView>,
    /// CronJobs with the label of a pipeline.
    pub cron_jobs: Cache<CronJobView>,
    /// ConfigMaps with the label of a pipeline.
    pub config_maps: Cache<ConfigMapView>,
    /// Jobs with the label of a pipeline.
    pub jobs: Cache<JobView>,
    /// Pods with the label of a pipeline.
    pub pods: Cache<PodView>,
}

impl Caches {
    /// Waits until all first lists are complete.
    pub async fn wait_until_ready(&self) {
        self.pipelines.wait_until_ready().await;
        self.runs.wait_until_ready().await;
        self.cron_jobs.wait_until_ready().await;
        self.config_maps.wait_until_ready().await;
        self.jobs.wait_until_ready().await;
        self.pods.wait_until_ready().await;
    }

    /// Whether all first lists are complete.
    pub fn is_ready(&self) -> bool {
        self.pipelines.is_ready()
            && self.runs.is_ready()
            && self.cron_jobs.is_ready()
            && self.config_maps.is_ready()
            && self.jobs.is_ready()
            && self.pods.is_ready()
    }
}

/// What follows from a manifest, with the UID and the generation that it is about: a second look in one reconcile need
/// not validate again.
pub type Memo = Option<(String, i64, Arc<Resolution>)>;

/// All that a decision about a pipeline may look at.
pub async fn pipeline(
    key: &Key,
    taken: &[Taken],
    memo: &mut Memo,
    now: Timestamp,
    context: &Context,
) -> Result<Observed> {
    let caches = &context.caches;
    let pipeline = caches.pipelines.get(&key.namespace, &key.pipeline);
    let cron_job = caches.cron_jobs.get(&key.namespace, &key.pipeline);
    let runs = caches.runs.of(key);
    let resolved = pipeline.as_deref().and_then(|pipeline| resolve(pipeline, memo, context));
    // Only names that end like a tick's are looked up.
    let is_tick = |name: &str| {
        name.rsplit_once('-').is_some_and(|(pipeline, _)| {
            tick_of_job(pipeline, name).is_some()
                && (pipeline == key.pipeline || caches.pipelines.get(&key.namespace, pipeline).is_some())
        })
    };
    let tick_names = runs
        .iter()
        .filter(|run| run.trigger == Trigger::Manual && is_tick(&run.meta.name))
        .map(|run| run.meta.name.clone())
        .collect();
    let mut observed = Observed {
        key: Some(key.clone()),
        pipeline,
        resolved,
        cron_job_written: cron_job.as_deref().and_then(|cron_job| context.generation_written(&cron_job.meta.uid)),
        cron_job,
        config_maps: caches.config_maps.of(key),
        jobs: caches.jobs.of(key),
        pods: caches.pods.of(key),
        runs,
        tick_names,
        job_words: BTreeMap::new(),
        tick_taken: None,
        taken: taken.to_vec(),
    };
    let questions = plan::questions(&observed, now);
    for (job_uid, uid) in questions.events {
        // Events are words for a person. Without them the pipeline still has to be looked after.
        match events(&key.namespace, &uid, context).await {
            Ok(Some(words)) => drop(observed.job_words.insert(job_uid, words)),
            Ok(None) => {}
            Err(error) => tracing::warn!(namespace = key.namespace, %error, "events can't be read"),
        }
    }
    if let Some(name) = questions.tick {
        let cron_job_uid = observed.cron_job.as_ref().map_or("", |cron_job| cron_job.meta.uid.as_str());
        observed.tick_taken = holder_of_job(&key.namespace, &name, cron_job_uid, context).await?;
    }
    Ok(observed)
}

fn resolve(pipeline: &PipelineView, memo: &mut Memo, context: &Context) -> Option<Arc<Resolution>> {
    let spec = pipeline.spec.as_deref().ok()?;
    let meta = &pipeline.meta;
    if let Some((uid, generation, resolution)) = memo
        && (uid.as_str(), *generation) == (meta.uid.as_str(), meta.generation)
    {
        return Some(Arc::clone(resolution));
    }
    let resolution = Arc::new(build::resolve(&meta.namespace, &meta.name, &meta.uid, spec, &context.settings));
    *memo = Some((meta.uid.clone(), meta.generation, Arc::clone(&resolution)));
    Some(resolution)
}

/// The newest warning about an object, in Kubernetes' words.
async fn events(namespace: &str, uid: &str, context: &Context) -> Result<Option<String>> {
    let about = ListParams::default().fields(&format!("involvedObject.uid={uid},type=Warning")).limit(EVENTS_MAX);
    let list = Api::<Event>::namespaced(context.client.clone(), namespace)
        .list(&about)
        .await
        .map_err(Error::on("list events", uid))?;
    let at = |event: &Event| {
        let seen = event.last_timestamp.as_ref().map(|time| time.0);
        seen.or(event.event_time.as_ref().map(|time| time.0)).or(event
            .metadata
            .creation_timestamp
            .as_ref()
            .map(|time| time.0))
    };
    let newest = list.items.into_iter().max_by_key(at);
    Ok(newest.and_then(|event| event.message).map(|mut words| {
        cut(&mut words, EVENT_BYTES_MAX);
        words
    }))
}

/// Whose a Job is that has the name of a tick, if it is there and is not the CronJob's.
async fn holder_of_job(namespace: &str, name: &str, cron_job_uid: &str, context: &Context) -> Result<Option<Taken>> {
    let job = Api::<Job>::namespaced(context.client.clone(), namespace)
        .get_opt(name)
        .await
        .map_err(Error::on("get Job", name))?;
    let foreign = job.map(|job| Meta::of(&job.metadata)).filter(|meta| !meta.is_controlled_by(cron_job_uid));
    Ok(foreign.map(|meta| Taken { kind: "Job", name: name.into(), owner: meta.owner }))
}
