//! The worker's pod: restricted, without a token, with Secrets as environment variables by reference. What a manifest's
//! `podTemplate` brings is merged first, and what is set here wins.

use k8s_openapi::api::core::v1::{EnvVar, PodTemplateSpec};
use report_api::checked::Checked;
use report_api::contract::{
    ENV_FILES, ENV_INSTALLATION, ENV_PREFIX, ENV_RESULT, ENV_RESULT_BYTES, ENV_RUN_ID, ENV_RUN_NAME, ENV_SCRATCH,
    ENV_SCRATCH_BYTES, FILES_FOLDER, LABEL_PIPELINE, MANIFEST_FILE, MANIFEST_FOLDER, SCRATCH_FOLDER, SECRET_PREFIX,
    TERMINATION_LOG, WORKER_CONTAINER, result_bytes_max,
};
use report_api::problem::Problem;
use report_api::worker::{Resources, Worker};
use serde_json::{Map, Value, json};

use super::Settings;

/// Disk for files on their way where the manifest says nothing.
const SCRATCH_DEFAULT: &str = "10Gi";
/// The worker stops at this share of the scratch volume, before the kubelet evicts it.
const SCRATCH_PERCENT: u64 = 90;
/// For what a library may leave in /tmp; the worker itself writes to its scratch folder.
const TMP_SIZE: &str = "64Mi";
/// The user and group of the image; the number lets the kubelet verify that it is not root.
const USER: i64 = 65_532;
/// How long a worker that was asked to stop may take to release its lock.
const GRACE_SECONDS: i64 = 30;
/// Names of the pod's own volumes.
const VOLUMES: [&str; 3] = ["pipeline", "scratch", "tmp"];
/// What a manifest can't say about its pod: it would leave the namespace or undo what keeps the pod apart.
const POD_FIELDS_REFUSED: [&str; 12] = [
    "hostNetwork",
    "hostPID",
    "hostIPC",
    "hostUsers",
    "hostname",
    "initContainers",
    "ephemeralContainers",
    "restartPolicy",
    "serviceAccount",
    "serviceAccountName",
    "shareProcessNamespace",
    "terminationGracePeriodSeconds",
];
/// What a manifest may say in the pod's security context: groups that own volumes.
const POD_SECURITY_ALLOWED: [&str; 3] = ["fsGroup", "fsGroupChangePolicy", "supplementalGroups"];

/// The pod of every run of a pipeline.
pub(super) fn template(
    name: &str,
    config_map: &str,
    checked: &Checked,
    settings: &Settings,
) -> Result<PodTemplateSpec, Vec<Problem>> {
    let nothing = Worker::default();
    let worker = checked.spec.worker.as_ref().unwrap_or(&nothing);
    let mut pod = Value::Object(worker.pod_template.clone().unwrap_or_default());
    check_shape(&pod)?;
    strip(&mut pod);
    merge(&mut pod, ours(name, config_map, checked, worker, settings));
    serde_json::from_value(pod).map_err(|error| vec![Problem::new("spec.worker.podTemplate", error.to_string())])
}

/// Adds an environment variable to the worker.
pub(super) fn set_env(template: &mut PodTemplateSpec, name: &str, value: &str) {
    let containers = template.spec.iter_mut().flat_map(|pod| &mut pod.containers);
    for container in containers.filter(|container| container.name == WORKER_CONTAINER) {
        let env = container.env.get_or_insert_default();
        env.push(EnvVar { name: name.into(), value: Some(value.into()), value_from: None });
    }
}

