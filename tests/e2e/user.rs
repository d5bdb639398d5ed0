//! What a user does, by the tools that a user has: kubectl on a namespace of the test's own, psql, and an upload.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::sync::RwLockReadGuard;

use crate::cluster::share_operator;

/// Between looks at the cluster.
const LOOK: Duration = Duration::from_millis(500);
/// For what takes the operator a moment.
const SOON: Duration = Duration::from_secs(45);

/// A setting that `dev/services env` and `dev/cluster env` give.
pub(crate) fn setting(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: this needs a cluster, run it by `make test-e2e`"))
}

/// Runs a program and gives what it printed; panics with it when it fails.
#[track_caller]
pub(crate) fn sh(program: &str, arguments: &[&str], input: Option<&str>) -> String {
    let (ok, output) = try_sh(program, arguments, input);
    assert!(ok, "{program} {arguments:?}: {output}");
    output
}

/// Runs a program. Gives whether it ended well, and what it printed (what it complained about, when it did not).
pub(crate) fn try_sh(program: &str, arguments: &[&str], input: Option<&str>) -> (bool, String) {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{program}: {error}"));
    if let Some(input) = input {
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    }
    let output = child.wait_with_output().unwrap();
    let text = if output.status.success() { output.stdout } else { [output.stdout, output.stderr].concat() };
    (output.status.success(), String::from_utf8_lossy(&text).trim().to_owned())
}

/// One value from the reporting database.
#[track_caller]
pub(crate) fn psql(sql: &str) -> String {
    sh("psql", &["-X", "-q", "-At", "-v", "ON_ERROR_STOP=1", "-d", &setting("TEST_POSTGRES_URL"), "-c", sql], None)
}

/// The folder of real data; None where there is none, which is said, and an error where it is required.
pub(crate) fn real_data() -> Option<String> {
    let folder = std::env::var("REPORT_DATA").unwrap_or_default();
    if Path::new(&folder).join("bls").is_dir() {
        return Some(folder);
    }
    assert_ne!(std::env::var("REPORT_DATA_REQUIRED").as_deref(), Ok("1"), "REPORT_DATA is required and not there");
    println!("NOT RUN: REPORT_DATA={folder:?} is not there");
    None
}

/// A namespace of the test's own, a schema in the database and a prefix in S3 of the same name.
pub(crate) struct User {
    pub(crate) namespace: String,
    _shared: Option<RwLockReadGuard<'static, ()>>,
}

/// How a run ended: the ReportRun.
pub(crate) struct Run(pub(crate) Value);

impl User {
    pub(crate) fn new(name: &str) -> Self {
        Self::with(name, Some(share_operator()))
    }

    /// A second namespace for a test that has one: to hold the operator twice could wait for itself.
    pub(crate) fn second(name: &str) -> Self {
        Self::with(name, None)
    }

    fn with(name: &str, shared: Option<RwLockReadGuard<'static, ()>>) -> Self {
        let namespace = format!("e2e-{name}-{}", std::process::id());
        let user = Self { namespace, _shared: shared };
        sh("kubectl", &["create", "namespace", &user.namespace], None);
        let level = "pod-security.kubernetes.io/enforce=restricted";
        sh("kubectl", &["label", "namespace", &user.namespace, level], None);
        user.database("app", "testpw");
        user.s3("testkey", "testsecret");
        psql(&format!(
            "DROP SCHEMA IF EXISTS {0} CASCADE; CREATE SCHEMA {0}; GRANT USAGE ON SCHEMA {0} TO PUBLIC",
            user.schema()
        ));
        user
    }

    pub(crate) fn schema(&self) -> String {
        self.namespace.replace('-', "_")
    }

    pub(crate) fn lake(&self, name: &str) -> String {
        format!("s3://{}/{}/{name}", setting("TEST_S3_BUCKET"), self.namespace)
    }

    pub(crate) fn kubectl(&self, arguments: &[&str]) -> String {
        sh("kubectl", &[&["-n", self.namespace.as_str()], arguments].concat(), None)
    }

    /// Applies an object or a manifest's text.
    #[track_caller]
    pub(crate) fn apply(&self, object: &Value) {
        sh("kubectl", &["-n", &self.namespace, "apply", "-f", "-"], Some(&object.to_string()));
    }

    /// Applies an object that is refused; gives the words.
    #[track_caller]
    pub(crate) fn try_apply(&self, object: &Value) -> String {
        let (applied, words) =
            try_sh("kubectl", &["-n", &self.namespace, "apply", "-f", "-"], Some(&object.to_string()));
        assert!(!applied, "{words}");
        words
    }

    /// Sets the Secret with the connection URL.
    pub(crate) fn database(&self, role: &str, password: &str) {
        let (_, server) =
            setting("TEST_POSTGRES_URL").split_once('@').map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
        self.secret("reporting-db", &json!({"url": format!("postgres://{role}:{password}@{server}?sslmode=disable")}));
    }

    /// Sets the Secret with the credentials of S3.
    pub(crate) fn s3(&self, key: &str, secret: &str) {
        self.secret(
            "lake-credentials",
            &json!({
                "AWS_ACCESS_KEY_ID": key, "AWS_SECRET_ACCESS_KEY": secret, "AWS_REGION": "us-east-1",
                "AWS_ENDPOINT_URL": setting("TEST_S3_ENDPOINT"), "AWS_ALLOW_HTTP": "true",
            }),
        );
    }

