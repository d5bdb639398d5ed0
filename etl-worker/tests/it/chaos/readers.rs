//! Readers that look at every sink's table all the while, each statement at READ COMMITTED, and what they must not see.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mysql_async::prelude::Queryable;
use object_store::ObjectStoreExt;
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection};

use super::plan::{Place, PlannedSink};
use super::rows::{Commits, Row, commits_in};
use crate::harness::{World, parquet_rows};

/// A row as the readers see it, in the order of its columns.
type Columns = (i64, String, i32, i32, i32);

/// Between two looks: often enough to hit a commit of some milliseconds now and then, seldom enough to leave a CPU.
const PAUSE: Duration = Duration::from_millis(10);

/// What a look finds.
pub(super) enum Look {
    Rows(Vec<Row>),
    /// There is no such table.
    Missing,
    /// The server is away.
    Away,
    /// What no reader may get.
    Wrong(String),
}

/// A table, and how to read it.
pub(super) struct Table {
    pub(super) sink: PlannedSink,
    /// The schema, database or prefix.
    world: String,
    postgres: String,
    mysql: String,
    bucket: object_store::aws::AmazonS3,
    pub(super) disk: PathBuf,
    held: Held,
}

/// The connection of a reader.
#[derive(Default)]
enum Held {
    #[default]
    None,
    Postgres(PgConnection),
    Mysql(mysql_async::Conn),
}

impl Table {
    pub(super) fn new(sink: &PlannedSink, world: &World, disk: PathBuf) -> Self {
        Self {
            sink: sink.clone(),
            world: world.name.clone(),
            postgres: world.setting("TEST_POSTGRES_URL"),
            mysql: world.setting("TEST_MYSQL_URL"),
            bucket: world.bucket(),
            disk,
            held: Held::None,
        }
    }

    pub(super) async fn look(&mut self) -> Look {
        let sql = format!("SELECT id, part, day, step, version FROM {}.{}", self.world, self.sink.name);
        match self.sink.place {
            Place::Postgres => self.look_at_postgres(&sql).await,
            Place::Mysql => self.look_at_mysql(&sql).await,
            Place::Sqlite => self.look_at_sqlite(&sql.replace(&format!("{}.", self.world), "")).await,
            Place::S3 | Place::Folder => self.look_at_lake().await,
        }
    }

    async fn look_at_postgres(&mut self, sql: &str) -> Look {
        let held = match std::mem::take(&mut self.held) {
            Held::Postgres(connection) => Ok(connection),
            Held::None | Held::Mysql(_) => PgConnection::connect(&self.postgres).await,
        };
        let Ok(mut connection) = held else { return Look::Away };
        let found: sqlx::Result<Vec<Columns>> =
            sqlx::query_as(AssertSqlSafe(sql)).persistent(false).fetch_all(&mut connection).await;
        match found {
            Ok(found) => {
                self.held = Held::Postgres(connection);
                Look::Rows(found.into_iter().map(row).collect())
            }
            Err(sqlx::Error::Database(error)) => {
                let code = error.code().unwrap_or_default().into_owned();
                match &code[..] {
                    "42P01" | "3F000" => Look::Missing,
                    // It is going down, or coming up.
                    _ if ["57P", "53", "08"].iter().any(|class| code.starts_with(class)) => Look::Away,
                    _ => Look::Wrong(format!("{code}: {error}")),
                }
            }
            Err(_) => Look::Away,
        }
    }

    async fn look_at_mysql(&mut self, sql: &str) -> Look {
        let held = match std::mem::take(&mut self.held) {
            Held::Mysql(connection) => Ok(connection),
            Held::None | Held::Postgres(_) => mysql_async::Conn::from_url(&self.mysql).await,
        };
        let Ok(mut connection) = held else { return Look::Away };
        let isolation = "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED";
        if connection.query_drop(isolation).await.is_err() {
            return Look::Away;
        }
        match connection.query::<(i64, String, i32, i32, i32), _>(sql).await {
            Ok(found) => {
                self.held = Held::Mysql(connection);
                Look::Rows(found.into_iter().map(row).collect())
            }
            Err(mysql_async::Error::Server(error)) => match error.code {
                1049 | 1146 => Look::Missing,
                // It is going down, or has too many connections.
                1040 | 1053 | 1927 => Look::Away,
                _ => Look::Wrong(error.to_string()),
            },
            Err(_) => Look::Away,
        }
    }

    async fn look_at_sqlite(&mut self, sql: &str) -> Look {
        let path = self.disk.join("r.db");
        if !path.exists() {
            return Look::Missing;
        }
        let options = sqlx::sqlite::SqliteConnectOptions::new().filename(&path).busy_timeout(Duration::from_secs(5));
        let Ok(mut connection) = sqlx::SqliteConnection::connect_with(&options).await else { return Look::Away };
        let found: sqlx::Result<Vec<Columns>> = sqlx::query_as(AssertSqlSafe(sql)).fetch_all(&mut connection).await;
        let _ = connection.close().await;
        match found {
            Ok(found) => Look::Rows(found.into_iter().map(row).collect()),
            Err(error) if error.to_string().contains("no such table") => Look::Missing,
            // A reader needs a little room on the disk, too.
            Err(_) => Look::Away,
        }
    }

