//! The verbs of the tests: a temporary namespace, apply, and wait for a condition.

use std::fmt::Debug;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::api::events::v1::Event;
use kube::api::{DeleteParams, DynamicObject, ListParams, ObjectMeta, Patch, PatchParams, PostParams};
use kube::core::{ApiResource, GroupVersionKind};
use kube::{Api, Client, Resource, ResourceExt};
use report_api::pipeline::ReportPipeline;
use report_api::run::ReportRun;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

/// How long to wait for something that takes no tick.
pub(crate) const SOON: Duration = Duration::from_secs(60);
/// How long to wait for something that takes a tick of every minute: the minute, and a busy machine.
pub(crate) const A_TICK: Duration = Duration::from_secs(100);
const POLL: Duration = Duration::from_millis(250);
/// Where `dev/deploy` and the chart's defaults put the operator.
pub(crate) const OPERATOR_NAMESPACE: &str = "report-system";
pub(crate) const OPERATOR: &str = "report-operator";

/// Tests that need the operator to be as it is hold this to read, those that change it hold it to write.
static OPERATOR_LOCK: RwLock<()> = RwLock::const_new(());
static NEXT: AtomicU32 = AtomicU32::new(0);

/// Holds the operator as it is, for a test that is not async.
pub(crate) fn share_operator() -> RwLockReadGuard<'static, ()> {
    OPERATOR_LOCK.blocking_read()
}

/// The time; tests on a real cluster have no other.
#[expect(clippy::disallowed_methods, reason = "the cluster's time is the real one")]
pub(crate) fn now() -> Timestamp {
    Timestamp::now()
}

/// A namespace for one test.
pub(crate) struct Space {
    pub(crate) client: Client,
    pub(crate) namespace: String,
    _shared: Option<RwLockReadGuard<'static, ()>>,
    _alone: Option<RwLockWriteGuard<'static, ()>>,
}

/// Runs a test in a namespace of its own, which is deleted afterwards, and kept if the test fails.
pub(crate) async fn in_space<F: Future<Output = ()>>(name: &str, test: impl FnOnce(Here) -> F) {
    run(name, false, test).await;
}

/// The same, with no other test beside it.
pub(crate) async fn alone_in_space<F: Future<Output = ()>>(name: &str, test: impl FnOnce(Here) -> F) {
    run(name, true, test).await;
}

/// A test's hold on its namespace.
pub(crate) type Here = std::sync::Arc<Space>;

async fn run<F: Future<Output = ()>>(name: &str, alone: bool, test: impl FnOnce(Here) -> F) {
    let client = client().await;
    if alone {
        // The lock is fair: let the others have it first, so that they need not wait for this one.
        tokio::time::sleep(Duration::from_secs(5)).await;
    }
    let (shared, lock) =
        if alone { (None, Some(OPERATOR_LOCK.write().await)) } else { (Some(OPERATOR_LOCK.read().await), None) };
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let namespace = format!("e2e-{name}-{}-{number}", std::process::id());
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let object = Namespace {
        metadata: ObjectMeta { name: Some(namespace.clone()), ..Default::default() },
        ..Default::default()
    };
    namespaces.create(&PostParams::default(), &object).await.unwrap();
    let space = std::sync::Arc::new(Space { client, namespace, _shared: shared, _alone: lock });
    // A test that panics leaves its namespace for a look; the cluster is thrown away anyway.
    test(std::sync::Arc::clone(&space)).await;
    let _ = namespaces.delete(&space.namespace, &DeleteParams::background()).await;
}

/// The way to the cluster that KUBECONFIG names.
async fn client() -> Client {
    assert!(
        std::env::var_os("KUBECONFIG").is_some(),
        "KUBECONFIG is not set: these tests need a cluster with the operator; run `make test-e2e`"
    );
    let client = Client::try_default().await.expect("KUBECONFIG leads to a cluster");
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), OPERATOR_NAMESPACE);
    assert!(
        deployments.get_opt(OPERATOR).await.expect("the cluster answers").is_some(),
        "there is no Deployment {OPERATOR_NAMESPACE}/{OPERATOR}: install the operator with dev/deploy, or run `make test-e2e`"
    );
    client
}

