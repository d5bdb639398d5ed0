//! Every write to the cluster.
//!
//! What is missing is made by POST, so that nothing of someone else's is ever overwritten: a name that is taken is looked
//! at, and adopted only if its controller is the pipeline. Deletions name the UID. Server-side apply, too, names the UID
//! and only ever touches the CronJob. What was written goes into the caches, so that the next decision knows of it.

use std::fmt::Debug;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::{ConfigMap, ObjectReference};
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::core::ObjectMeta;
use kube::{Api, Resource, ResourceExt};
use report_api::pipeline::ReportPipeline;
use report_api::result::cut;
use report_api::run::ReportRun;
use report_api::status::{ReportPipelineStatus, ReportRunStatus};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::build::FIELD_MANAGER;
use crate::controller::Context;
use crate::observe::cache::{Cache, Key};
use crate::observe::view::{Meta, View};
use crate::plan::{Note, Observed, Taken, Write};
use crate::{Error, Result, is_namespace_going, words};

/// Longest note of an event, in bytes: the API's limit is 1 kB.
const NOTE_BYTES_MAX: usize = 1000;

/// Carries out writes in their order, up to a name that turns out to be someone else's: what comes after may build on it,
/// so the decision has to be made again.
pub async fn apply(observed: &Observed, key: &Key, writes: Vec<Write>, context: &Context) -> Result<Option<Taken>> {
    for write in writes {
        let kind = write.kind();
        tracing::debug!(namespace = key.namespace, pipeline = key.pipeline, write = kind, "writing");
        let taken = one(observed, key, write, context).await?;
        if taken.is_some() {
            return Ok(taken);
        }
        context.metrics.writes.get_or_create(&crate::metrics::WriteLabels { write: kind }).inc();
    }
    Ok(None)
}

async fn one(observed: &Observed, key: &Key, write: Write, context: &Context) -> Result<Option<Taken>> {
    let caches = &context.caches;
    let namespace = key.namespace.as_str();
    match write {
        Write::CreateConfigMap(object) => {
            create(*object, "ConfigMap", "create ConfigMap", &caches.config_maps, namespace, context).await
        }
        Write::DeleteConfigMap(name, uid) => {
            delete::<ConfigMap, _>("delete ConfigMap", &name, &uid, &caches.config_maps, namespace, context).await
        }
        Write::CreateCronJob(object) => {
            let taken = create(*object, "CronJob", "create CronJob", &caches.cron_jobs, namespace, context).await?;
            if let Some(cron_job) = caches.cron_jobs.get(namespace, &key.pipeline).filter(|_| taken.is_none()) {
                context.wrote_generation(&cron_job.meta.uid, cron_job.meta.generation);
            }
            Ok(taken)
        }
        Write::MoveLastSchedule { name, uid, to } => {
            let api: Api<CronJob> = Api::namespaced(context.client.clone(), namespace);
            let patch = json!({"metadata": {"uid": uid}, "status": {"lastScheduleTime": to}});
            let answer = api
                .patch_status(&name, &params(), &Patch::Merge(patch))
                .await
                .map_err(Error::on("move status.lastScheduleTime of CronJob", &name))?;
            caches.cron_jobs.written(answer.into());
            Ok(None)
        }
        Write::ApplyCronJob { cron_job, created_fields } => {
            apply_cron_job(&cron_job, created_fields, namespace, context).await
        }
        Write::SuspendCronJob(name, uid) => {
            let api: Api<CronJob> = Api::namespaced(context.client.clone(), namespace);
            let patch = json!({"metadata": {"uid": uid}, "spec": {"suspend": true}});
            let answer =
                api.patch(&name, &params(), &Patch::Merge(patch)).await.map_err(Error::on("suspend CronJob", &name))?;
            context.wrote_generation(&uid, answer.metadata.generation.unwrap_or_default());
            caches.cron_jobs.written(answer.into());
            Ok(None)
        }
        Write::DeleteCronJob(name, uid) => {
            delete::<CronJob, _>("delete CronJob", &name, &uid, &caches.cron_jobs, namespace, context).await
        }
        Write::CreateJob(object) => create(*object, "Job", "create Job", &caches.jobs, namespace, context).await,
        Write::DeleteJob(name, uid) => {
            delete::<Job, _>("delete Job", &name, &uid, &caches.jobs, namespace, context).await
        }
        Write::CreateRun(object, status, note) => {
            let name = object.name_any();
            let taken = create(*object, "ReportRun", "create ReportRun", &caches.runs, namespace, context).await?;
            if let Some(run) = caches.runs.get(namespace, &name).filter(|_| taken.is_none()) {
                run_status(&name, &run.meta.uid, &status, namespace, context).await?;
                publish(observed, key, note, context).await;
            }
            Ok(taken)
        }
        Write::DeleteRun(name, uid) => {
            delete::<ReportRun, _>("delete ReportRun", &name, &uid, &caches.runs, namespace, context).await
        }
        Write::RunStatus { name, uid, status, note } => {
            run_status(&name, &uid, &status, namespace, context).await?;
            publish(observed, key, note, context).await;
            Ok(None)
        }
        Write::Status(status, notes) => {
            if let Some(pipeline) = &observed.pipeline {
                pipeline_status(&pipeline.meta, &status, context).await?;
                publish(observed, key, notes, context).await;
            }
            Ok(None)
        }
    }
}

