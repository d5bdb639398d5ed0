//! `worker.podTemplate`: it may add to the pod, but not undo what keeps it safe or what the operator builds on. Fields are
//! allowed one by one: one that Kubernetes gets later is refused until it was looked at.

use serde_json::{Map, Value};

use super::{Problems, is_reserved_variable};
use crate::contract::{FILES_FOLDER, MANIFEST_FOLDER, SCRATCH_FOLDER, WORKER_CONTAINER};
use crate::problem::near;

const POD: &str = "spec.worker.podTemplate";
/// Parts of labels and annotations by which the operator and Kubernetes know what is whose.
const OWN_KEY_PARTS: [&str; 2] = ["report-operator.dev/", "batch.kubernetes.io/"];
/// Labels that Kubernetes itself puts on the pods of Jobs.
const OWN_KEYS: [&str; 2] = ["controller-uid", "job-name"];
/// A label that the operator sets to the same on all pods.
const OWN_LABEL: &str = "app.kubernetes.io/name";
/// Volumes that the operator makes.
const OWN_VOLUMES: [&str; 3] = ["pipeline", "scratch", "tmp"];
/// Folders of the operator's own mounts, and those that a container needs as they are.
const OWN_FOLDERS: [&str; 6] = [MANIFEST_FOLDER, SCRATCH_FOLDER, "/dev", "/proc", "/sys", "/tmp"];
/// Kinds of volumes that Kubernetes' restricted pod security allows.
const VOLUME_KINDS: [&str; 9] = [
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "image",
    "persistentVolumeClaim",
    "projected",
    "secret",
];

const OWN_USER: &str = "the worker runs as the image's user; for rights on volumes, use fsGroup or supplementalGroups";

pub(super) fn check(template: &Map<String, Value>, problems: &mut Problems) {
    object(POD, template, TEMPLATE, problems);
    mounts_have_volumes(template, problems);
}

/// What becomes of a field of the template.
enum Rule {
    /// It is merged as it is.
    Take,
    /// It is merged when it is this, which is what the pod has anyway.
    Only(bool),
    /// It is looked into.
    Look(fn(&str, &Value, &mut Problems)),
    /// It is refused, with what to do instead.
    Refuse(&'static str),
}
use Rule::{Look, Only, Refuse, Take};

type Rules = &'static [(&'static str, Rule)];

const TEMPLATE: Rules = &[("metadata", Look(metadata)), ("spec", Look(spec))];

const METADATA: Rules = &[("annotations", Look(keys)), ("labels", Look(keys))];

const SPEC: Rules = &[
    ("affinity", Take),
    ("containers", Look(containers)),
    ("dnsConfig", Take),
    ("dnsPolicy", Take),
    ("hostAliases", Take),
    ("imagePullSecrets", Take),
    ("nodeSelector", Take),
    ("preemptionPolicy", Take),
    ("priorityClassName", Take),
    ("resourceClaims", Take),
    ("runtimeClassName", Take),
    ("schedulerName", Take),
    ("securityContext", Look(pod_security)),
    ("tolerations", Take),
    ("topologySpreadConstraints", Take),
    ("volumes", Look(volumes)),
    ("enableServiceLinks", Only(false)),
    ("hostIPC", Only(false)),
    ("hostNetwork", Only(false)),
    ("hostPID", Only(false)),
    ("shareProcessNamespace", Only(false)),
    ("activeDeadlineSeconds", Refuse("use spec.timeout")),
    ("automountServiceAccountToken", Refuse("use spec.worker.automountServiceAccountToken")),
    ("ephemeralContainers", Refuse("the pod has one container, worker")),
    ("initContainers", Refuse("the pod has one container, worker; prepare inputs in a Job of their own")),
    ("hostUsers", Refuse("the pod takes the cluster's default; leave it out")),
    ("nodeName", Refuse("use nodeSelector")),
    ("resources", Refuse("use spec.worker.resources")),
    ("restartPolicy", Refuse("a failed pod is replaced as spec.retries says")),
    ("serviceAccount", Refuse("use spec.worker.serviceAccountName")),
    ("serviceAccountName", Refuse("use spec.worker.serviceAccountName")),
    ("terminationGracePeriodSeconds", Refuse("the operator sets it, so that a run can end in order")),
];

const CONTAINER: Rules = &[
    ("env", Look(env)),
    ("envFrom", Look(env_from)),
    ("name", Take),
    ("ports", Look(ports)),
    ("volumeMounts", Look(volume_mounts)),
    ("args", Refuse("the operator sets what the worker runs")),
    ("command", Refuse("the operator sets what the worker runs")),
    ("image", Refuse("all workers run the image of the installation")),
    ("resources", Refuse("use spec.worker.resources")),
    (
        "securityContext",
        Refuse("the container is restricted already; for groups that own volumes, use the pod's fsGroup"),
    ),
    ("terminationMessagePath", Refuse("the run's result is read from where the operator sets it")),
    ("terminationMessagePolicy", Refuse("the run's result is read from where the operator sets it")),
];