fn ours(name: &str, config_map: &str, checked: &Checked, worker: &Worker, settings: &Settings) -> Value {
    let scratch = worker.scratch.as_ref().map_or(SCRATCH_DEFAULT, |size| size.0.as_str());
    let mut spec = json!({
        "restartPolicy": "Never",
        "enableServiceLinks": false,
        "automountServiceAccountToken": worker.automount_service_account_token,
        "terminationGracePeriodSeconds": GRACE_SECONDS,
        "securityContext": {
            "runAsNonRoot": true, "runAsUser": USER, "runAsGroup": USER, "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [{
            "name": WORKER_CONTAINER,
            "image": settings.worker_image,
            "args": ["run", format!("{MANIFEST_FOLDER}/{MANIFEST_FILE}")],
            "env": env(checked, settings, scratch),
            "resources": resources(worker.resources.as_ref()),
            "terminationMessagePath": TERMINATION_LOG,
            "terminationMessagePolicy": "File",
            "securityContext": {
                "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "runAsNonRoot": true,
                "capabilities": {"drop": ["ALL"]},
            },
            "volumeMounts": [
                {"name": VOLUMES[0], "mountPath": MANIFEST_FOLDER, "readOnly": true},
                {"name": VOLUMES[1], "mountPath": SCRATCH_FOLDER},
                {"name": VOLUMES[2], "mountPath": "/tmp"},
            ],
        }],
        "volumes": [
            {"name": VOLUMES[0], "configMap": {"name": config_map}},
            {"name": VOLUMES[1], "emptyDir": {"sizeLimit": scratch}},
            {"name": VOLUMES[2], "emptyDir": {"sizeLimit": TMP_SIZE}},
        ],
    });
    if !settings.pull_policy.is_empty() {
        spec["containers"][0]["imagePullPolicy"] = settings.pull_policy.clone().into();
    }
    if !settings.pull_secrets.is_empty() {
        spec["imagePullSecrets"] = settings.pull_secrets.iter().map(|name| json!({"name": name})).collect();
    }
    if let Some(account) = &worker.service_account_name {
        spec["serviceAccountName"] = account.clone().into();
    }
    json!({"metadata": {"labels": {LABEL_PIPELINE: name, "app.kubernetes.io/name": "etl-worker"}}, "spec": spec})
}

fn env(checked: &Checked, settings: &Settings, scratch: &str) -> Vec<Value> {
    // Names of labels, which the Job controller sets on its pods.
    let from_label =
        |label: &str| json!({"fieldRef": {"apiVersion": "v1", "fieldPath": format!("metadata.labels['{label}']")}});
    let scratch_bytes = report_api::units::Size(scratch.to_owned()).bytes() / 100 * SCRATCH_PERCENT;
    let mut env = vec![
        json!({"name": ENV_RUN_ID, "valueFrom": from_label("batch.kubernetes.io/controller-uid")}),
        json!({"name": ENV_RUN_NAME, "valueFrom": from_label("batch.kubernetes.io/job-name")}),
        json!({"name": ENV_FILES, "value": FILES_FOLDER}),
        json!({"name": ENV_SCRATCH, "value": SCRATCH_FOLDER}),
        json!({"name": ENV_SCRATCH_BYTES, "value": scratch_bytes.to_string()}),
        json!({"name": ENV_RESULT, "value": TERMINATION_LOG}),
        json!({"name": ENV_RESULT_BYTES, "value": result_bytes_max(1).to_string()}),
    ];
    if !settings.installation.is_empty() {
        env.push(json!({"name": ENV_INSTALLATION, "value": settings.installation}));
    }
    env.extend(checked.secrets.iter().map(|secret| {
        json!({"name": secret.variable(), "valueFrom": {"secretKeyRef": {"name": secret.name, "key": secret.key}}})
    }));
    env
}

/// Requests and limits. A default gives way to what the manifest says of the other one: a request above its limit would
/// be refused.
fn resources(wanted: Option<&Resources>) -> Value {
    let mut limits: Map<String, Value> = Map::new();
    let mut requests: Map<String, Value> = Map::new();
    if let Some(wanted) = wanted {
        limits.extend(wanted.limits.iter().map(|(name, quantity)| (name.clone(), quantity.to_string().into())));
        requests.extend(wanted.requests.iter().map(|(name, quantity)| (name.clone(), quantity.to_string().into())));
    }
    let amount = |of: &Map<String, Value>, name: &str| {
        of.get(name).and_then(Value::as_str).map(|text| (quantity(text), text.to_owned()))
    };
    if !limits.contains_key("memory") {
        let limit = amount(&requests, "memory")
            .filter(|(bytes, _)| *bytes > quantity("512Mi"))
            .map_or("512Mi".into(), |(_, text)| text);
        limits.insert("memory".into(), limit.into());
    }
    for (name, default) in [("cpu", "100m"), ("memory", "256Mi")] {
        if !requests.contains_key(name) {
            let request = amount(&limits, name)
                .filter(|(limit, _)| *limit < quantity(default))
                .map_or(default.into(), |(_, text)| text);
            requests.insert(name.into(), request.into());
        }
    }
    json!({"limits": limits, "requests": requests})
}

/// A Kubernetes quantity as a number, good enough to compare two.
fn quantity(text: &str) -> f64 {
    const UNITS: [(&str, f64); 13] = [
        ("Ki", 1024.0),
        ("Mi", 1_048_576.0),
        ("Gi", 1_073_741_824.0),
        ("Ti", 1_099_511_627_776.0),
        ("Pi", 1.125_9e15),
        ("n", 1e-9),
        ("u", 1e-6),
        ("m", 1e-3),
        ("k", 1e3),
        ("M", 1e6),
        ("G", 1e9),
        ("T", 1e12),
        ("P", 1e15),
    ];
    UNITS
        .iter()
        .find_map(|(unit, factor)| {
            text.strip_suffix(unit).and_then(|number| number.parse::<f64>().ok()).map(|number| number * factor)
        })
        .or_else(|| text.parse().ok())
        .unwrap_or(0.0)
}

