//! The loop: what the watches see, which pipeline it is about, and one reconcile per pipeline at a time.
//!
//! ```text
//!  ReportPipelines ─┐                      ┌─ observe: caches, and questions to the API server
//!  ReportRuns ──────┤   namespace and name │
//!  CronJobs ────────┼─► of a pipeline ────►├─ plan: pure
//!  Jobs, Pods ──────┤   (one at a time)    │
//!  ConfigMaps ──────┘                      └─ apply: writes, whose answers go into the caches
//! ```
//! Both resources go through the same loop, keyed by the pipeline's name, since a decision about a run looks at all runs
//! of its pipeline. A pipeline that is not there has a loop as long as runs name it.

use std::collections::HashMap;
use std::fmt::Debug;
use std::marker::PhantomData;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::channel::mpsc::{UnboundedReceiver, UnboundedSender, unbounded};
use futures::{Stream, StreamExt};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::api::ListParams;
use kube::core::{DeserializeGuard, ObjectMeta, PartialObjectMeta};
use kube::runtime::WatchStreamExt;
use kube::runtime::controller::{Action, Config as ApplierConfig, applier};
use kube::runtime::reflector::store::Writer;
use kube::runtime::reflector::{ObjectRef, store};
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client, Resource};
use report_api::contract::LABEL_PIPELINE;
use report_api::pipeline::ReportPipeline;
use report_api::run::ReportRun;
use report_api::status::condition;
use serde::de::DeserializeOwned;
use tokio::time::Instant;

use crate::apply::apply;
use crate::build::Settings;
use crate::clock::Clock;
use crate::metrics::{ErrorLabels, Metrics, ResourceLabels};
use crate::observe::cache::{Cache, Key};
use crate::observe::view::{PipelineView, View, time};
use crate::observe::{self, Caches, Memo};
use crate::plan::{self, Observed, Write};
use crate::{Error, Result, is_namespace_going};

/// Pipelines that are looked at at the same time: enough to keep an API server's answers coming, few enough to be polite.
const CONCURRENCY: u16 = 16;
/// How long to wait for more news of a pipeline: a Job and its pod change several times within this.
const DEBOUNCE: Duration = Duration::from_millis(200);
/// Looks within one reconcile: objects, what follows from them, the status; one more for a name that turns out taken.
const PASSES_MAX: usize = 5;
/// The first and the longest wait after an error.
const BACKOFF_SECONDS: (u64, u64) = (1, 300);
/// Objects per page of a list, for API servers that can't stream.
const PAGE_SIZE: u32 = 1000;
/// The first minor version of Kubernetes that streams lists by default (feature gate WatchList).
const STREAMING_MINOR: u32 = 34;

/// What a reconcile may touch.
pub struct Context {
    /// The way to the API server.
    pub client: Client,
    /// What the watches have seen.
    pub caches: Arc<Caches>,
    /// What the installation decides.
    pub settings: Settings,
    /// The time.
    pub clock: Clock,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// This process, in events.
    pub identity: String,
    /// Errors in a row, by pipeline.
    failures: Mutex<HashMap<Key, u32>>,
    /// Generations of CronJobs as this process left them, by UID.
    generations: Mutex<HashMap<String, i64>>,
}

impl Context {
    /// A context at the start of the process.
    pub fn new(
        client: Client,
        caches: Arc<Caches>,
        settings: Settings,
        metrics: Arc<Metrics>,
        identity: String,
    ) -> Self {
        Self {
            client,
            caches,
            settings,
            clock: Clock,
            metrics,
            identity,
            failures: Mutex::default(),
            generations: Mutex::default(),
        }
    }

    /// The generation of a CronJob as this process left it.
    pub fn generation_written(&self, uid: &str) -> Option<i64> {
        self.generations.lock().expect("no holder of this lock panics").get(uid).copied()
    }