fn params() -> PatchParams {
    PatchParams { field_manager: Some(FIELD_MANAGER.into()), ..Default::default() }
}

/// Makes an object. One that is there already is adopted if it has the same controller.
async fn create<K, V>(
    object: K,
    kind: &'static str,
    action: &'static str,
    cache: &Cache<V>,
    namespace: &str,
    context: &Context,
) -> Result<Option<Taken>>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + Debug + DeserializeOwned + Serialize,
    V: View + From<K>,
{
    let api: Api<K> = Api::namespaced(context.client.clone(), namespace);
    let name = object.name_any();
    let wanted = Meta::of(object.meta()).owner.map(|owner| owner.uid);
    let post = PostParams { field_manager: Some(FIELD_MANAGER.into()), ..Default::default() };
    match api.create(&post, &object).await {
        Ok(answer) => {
            cache.written(answer.into());
            Ok(None)
        }
        Err(kube::Error::Api(status)) if status.is_already_exists() => {
            let Some(there) = api.get_metadata_opt(&name).await.map_err(Error::on("get", &name))? else {
                return Ok(None);
            };
            let owner = Meta::of(&there.metadata).owner;
            if owner.as_ref().map(|owner| &owner.uid) == wanted.as_ref() && wanted.is_some() {
                match api.get_opt(&name).await {
                    Ok(there) => {
                        there.into_iter().for_each(|there| cache.written(there.into()));
                        return Ok(None);
                    }
                    // It can't be read: the name is as good as someone else's.
                    Err(kube::Error::SerdeError(_)) => {}
                    Err(error) => return Err(Error::on("get", name)(error)),
                }
            }
            Ok(Some(Taken { kind, name, owner }))
        }
        Err(error) => Err(Error::on(action, name)(error)),
    }
}

/// Deletes the object with this UID. One that is gone, or is another one by now, is no error.
async fn delete<K, V>(
    action: &'static str,
    name: &str,
    uid: &str,
    cache: &Cache<V>,
    namespace: &str,
    context: &Context,
) -> Result<Option<Taken>>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + Debug + DeserializeOwned,
    V: View,
{
    let api: Api<K> = Api::namespaced(context.client.clone(), namespace);
    let this =
        DeleteParams::background().preconditions(Preconditions { uid: Some(uid.into()), resource_version: None });
    match api.delete(name, &this).await {
        Ok(_) => {}
        Err(kube::Error::Api(status)) if status.is_not_found() || status.is_conflict() => {}
        Err(error) => return Err(Error::on(action, name)(error)),
    }
    cache.deleted(namespace, name, uid);
    Ok(None)
}

/// Brings the CronJob to what it should be.
///
/// Its creation was a POST, whose fields the API server records as those of an update. Server-side apply by the same
/// manager would then share them and never remove one, such as the variable of a Secret that is no longer named. So that
/// record is turned into one of apply first, once, as kubectl and client-go (csaupgrade) do it.
async fn apply_cron_job(
    cron_job: &CronJob,
    created_fields: Option<usize>,
    namespace: &str,
    context: &Context,
) -> Result<Option<Taken>> {
    let api: Api<CronJob> = Api::namespaced(context.client.clone(), namespace);
    let name = cron_job.name_any();
    let uid = cron_job.uid().unwrap_or_default();
    if let Some(index) = created_fields {
        let entry = format!("/metadata/managedFields/{index}");
        let patch = json_patch(json!([
            {"op": "test", "path": "/metadata/uid", "value": uid},
            {"op": "test", "path": format!("{entry}/manager"), "value": FIELD_MANAGER},
            {"op": "test", "path": format!("{entry}/operation"), "value": "Update"},
            {"op": "replace", "path": format!("{entry}/operation"), "value": "Apply"},
        ]));
        let answer =
            api.patch(&name, &params(), &patch).await.map_err(Error::on("take over the fields of CronJob", &name))?;
        context.caches.cron_jobs.written(answer.into());
    }
    let mut wanted = cron_job.clone();
    wanted.metadata.managed_fields = None;
    let answer = api
        .patch(&name, &PatchParams::apply(FIELD_MANAGER).force(), &Patch::Apply(&wanted))
        .await
        .map_err(Error::on("apply CronJob", &name))?;
    context.wrote_generation(&uid, answer.metadata.generation.unwrap_or_default());
    context.caches.cron_jobs.written(answer.into());
    Ok(None)
}

