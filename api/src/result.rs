//! `RunResult`: what a worker says of its run. It is the pod's termination message, and whole in the ledger.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::check::Severity;
use crate::interval::Interval;

/// The version of the format.
pub const RESULT_VERSION: u32 = 1;
/// Longest error message in a shortened result, in bytes.
const MESSAGE_BYTES_MAX: usize = 1024;
/// Longest message of a check in a shortened result, in bytes.
const CHECK_MESSAGE_BYTES_MAX: usize = 160;

/// What a worker says of its run. The fields that matter most come first, so that a message that was cut can still be
/// read up to its last whole field.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "crd", derive(schemars::JsonSchema))]
pub struct RunResult {
    /// The version of this format: 1.
    pub version: u32,
    /// How the run ended.
    pub state: State,
    /// The stage that it reached.
    pub stage: Stage,
    /// What went wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<RunFailure>,
    /// Why a skipped run had nothing to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skipped: Option<String>,
    /// Whether the run was skipped because all that it would have read is as the last good run read it: the data is then
    /// as of the end of this run's interval.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unchanged: bool,
    /// The run's id: the UID of its Job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_id: Option<String>,
    /// The time that the run was for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<Interval>,
    /// Rows read from all sources.
    #[serde(default)]
    pub rows_read: u64,
    /// Rows committed by all sinks.
    #[serde(default)]
    pub rows_written: u64,
    /// When the run started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "crd", schemars(with = "Option<String>", extend("format" = "date-time")))]
    pub started: Option<Timestamp>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "crd", schemars(with = "Option<String>", extend("format" = "date-time")))]
    pub finished: Option<Timestamp>,
    /// The most memory that the worker's process had in use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peak_memory_bytes: Option<u64>,
    /// The worker's version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker_version: Option<String>,
    /// What each sink committed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "crd", schemars(length(max = 64)))]
    pub sinks: Vec<SinkResult>,
    /// How each check came out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "crd", schemars(length(max = 256)))]
    pub checks: Vec<CheckResult>,
    /// What each source gave.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "crd", schemars(length(max = 64)))]
    pub sources: Vec<SourceResult>,
    /// What each model gave.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "crd", schemars(length(max = 256)))]
    pub models: Vec<ModelResult>,
    /// Time that no run has committed although later time is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missing_intervals: Option<MissingIntervals>,
    /// What was left out to make the result fit; the ledger has it whole.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "crd", schemars(length(max = 8)))]
    pub shortened: Vec<String>,
}

/// Time that no run has committed although later time is: gaps that a run with such an interval fills.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[cfg_attr(feature = "crd", derive(schemars::JsonSchema))]
pub struct MissingIntervals {
    /// How many gaps there are.
    pub count: u32,
    /// The oldest one.
    pub oldest: Interval,
}

/// How a run ended.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[cfg_attr(feature = "crd", derive(schemars::JsonSchema))]
pub enum State {
    /// All sinks are committed.
    Succeeded,
    /// There was nothing to do.
    Skipped,
    /// It failed.
    Failed,
}

/// The stages of a run, in their order.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "crd", derive(schemars::JsonSchema))]
pub enum Stage {
    /// Manifest, ledger, lock, interval.
    Plan,
    /// Sources are fetched.
    Extract,
    /// Models run, sinks are staged.
    Stage,
    /// Checks decide.
    Check,
    /// Sinks are committed.
    Commit,
    /// All is done.
    Done,
}

/// What went wrong.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[cfg_attr(feature = "crd", derive(schemars::JsonSchema))]
pub struct RunFailure {
    /// What kind of failure it is, which decides the exit code.
    pub class: ErrorClass,
    /// The stable code, such as source_unreachable.
    pub code: String,
    /// What happened and what to do.
    pub message: String,
    /// Where in the manifest, such as spec.sources[1].http.url.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
}

/// What kind of failure a run had.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "crd", derive(schemars::JsonSchema))]
pub enum ErrorClass {
    /// The manifest is wrong. Exit code 10.
    Manifest,
    /// A log-in or a right is missing. Exit code 11.
    Access,
    /// The data is not what the contract says. Exit code 12.
    Contract,
    /// A check failed. Exit code 13.
    Check,
    /// Time, memory or disk ran out. Exit code 14.
    Resources,
    /// It may pass by itself: the run is tried again. Exit code 20.
    Transient,
    /// Another run of the pipeline is under way: the run waits. Exit code 21.
    Busy,
    /// The worker was asked to stop. Exit code 143.
    Stopped,
}