    /// Remembers how a CronJob was left.
    pub fn wrote_generation(&self, uid: &str, generation: i64) {
        self.generations.lock().expect("no holder of this lock panics").insert(uid.into(), generation);
    }

    /// Forgets what was only of use until the status had it.
    fn settled(&self, key: &Key, observed: &Observed) {
        self.failures.lock().expect("no holder of this lock panics").remove(key);
        if let Some(cron_job) = &observed.cron_job {
            self.generations.lock().expect("no holder of this lock panics").remove(&cron_job.meta.uid);
        }
    }

    /// The wait after one more error: twice as long each time.
    fn backoff(&self, key: &Key) -> Duration {
        let mut failures = self.failures.lock().expect("no holder of this lock panics");
        let count = failures.entry(key.clone()).and_modify(|count| *count += 1).or_insert(1);
        let (first, longest) = BACKOFF_SECONDS;
        Duration::from_secs((first << (*count - 1).min(16)).min(longest))
    }
}

/// One look at a pipeline: all reads, one decision, all writes; again while the writes change what was read. The status is
/// written when nothing else is left to write.
async fn reconcile(key: &Key, context: &Context) -> Result<Action> {
    let now = context.clock.now();
    let (mut taken, mut memo) = (Vec::new(), Memo::None);
    let mut pass = 1;
    loop {
        let observed = observe::pipeline(key, &taken, &mut memo, now, context).await?;
        let mut plan = plan::plan(&observed, now);
        let changes = plan.writes.iter().any(Write::changes_objects) && pass < PASSES_MAX;
        if changes {
            plan.writes.retain(|write| !matches!(write, Write::Status(..)));
        }
        let is_more_taken = match apply(&observed, key, plan.writes, context).await {
            Ok(more) => {
                taken.extend(more.clone());
                more.is_some()
            }
            Err(Error::Request { source, .. }) if is_namespace_going(&source) => return Ok(Action::await_change()),
            Err(error) => {
                say_refused(&observed, key, &error, context).await;
                return Err(error);
            }
        };
        if is_more_taken && pass >= PASSES_MAX {
            return Ok(Action::requeue(DEBOUNCE));
        }
        if !changes && !is_more_taken {
            context.settled(key, &observed);
            let wait = plan.next_look.and_then(|wait| Duration::try_from(wait).ok());
            return Ok(wait.map_or_else(Action::await_change, Action::requeue));
        }
        pass += 1;
    }
}

/// Says in the status that the API server refuses something, such as a quota or a policy; other errors pass by themselves.
async fn say_refused(observed: &Observed, key: &Key, error: &Error, context: &Context) {
    let (Some(pipeline), Some(mut message)) = (&observed.pipeline, error.refusal()) else { return };
    report_api::result::cut(&mut message, plan::outcome::MESSAGE_BYTES_MAX);
    let mut status = pipeline.status.clone();
    let same = status
        .conditions
        .iter()
        .any(|now| now.type_ == condition::RECONCILING && now.status == "True" && now.message == message);
    if same {
        return;
    }
    status.conditions.retain(|now| now.type_ != condition::RECONCILING);
    status.conditions.push(k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition {
        type_: condition::RECONCILING.into(),
        status: "True".into(),
        reason: "Refused".into(),
        message: message.clone(),
        observed_generation: Some(pipeline.meta.generation),
        last_transition_time: time(context.clock.now()),
    });
    let note = plan::Note { warning: true, reason: "Refused".into(), message, run: None };
    let write = Write::Status(Box::new(status), vec![note]);
    if let Err(error) = apply(observed, key, vec![write], context).await {
        tracing::warn!(namespace = key.namespace, pipeline = key.pipeline, %error, "the status could not be written");
    }
}

/// A pipeline's name in the queue. It stands for the pipeline also when there is none.
type Slot = PartialObjectMeta<ReportPipeline>;