/// Replaces a status as a whole: a merge would keep fields that are gone.
fn status_patch(uid: &str, status: &impl Serialize) -> Patch<()> {
    json_patch(json!([
        {"op": "test", "path": "/metadata/uid", "value": uid},
        {"op": "add", "path": "/status", "value": status},
    ]))
}

fn json_patch(patch: serde_json::Value) -> Patch<()> {
    Patch::Json(serde_json::from_value(patch).expect("these are operations of JSON Patch"))
}

async fn run_status(name: &str, uid: &str, status: &ReportRunStatus, namespace: &str, context: &Context) -> Result<()> {
    let api: Api<ReportRun> = Api::namespaced(context.client.clone(), namespace);
    match api.patch_status(name, &params(), &status_patch(uid, status)).await {
        Ok(answer) => context.caches.runs.written(answer.into()),
        Err(kube::Error::Api(error)) if error.is_not_found() => {}
        Err(error) => return Err(Error::on("write the status of ReportRun", name)(error)),
    }
    if let Some(state) = status.state.filter(|state| state.is_final()) {
        context.metrics.runs_ended.get_or_create(&crate::metrics::RunLabels { state: format!("{state:?}") }).inc();
    }
    Ok(())
}

async fn pipeline_status(meta: &Meta, status: &ReportPipelineStatus, context: &Context) -> Result<()> {
    let api: Api<ReportPipeline> = Api::namespaced(context.client.clone(), &meta.namespace);
    match api.patch_status(&meta.name, &params(), &status_patch(&meta.uid, status)).await {
        Ok(answer) => context.caches.pipelines.written(answer.into()),
        Err(kube::Error::Api(error)) if error.is_not_found() => {}
        Err(error) => return Err(Error::on("write the status of ReportPipeline", &meta.name)(error)),
    }
    Ok(())
}

/// Publishes events about the pipeline, and about the run where there is one. An event is for people and is never a
/// record: one that can't be written is logged and forgotten.
async fn publish(observed: &Observed, key: &Key, notes: impl IntoIterator<Item = Note>, context: &Context) {
    let pipeline = observed.pipeline.as_deref().map(|pipeline| &pipeline.meta);
    for note in notes {
        let run = note.run.as_ref().and_then(|run| context.caches.runs.get(&key.namespace, run));
        let run = run.map(|run| reference::<ReportRun>(&run.meta));
        let Some(regarding) = pipeline.map(reference::<ReportPipeline>).or_else(|| run.clone()) else { continue };
        let now = context.clock.now_exact();
        let mut message = note.message;
        cut(&mut message, NOTE_BYTES_MAX);
        let event = Event {
            metadata: ObjectMeta {
                name: Some(format!("{}.{:x}", regarding.name.as_deref().unwrap_or_default(), now.as_nanosecond())),
                namespace: Some(key.namespace.clone()),
                ..Default::default()
            },
            type_: Some(if note.warning { "Warning" } else { "Normal" }.into()),
            reason: Some(note.reason),
            note: Some(message),
            action: Some("Reconcile".into()),
            event_time: Some(MicroTime(now)),
            regarding: Some(regarding),
            related: run,
            reporting_controller: Some(FIELD_MANAGER.into()),
            reporting_instance: Some(context.identity.clone()),
            ..Default::default()
        };
        let api: Api<Event> = Api::namespaced(context.client.clone(), &key.namespace);
        match api.create(&PostParams::default(), &event).await {
            Err(error) if !is_namespace_going(&error) => {
                tracing::warn!(
                    namespace = key.namespace,
                    pipeline = key.pipeline,
                    error = words(&error),
                    "an event is lost"
                );
            }
            _ => {}
        }
    }
}

fn reference<K: Resource<DynamicType = ()>>(meta: &Meta) -> ObjectReference {
    ObjectReference {
        api_version: Some(K::api_version(&()).into_owned()),
        kind: Some(K::kind(&()).into_owned()),
        namespace: Some(meta.namespace.clone()),
        name: Some(meta.name.clone()),
        uid: Some(meta.uid.clone()),
        ..Default::default()
    }
}
