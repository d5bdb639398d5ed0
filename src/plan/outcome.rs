//! From a Job and its pods to words: why it does not start, how it goes, how it ended. What the worker says comes first,
//! then the pod's reason, then the Job's condition; nothing is made up.

use jiff::{SignedDuration, Timestamp};
use report_api::result::{ErrorClass, RunResult, State, cut};
use report_api::status::{ReportRunStatus, RunState};

use super::OwnJob;
use crate::observe::view::{JobEnd, PodView, WorkerState};

/// Longest message in a status or an event.
pub const MESSAGE_BYTES_MAX: usize = 1024;
/// How long after a Job's end a pod's state may still be on its way to us.
const SETTLE: SignedDuration = SignedDuration::from_secs(10);
/// How long a Job may be without a pod before its events are read.
const POD_DELAY: SignedDuration = SignedDuration::from_secs(5);
/// How long a pod's container may be in the making before its events are read: volumes are mounted in that time.
const CONTAINER_DELAY: SignedDuration = SignedDuration::from_secs(20);
/// How often they are read again. Nothing watches events, and this only goes on while a run can't start.
const EVENTS_AGAIN: SignedDuration = SignedDuration::from_secs(20);

/// A reason in CamelCase and a sentence.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Words {
    /// In CamelCase.
    pub reason: String,
    /// A sentence without full stop.
    pub message: String,
}

impl Words {
    /// Words, cut to what a status takes.
    pub fn new(reason: impl Into<String>, message: impl Into<String>) -> Self {
        let mut message = message.into();
        cut(&mut message, MESSAGE_BYTES_MAX);
        Self { reason: reason.into(), message }
    }
}

/// How a run goes.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// Where it is.
    pub state: RunState,
    /// What there is to say.
    pub words: Option<Words>,
    /// The worker's own words.
    pub result: Option<RunResult>,
    /// Whether more is expected soon: the Job has ended and its pod's last state is not here yet.
    pub settling: bool,
}

/// Whether a pod of the Job ever started the worker.
pub fn has_started(own: &OwnJob) -> bool {
    let pods_started =
        own.pods.iter().any(|pod| matches!(pod.worker, Some(WorkerState::Running | WorkerState::Terminated { .. })));
    // Pods that count as failed or succeeded may be gone from sight.
    pods_started || own.job.pods.1 > 0 || own.job.pods.2 > 0
}

/// Whether only events can say why a run does not start.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Events<'a> {
    /// No need.
    No,
    /// Not yet, but after this time.
    After(SignedDuration),
    /// Those about the object with this UID.
    Of(&'a str),
}

/// Which events to read about a Job that is under way.
pub fn events<'a>(own: &OwnJob<'a>, now: Timestamp) -> Events<'a> {
    let (meta, delay) = match own.pods.first() {
        _ if !own.job.is_active() => return Events::No,
        None => (&own.job.meta, POD_DELAY),
        Some(pod) => match &pod.worker {
            Some(WorkerState::Waiting { reason, .. }) if reason == "ContainerCreating" => (&pod.meta, CONTAINER_DELAY),
            _ => return Events::No,
        },
    };
    match delay - now.duration_since(meta.created) {
        wait if wait.is_positive() => Events::After(wait),
        _ => Events::Of(&meta.uid),
    }
}

/// When to read them next.
pub fn events_again(own: &OwnJob, now: Timestamp) -> Option<SignedDuration> {
    match events(own, now) {
        Events::No => None,
        Events::After(wait) => Some(wait),
        Events::Of(_) => Some(EVENTS_AGAIN),
    }
}

/// How a Job goes. `job_words` is what events say of a Job that has no pod; `before` is what was last told of the run,
/// which is all that is left of pods that the Job controller deletes at the deadline.
pub fn of(own: &OwnJob, job_words: Option<&str>, before: Option<&ReportRunStatus>, now: Timestamp) -> Outcome {
    match &own.job.end {
        None => under_way(own, job_words, before),
        Some((end, at)) => ended(own, end, *at, before, now),
    }
}

