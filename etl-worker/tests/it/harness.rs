//! One test's own world: a schema in PostgreSQL, a prefix in S3, a folder, and the worker's binary.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};

use report_api::result::RunResult;
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection, Row};
use tempfile::TempDir;

/// A setting that `dev/services env` gives.
pub(crate) fn setting(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: start the services and run this by `make test-worker`"))
}

/// One test's own world. The schema, the S3 prefix and the pipeline's namespace have the same unique name.
pub(crate) struct World {
    pub(crate) name: String,
    pub(crate) folder: TempDir,
    variables: BTreeMap<String, String>,
}

/// How a run of the worker ended.
#[derive(Debug)]
pub(crate) struct Ended {
    /// The exit code; None when a signal ended it.
    pub(crate) code: Option<i32>,
    pub(crate) result: Option<RunResult>,
    pub(crate) output: String,
}

impl World {
    pub(crate) async fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("t{}_{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let world = Self {
            name: name.clone(),
            folder: tempfile::tempdir().unwrap(),
            variables: BTreeMap::from([
                ("SECRET_DB_URL".into(), setting("TEST_POSTGRES_URL")),
                ("AWS_ENDPOINT_URL".into(), setting("TEST_S3_ENDPOINT")),
                ("AWS_ACCESS_KEY_ID".into(), setting("TEST_S3_ACCESS_KEY")),
                ("AWS_SECRET_ACCESS_KEY".into(), setting("TEST_S3_SECRET_KEY")),
                ("AWS_ALLOW_HTTP".into(), "true".into()),
            ]),
        };
        world.sql(&format!("DROP SCHEMA IF EXISTS {name} CASCADE; CREATE SCHEMA {name}")).await;
        world
    }

    /// Sets an environment variable of the worker.
    pub(crate) fn set(&mut self, name: &str, value: &str) {
        self.variables.insert(name.into(), value.into());
    }

    pub(crate) fn unset(&mut self, name: &str) {
        self.variables.remove(name);
    }

    /// Writes a file beside the manifest.
    pub(crate) fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        path
    }

    /// Writes a manifest whose `spec` is this YAML, with {schema} and {lake} filled in.
    pub(crate) fn manifest(&self, name: &str, spec: &str) -> PathBuf {
        let spec = spec.replace("{schema}", &self.name).replace("{lake}", &self.lake());
        let indented: String = spec.trim_matches('\n').lines().map(|line| format!("  {line}\n")).collect();
        let text = format!(
            "apiVersion: report-operator.dev/v1alpha1\nkind: ReportPipeline\nmetadata: {{name: {name}, namespace: {}}}\nspec:\n{indented}",
            self.name.replace('_', "-")
        );
        self.file(&format!("{name}.yaml"), text)
    }

    /// The URL under which this world's lakes are.
    pub(crate) fn lake(&self) -> String {
        format!("s3://{}/{}", setting("TEST_S3_BUCKET"), self.name)
    }

    /// Runs the worker with these arguments and variables besides the world's.
    pub(crate) fn worker(&self, arguments: &[&str], variables: &[(&str, &str)]) -> Ended {
        let result = self.folder.path().join("result.json");
        let _ = std::fs::remove_file(&result);
        let output = self.command(arguments, variables).env("REPORT_RESULT", &result).output().unwrap();
        Ended::read(&output, &result)
    }

    /// The worker as a command, with no result file.
    pub(crate) fn command(&self, arguments: &[&str], variables: &[(&str, &str)]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_etl-worker"));
        command
            .args(arguments)
            .env_clear()
            .env("PATH", std::env::var("PATH").unwrap_or_default())
            .env("REPORT_SCRATCH", self.folder.path().join("scratch"))
            .envs(&self.variables)
            .envs(variables.iter().copied())
            .current_dir(self.folder.path());
        command
    }

    /// Runs a manifest.
    pub(crate) fn run(&self, manifest: &Path) -> Ended {
        self.worker(&["run", manifest.to_str().unwrap()], &[])
    }

    /// Runs a manifest as the attempt of a certain run, which ends at this time.
    pub(crate) fn attempt(&self, manifest: &Path, run_id: &str, end: &str, variables: &[(&str, &str)]) -> Ended {
        let mut all = vec![("REPORT_RUN_ID", run_id), ("REPORT_INTERVAL_END", end)];
        all.extend_from_slice(variables);
        self.worker(&["run", manifest.to_str().unwrap()], &all)
    }

    async fn connection(&self) -> PgConnection {
        PgConnection::connect(&setting("TEST_POSTGRES_URL")).await.unwrap()
    }

    /// Executes statements.
    pub(crate) async fn sql(&self, sql: &str) {
        let mut connection = self.connection().await;
        sqlx::raw_sql(AssertSqlSafe(sql.replace("{schema}", &self.name))).execute(&mut connection).await.unwrap();
    }

    /// The rows of a query, each as its columns' texts with | between, NULL as ∅.
    pub(crate) async fn rows(&self, sql: &str) -> Vec<String> {
        let mut connection = self.connection().await;
        let sql = sql.replace("{schema}", &self.name);
        // As text, whatever the types: the values as people see them.
        let wrapped = format!("SELECT array_to_string(ARRAY(SELECT value FROM json_each_text(row_to_json(q))), '|', '∅') FROM ({sql}) AS q");
        sqlx::query(AssertSqlSafe(wrapped))
            .fetch_all(&mut connection)
            .await
            .unwrap_or_else(|error| panic!("{sql}: {error}"))
            .iter()
            .map(|row| row.get::<String, _>(0))
            .collect()
    }

    /// The names of this world's tables, which tells whether something was left behind.
    pub(crate) async fn tables(&self) -> Vec<String> {
        self.rows("SELECT table_name FROM information_schema.tables WHERE table_schema = '{schema}' ORDER BY 1").await
    }
}

impl Ended {
    pub(crate) fn read(output: &Output, result: &Path) -> Self {
        Self {
            code: output.status.code(),
            result: std::fs::read_to_string(result).ok().and_then(|text| RunResult::from_json(&text)),
            output: format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr)),
        }
    }

    /// Panics with the output unless the run ended well.
    #[track_caller]
    pub(crate) fn ok(self) -> RunResult {
        assert_eq!(self.code, Some(0), "{}", self.output);
        self.result.unwrap_or_else(|| panic!("no result: {}", self.output))
    }

    /// Panics unless the run ended with this exit code and error code. Gives `field: message`.
    #[track_caller]
    pub(crate) fn failed(self, exit: i32, code: &str) -> String {
        assert_eq!(self.code, Some(exit), "{}", self.output);
        let error = self.result.and_then(|result| result.error).unwrap_or_else(|| panic!("no error: {}", self.output));
        assert_eq!(error.code, code, "{}", error.message);
        format!("{}: {}", error.field.unwrap_or_default(), error.message)
    }
}