impl ErrorClass {
    /// The exit code by which Kubernetes tells failures apart.
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Manifest => 10,
            Self::Access => 11,
            Self::Contract => 12,
            Self::Check => 13,
            Self::Resources => 14,
            Self::Transient => 20,
            Self::Busy => 21,
            Self::Stopped => 143,
        }
    }

    /// Whether trying again can't help, so that the Job fails at once.
    pub fn is_final(self) -> bool {
        match self {
            Self::Manifest | Self::Access | Self::Contract | Self::Check | Self::Resources => true,
            Self::Transient | Self::Busy | Self::Stopped => false,
        }
    }

    /// All classes, for tables and tests.
    pub const ALL: [Self; 8] = [
        Self::Manifest,
        Self::Access,
        Self::Contract,
        Self::Check,
        Self::Resources,
        Self::Transient,
        Self::Busy,
        Self::Stopped,
    ];
}

/// What a source gave.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "crd", derive(schemars::JsonSchema))]
pub struct SourceResult {
    /// The source's name.
    pub name: String,
    /// Rows read.
    pub rows: u64,
    /// Bytes read, as they came.
    pub bytes: u64,
    /// Rows that were left out because they are not what the columns say.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub bad_rows: u64,
    /// How the input's columns have changed since the last good run: + for a new one, - for one that is gone, ~ for another
    /// type.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "crd", schemars(length(max = 100)))]
    pub changes: Vec<String>,
    /// For an incremental source, the cursor values that this run read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub watermark: Option<WatermarkResult>,
}

/// Most changes of columns that a result lists for a source; the last entry says how many more there are.
pub const CHANGES_MAX: usize = 100;

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// The cursor values that a run read from an incremental source: from `from` on, up to but not including `to`. The next
/// run starts at `to`, less the source's `lag`.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[cfg_attr(feature = "crd", derive(schemars::JsonSchema))]
pub struct WatermarkResult {
    /// Where reading began; none where it began with the oldest row.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "crd", schemars(length(max = 40)))]
    pub from: Option<String>,
    /// Where it ended; none where there has been no row yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "crd", schemars(length(max = 40)))]
    pub to: Option<String>,
}

/// What a model gave.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[cfg_attr(feature = "crd", derive(schemars::JsonSchema))]
pub struct ModelResult {
    /// The model's name.
    pub name: String,
    /// Its rows.
    pub rows: u64,
}

/// How a check came out.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "crd", derive(schemars::JsonSchema))]
pub struct CheckResult {
    /// The check's name.
    pub name: String,
    /// Whether it holds.
    pub passed: bool,
    /// What its failure does; for a check with thresholds, by how many rows failed.
    pub severity: Severity,
    /// What is wrong, without any value of the data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// How many rows failed, also where the check passes; none for checks that count no rows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failing_rows: Option<u64>,
    /// How many rows there were; none for sql checks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows: Option<u64>,
    /// A few of the failing rows: each column's value as text, null for NULL. Only the ledger has them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "crd", schemars(skip))]
    pub samples: Vec<Sample>,
}

/// A row that failed a check, as far as it is shown: column and value.
pub type Sample = std::collections::BTreeMap<String, Option<String>>;

/// What a sink committed.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[cfg_attr(feature = "crd", derive(schemars::JsonSchema))]
pub struct SinkResult {
    /// The sink's name.
    pub name: String,
    /// Rows committed.
    pub rows: u64,
    /// replace, append or merge.
    pub mode: String,
    /// Where: a table or a URL.
    pub target: String,
}

impl RunResult {
    /// A result with the fields that every run has.
    pub fn new(state: State, stage: Stage) -> Self {
        Self {
            version: RESULT_VERSION,
            state,
            stage,
            error: None,
            skipped: None,
            unchanged: false,
            run_id: None,
            interval: None,
            rows_read: 0,
            rows_written: 0,
            started: None,
            finished: None,
            peak_memory_bytes: None,
            worker_version: None,
            sinks: Vec::new(),
            checks: Vec::new(),
            sources: Vec::new(),
            models: Vec::new(),
            missing_intervals: None,
            shortened: Vec::new(),
        }
    }

    /// The whole result as JSON, with the samples of failing rows: for the ledger only.
    pub fn whole(&self) -> String {
        serde_json::to_string(self).expect("a result has only text keys and finite numbers")
    }

