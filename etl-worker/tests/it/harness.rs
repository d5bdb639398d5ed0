//! One test's own world: a schema in PostgreSQL, a database in MySQL, a prefix in S3, a folder, and the worker's binary.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use report_api::result::RunResult;
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection, Row};
use tempfile::TempDir;

/// Settings by name, of services of a test's own.
pub(crate) type Settings = BTreeMap<String, String>;

/// A setting that `dev/services env` gives.
pub(crate) fn setting(name: &str) -> String {
    std::env::var(name)
        .unwrap_or_else(|_| panic!("{name} is not set: start the services and run this by `make test-worker`"))
}

/// What no output may show: the passwords that `dev/services` sets, and one that tests make up.
const SECRETS: [&str; 5] = ["testpw", "readerpw", "testsecret", "deniedsecret", WRONG_PASSWORD];
/// A password that opens nothing.
pub(crate) const WRONG_PASSWORD: &str = "no-such-password";

/// One test's own world. The schema, the S3 prefix and the pipeline's namespace have the same unique name.
pub(crate) struct World {
    pub(crate) name: String,
    pub(crate) folder: TempDir,
    /// Where its services are, if not those that all tests share.
    services: Settings,
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
        Self::on(Settings::new()).await
    }

    /// A world on services of a test's own.
    pub(crate) async fn on(services: Settings) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("t{}_{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let mut world = Self {
            name: name.clone(),
            folder: tempfile::tempdir().unwrap(),
            services,
            variables: BTreeMap::from([("AWS_ALLOW_HTTP".into(), "true".into())]),
        };
        for (variable, of) in [
            ("SECRET_DB_URL", "TEST_POSTGRES_URL"),
            ("SECRET_MY_URL", "TEST_MYSQL_URL"),
            ("AWS_ENDPOINT_URL", "TEST_S3_ENDPOINT"),
            ("AWS_ACCESS_KEY_ID", "TEST_S3_ACCESS_KEY"),
            ("AWS_SECRET_ACCESS_KEY", "TEST_S3_SECRET_KEY"),
        ] {
            let value = world.setting(of);
            world.set(variable, &value);
        }
        world.sql(&format!("DROP SCHEMA IF EXISTS {name} CASCADE; CREATE SCHEMA {name}")).await;
        world
    }

    /// A setting of this world's services.
    pub(crate) fn setting(&self, name: &str) -> String {
        self.services.get(name).cloned().unwrap_or_else(|| setting(name))
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

    /// Writes a manifest whose `spec` is this YAML, with {schema}, {lake}, {folder}, {data} (the data server) and {db}
    /// (the connection) filled in.
    pub(crate) fn manifest(&self, name: &str, spec: &str) -> PathBuf {
        let spec = spec
            .replace("{schema}", &self.name)
            .replace("{lake}", &self.lake())
            .replace("{folder}", self.folder.path().to_str().unwrap())
            .replace("{data}", &self.setting("TEST_DATA_URL"))
            .replace("{db}", "connection: {secretRef: {name: db}}");
        let indented: String = spec.trim_matches('\n').lines().map(|line| format!("  {line}\n")).collect();
        let text = format!(
            "apiVersion: report-operator.dev/v1alpha1\nkind: ReportPipeline\nmetadata: {{name: {name}, namespace: {}}}\nspec:\n{indented}",
            self.name.replace('_', "-")
        );
        self.file(&format!("{name}.yaml"), text)
    }

    /// The URL under which this world's lakes are.
    pub(crate) fn lake(&self) -> String {
        format!("s3://{}/{}", self.setting("TEST_S3_BUCKET"), self.name)
    }

    /// Runs the worker with these arguments and variables besides the world's.
    pub(crate) fn worker(&self, arguments: &[&str], variables: &[(&str, &str)]) -> Ended {
        self.finish(self.command(arguments, variables))
    }

    /// The worker with these arguments and variables besides the world's. Each has a result file of its own.
    pub(crate) fn command(&self, arguments: &[&str], variables: &[(&str, &str)]) -> Command {
        self.command_of(env!("CARGO_BIN_EXE_etl-worker"), arguments, variables)
    }

    /// The same for a program that becomes the worker.
    pub(crate) fn command_of(&self, program: &str, arguments: &[&str], variables: &[(&str, &str)]) -> Command {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let result = format!("result-{}.json", COUNT.fetch_add(1, Ordering::Relaxed));
        let mut command = Command::new(program);
        command
            .args(arguments)
            .env_clear()
            .env("PATH", std::env::var("PATH").unwrap_or_default())
            .env("REPORT_RESULT", self.folder.path().join(result))
            .env("REPORT_SCRATCH", self.folder.path().join("scratch"))
            .envs(&self.variables)
            .envs(variables.iter().copied())
            .current_dir(self.folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// Runs a worker to its end.
    pub(crate) fn finish(&self, command: Command) -> Ended {
        self.finish_after(command, |_| ())
    }

    /// Starts a worker, does something with its process id, and waits for its end.
    pub(crate) fn finish_after(&self, mut command: Command, then: impl FnOnce(u32)) -> Ended {
        let result = command
            .get_envs()
            .find(|(name, _)| *name == "REPORT_RESULT")
            .and_then(|(_, value)| value)
            .map(PathBuf::from);
        let child = command.spawn().unwrap();
        then(child.id());
        Ended::read(&child.wait_with_output().unwrap(), &result.unwrap())
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

    pub(crate) async fn connection(&self) -> PgConnection {
        PgConnection::connect(&self.setting("TEST_POSTGRES_URL")).await.unwrap()
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
        let wrapped = format!(
            "SELECT array_to_string(ARRAY(SELECT value FROM json_each_text(row_to_json(q))), '|', '∅') FROM ({sql}) AS q"
        );
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
    /// How a worker ended. Whatever it said, no password may be in it.
    pub(crate) fn read(output: &Output, result: &Path) -> Self {
        let result = std::fs::read_to_string(result).unwrap_or_default();
        let output_text =
            format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        for secret in SECRETS {
            assert!(
                !output_text.contains(secret) && !result.contains(secret),
                "a secret is shown: {output_text}\n{result}"
            );
        }
        Self { code: output.status.code(), result: RunResult::from_json(&result), output: output_text }
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

/// The lakes of a world.
impl World {
    pub(crate) fn bucket(&self) -> object_store::aws::AmazonS3 {
        object_store::aws::AmazonS3Builder::new()
            .with_bucket_name(self.setting("TEST_S3_BUCKET"))
            .with_endpoint(self.setting("TEST_S3_ENDPOINT"))
            .with_access_key_id(self.setting("TEST_S3_ACCESS_KEY"))
            .with_secret_access_key(self.setting("TEST_S3_SECRET_KEY"))
            .with_region("us-east-1")
            .with_allow_http(true)
            .build()
            .unwrap()
    }

    fn object(&self, path: &str) -> object_store::path::Path {
        object_store::path::Path::parse(format!("{}/{path}", self.name)).unwrap()
    }

    /// All of this world's objects, with their ETags.
    pub(crate) async fn all_objects(&self) -> Vec<String> {
        use futures::TryStreamExt;
        use object_store::ObjectStore;
        let root = object_store::path::Path::from(self.name.as_str());
        let found: Vec<_> = self.bucket().list(Some(&root)).try_collect().await.unwrap();
        let mut all: Vec<_> = found.iter().map(|object| format!("{} {:?}", object.location, object.e_tag)).collect();
        all.sort();
        all
    }

    /// An object's content.
    pub(crate) async fn get(&self, path: &str) -> Vec<u8> {
        use object_store::ObjectStoreExt;
        let found = self.bucket().get(&self.object(path)).await.unwrap_or_else(|error| panic!("{path}: {error}"));
        found.bytes().await.unwrap().to_vec()
    }

    pub(crate) async fn put(&self, path: &str, content: &str) {
        use object_store::ObjectStoreExt;
        self.bucket().put(&self.object(path), content.to_owned().into()).await.unwrap();
    }

    /// The objects below a folder, by their paths in it, sorted.
    pub(crate) async fn objects(&self, folder: &str) -> Vec<String> {
        use futures::TryStreamExt;
        use object_store::ObjectStore;
        let root = self.object(folder);
        let found: Vec<_> = self.bucket().list(Some(&root)).try_collect().await.unwrap();
        let mut paths: Vec<_> =
            found.iter().map(|object| object.location.as_ref()[root.as_ref().len() + 1..].to_owned()).collect();
        paths.sort();
        paths
    }

    /// The Parquet files below a lake's root, whether they count or not.
    pub(crate) async fn parquet_files(&self, lake: &str) -> Vec<String> {
        let mut paths = self.objects(lake).await;
        paths.retain(|path| path.ends_with(".parquet"));
        paths
    }

    /// The newest manifest of a lake.
    pub(crate) async fn lake_manifest(&self, lake: &str) -> serde_json::Value {
        serde_json::from_slice(&self.get(&format!("{lake}/_report/latest.json")).await).unwrap()
    }

    /// The rows of a lake as a reader sees it by its manifest, sorted: partition values, then columns, | between, NULL as ∅.
    pub(crate) async fn lake_rows(&self, lake: &str) -> Vec<String> {
        let mut rows = Vec::new();
        for file in self.lake_manifest(lake).await["files"].as_array().unwrap() {
            let partition: Vec<String> = file["partition"]
                .as_object()
                .unwrap()
                .values()
                .map(|value| value.as_str().unwrap_or("∅").to_owned())
                .collect();
            let content = self.get(&format!("{lake}/{}", file["path"].as_str().unwrap())).await;
            let in_file = parquet_rows(content.into());
            assert_eq!(in_file.len() as u64, file["rows"].as_u64().unwrap(), "{file}");
            rows.extend(in_file.into_iter().map(|row| [&partition[..], &row[..]].concat().join("|")));
        }
        rows.sort();
        rows
    }
}

/// The rows of a Parquet file as text, NULL as ∅.
pub(crate) fn parquet_rows(content: bytes::Bytes) -> Vec<Vec<String>> {
    use arrow::util::display::{ArrayFormatter, FormatOptions};
    let options = FormatOptions::default().with_null("∅");
    let reader =
        parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder::try_new(content).unwrap().build().unwrap();
    let mut rows = Vec::new();
    for batch in reader {
        let batch = batch.unwrap();
        let columns: Vec<_> =
            batch.columns().iter().map(|column| ArrayFormatter::try_new(column, &options).unwrap()).collect();
        rows.extend(
            (0..batch.num_rows())
                .map(|row| columns.iter().map(|column| column.value(row).to_string()).collect::<Vec<_>>()),
        );
    }
    rows
}

/// The rows of a query on an SQLite file, each as its columns' texts with | between, NULL as ∅.
pub(crate) async fn sqlite_rows(path: &Path, sql: &str) -> Vec<String> {
    use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
    use sqlx::{Column, TypeInfo, ValueRef};
    let mut connection = SqliteConnection::connect_with(&SqliteConnectOptions::new().filename(path)).await.unwrap();
    let rows = sqlx::query(AssertSqlSafe(sql))
        .fetch_all(&mut connection)
        .await
        .unwrap_or_else(|error| panic!("{sql}: {error}"));
    rows.iter()
        .map(|row| {
            let texts = row.columns().iter().map(|column| {
                let value = row.try_get_raw(column.ordinal()).unwrap();
                let type_ = value.type_info().name().to_owned();
                match type_.as_str() {
                    _ if value.is_null() => "∅".to_owned(),
                    "INTEGER" | "BOOLEAN" => row.get_unchecked::<i64, _>(column.ordinal()).to_string(),
                    "REAL" | "NUMERIC" => row.get_unchecked::<f64, _>(column.ordinal()).to_string(),
                    _ => row.get_unchecked::<String, _>(column.ordinal()),
                }
            });
            texts.collect::<Vec<_>>().join("|")
        })
        .collect()
}