impl Space {
    /// Objects of a kind in the namespace.
    pub(crate) fn api<K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>>(&self) -> Api<K> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Applies an object as `kubectl apply --server-side` does. Gives the API server's words if it refuses.
    pub(crate) async fn try_apply(&self, yaml: &str) -> Result<(), String> {
        let mut value: Value = serde_yaml::from_str(yaml).unwrap_or_else(|error| panic!("{error} in\n{yaml}"));
        value["metadata"]["namespace"] = self.namespace.clone().into();
        let (group, version) = match value["apiVersion"].as_str().unwrap().split_once('/') {
            Some((group, version)) => (group.to_owned(), version.to_owned()),
            None => (String::new(), value["apiVersion"].as_str().unwrap().to_owned()),
        };
        let kind = value["kind"].as_str().unwrap().to_owned();
        let resource = ApiResource::from_gvk(&GroupVersionKind { group, version, kind });
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), &self.namespace, &resource);
        let name = value["metadata"]["name"].as_str().unwrap().to_owned();
        match api.patch(&name, &PatchParams::apply("e2e").force(), &Patch::Apply(&value)).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) => Err(status.message.clone()),
            Err(error) => panic!("{error}"),
        }
    }

    /// Applies an object.
    pub(crate) async fn apply(&self, yaml: &str) {
        if let Err(message) = self.try_apply(yaml).await {
            panic!("the API server refuses: {message}\n{yaml}");
        }
    }

    /// Changes an object by a merge patch.
    pub(crate) async fn edit<K>(&self, name: &str, patch: Value) -> K
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + Debug + DeserializeOwned,
    {
        self.api::<K>().patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.unwrap()
    }

    /// Asks for a run of a pipeline.
    pub(crate) async fn run_now(&self, name: &str, pipeline: &str) {
        self.apply(&format!(
            "{{apiVersion: report-operator.dev/v1alpha1, kind: ReportRun, metadata: {{name: {name}}}, spec: {{pipelineRef: {{name: {pipeline}}}}}}}"
        ))
        .await;
    }

    /// Waits until an object is as it should be; shows how it is when it does not become so.
    pub(crate) async fn wait<K>(&self, name: &str, limit: Duration, what: &str, is: impl Fn(&K) -> bool) -> K
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + Debug + DeserializeOwned + Serialize,
    {
        let api = self.api::<K>();
        let started = tokio::time::Instant::now();
        loop {
            let object = api.get_opt(name).await.unwrap();
            if let Some(object) = object.as_ref().filter(|object| is(object)) {
                return object.clone();
            }
            if started.elapsed() >= limit {
                let shown = object.map(|mut object| {
                    object.meta_mut().managed_fields = None;
                    serde_yaml::to_string(&object).unwrap()
                });
                let kind = K::kind(&());
                panic!(
                    "{kind} {}/{name} does not become so in {limit:?}: {what}\n{}",
                    self.namespace,
                    shown.unwrap_or("it is not there".into())
                );
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Waits until an object is gone.
    pub(crate) async fn wait_gone<K>(&self, name: &str)
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + Debug + DeserializeOwned,
    {
        let started = tokio::time::Instant::now();
        while self.api::<K>().get_opt(name).await.unwrap().is_some() {
            assert!(started.elapsed() < SOON, "{} {}/{name} does not go", K::kind(&()), self.namespace);
            tokio::time::sleep(POLL).await;
        }
    }

    /// All objects of a kind.
    pub(crate) async fn list<K>(&self) -> Vec<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + Debug + DeserializeOwned,
    {
        self.api::<K>().list(&ListParams::default()).await.unwrap().items
    }

    /// Waits until a pipeline has a condition with this status and reason.
    pub(crate) async fn wait_condition(
        &self,
        pipeline: &str,
        type_: &str,
        status: &str,
        reason: &str,
    ) -> ReportPipeline {
        let what = format!("{type_}={status} for {reason}");
        self.wait(pipeline, SOON, &what, |pipeline: &ReportPipeline| {
            condition(pipeline, type_).is_some_and(|found| found.0 == status && found.1 == reason)
        })
        .await
    }

    /// Waits until a run is in a state.
    pub(crate) async fn wait_state(&self, run: &str, state: &str, limit: Duration) -> ReportRun {
        self.wait(run, limit, state, |run: &ReportRun| state_of(run) == state).await
    }

    /// Waits until a run's message has these words.
    pub(crate) async fn wait_message(&self, run: &str, words: &str) -> ReportRun {
        let has = |run: &ReportRun| {
            run.status
                .as_ref()
                .and_then(|status| status.message.as_ref())
                .is_some_and(|message| message.contains(words))
        };
        self.wait(run, SOON, words, has).await
    }

    /// Waits for a run of the schedule with this state that began after a time; gives its name.
    pub(crate) async fn wait_scheduled(&self, pipeline: &str, after: Timestamp, state: &str) -> String {
        let started = tokio::time::Instant::now();
        loop {
            let runs = self.list::<ReportRun>().await;
            let wanted = |run: &&ReportRun| {
                tick(pipeline, &run.name_any()).is_some_and(|tick| tick > after) && state_of(run) == state
            };
            if let Some(run) = runs.iter().filter(wanted).min_by_key(|run| run.name_any()) {
                return run.name_any();
            }
            let seen: Vec<_> = runs
                .iter()
                .map(|run| {
                    format!(
                        "{} {} {:?}",
                        run.name_any(),
                        state_of(run),
                        run.status.as_ref().and_then(|s| s.message.clone())
                    )
                })
                .collect();
            assert!(
                started.elapsed() < A_TICK,
                "no {state} run of {pipeline} after {after} in {A_TICK:?}; there are {seen:?}"
            );
            tokio::time::sleep(POLL).await;
        }
    }

    /// Waits for an event with this reason and these words.
    pub(crate) async fn wait_event(&self, reason: &str, words: &str) {
        let started = tokio::time::Instant::now();
        loop {
            let events = self.list::<Event>().await;
            if events.iter().any(|event| {
                event.reason.as_deref() == Some(reason)
                    && event.note.as_deref().is_some_and(|note| note.contains(words))
            }) {
                return;
            }
            let seen: Vec<_> = events.iter().map(|event| format!("{:?} {:?}", event.reason, event.note)).collect();
            assert!(started.elapsed() < SOON, "no event {reason} with {words:?}; there are {seen:#?}");
            tokio::time::sleep(POLL).await;
        }
    }
}

/// A pipeline that works without any server: a file from a ConfigMap into an SQLite file in the pod.
pub(crate) struct Manifest {
    name: String,
    /// Fields of the spec.
    pub(crate) spec: Value,
}

impl Manifest {
    /// The pipeline, without a schedule.
    pub(crate) fn new(name: &str) -> Self {
        let spec = json!({
            "sources": [{"name": "orders", "file": {"path": "orders.csv"}, "columns": [{"name": "id", "type": "int64", "required": true}]}],
            "sinks": [{"name": "orders", "from": "orders", "sqlite": {"path": "/scratch/out.db", "table": "orders"}}],
            "worker": {
                "scratch": "64Mi",
                "resources": {"requests": {"cpu": "10m", "memory": "32Mi"}},
                "podTemplate": {"spec": {
                    "containers": [{"name": "worker", "volumeMounts": [{"name": "data", "mountPath": "/files"}]}],
                    "volumes": [{"name": "data", "configMap": {"name": format!("{name}-data")}}],
                }},
            },
        });
        Self { name: name.into(), spec }
    }

    /// At every minute.
    pub(crate) fn every_minute(mut self) -> Self {
        self.spec["schedule"] = "* * * * *".into();
        self
    }

    /// Other fields of the spec.
    pub(crate) fn with(mut self, fields: Value) -> Self {
        for (name, value) in fields.as_object().unwrap() {
            self.spec[name] = value.clone();
        }
        self
    }

    /// A source at a URL, that is never answered or refused.
    pub(crate) fn reading(mut self, url: &str) -> Self {
        self.spec["sources"][0].as_object_mut().unwrap().remove("file");
        self.spec["sources"][0]["http"] = json!({"url": url});
        self.spec["sources"][0]["format"] = json!({"csv": {}});
        self
    }

    /// As YAML.
    pub(crate) fn yaml(&self) -> String {
        json!({"apiVersion": "report-operator.dev/v1alpha1", "kind": "ReportPipeline", "metadata": {"name": self.name}, "spec": self.spec}).to_string()
    }

    /// Applies it with its data.
    pub(crate) async fn apply(&self, space: &Space) {
        let data = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": format!("{}-data", self.name)}, "data": {"orders.csv": "id\n1\n2\n"}});
        space.apply(&data.to_string()).await;
        space.apply(&self.yaml()).await;
    }
}

/// A condition of a pipeline: status, reason, message.
pub(crate) fn condition(pipeline: &ReportPipeline, type_: &str) -> Option<(String, String, String)> {
    let found = pipeline.status.as_ref()?.conditions.iter().find(|condition| condition.type_ == type_)?;
    Some((found.status.clone(), found.reason.clone(), found.message.clone()))
}

/// Where a run is.
pub(crate) fn state_of(run: &ReportRun) -> String {
    run.status.as_ref().and_then(|status| status.state).map(|state| format!("{state:?}")).unwrap_or_default()
}

/// What a run says.
pub(crate) fn message_of(run: &ReportRun) -> String {
    run.status.as_ref().and_then(|status| status.message.clone()).unwrap_or_default()
}

/// The tick in a run's name.
pub(crate) fn tick(pipeline: &str, run: &str) -> Option<Timestamp> {
    report_api::interval::tick_of_job(pipeline, run)
}

/// The next full minute.
pub(crate) fn next_minute() -> Timestamp {
    Timestamp::from_second((now().as_second() / 60 + 1) * 60).unwrap()
}

/// Waits until a time and some seconds.
pub(crate) async fn sleep_until(time: Timestamp, seconds: u64) {
    let wait = Duration::try_from(time.duration_since(now())).unwrap_or_default();
    tokio::time::sleep(wait + Duration::from_secs(seconds)).await;
}

/// An address of this machine that pods reach: the one from which the API server is reached.
pub(crate) async fn host_address(client: &Client) -> std::net::IpAddr {
    let server = kube::Config::infer().await.unwrap().cluster_url;
    let _ = client;
    let socket = tokio::net::UdpSocket::bind("0.0.0.0:0").await.unwrap();
    socket.connect((server.host().unwrap(), server.port_u16().unwrap_or(443))).await.unwrap();
    socket.local_addr().unwrap().ip()
}

/// A server that takes connections and never answers. Gives its URL.
pub(crate) async fn silent_server(space: &Space) -> String {
    let listener = tokio::net::TcpListener::bind("0.0.0.0:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((stream, _)) = listener.accept().await {
            held.push(stream);
        }
    });
    format!("http://{}:{port}/orders.csv", host_address(&space.client).await)
}