    /// The content of a file of the lake; None where there is none.
    async fn get(&self, path: &str) -> Result<Option<bytes::Bytes>, String> {
        if self.sink.place == Place::Folder {
            return match std::fs::read(self.disk.join(&self.sink.name).join(path)) {
                Ok(content) => Ok(Some(content.into())),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
                Err(error) => Err(error.to_string()),
            };
        }
        let path = object_store::path::Path::parse(format!("{}/{}/{path}", self.world, self.sink.name)).unwrap();
        let found = match self.bucket.get(&path).await {
            Ok(found) => found.bytes().await,
            Err(error) => Err(error),
        };
        match found {
            Ok(content) => Ok(Some(content)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(error.to_string()),
        }
    }

    async fn look_at_lake(&mut self) -> Look {
        let manifest = match self.get("_report/latest.json").await {
            Ok(Some(content)) => content,
            Ok(None) => return Look::Missing,
            Err(_) => return Look::Away,
        };
        let Ok(manifest) = serde_json::from_slice::<serde_json::Value>(&manifest) else {
            return Look::Wrong(format!("latest.json is cut: {} bytes", manifest.len()));
        };
        let mut rows = Vec::new();
        for file in manifest["files"].as_array().unwrap() {
            let content = match self.get(file["path"].as_str().unwrap()).await {
                Ok(Some(content)) => content,
                Ok(None) => return Look::Wrong(format!("{} is named and not there", file["path"])),
                Err(_) => return Look::Away,
            };
            let part = file["partition"]["part"].as_str().unwrap().to_owned();
            rows.extend(parquet_rows(content).into_iter().map(|texts| {
                let number = |at: usize| texts[at].parse::<i32>().unwrap();
                row((i64::from(number(0)), part.clone(), number(1), number(3), number(4)))
            }));
        }
        Look::Rows(rows)
    }
}

fn row((id, part, day, step, version): Columns) -> Row {
    let positive = |number: i32| u32::try_from(number).unwrap();
    let part = part.trim_start_matches('p').parse().unwrap();
    Row { id, part, day: positive(day), step: positive(step), version: positive(version) }
}

/// A reader of one table.
pub(super) struct Reader {
    task: tokio::task::JoinHandle<()>,
    seen: Arc<Mutex<Seen>>,
    done: Arc<AtomicBool>,
}

/// What a reader saw.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) looks: u64,
    /// How often the table was another one than before.
    pub(super) states: u64,
    last: Option<Commits>,
    /// What it must not see, the first few.
    pub(super) wrong: Vec<String>,
}

impl Seen {
    fn note(&mut self, sink: &PlannedSink, look: Look) {
        const KEPT: usize = 3;
        self.looks += 1;
        let wrong = match look {
            Look::Away => None,
            Look::Missing => self.last.as_ref().map(|last| format!("the table is missing, after {last:?}")),
            Look::Wrong(words) => Some(words),
            Look::Rows(rows) if rows.is_empty() => Some("the table is empty".into()),
            Look::Rows(rows) => match commits_in(sink.mode, &rows) {
                Err(words) => Some(words),
                Ok(commits) => {
                    let before = self.last.replace(commits.clone());
                    self.states += u64::from(before.as_ref() != Some(&commits));
                    before
                        .filter(|before| is_back(before, &commits))
                        .map(|before| format!("{commits:?} after {before:?}"))
                }
            },
        };
        if let Some(words) = wrong
            && self.wrong.len() < KEPT
        {
            self.wrong.push(format!("{} ({:?} {:?}), look {}: {words}", sink.name, sink.place, sink.mode, self.looks));
        }
    }
}

/// Whether a table went back, or changed a step that was committed.
fn is_back(before: &Commits, after: &Commits) -> bool {
    before.keys().max() > after.keys().max()
        || before.iter().any(|(step, commit)| after.get(step).is_some_and(|later| later != commit))
}

impl Reader {
    pub(super) fn start(mut table: Table) -> Self {
        let (seen, done) = (Arc::new(Mutex::new(Seen::default())), Arc::new(AtomicBool::new(false)));
        let (noted, ended) = (Arc::clone(&seen), Arc::clone(&done));
        let task = tokio::spawn(async move {
            while !ended.load(Ordering::Relaxed) {
                let look = table.look().await;
                noted.lock().unwrap().note(&table.sink, look);
                tokio::time::sleep(PAUSE).await;
            }
        });
        Self { task, seen, done }
    }

    /// What it must not have seen, so far.
    pub(super) fn wrong(&self) -> Vec<String> {
        self.seen.lock().unwrap().wrong.clone()
    }

    pub(super) async fn stop(self) -> Seen {
        self.done.store(true, Ordering::Relaxed);
        self.task.await.expect("a reader panics");
        std::mem::take(&mut *self.seen.lock().unwrap())
    }
}