/// Runs watches and reconciles until `stop` is done; what is under way is finished then.
pub async fn run(
    context: Arc<Context>,
    namespace: Option<String>,
    streaming: bool,
    stop: impl Future<Output = ()> + Send + 'static,
) {
    let (sender, receiver) = unbounded();
    let watches = watches(&context, namespace.as_deref(), streaming, &sender);
    let caches = Arc::clone(&context.caches);
    tokio::pin!(stop);
    tokio::select! {
        () = caches.wait_until_ready() => {}
        () = &mut stop => return,
    }
    tracing::info!(
        pipelines = caches.pipelines.len(),
        runs = caches.runs.len(),
        jobs = caches.jobs.len(),
        "the caches are complete"
    );
    let (reader, mut writer) = store::<Slot>();
    writer.apply_watcher_event(&Event::Init);
    writer.apply_watcher_event(&Event::InitDone);
    let slots = Arc::new(Mutex::new(writer));
    let queue = queue(receiver, Arc::clone(&slots)).take_until(stop);
    let config = ApplierConfig::default().concurrency(CONCURRENCY).debounce(DEBOUNCE);
    applier(look, on_error, Arc::clone(&context), reader, queue, config)
        .for_each(|looked| {
            if let Ok((reference, _)) = looked {
                forget_if_gone(&reference, &caches, &slots);
            }
            std::future::ready(())
        })
        .await;
    drop(watches);
}

/// Names of pipelines, each put into the store from which the applier takes what it reconciles.
fn queue(
    names: UnboundedReceiver<Key>,
    slots: Arc<Mutex<Writer<Slot>>>,
) -> impl Stream<Item = std::result::Result<ObjectRef<Slot>, std::convert::Infallible>> {
    names.map(move |key| {
        let reference = ObjectRef::new(&key.pipeline).within(&key.namespace);
        let mut writer = slots.lock().expect("no holder of this lock panics");
        if writer.as_reader().get(&reference).is_none() {
            let metadata =
                ObjectMeta { name: Some(key.pipeline), namespace: Some(key.namespace), ..Default::default() };
            writer.apply_watcher_event(&Event::Apply(Slot { types: None, metadata, _phantom: PhantomData }));
        }
        Ok(reference)
    })
}

/// Forgets a name of which nothing is left. News of it go into the caches first and into the queue then, so that a name
/// that comes back at this moment is not lost.
fn forget_if_gone(reference: &ObjectRef<Slot>, caches: &Caches, slots: &Mutex<Writer<Slot>>) {
    let key = Key { namespace: reference.namespace.clone().unwrap_or_default(), pipeline: reference.name.clone() };
    let mut writer = slots.lock().expect("no holder of this lock panics");
    if caches.pipelines.get(&key.namespace, &key.pipeline).is_none() && caches.runs.of(&key).is_empty() {
        let metadata = ObjectMeta { name: Some(key.pipeline), namespace: Some(key.namespace), ..Default::default() };
        writer.apply_watcher_event(&Event::Delete(Slot { types: None, metadata, _phantom: PhantomData }));
    }
}

fn key_of(slot: &Slot) -> Key {
    Key {
        namespace: slot.metadata.namespace.clone().unwrap_or_default(),
        pipeline: slot.metadata.name.clone().unwrap_or_default(),
    }
}

fn look(slot: Arc<Slot>, context: Arc<Context>) -> futures::future::BoxFuture<'static, Result<Action>> {
    Box::pin(async move {
        let started = Instant::now();
        let action = reconcile(&key_of(&slot), &context).await;
        context.metrics.reconciles.inc();
        context.metrics.reconcile_seconds.observe(started.elapsed().as_secs_f64());
        action
    })
}

#[expect(clippy::needless_pass_by_value, reason = "the signature is the applier's")]
fn on_error(slot: Arc<Slot>, error: &Error, context: Arc<Context>) -> Action {
    let key = key_of(&slot);
    let wait = context.backoff(&key);
    context.metrics.errors.get_or_create(&ErrorLabels { error: error.kind() }).inc();
    tracing::warn!(namespace = key.namespace, pipeline = key.pipeline, %error, again_seconds = wait.as_secs(), "a look at the pipeline failed");
    Action::requeue(wait)
}

