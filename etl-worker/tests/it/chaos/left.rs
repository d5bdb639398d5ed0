//! What a story leaves: everything that a twin, which ran undisturbed, has to have just so, and what nobody may leave.

use std::collections::BTreeSet;
use std::path::Path;

use futures::TryStreamExt;
use object_store::{ObjectStore, ObjectStoreExt};
use serde_json::{Value, json};

use super::plan::{Place, PlannedSink};
use crate::databases::Database;
use crate::harness::{World, sqlite_rows};

/// The ledger's document.
pub(super) async fn ledger(world: &World, sinks: &[PlannedSink], disk: &Path) -> Value {
    let identity = format!("{}/p", world.name.replace('_', "-"));
    let of = |table: &str| format!("SELECT state FROM {table} WHERE identity = '{identity}'");
    let first = sinks.iter().find(|sink| !matches!(sink.place, Place::S3 | Place::Folder)).unwrap_or(&sinks[0]);
    let text = match first.place {
        Place::Postgres => {
            let sql = of("report_operator.ledger").replace("state", "state::text");
            let row: (String,) =
                sqlx::query_as(sqlx::AssertSqlSafe(sql)).fetch_one(&mut world.connection().await).await.unwrap();
            row.0
        }
        Place::Mysql => Database::Mysql.rows(world, &of("report_operator.ledger")).await.remove(0),
        Place::Sqlite => sqlite_rows(&disk.join("r.db"), &of("report_operator_ledger")).await.remove(0),
        Place::S3 | Place::Folder => {
            let store = lake_store(world, first, disk);
            let newest = paths(&*store).await.into_iter().filter(|path| path.starts_with("_report/ledger/")).max();
            let content = store.get(&object_store::path::Path::parse(newest.unwrap()).unwrap()).await.unwrap();
            String::from_utf8(content.bytes().await.unwrap().to_vec()).unwrap()
        }
    };
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// The time at which a lock is anyone's.
const LONG_AGO: &str = "2020-01-01T00:00:00Z";

pub(super) async fn expire_lock_in_sqlite(path: &Path) {
    use sqlx::Connection;
    // A run that died early has left no file, or none with a ledger.
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(path);
    let Ok(mut connection) = sqlx::SqliteConnection::connect_with(&options).await else { return };
    let sql = format!(
        "UPDATE report_operator_ledger SET version = version + 1, state = json_set(state, '$.lock.expires', '{LONG_AGO}')"
    );
    let _ = sqlx::query(sqlx::AssertSqlSafe(sql)).execute(&mut connection).await;
    let _ = connection.close().await;
}

pub(super) async fn expire_lock_in_lake(world: &World, sink: &PlannedSink, disk: &Path) {
    let store = lake_store(world, sink, disk);
    let newest = paths(&*store).await.into_iter().filter(|path| path.starts_with("_report/ledger/")).max();
    let Some(newest) = newest else { return };
    let content = store.get(&object_store::path::Path::parse(&newest).unwrap()).await.unwrap().bytes().await.unwrap();
    let mut ledger: Value = serde_json::from_slice(&content).unwrap();
    if !ledger["lock"].is_null() {
        ledger["lock"]["expires"] = LONG_AGO.into();
    }
    let number: u64 = newest.rsplit('/').next().unwrap().trim_end_matches(".json").parse().unwrap();
    let path = object_store::path::Path::parse(format!("_report/ledger/{:010}.json", number + 1)).unwrap();
    store.put(&path, serde_json::to_vec(&ledger).unwrap().into()).await.unwrap();
}

/// The document without what no two worlds have alike: epochs, times, and a hash over the places of sinks.
pub(super) fn comparable(mut ledger: Value) -> Value {
    ledger["epoch"].take();
    ledger["attempt"]["started"].take();
    if ledger["memory"]["fingerprint"].is_string() {
        ledger["memory"]["fingerprint"] = "there is one".into();
    }
    ledger
}

/// What every sink's place holds, sorted, and whether anything is left that no manifest names and no pipeline needs.
pub(super) async fn left(world: &World, sinks: &[PlannedSink], disk: &Path) -> Vec<String> {
    let mut all = Vec::new();
    let identity = format!("{}/p", world.name.replace('_', "-"));
    for place in [Place::Postgres, Place::Mysql, Place::Sqlite] {
        if !sinks.iter().any(|sink| sink.place == place) {
            continue;
        }
        for sql in [
            "SELECT 'commit', sink, interval_start, interval_end, run_id, ROWS FROM report_operator.commits WHERE identity = 'ID'",
            "SELECT 'owner', table_name, sink, replaces FROM report_operator.tables WHERE identity = 'ID'",
        ] {
            let sql = sql.replace("ID'", &format!("{identity}'"));
            all.extend(match place {
                Place::Postgres => world.rows(&sql.replace("ROWS", "rows")).await,
                Place::Mysql => Database::Mysql.rows(world, &sql.replace("ROWS", "staged_rows")).await,
                _ => {
                    let sql = sql.replace("ROWS", "rows").replace("report_operator.", "report_operator_");
                    sqlite_rows(&disk.join("r.db"), &sql).await
                }
            });
        }
        let tables = match place {
            Place::Postgres => {
                let indexes = "SELECT 'index', tablename, indexname, replace(indexdef, schemaname, '') FROM pg_indexes WHERE schemaname = '{schema}'";
                all.extend(world.rows(indexes).await);
                world.tables().await
            }
            Place::Mysql => Database::Mysql.tables(world).await,
            _ => {
                let sql = "SELECT name FROM sqlite_master WHERE name NOT LIKE 'report\\_operator\\_%' ESCAPE '\\'
                           AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'";
                sqlite_rows(&disk.join("r.db"), sql).await
            }
        };
        all.extend(tables.into_iter().map(|table| format!("table|{place:?}|{table}")));
    }
    for sink in sinks.iter().filter(|sink| matches!(sink.place, Place::S3 | Place::Folder)) {
        all.extend(lake(world, sink, disk).await);
    }
    all.sort();
    all
}

/// A lake: its newest manifest without what tells attempts apart, and the files that no manifest names.
async fn lake(world: &World, sink: &PlannedSink, disk: &Path) -> Vec<String> {
    let store = lake_store(world, sink, disk);
    let get = async |path: &str| -> Value {
        let content = store.get(&object_store::path::Path::parse(path).unwrap()).await.unwrap();
        serde_json::from_slice(&content.bytes().await.unwrap()).unwrap()
    };
    let mut all = Vec::new();
    // An object store does not list the files that a killed writer of a folder leaves.
    let paths = match sink.place {
        Place::Folder => walk(&disk.join(&sink.name)),
        _ => paths(&*store).await,
    };
    let mut named = BTreeSet::new();
    let mut newest = None;
    for path in paths.iter().filter(|path| path.starts_with("_report/manifests/")) {
        let manifest = get(path).await;
        named
            .extend(manifest["files"].as_array().unwrap().iter().map(|file| file["path"].as_str().unwrap().to_owned()));
        newest = Some(manifest);
    }
    let newest = newest.unwrap();
    let latest = get("_report/latest.json").await;
    if latest["files"] != newest["files"] {
        all.push(format!("{}: latest.json is not the newest manifest's", sink.name));
    }
    let mut files: Vec<_> = (newest["files"].as_array().unwrap().iter())
        .map(|file| json!([file["partition"], file["rows"], file["bytes"]]).to_string())
        .collect();
    files.sort();
    let fields = ["pipeline", "sink", "runId", "interval", "mode", "partitionBy", "columns", "rows"];
    let told: Vec<_> =
        fields.iter().map(|field| newest[field].to_string().replace(&world.name.replace('_', "-"), "")).collect();
    all.push(format!("lake|{}|{}|{}", sink.name, told.join("|"), files.join(" ")));
    let (kept, unfinished) = (["manifests/", "ledger/", "runs/", "latest.json"], ["ledger/", "runs/", "latest.json"]);
    for path in paths {
        // A run killed within a write of some kilobytes leaves them there unfinished.
        let of = if path.contains('#') { &unfinished[..] } else { &kept[..] };
        let is_report =
            path.strip_prefix("_report/").is_some_and(|path| of.iter().any(|start| path.starts_with(start)));
        if !named.contains(&path) && !is_report {
            all.push(format!("left behind in {}: {path}", sink.name));
        }
    }
    all
}

pub(super) fn lake_store(world: &World, sink: &PlannedSink, disk: &Path) -> Box<dyn ObjectStore> {
    match sink.place {
        Place::Folder => {
            Box::new(object_store::local::LocalFileSystem::new_with_prefix(disk.join(&sink.name)).unwrap())
        }
        _ => Box::new(object_store::prefix::PrefixStore::new(world.bucket(), format!("{}/{}", world.name, sink.name))),
    }
}

async fn paths(store: &dyn ObjectStore) -> Vec<String> {
    let found: Vec<_> = store.list(None).try_collect().await.unwrap();
    let mut paths: Vec<_> = found.into_iter().map(|object| object.location.to_string()).collect();
    paths.sort();
    paths
}

/// All files below a folder, by their paths in it.
fn walk(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                found.push(path.strip_prefix(folder).unwrap().to_str().unwrap().to_owned());
            }
        }
    }
    found.sort();
    found
}