fn under_way(own: &OwnJob, job_words: Option<&str>, before: Option<&ReportRunStatus>) -> Outcome {
    let last_end = last_end(own);
    let state = if has_started(own) { RunState::Running } else { RunState::Pending };
    let newest = own.pods.first();
    let waits = match newest {
        Some(pod) => waiting(pod).or_else(|| job_words.map(|words| Words::new("PodNotStarted", words))),
        None => job_words.map(|words| Words::new("PodNotCreated", format!("Kubernetes makes no pod for it: {words}"))),
    };
    let words = waits.or_else(|| {
        let (exit_code, words, result) = last_end.as_ref()?;
        let class = result.as_ref().and_then(|result| result.error.as_ref()).map(|error| error.class);
        match class {
            Some(ErrorClass::Busy) => Some(Words::new("Waiting", words.message.clone())),
            // Not tried again: the end is near, and has the words.
            Some(class) if class.is_final() => None,
            _ if *exit_code == 0 || own.job.ending => None,
            _ => {
                let message = format!("attempt {} failed and is tried again: {}", own.job.pods.2.max(1), words.message);
                Some(Words::new(words.reason.clone(), message))
            }
        }
    });
    // The Job controller deletes pods before it says why: what was told of them stays until then.
    let told = before.filter(|_| own.job.ending).and_then(|before| before.message.clone());
    let words = words.or_else(|| told.map(|message| Words::new("Waiting", message)));
    let result = last_end.and_then(|(_, _, result)| result);
    let result = result.or_else(|| before.filter(|_| own.job.ending).and_then(|before| before.result.clone()));
    Outcome { state, words, result, settling: false }
}

fn ended(own: &OwnJob, end: &JobEnd, at: Timestamp, before: Option<&ReportRunStatus>, now: Timestamp) -> Outcome {
    let seen = last_end(own);
    let settling = seen.is_none() && own.job.attempts() > 0 && now.duration_since(at) < SETTLE;
    let told = before.and_then(|before| before.result.clone());
    let last_end = seen.or_else(|| told.map(|result| (-1, of_result(&result), Some(result))));
    let (state, words, result) = match (end, last_end) {
        (JobEnd::Complete, Some((_, words, Some(result)))) => (state_of(&result), Some(words), Some(result)),
        (JobEnd::Complete, _) => (
            RunState::Succeeded,
            Some(Words::new("Succeeded", "the worker ended well and left no result that can be read")),
            None,
        ),
        // The last pod committed, and the deadline passed before its Job was told.
        (JobEnd::Failed { .. }, Some((0, words, Some(result)))) if result.state != State::Failed => {
            (state_of(&result), Some(words), Some(result))
        }
        (JobEnd::Failed { reason, .. }, Some((_, words, result))) => {
            let message = match reason.as_str() {
                "DeadlineExceeded" => {
                    format!("the time for the run was over; the last attempt said: {}", words.message)
                }
                "BackoffLimitExceeded" => format!("{} (the last of {} attempts)", words.message, own.job.pods.2.max(1)),
                _ => words.message,
            };
            (RunState::Failed, Some(Words::new(words.reason, message)), result)
        }
        (JobEnd::Failed { reason, message }, None) => {
            let waits = own.pods.first().and_then(|pod| waiting(pod)).map(|words| words.message);
            let said = waits.or_else(|| before.and_then(|before| before.message.clone()));
            let words = match said {
                Some(said) => {
                    Words::new(reason.clone(), format!("the time for the run was over, and it had not started: {said}"))
                }
                None => Words::new(reason.clone(), message.clone()),
            };
            (RunState::Failed, Some(words), None)
        }
    };
    Outcome { state, words, result, settling }
}

fn state_of(result: &RunResult) -> RunState {
    result.state.into()
}