    /// The result as JSON in at most `bytes_max` bytes, for messages, logs and the resource's status. Samples of failing
    /// rows are never in it. What else does not fit is left out in this order, and named in `shortened`: the ends of long
    /// messages, models, passed checks, sources, all checks, sinks, the error's message.
    pub fn to_json(&self, bytes_max: usize) -> String {
        let json = Self::whole;
        let mut result = self.clone();
        if result.checks.iter().any(|check| !check.samples.is_empty()) {
            result.checks.iter_mut().for_each(|check| check.samples.clear());
            result.shortened.push("samples".into());
        }
        type Shorten = fn(&mut RunResult);
        let steps: [(&str, Shorten); 7] = [
            ("messages", |r| {
                if let Some(error) = &mut r.error {
                    cut(&mut error.message, MESSAGE_BYTES_MAX);
                }
                r.checks
                    .iter_mut()
                    .filter_map(|check| check.message.as_mut())
                    .for_each(|m| cut(m, CHECK_MESSAGE_BYTES_MAX));
            }),
            ("models", |r| r.models.clear()),
            ("passed checks", |r| r.checks.retain(|check| !check.passed)),
            ("sources", |r| r.sources.clear()),
            ("checks", |r| r.checks.clear()),
            ("sinks", |r| r.sinks.clear()),
            ("error", |r| {
                if let Some(error) = &mut r.error {
                    cut(&mut error.message, 256);
                }
            }),
        ];
        for (name, shorten) in steps {
            let text = json(&result);
            if text.len() <= bytes_max {
                return text;
            }
            shorten(&mut result);
            result.shortened.push(name.into());
        }
        json(&result)
    }

    /// Reads a termination message. One that was cut is read up to its last whole field.
    pub fn from_json(text: &str) -> Option<Self> {
        let text = text.trim();
        let result: Self = serde_json::from_str(text)
            .ok()
            .or_else(|| closings(text).into_iter().rev().find_map(|repaired| serde_json::from_str(&repaired).ok()))?;
        (result.version == RESULT_VERSION).then_some(result)
    }
}

/// Cuts a text to at most `bytes_max` bytes, at a character, and marks the cut.
pub fn cut(text: &mut String, bytes_max: usize) {
    if text.len() > bytes_max {
        let mut end = bytes_max.saturating_sub(3);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
        text.push('…');
    }
}

/// A cut JSON document, closed after each of the fields of its outermost object that are whole.
fn closings(text: &str) -> Vec<String> {
    let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
    let mut found = Vec::new();
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            _ if in_string => {}
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.saturating_sub(1),
            b',' if depth == 1 => found.push(format!("{}}}", &text[..at])),
            _ => {}
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn large() -> RunResult {
        let mut result = RunResult::new(State::Failed, Stage::Check);
        result.error = Some(RunFailure {
            class: ErrorClass::Check,
            code: "check_failed".into(),
            message: "é".repeat(3000),
            field: Some("spec.checks[0]".into()),
        });
        result.rows_read = 7;
        for n in 0..200 {
            result.models.push(ModelResult { name: format!("model_{n}"), rows: n });
            result.checks.push(CheckResult {
                name: format!("check-{n}"),
                passed: n % 2 == 0,
                severity: Severity::Error,
                message: Some("x".repeat(500)),
                failing_rows: Some(n),
                rows: Some(1000),
                samples: vec![Sample::from([("email".into(), Some("secret@example.org".into()))])],
            });
        }
        result
    }

    #[test]
    fn a_result_of_any_size_fits_and_reads_back() {
        for bytes_max in [4096, 2048, 1024] {
            let text = large().to_json(bytes_max);
            assert!(text.len() <= bytes_max, "{} > {bytes_max}", text.len());
            let back = RunResult::from_json(&text).unwrap();
            assert_eq!((back.state, back.rows_read), (State::Failed, 7));
            assert!(back.shortened.contains(&"models".to_owned()), "{:?}", back.shortened);
        }
    }

    #[test]
    fn samples_are_in_the_whole_result_only() {
        let result = large();
        assert!(result.whole().contains("secret@example.org"));
        for bytes_max in [4096, usize::MAX] {
            let text = result.to_json(bytes_max);
            assert!(!text.contains("example.org"), "{text}");
            assert_eq!(RunResult::from_json(&text).unwrap().shortened[0], "samples");
        }
        assert_eq!(serde_json::from_str::<RunResult>(&result.whole()).unwrap(), result);
    }

    #[test]
    fn a_small_result_is_whole() {
        let mut result = RunResult::new(State::Succeeded, Stage::Done);
        result.sinks.push(SinkResult { name: "s".into(), rows: 3, mode: "replace".into(), target: "public.t".into() });
        assert_eq!(RunResult::from_json(&result.to_json(4096)), Some(result));
    }

    #[test]
    fn a_cut_message_is_read_up_to_its_last_whole_field() {
        let text = large().to_json(4096);
        let mut read = 0;
        for end in 0..text.len() {
            let Some(part) = text.get(..end) else { continue };
            if let Some(result) = RunResult::from_json(part) {
                read += 1;
                assert_eq!(result.state, State::Failed);
                assert!(result.error.is_none_or(|error| error.code == "check_failed"));
            }
        }
        assert!(read > text.len() / 2, "{read} of {} cuts could be read", text.len());
    }

    #[test]
    fn what_is_no_result_is_not_read() {
        for text in ["", "{}", "killed", "{\"version\":2,\"state\":\"Succeeded\",\"stage\":\"done\"}"] {
            assert_eq!(RunResult::from_json(text), None, "{text}");
        }
    }
}