/// The watches end when this is dropped.
struct Watches(tokio::task::JoinSet<()>);

fn watches(context: &Arc<Context>, namespace: Option<&str>, streaming: bool, sender: &UnboundedSender<Key>) -> Watches {
    let all = if streaming {
        watcher::Config::default().streaming_lists()
    } else {
        watcher::Config::default().page_size(PAGE_SIZE)
    };
    let ours = all.clone().labels(LABEL_PIPELINE);
    let mut tasks = tokio::task::JoinSet::new();
    let client = &context.client;

    let pipelines = watcher(api::<DeserializeGuard<ReportPipeline>>(client, namespace), all.clone());
    tasks.spawn(watch(
        pipelines,
        "reportpipelines",
        |caches| &caches.pipelines,
        unreadable(context),
        Arc::clone(context),
        sender.clone(),
    ));
    let runs = watcher(api::<DeserializeGuard<ReportRun>>(client, namespace), all);
    tasks.spawn(watch_runs(runs, Arc::clone(context), sender.clone()));
    let cron_jobs = watcher(api::<CronJob>(client, namespace), ours.clone());
    tasks.spawn(watch(
        cron_jobs,
        "cronjobs",
        |caches| &caches.cron_jobs,
        Into::into,
        Arc::clone(context),
        sender.clone(),
    ));
    let jobs = watcher(api::<Job>(client, namespace), ours.clone());
    tasks.spawn(watch(jobs, "jobs", |caches| &caches.jobs, Into::into, Arc::clone(context), sender.clone()));
    let pods = watcher(api::<Pod>(client, namespace), ours.clone());
    tasks.spawn(watch(pods, "pods", |caches| &caches.pods, Into::into, Arc::clone(context), sender.clone()));
    let config_maps = watcher(api::<PartialObjectMeta<ConfigMap>>(client, namespace), ours);
    tasks.spawn(watch(
        config_maps,
        "configmaps",
        |caches| &caches.config_maps,
        Into::into,
        Arc::clone(context),
        sender.clone(),
    ));
    Watches(tasks)
}

impl Drop for Watches {
    fn drop(&mut self) {
        self.0.abort_all();
    }
}

fn api<K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>>(
    client: &Client,
    namespace: Option<&str>,
) -> Api<K> {
    match namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    }
}

/// Tells of a pipeline that can't be read, once per change of it.
fn unreadable(context: &Arc<Context>) -> impl Fn(DeserializeGuard<ReportPipeline>) -> PipelineView + Send + 'static {
    let metrics = Arc::clone(&context.metrics);
    move |guard| {
        let view = PipelineView::from(guard);
        if let Err(error) = &view.spec {
            metrics.unreadable.get_or_create(&ResourceLabels { resource: "reportpipelines" }).inc();
            tracing::error!(
                namespace = view.meta.namespace,
                pipeline = view.meta.name,
                error,
                "a pipeline can't be read; its objects stay as they are"
            );
        }
        view
    }
}

/// Keeps a cache at what a watch sees, and names the pipelines that it is about.
async fn watch<K, V>(
    stream: impl Stream<Item = watcher::Result<Event<K>>> + Send + 'static,
    resource: &'static str,
    cache: fn(&Caches) -> &Cache<V>,
    view: impl Fn(K) -> V + Send + 'static,
    context: Arc<Context>,
    sender: UnboundedSender<Key>,
) where
    K: Resource + Clone + Debug + DeserializeOwned + Send + 'static,
    V: View,
{
    let mut stream = std::pin::pin!(stream.default_backoff());
    while let Some(event) = stream.next().await {
        let event = match event {
            Ok(Event::Init) => Event::Init,
            Ok(Event::InitDone) => Event::InitDone,
            Ok(Event::InitApply(object)) => Event::InitApply(view(object)),
            Ok(Event::Apply(object)) => Event::Apply(view(object)),
            Ok(Event::Delete(object)) => Event::Delete(view(object)),
            Err(error) => {
                context.metrics.watch_errors.get_or_create(&ResourceLabels { resource }).inc();
                tracing::warn!(resource, %error, "a watch broke and is begun anew");
                continue;
            }
        };
        for key in cache(&context.caches).watched(event) {
            // The receiver is gone only when the process ends.
            let _ = sender.unbounded_send(key);
        }
    }
}