/// The newest end of a worker: exit code, words, and its result where it left one.
fn last_end(own: &OwnJob) -> Option<(i32, Words, Option<RunResult>)> {
    own.pods.iter().find_map(|pod| match &pod.worker {
        Some(WorkerState::Terminated { exit_code, reason, message }) => {
            let result = RunResult::from_json(message);
            let words = match &result {
                Some(result) => of_result(result),
                None => of_pod(pod, *exit_code, reason, message),
            };
            Some((*exit_code, words, result))
        }
        _ if pod.failure.is_some() && pod.phase == "Failed" => Some((-1, of_pod(pod, -1, "", ""), None)),
        _ => None,
    })
}

/// The worker's own words.
fn of_result(result: &RunResult) -> Words {
    if let Some(error) = &result.error {
        let message = match &error.field {
            Some(field) if !error.message.starts_with(field.as_str()) => format!("{field}: {}", error.message),
            _ => error.message.clone(),
        };
        return Words::new(camel_case(&error.code), message);
    }
    match &result.skipped {
        Some(why) => Words::new("Skipped", why.clone()),
        None => {
            let rows = format!("{} rows read, {} rows written", result.rows_read, result.rows_written);
            Words::new("Succeeded", rows + &warnings(result))
        }
    }
}

/// The checks that warn, by name: a run with them succeeds, and nobody looks further without a word.
fn warnings(result: &RunResult) -> String {
    let names: Vec<_> = result.checks.iter().filter(|check| !check.passed).map(|check| check.name.as_str()).collect();
    if names.is_empty() { String::new() } else { format!("; checks that warn: {}", names.join(", ")) }
}

/// The pod's reason, where the worker said nothing.
fn of_pod(pod: &PodView, exit_code: i32, reason: &str, message: &str) -> Words {
    if let Some((reason, message)) = pod.failure.as_ref().filter(|(reason, _)| !reason.is_empty()) {
        return Words::new(reason.clone(), format!("pod {} was stopped: {message}", pod.meta.name));
    }
    if reason == "OOMKilled" {
        let words = "the worker was killed because it needed more memory than its limit; raise spec.worker.resources.limits.memory";
        return Words::new(reason, words);
    }
    // Kubernetes' own words for a container that could not be started; a worker's result would have been read.
    if ["ContainerCannotRun", "StartError", "CreateContainerError"].contains(&reason) {
        return Words::new(reason, format!("the worker could not be started: {message}"));
    }
    let reason = if reason.is_empty() || reason == "Error" { "WorkerFailed" } else { reason };
    Words::new(
        reason,
        format!("the worker ended with exit code {exit_code} and left no result; see kubectl logs {}", pod.meta.name),
    )
}

/// Why a pod does not start.
pub fn waiting(pod: &PodView) -> Option<Words> {
    if let Some(words) = &pod.unschedulable {
        return Some(Words::new("Unschedulable", format!("no node takes the pod: {words}")));
    }
    let Some(WorkerState::Waiting { reason, message }) = &pod.worker else { return None };
    Some(match reason.as_str() {
        "" | "ContainerCreating" | "PodInitializing" => return None,
        // The kubelet goes from one of these two to the other and back, with different words. Only what both have is
        // said, the image, so that the status stays still.
        "ErrImagePull" | "ImagePullBackOff" => {
            let image = message.split('"').nth(1).map(|image| format!(" \"{image}\"")).unwrap_or_default();
            let words = format!(
                "the worker's image{image} can't be pulled; correct it, or its pull secrets, in the installation"
            );
            Words::new("ImagePullBackOff", words)
        }
        "InvalidImageName" | "ErrImageNeverPull" | "RegistryUnavailable" | "ImageInspectError" => {
            Words::new(reason, format!("the worker's image can't be pulled: {message}; correct it in the installation"))
        }
        "CreateContainerConfigError" => Words::new(reason, missing(message, &pod.meta.namespace)),
        _ => Words::new(reason, format!("{reason}: {message}")),
    })
}