/// Refuses a field that no pod has: it would be dropped in silence.
fn check_shape(template: &Value) -> Result<(), Vec<Problem>> {
    const AT: &str = "spec.worker.podTemplate";
    let known: PodTemplateSpec = serde_json::from_value(template.clone())
        .map_err(|error| vec![Problem::new(AT, format!("this is no pod template: {error}"))])?;
    let known = serde_json::to_value(known).expect("a pod template is JSON");
    let mut problems = Vec::new();
    unknown(AT, template, &known, &mut problems);
    if problems.is_empty() { Ok(()) } else { Err(problems) }
}

fn unknown(at: &str, given: &Value, known: &Value, problems: &mut Vec<Problem>) {
    match (given, known) {
        (Value::Object(given), Value::Object(known)) => {
            for (name, value) in given.iter().filter(|(_, value)| !value.is_null()) {
                match known.get(name) {
                    Some(known) => unknown(&format!("{at}.{name}"), value, known, problems),
                    None => problems.push(Problem::new(format!("{at}.{name}"), "a pod template has no such field")),
                }
            }
        }
        (Value::Array(given), Value::Array(known)) => {
            for (index, (given, known)) in given.iter().zip(known).enumerate() {
                unknown(&format!("{at}[{index}]"), given, known, problems);
            }
        }
        _ => {}
    }
}

/// Takes out what a manifest can't decide. Validation has refused most of it by name; this holds in any case.
fn strip(template: &mut Value) {
    let reserved_label = |name: &str| {
        name.contains("batch.kubernetes.io/")
            || name.contains("report-operator.dev/")
            || name == "controller-uid"
            || name == "job-name"
    };
    for field in ["labels", "annotations"] {
        if let Some(labels) = template.pointer_mut(&format!("/metadata/{field}")).and_then(Value::as_object_mut) {
            labels.retain(|name, _| !reserved_label(name));
        }
    }
    if let Some(metadata) = template.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.retain(|name, _| name == "labels" || name == "annotations");
    }
    let Some(spec) = template.get_mut("spec").and_then(Value::as_object_mut) else { return };
    spec.retain(|name, _| !POD_FIELDS_REFUSED.contains(&name.as_str()));
    if let Some(context) = spec.get_mut("securityContext").and_then(Value::as_object_mut) {
        context.retain(|name, _| POD_SECURITY_ALLOWED.contains(&name.as_str()));
    }
    retain(spec.get_mut("volumes"), |volume| {
        volume.get("hostPath").is_none() && !VOLUMES.contains(&volume["name"].as_str().unwrap_or_default())
    });
    retain(spec.get_mut("containers"), |container| container["name"] == WORKER_CONTAINER);
    for container in spec.get_mut("containers").and_then(Value::as_array_mut).into_iter().flatten() {
        if let Some(container) = container.as_object_mut() {
            container.retain(|name, _| {
                !["command", "args", "image", "imagePullPolicy", "securityContext", "resources", "restartPolicy"]
                    .contains(&name.as_str())
            });
            retain(container.get_mut("env"), |variable| {
                let name = variable["name"].as_str().unwrap_or_default();
                !name.starts_with(ENV_PREFIX) && !name.starts_with(SECRET_PREFIX)
            });
            retain(container.get_mut("volumeMounts"), |mount| {
                let path = mount["mountPath"].as_str().unwrap_or_default().trim_end_matches('/');
                ![MANIFEST_FOLDER, SCRATCH_FOLDER, "/tmp"].contains(&path)
            });
        }
    }
}

fn retain(list: Option<&mut Value>, keep: impl Fn(&Value) -> bool) {
    if let Some(list) = list.and_then(Value::as_array_mut) {
        list.retain(|item| keep(item));
    }
}

/// Merges `over` into `base` as Kubernetes' strategic merge does: maps deeply, lists of named things by their name (mounts
/// by their path), all else by replacing.
fn merge(base: &mut Value, over: Value) {
    match (base, over) {
        (Value::Object(base), Value::Object(over)) => {
            for (name, value) in over {
                merge(base.entry(name).or_insert(Value::Null), value);
            }
        }
        (Value::Array(base), Value::Array(over)) if over.iter().all(|item| merge_key(item).is_some()) => {
            for item in over {
                let same =
                    base.iter_mut().find(|there| merge_key(there).is_some() && merge_key(there) == merge_key(&item));
                match same {
                    Some(there) => merge(there, item),
                    None => base.push(item),
                }
            }
        }
        (base, over) => *base = over,
    }
}