    fn secret(&self, name: &str, data: &Value) {
        self.apply(&json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": data}));
    }

    /// The `worker` of a pipeline that writes to S3.
    pub(crate) fn worker(&self) -> Value {
        json!({
            "resources": {"requests": {"cpu": "20m", "memory": "64Mi"}, "limits": {"memory": "256Mi"}},
            "scratch": "4Gi",
            "podTemplate": {"spec": {"containers": [{
                "name": "worker", "envFrom": [{"secretRef": {"name": "lake-credentials"}}],
            }]}},
        })
    }

    /// The URL of a file of this namespace on the data server.
    pub(crate) fn upload_url(&self, name: &str) -> String {
        format!("{}/upload/{}-{name}", setting("TEST_DATA_URL"), self.namespace)
    }

    /// Puts a file on the data server.
    pub(crate) fn upload(&self, name: &str, content: &str) {
        sh("curl", &["-sfS", "-X", "PUT", "--data-binary", "@-", &self.upload_url(name)], Some(content));
    }

    /// Asks for a run.
    pub(crate) fn ask(&self, pipeline: &str, run: &str) {
        self.apply(&json!({
            "apiVersion": "report-operator.dev/v1alpha1", "kind": "ReportRun",
            "metadata": {"name": run}, "spec": {"pipelineRef": {"name": pipeline}},
        }));
    }

    /// Waits for a run's end.
    #[track_caller]
    pub(crate) fn ended(&self, run: &str, limit: Duration) -> Run {
        self.until(&format!("reportrun/{run}"), limit, |object| {
            let state = object["status"]["state"].as_str().unwrap_or_default();
            !matches!(state, "" | "Pending" | "Running")
        });
        Run(self.get(&format!("reportrun/{run}")))
    }

    /// Asks for a run and waits for its end.
    #[track_caller]
    pub(crate) fn run(&self, pipeline: &str, run: &str, limit: Duration) -> Run {
        self.ask(pipeline, run);
        self.ended(run, limit)
    }

    pub(crate) fn get(&self, what: &str) -> Value {
        serde_json::from_str(&self.kubectl(&["get", what, "-o", "json"])).unwrap()
    }

    /// Waits until an object is as it should be.
    #[track_caller]
    pub(crate) fn until(&self, what: &str, limit: Duration, holds: impl Fn(&Value) -> bool) -> Value {
        let started = Instant::now();
        let mut last = String::new();
        while started.elapsed() < limit {
            let (found, text) = try_sh("kubectl", &["-n", &self.namespace, "get", what, "-o", "json"], None);
            if found {
                let object: Value = serde_json::from_str(&text).unwrap();
                if holds(&object) {
                    return object;
                }
                last = object["status"].to_string();
            }
            std::thread::sleep(LOOK);
        }
        panic!("{what} is not as expected after {} s: {last}", limit.as_secs());
    }

    /// Waits until a condition has this status, and gives it.
    #[track_caller]
    pub(crate) fn condition(&self, what: &str, type_: &str, status: &str) -> Value {
        let find = |object: &Value| {
            let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
            conditions.into_iter().find(|condition| condition["type"] == type_ && condition["status"] == status)
        };
        let object = self.until(what, SOON, |object| find(object).is_some());
        find(&object).unwrap()
    }

    /// Waits until no object of a kind has this label.
    #[track_caller]
    pub(crate) fn until_gone(&self, kind: &str, selector: &str) {
        self.until_list(kind, selector, |items| items.is_empty());
    }

    #[track_caller]
    fn until_list(&self, kind: &str, selector: &str, holds: impl Fn(&[Value]) -> bool) {
        let started = Instant::now();
        let mut last = String::new();
        while started.elapsed() < SOON {
            last = self.kubectl(&["get", kind, "-l", selector, "-o", "json"]);
            let list: Value = serde_json::from_str(&last).unwrap();
            if holds(list["items"].as_array().map_or(&[], Vec::as_slice)) {
                return;
            }
            std::thread::sleep(LOOK);
        }
        panic!("{kind} with {selector} after {} s: {last}", SOON.as_secs());
    }

    /// Whether there is an event with this reason about an object.
    pub(crate) fn has_event(&self, name: &str, reason: &str) -> bool {
        let started = Instant::now();
        while started.elapsed() < SOON {
            let events: Value =
                serde_json::from_str(&self.kubectl(&["get", "events.events.k8s.io", "-o", "json"])).unwrap();
            let found = events["items"].as_array().is_some_and(|events| {
                events.iter().any(|event| event["regarding"]["name"] == name && event["reason"] == reason)
            });
            if found {
                return true;
            }
            std::thread::sleep(LOOK);
        }
        false
    }
}

impl Drop for User {
    fn drop(&mut self) {
        // A test that failed keeps its namespace, so that the log dump at the end shows it.
        if !std::thread::panicking() {
            let _ = try_sh("kubectl", &["delete", "namespace", &self.namespace, "--wait=false"], None);
        }
    }
}

impl Run {
    #[track_caller]
    pub(crate) fn state(&self, state: &str) -> &Self {
        assert_eq!(self.0["status"]["state"], state, "{}", self.0["status"]);
        self
    }
}