const POD_SECURITY: Rules = &[
    ("fsGroup", Take),
    ("fsGroupChangePolicy", Take),
    ("supplementalGroups", Take),
    ("runAsNonRoot", Only(true)),
    ("seccompProfile", Look(seccomp)),
    ("appArmorProfile", Refuse("the pod takes the node's default; leave it out")),
    ("runAsGroup", Refuse(OWN_USER)),
    ("runAsUser", Refuse(OWN_USER)),
    ("seLinuxOptions", Refuse("the pod takes the node's default; leave it out")),
    ("supplementalGroupsPolicy", Refuse("the pod takes the cluster's default; leave it out")),
    ("sysctls", Refuse("the kernel's settings stay as they are")),
];

/// Applies the rules to an object's fields. A field that is null counts as absent, as in Kubernetes.
fn object(field: &str, object: &Map<String, Value>, rules: Rules, problems: &mut Problems) {
    for (name, value) in object.iter().filter(|(_, value)| !value.is_null()) {
        let at = format!("{field}.{name}");
        match rules.iter().find(|(known, _)| known == name).map(|(_, rule)| rule) {
            Some(Take) => {}
            Some(Only(allowed)) if *value == Value::Bool(*allowed) => {}
            Some(Only(allowed)) => {
                problems.add(at, format!("it undoes the pod's security; write {allowed}, or leave it out"))
            }
            Some(Look(look)) => look(&at, value, problems),
            Some(Refuse(hint)) => problems.add(at, format!("it can't be set here; {hint}")),
            None => {
                let taken = || rules.iter().filter(|(_, rule)| !matches!(rule, Refuse(_))).map(|(name, _)| *name);
                let hint = match near(name, taken()) {
                    Some(meant) => format!("did you mean {meant}?"),
                    None => format!("what can be set is {}", taken().collect::<Vec<_>>().join(", ")),
                };
                problems.add(at, format!("it can't be set here; {hint}"));
            }
        }
    }
}

fn map<'a>(field: &str, value: &'a Value, problems: &mut Problems) -> Option<&'a Map<String, Value>> {
    if value.as_object().is_none() {
        problems.add(field, "it has to be an object with fields");
    }
    value.as_object()
}

/// The objects of a list, each with its field.
fn items<'a>(field: &str, value: &'a Value, problems: &mut Problems) -> Vec<(String, &'a Map<String, Value>)> {
    if value.as_array().is_none() {
        problems.add(field, "it has to be a list");
    }
    (value.as_array().into_iter().flatten().enumerate())
        .filter_map(|(n, item)| {
            let at = format!("{field}[{n}]");
            map(&at, item, problems).map(|item| (at, item))
        })
        .collect()
}

fn text<'a>(object: &'a Map<String, Value>, name: &str) -> &'a str {
    object.get(name).and_then(Value::as_str).unwrap_or_default()
}

fn metadata(field: &str, value: &Value, problems: &mut Problems) {
    if let Some(metadata) = map(field, value, problems) {
        object(field, metadata, METADATA, problems);
    }
}

fn keys(field: &str, value: &Value, problems: &mut Problems) {
    for (key, value) in map(field, value, problems).into_iter().flatten() {
        let own = OWN_KEYS.contains(&key.as_str())
            || OWN_KEY_PARTS.iter().any(|part| key.contains(part))
            || (key == OWN_LABEL && field.ends_with(".labels"));
        if own {
            problems.add(format!("{field}.{key}"), "the operator and Kubernetes set it; use a prefix of your own");
        } else if !value.is_string() {
            problems.add(format!("{field}.{key}"), "it has to be text; put it in quotes");
        }
    }
}

fn spec(field: &str, value: &Value, problems: &mut Problems) {
    if let Some(spec) = map(field, value, problems) {
        object(field, spec, SPEC, problems);
    }
}

fn containers(field: &str, value: &Value, problems: &mut Problems) {
    for (n, (at, container)) in items(field, value, problems).into_iter().enumerate() {
        if text(container, "name") != WORKER_CONTAINER {
            problems.add(at, format!("the pod has one container; its name is {WORKER_CONTAINER}"));
        } else if n > 0 {
            problems.add(at, format!("{WORKER_CONTAINER} is there twice; put all of it into the first one"));
        } else {
            object(&at, container, CONTAINER, problems);
        }
    }
}

fn env(field: &str, value: &Value, problems: &mut Problems) {
    for (at, variable) in items(field, value, problems) {
        let name = text(variable, "name");
        if name.is_empty() {
            problems.add(at, "name is missing; write the variable's name");
        } else if is_reserved_variable(name) {
            problems.add(
                format!("{at}.name"),
                format!("{name} begins with REPORT_ or SECRET_, which the operator sets; choose another name"),
            );
        }
    }
}

fn env_from(field: &str, value: &Value, problems: &mut Problems) {
    for (at, from) in items(field, value, problems) {
        if is_reserved_variable(text(from, "prefix")) {
            problems.add(
                format!("{at}.prefix"),
                "variables that begin with REPORT_ or SECRET_ are the operator's; choose another prefix",
            );
        }
    }
}