fn merge_key(item: &Value) -> Option<&Value> {
    item.get("mountPath").or_else(|| item.get("name"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures;

    fn with(worker: &str) -> Result<PodTemplateSpec, Vec<Problem>> {
        let mut spec = fixtures::spec();
        spec.worker = Some(serde_yaml::from_str(worker).unwrap());
        let settings = fixtures::settings();
        let checked = report_api::validate::validate("daily", &spec)?;
        template("daily", "daily-0123456789", &checked, &settings)
    }

    #[test]
    fn a_pod_template_is_merged_first_and_can_not_undo_what_is_ours() {
        let worker = r#"
            serviceAccountName: etl
            resources: {limits: {memory: 128Mi, cpu: "2"}}
            scratch: 1Gi
            podTemplate:
              metadata: {labels: {team: data}, annotations: {note: hello}}
              spec:
                nodeSelector: {disk: ssd}
                tolerations: [{key: batch, operator: Exists}]
                containers:
                  - name: worker
                    env: [{name: HTTPS_PROXY, value: "http://proxy:3128"}]
                    volumeMounts: [{name: data, mountPath: /files}]
                volumes: [{name: data, configMap: {name: daily-data}}]
        "#;
        insta::assert_snapshot!(fixtures::yaml(&with(worker).unwrap()));
    }

    #[test]
    fn what_is_ours_stays_whatever_the_template_says() {
        let mut hostile = json!({
            "metadata": {"labels": {LABEL_PIPELINE: "other", "batch.kubernetes.io/job-name": "x"}, "name": "x"},
            "spec": {
                "hostNetwork": true, "hostPID": true, "restartPolicy": "Always", "serviceAccountName": "admin",
                "securityContext": {"runAsUser": 0, "fsGroup": 7},
                "initContainers": [{"name": "a", "image": "x"}],
                "volumes": [{"name": "root", "hostPath": {"path": "/"}}, {"name": "scratch", "emptyDir": {"medium": "Memory"}}],
                "containers": [
                    {"name": "worker", "image": "evil", "command": ["sh"], "securityContext": {"privileged": true},
                     "terminationMessagePath": "/x", "env": [{"name": "REPORT_RUN_ID", "value": "1"}, {"name": "SECRET_A", "value": "1"}],
                     "volumeMounts": [{"name": "root", "mountPath": "/tmp/"}]},
                    {"name": "side", "image": "x"},
                ],
            },
        });
        strip(&mut hostile);
        let checked = report_api::validate::validate("daily", &fixtures::spec()).unwrap();
        merge(&mut hostile, ours("daily", "daily-0123456789", &checked, &Worker::default(), &fixtures::settings()));
        insta::assert_snapshot!(fixtures::yaml(&hostile));
    }

    #[test]
    fn a_field_that_no_pod_has_is_a_problem() {
        let template = json!({"spec": {"tolerationz": [], "containers": [{"name": "worker", "environ": []}]}});
        let mut problems: Vec<_> = check_shape(&template).unwrap_err().iter().map(ToString::to_string).collect();
        problems.sort_unstable();
        assert_eq!(
            problems,
            [
                "spec.worker.podTemplate.spec.containers[0].environ: a pod template has no such field",
                "spec.worker.podTemplate.spec.tolerationz: a pod template has no such field",
            ]
        );
    }

    #[test]
    fn requests_never_exceed_limits() {
        for (given, want) in [
            ("{}", json!({"limits": {"memory": "512Mi"}, "requests": {"cpu": "100m", "memory": "256Mi"}})),
            (
                "limits: {memory: 128Mi}",
                json!({"limits": {"memory": "128Mi"}, "requests": {"cpu": "100m", "memory": "128Mi"}}),
            ),
            (
                "requests: {memory: 1Gi}",
                json!({"limits": {"memory": "1Gi"}, "requests": {"cpu": "100m", "memory": "1Gi"}}),
            ),
            (
                "limits: {cpu: 50m}",
                json!({"limits": {"cpu": "50m", "memory": "512Mi"}, "requests": {"cpu": "50m", "memory": "256Mi"}}),
            ),
        ] {
            let wanted: Resources = serde_yaml::from_str(given).unwrap();
            assert_eq!(resources(Some(&wanted)), want, "{given}");
        }
    }
}