/// What the operator wrote about objects of a namespace since a time, from the API server's audit log.
pub(crate) fn writes_since(namespace: &str, since: Timestamp) -> Vec<String> {
    let path = std::env::var("TEST_AUDIT_LOG")
        .expect("TEST_AUDIT_LOG names the API server's audit log; `dev/cluster env` prints it");
    let user = format!("system:serviceaccount:{OPERATOR_NAMESPACE}:{OPERATOR}");
    let text = std::fs::read_to_string(path).unwrap();
    // Each line is one request.
    let found: Vec<Value> = text
        .lines()
        .filter(|line| line.contains(&user) && line.contains(namespace))
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect();
    found
        .into_iter()
        .filter(|line| line["user"]["username"] == user.as_str() && line["objectRef"]["namespace"] == namespace)
        .filter(|line| !["get", "list", "watch"].contains(&line["verb"].as_str().unwrap_or_default()))
        .filter(|line| {
            line["requestReceivedTimestamp"]
                .as_str()
                .and_then(|time| time.parse().ok())
                .is_some_and(|time: Timestamp| time >= since)
        })
        .map(|line| {
            format!(
                "{} {} {}/{}",
                line["requestReceivedTimestamp"],
                line["verb"],
                line["objectRef"]["resource"],
                line["objectRef"]["name"]
            )
        })
        .collect()
}

/// Waits until the operator's Deployment has rolled out what it should be, and its old pods are gone.
pub(crate) async fn wait_operator(client: &Client) {
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), OPERATOR_NAMESPACE);
    let pods: Api<k8s_openapi::api::core::v1::Pod> = Api::namespaced(client.clone(), OPERATOR_NAMESPACE);
    let started = tokio::time::Instant::now();
    loop {
        let deployment = deployments.get(OPERATOR).await.unwrap();
        let status = deployment.status.unwrap_or_default();
        let wanted = deployment.spec.and_then(|spec| spec.replicas).unwrap_or(1);
        let current = status.observed_generation == deployment.metadata.generation;
        let there = pods
            .list(&ListParams::default().labels("app.kubernetes.io/name=report-operator"))
            .await
            .unwrap()
            .items
            .len();
        if current
            && status.updated_replicas.unwrap_or(0) == wanted
            && status.ready_replicas.unwrap_or(0) == wanted
            && there == wanted as usize
        {
            return;
        }
        assert!(started.elapsed() < A_TICK, "the operator does not become ready");
        tokio::time::sleep(POLL).await;
    }
}