fn ports(field: &str, value: &Value, problems: &mut Problems) {
    for (at, port) in items(field, value, problems) {
        for name in ["hostIP", "hostPort"] {
            if port.get(name).is_some_and(|value| !value.is_null() && value.as_i64() != Some(0)) {
                problems.add(format!("{at}.{name}"), "it opens the node's own network; leave it out");
            }
        }
    }
}

fn volumes(field: &str, value: &Value, problems: &mut Problems) {
    for (at, volume) in items(field, value, problems) {
        let name = text(volume, "name");
        if name.is_empty() {
            problems.add(&at, "name is missing; write the volume's name");
        } else if OWN_VOLUMES.contains(&name) {
            problems.add(format!("{at}.name"), format!("{name} is a volume of the operator; choose another name"));
        }
        for (kind, value) in volume.iter().filter(|(kind, value)| *kind != "name" && !value.is_null()) {
            if kind == "hostPath" {
                problems.add(format!("{at}.{kind}"), "a pod may not reach into its node; use a persistentVolumeClaim");
            } else if !VOLUME_KINDS.contains(&kind.as_str()) {
                problems.add(
                    format!("{at}.{kind}"),
                    format!("such a volume can't be used; use {}", VOLUME_KINDS.join(", ")),
                );
            } else if let Some(source) = map(&format!("{at}.{kind}"), value, problems)
                && kind == "projected"
            {
                no_token(&format!("{at}.{kind}.sources"), source.get("sources"), problems);
            }
        }
    }
}

/// A token in a volume would pass by the field that says whether there is one.
fn no_token(field: &str, sources: Option<&Value>, problems: &mut Problems) {
    let Some(sources) = sources.filter(|sources| !sources.is_null()) else {
        return;
    };
    for (at, source) in items(field, sources, problems) {
        if source.get("serviceAccountToken").is_some_and(|token| !token.is_null()) {
            problems.add(
                format!("{at}.serviceAccountToken"),
                "a volume can't bring a token; use spec.worker.automountServiceAccountToken",
            );
        }
    }
}

fn volume_mounts(field: &str, value: &Value, problems: &mut Problems) {
    for (at, mount) in items(field, value, problems) {
        let name = text(mount, "name");
        if OWN_VOLUMES.contains(&name) {
            problems.add(format!("{at}.name"), format!("{name} is a volume of the operator; mount one of your own"));
        }
        let path = text(mount, "mountPath");
        let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        let plain = format!("/{}/", parts.join("/"));
        if !path.starts_with('/') || path.contains(':') || parts.iter().any(|part| matches!(*part, "." | "..")) {
            problems.add(
                format!("{at}.mountPath"),
                format!("{path:?} can't be mounted at; write an absolute path such as {FILES_FOLDER}"),
            );
        } else if parts.is_empty() {
            problems.add(
                format!("{at}.mountPath"),
                format!("/ would hide the worker itself; write a path such as {FILES_FOLDER}"),
            );
        } else if let Some(folder) = OWN_FOLDERS.iter().find(|folder| plain.starts_with(&format!("{folder}/"))) {
            problems.add(
                format!("{at}.mountPath"),
                format!("{folder} is not for mounts of your own; write a path such as {FILES_FOLDER}"),
            );
        }
        if text(mount, "mountPropagation") == "Bidirectional" {
            problems.add(format!("{at}.mountPropagation"), "it needs a privileged container; leave it out");
        }
    }
}

/// A mount without its volume is a pod that can't be made, which nobody would see before the first run.
fn mounts_have_volumes(template: &Map<String, Value>, problems: &mut Problems) {
    let spec = template.get("spec").and_then(Value::as_object);
    let list = |object: Option<&Map<String, Value>>, name: &str| -> Vec<Value> {
        object.and_then(|object| object.get(name)).and_then(Value::as_array).cloned().unwrap_or_default()
    };
    let volumes = list(spec, "volumes");
    let names: Vec<&str> = volumes.iter().filter_map(|volume| volume.get("name").and_then(Value::as_str)).collect();
    for (c, container) in list(spec, "containers").iter().enumerate() {
        for (m, mount) in list(container.as_object(), "volumeMounts").iter().enumerate() {
            let name = mount.get("name").and_then(Value::as_str).unwrap_or_default();
            if !names.contains(&name) && !OWN_VOLUMES.contains(&name) {
                let hint = near(name, names.iter().copied())
                    .map_or("add it to spec.volumes".into(), |meant| format!("did you mean {meant}?"));
                problems.add(
                    format!("{POD}.spec.containers[{c}].volumeMounts[{m}].name"),
                    format!("there is no volume {name:?}; {hint}"),
                );
            }
        }
    }
}

fn pod_security(field: &str, value: &Value, problems: &mut Problems) {
    if let Some(security) = map(field, value, problems) {
        object(field, security, POD_SECURITY, problems);
    }
}

/// The one that the pod has anyway.
fn seccomp(field: &str, value: &Value, problems: &mut Problems) {
    let kind = map(field, value, problems).map(|profile| text(profile, "type"));
    if kind.is_some_and(|kind| kind != "RuntimeDefault") {
        problems.add(format!("{field}.type"), "it undoes the pod's security; write RuntimeDefault, or leave it out");
    }
}
