//! What the operator and the worker agree on besides the manifest and the result: paths, environment variables, names.

/// The container that runs the worker.
pub const WORKER_CONTAINER: &str = "worker";
/// Where the resolved manifest is in the pod: JSON, compressed with gzip.
pub const MANIFEST_FILE: &str = "pipeline.json.gz";
/// The folder of the ConfigMap with the manifest.
pub const MANIFEST_FOLDER: &str = "/etc/report-operator";
/// The folder for files on their way and for what does not fit into memory.
pub const SCRATCH_FOLDER: &str = "/scratch";
/// Where relative paths of `file` sources start in the pod.
pub const FILES_FOLDER: &str = "/files";
/// Where the worker leaves its result, for the kubelet to read.
pub const TERMINATION_LOG: &str = "/dev/termination-log";

/// The run's id: the UID of its Job, which stays the same over the Job's pods.
pub const ENV_RUN_ID: &str = "REPORT_RUN_ID";
/// The run's name: the name of its Job.
pub const ENV_RUN_NAME: &str = "REPORT_RUN_NAME";
/// Prefix of the identity in ledgers, for several clusters that write into one database.
pub const ENV_INSTALLATION: &str = "REPORT_INSTALLATION";
/// The time of the last resume or schedule change (RFC 3339): a tick before it ends as Skipped.
pub const ENV_SCHEDULE_EPOCH: &str = "REPORT_SCHEDULE_EPOCH";
/// The end of the interval of a run that was asked for (RFC 3339): when it was asked for.
pub const ENV_INTERVAL_END: &str = "REPORT_INTERVAL_END";
/// The start of the interval of a run that was asked for, where the ReportRun names one (RFC 3339).
pub const ENV_INTERVAL_START: &str = "REPORT_INTERVAL_START";
/// `true` for a run that reads everything again and takes the place of all rows.
pub const ENV_FULL_REFRESH: &str = "REPORT_FULL_REFRESH";
/// Where relative paths of `file` sources start.
pub const ENV_FILES: &str = "REPORT_FILES";
/// The folder for files on their way.
pub const ENV_SCRATCH: &str = "REPORT_SCRATCH";
/// How many bytes the scratch folder may take.
pub const ENV_SCRATCH_BYTES: &str = "REPORT_SCRATCH_BYTES";
/// Where to leave the result.
pub const ENV_RESULT: &str = "REPORT_RESULT";
/// How many bytes the result may take.
pub const ENV_RESULT_BYTES: &str = "REPORT_RESULT_BYTES";

/// Prefix of all environment variables that the operator sets; `podTemplate` can't set them.
pub const ENV_PREFIX: &str = "REPORT_";
/// Prefix of the environment variables that hold values of Secrets.
pub const SECRET_PREFIX: &str = "SECRET_";

/// Label on everything that belongs to a pipeline: its name.
pub const LABEL_PIPELINE: &str = "report-operator.dev/pipeline";
/// Annotation on Jobs and label on ConfigMaps: the hash of the resolved manifest.
pub const LABEL_SPEC_HASH: &str = "report-operator.dev/spec-hash";

/// The kubelet shares 12 KiB among the termination messages of a pod's containers and gives each at most 4 KiB.
pub fn result_bytes_max(containers: usize) -> usize {
    (12_288 / (containers + 1)).min(4096)
}