/// The same for runs; one that can't be read is passed over.
async fn watch_runs(
    stream: impl Stream<Item = watcher::Result<Event<DeserializeGuard<ReportRun>>>> + Send + 'static,
    context: Arc<Context>,
    sender: UnboundedSender<Key>,
) {
    let metrics = Arc::clone(&context.metrics);
    let readable = stream.filter_map(move |event| {
        let metrics = Arc::clone(&metrics);
        std::future::ready(match event {
            Ok(Event::Init) => Some(Ok(Event::Init)),
            Ok(Event::InitDone) => Some(Ok(Event::InitDone)),
            Ok(Event::InitApply(guard)) => run_of(guard, &metrics).map(|run| Ok(Event::InitApply(run))),
            Ok(Event::Apply(guard)) => run_of(guard, &metrics).map(|run| Ok(Event::Apply(run))),
            Ok(Event::Delete(guard)) => run_of(guard, &metrics).map(|run| Ok(Event::Delete(run))),
            Err(error) => Some(Err(error)),
        })
    });
    watch(readable, "reportruns", |caches| &caches.runs, Into::into, context, sender).await;
}

fn run_of(guard: DeserializeGuard<ReportRun>, metrics: &Metrics) -> Option<ReportRun> {
    match guard.0 {
        Ok(run) => Some(run),
        Err(invalid) => {
            metrics.unreadable.get_or_create(&ResourceLabels { resource: "reportruns" }).inc();
            tracing::error!(
                namespace = invalid.metadata.namespace,
                run = invalid.metadata.name,
                error = invalid.error,
                "a run can't be read and is passed over"
            );
            None
        }
    }
}

/// Asks for one pipeline, so that a missing CRD or a missing right is told at the start, with what to do about it.
pub async fn probe(client: &Client, namespace: Option<&str>) -> Result<()> {
    let pipelines: Api<PartialObjectMeta<ReportPipeline>> = api(client, namespace);
    let Err(source) = pipelines.list(&ListParams::default().limit(1)).await else { return Ok(()) };
    let advice = match &source {
        kube::Error::Api(status) if status.is_not_found() => {
            "the custom resources are not installed: install the chart with crds.enabled, or run kubectl apply -f crds/"
                .to_owned()
        }
        kube::Error::Api(status) if status.is_forbidden() => match namespace {
            Some(namespace) => format!(
                "bind a Role for report-operator in the namespace {namespace}, as the chart does with watch.namespace"
            ),
            None => "bind the ClusterRole of the chart, or set WATCH_NAMESPACE, for which a Role is enough".to_owned(),
        },
        _ => "the API server does not answer as expected".to_owned(),
    };
    Err(Error::Probe { advice, source: Box::new(source) })
}

/// Whether the API server streams lists, which takes one request per resource and little memory on both sides.
pub async fn streams_lists(client: &Client) -> bool {
    match client.apiserver_version().await {
        Ok(version) => version
            .minor
            .trim_end_matches(|c: char| !c.is_ascii_digit())
            .parse::<u32>()
            .is_ok_and(|minor| minor >= STREAMING_MINOR),
        Err(error) => {
            tracing::warn!(%error, "the API server does not tell its version; lists are read page by page");
            false
        }
    }
}