/// A Secret or a ConfigMap, or a key of one, that is not there. The kubelet says `secret "x" not found` or `couldn't find
/// key url in Secret shop/x`.
fn missing(message: &str, namespace: &str) -> String {
    if let Some(name) = message.strip_prefix("secret ").and_then(|rest| rest.split('"').nth(1)) {
        return format!("the Secret {name:?} is not in the namespace {namespace}; create it, the run then goes on");
    }
    if let Some((key, rest)) =
        message.strip_prefix("couldn't find key ").and_then(|rest| rest.split_once(" in Secret "))
    {
        let name = rest.rsplit('/').next().unwrap_or(rest);
        return format!(
            "the Secret {name:?} in the namespace {namespace} has no key {key:?}; add it, the run then goes on"
        );
    }
    message.to_owned()
}

/// `source_unreachable` as `SourceUnreachable`, as reasons of conditions are written.
pub fn camel_case(code: &str) -> String {
    code.split(|c: char| !c.is_ascii_alphanumeric())
        .map(|word| {
            let mut letters = word.chars();
            letters.next().map(|first| first.to_ascii_uppercase().to_string() + letters.as_str()).unwrap_or_default()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{self, at};

    #[test]
    fn a_pod_that_does_not_start_says_why_and_what_to_do() {
        for (reason, message, want_reason, want) in [
            (
                "ImagePullBackOff",
                "Back-off pulling image \"x:1\": ErrImagePull: 404",
                "ImagePullBackOff",
                "the worker's image \"x:1\" can't be pulled; ",
            ),
            (
                "ErrImagePull",
                "failed to pull image \"x:1\": not found",
                "ImagePullBackOff",
                "the worker's image \"x:1\" can't be pulled; ",
            ),
            ("InvalidImageName", "Failed to apply default image tag \"X:1\"", "InvalidImageName", "can't be pulled"),
            (
                "CreateContainerConfigError",
                "secret \"shop-db\" not found",
                "CreateContainerConfigError",
                "the Secret \"shop-db\" is not in the namespace shop; create it",
            ),
            (
                "CreateContainerConfigError",
                "couldn't find key url in Secret shop/shop-db",
                "CreateContainerConfigError",
                "the Secret \"shop-db\" in the namespace shop has no key \"url\"; add it",
            ),
            ("CreateContainerError", "no space", "CreateContainerError", "CreateContainerError: no space"),
        ] {
            let pod = fixtures::pod(Some(WorkerState::Waiting { reason: reason.into(), message: message.into() }));
            let words = waiting(&pod).unwrap();
            assert_eq!(words.reason, want_reason, "{message}");
            assert!(words.message.contains(want), "{} lacks {want}", words.message);
        }
        let pod =
            fixtures::pod(Some(WorkerState::Waiting { reason: "ContainerCreating".into(), message: String::new() }));
        assert_eq!(waiting(&pod), None);
        let mut pod = fixtures::pod(None);
        pod.unschedulable = Some("0/1 nodes are available: 1 Insufficient cpu".into());
        assert_eq!(
            waiting(&pod).unwrap().message,
            "no node takes the pod: 0/1 nodes are available: 1 Insufficient cpu"
        );
    }

    #[test]
    fn an_end_without_a_result_is_told_from_the_pod() {
        for (exit_code, reason, failure, want_reason, want) in [
            (137, "OOMKilled", None, "OOMKilled", "raise spec.worker.resources.limits.memory"),
            (101, "Error", None, "WorkerFailed", "exit code 101 and left no result; see kubectl logs daily-30064500-x"),
            (
                137,
                "Error",
                Some(("Evicted", "the node was low on ephemeral-storage")),
                "Evicted",
                "low on ephemeral-storage",
            ),
            (128, "StartError", None, "StartError", "could not be started: runc"),
        ] {
            let worker = WorkerState::Terminated { exit_code, reason: reason.into(), message: "runc".into() };
            let mut pod = fixtures::pod(Some(worker));
            pod.failure = failure.map(|(reason, message): (&str, &str)| (reason.into(), message.into()));
            let job = fixtures::failed_job("BackoffLimitExceeded");
            let own = OwnJob { job: &job, pods: vec![&pod], scheduled: true };
            let outcome = of(&own, None, None, at("2027-03-01T03:10:00Z"));
            let words = outcome.words.unwrap();
            assert_eq!((outcome.state, words.reason.as_str()), (RunState::Failed, want_reason));
            assert!(words.message.contains(want), "{} lacks {want}", words.message);
        }
    }

    #[test]
    fn a_job_that_has_ended_waits_a_moment_for_its_pod() {
        let job = fixtures::failed_job("PodFailurePolicy");
        let own = OwnJob { job: &job, pods: vec![], scheduled: true };
        assert!(of(&own, None, None, at("2027-03-01T03:05:01Z")).settling);
        let outcome = of(&own, None, None, at("2027-03-01T03:05:30Z"));
        assert!(!outcome.settling);
        assert_eq!(outcome.words.unwrap().reason, "PodFailurePolicy");
    }

    #[test]
    fn an_attempt_is_said_to_be_tried_again_only_if_it_is() {
        for (exit_code, ending, want) in [
            (20, false, Some("attempt 1 failed and is tried again: spec.checks[0]: 3 rows are wrong")),
            (20, true, None),
            (21, false, Some("spec.checks[0]: 3 rows are wrong")),
            (13, false, None),
            (0, false, None),
        ] {
            let fixtures::PodIs::Ended(result) = fixtures::exited(exit_code) else { unreachable!() };
            let worker = WorkerState::Terminated {
                exit_code: exit_code.into(),
                reason: "Error".into(),
                message: result.to_json(4096),
            };
            let pod = fixtures::pod(Some(worker));
            let mut job = fixtures::failed_job("BackoffLimitExceeded");
            (job.end, job.ending) = (None, ending);
            let own = OwnJob { job: &job, pods: vec![&pod], scheduled: true };
            let outcome = of(&own, None, None, at("2027-03-01T03:01:00Z"));
            assert_eq!(outcome.state, RunState::Running);
            assert_eq!(outcome.words.map(|words| words.message).as_deref(), want, "exit code {exit_code}");
        }
    }

    #[test]
    fn what_a_pod_waited_for_outlives_the_pod() {
        let before = ReportRunStatus { message: Some("no node takes the pod".into()), ..Default::default() };
        let mut job = fixtures::failed_job("DeadlineExceeded");
        let end = job.end.take();
        job.pods = (0, 0, 0);
        let outcome = |job: &crate::observe::view::JobView| {
            let own = OwnJob { job, pods: vec![], scheduled: true };
            of(&own, None, Some(&before), at("2027-03-01T03:10:00Z")).words.unwrap()
        };
        assert_eq!(outcome(&job).message, "no node takes the pod");
        job.end = end;
        assert_eq!(
            outcome(&job),
            Words::new(
                "DeadlineExceeded",
                "the time for the run was over, and it had not started: no node takes the pod"
            )
        );
    }

    #[test]
    fn a_good_run_names_the_checks_that_warn() {
        let mut result = RunResult::new(State::Succeeded, report_api::result::Stage::Done);
        (result.rows_read, result.rows_written) = (7, 5);
        assert_eq!(of_result(&result).message, "7 rows read, 5 rows written");
        for (name, passed) in [("known", false), ("filled", true), ("steady", false)] {
            let check = serde_json::json!({"name": name, "passed": passed, "severity": "warn"});
            result.checks.push(serde_json::from_value(check).unwrap());
        }
        assert_eq!(of_result(&result).message, "7 rows read, 5 rows written; checks that warn: known, steady");
    }

    #[test]
    fn codes_become_reasons() {
        for (code, want) in [
            ("source_unreachable", "SourceUnreachable"),
            ("check_failed", "CheckFailed"),
            ("OOMKilled", "OOMKilled"),
            ("", ""),
        ] {
            assert_eq!(camel_case(code), want);
        }
    }
}
