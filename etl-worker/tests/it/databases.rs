//! The databases that sinks write to, so that one test says the same sentence about each of them.

use mysql_async::prelude::Queryable;
use sqlx::{AssertSqlSafe, Connection};

use crate::harness::{World, setting, sqlite_rows};

/// A kind of database.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Database {
    Postgres,
    Mysql,
    Sqlite,
}

impl Database {
    pub(crate) const ALL: [Self; 3] = [Self::Postgres, Self::Mysql, Self::Sqlite];

    /// A sink's kind and table in a manifest.
    pub(crate) fn sink(self, table: &str) -> String {
        match self {
            Self::Postgres => format!("postgres: {{{{db}}, table: '{{schema}}.{table}'}}"),
            Self::Mysql => {
                format!("mysql: {{connection: {{secretRef: {{name: my}}}}, table: '{{schema}}.{table}'}}")
            }
            Self::Sqlite => format!("sqlite: {{path: '{{folder}}/r.db', table: {table}}}"),
        }
    }

    /// Executes one statement. `{schema}.` is the place of the world's tables.
    pub(crate) async fn sql(self, world: &World, sql: &str) {
        match self {
            Self::Postgres => world.sql(sql).await,
            Self::Mysql => {
                let mut connection = mysql_of(world).await;
                let create = format!("CREATE DATABASE IF NOT EXISTS {}", world.name);
                connection.query_drop(create).await.unwrap();
                let sql = sql.replace("{schema}", &world.name);
                connection.query_drop(&sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
            }
            Self::Sqlite => {
                let path = world.folder.path().join("r.db");
                let options = sqlx::sqlite::SqliteConnectOptions::new().filename(path).create_if_missing(true);
                let mut connection = sqlx::SqliteConnection::connect_with(&options).await.unwrap();
                let sql = sql.replace("{schema}.", "");
                sqlx::query(AssertSqlSafe(sql.as_str()))
                    .execute(&mut connection)
                    .await
                    .unwrap_or_else(|error| panic!("{sql}: {error}"));
            }
        }
    }

    /// The rows of a query, each as its columns' texts with | between, NULL as ∅, numbers without zeros at their end.
    pub(crate) async fn rows(self, world: &World, sql: &str) -> Vec<String> {
        let rows = match self {
            Self::Postgres => world.rows(sql).await,
            Self::Mysql => mysql_rows(world, &sql.replace("{schema}", &world.name)).await,
            Self::Sqlite => sqlite_rows(&world.folder.path().join("r.db"), &sql.replace("{schema}.", "")).await,
        };
        rows.iter().map(|row| row.split('|').map(plain).collect::<Vec<_>>().join("|")).collect()
    }

    /// The names of the world's tables, which tells whether something was left behind.
    pub(crate) async fn tables(self, world: &World) -> Vec<String> {
        match self {
            Self::Postgres => world.tables().await,
            Self::Mysql => {
                let sql = format!(
                    "SELECT table_name FROM information_schema.tables WHERE table_schema = '{}' ORDER BY 1",
                    world.name
                );
                mysql_rows(world, &sql).await
            }
            Self::Sqlite => {
                let sql = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'report\\_operator\\_%' ESCAPE '\\'
                           AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' ORDER BY 1";
                sqlite_rows(&world.folder.path().join("r.db"), sql).await
            }
        }
    }

    /// Lets the lock of the world's pipelines expire, as if their runs were long dead.
    pub(crate) async fn expire_locks(self, world: &World) {
        let like = format!("{}/%", world.name.replace('_', "-"));
        let sql = match self {
            Self::Postgres => format!(
                "UPDATE report_operator.ledger SET version = version + 1,
                 state = jsonb_set(state, '{{lock,expires}}', '\"2020-01-01T00:00:00Z\"')
                 WHERE identity LIKE '{like}' AND jsonb_typeof(state->'lock') = 'object'"
            ),
            Self::Mysql => format!(
                "UPDATE report_operator.ledger SET version = version + 1,
                 state = json_set(state, '$.lock.expires', '2020-01-01T00:00:00Z') WHERE identity LIKE '{like}'"
            ),
            Self::Sqlite => format!(
                "UPDATE report_operator_ledger SET version = version + 1,
                 state = json_set(state, '$.lock.expires', '2020-01-01T00:00:00Z') WHERE identity LIKE '{like}'"
            ),
        };
        self.sql(world, &sql).await;
    }
}

/// A number without zeros at the end of its fraction; any other text as it is.
fn plain(value: &str) -> &str {
    if value.contains('.') && value.parse::<f64>().is_ok() {
        value.trim_end_matches('0').trim_end_matches('.')
    } else {
        value
    }
}

pub(crate) async fn mysql() -> mysql_async::Conn {
    mysql_async::Conn::from_url(setting("TEST_MYSQL_URL")).await.unwrap()
}

async fn mysql_of(world: &World) -> mysql_async::Conn {
    mysql_async::Conn::from_url(world.setting("TEST_MYSQL_URL")).await.unwrap()
}

/// The rows of a query on MySQL as text.
pub(crate) async fn mysql_rows(world: &World, sql: &str) -> Vec<String> {
    let mut connection = mysql_of(world).await;
    let rows: Vec<mysql_async::Row> = connection.query(sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
    rows.into_iter()
        .map(|row| {
            let texts = row.unwrap().into_iter().map(|value| match value {
                mysql_async::Value::NULL => "∅".to_owned(),
                mysql_async::Value::Bytes(bytes) => String::from_utf8(bytes).unwrap(),
                other => panic!("{other:?} is no text"),
            });
            texts.collect::<Vec<_>>().join("|")
        })
        .collect()
}
