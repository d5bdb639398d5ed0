//! A look at a pipeline's ledger that takes no lock and writes nothing: for `etl-worker plan`.

use report_api::checked::{Checked, SinkKind};
use sqlx::Connection;

use super::lake::LakeStore;
use super::{State, Store, parse};
use crate::env::Env;
use crate::error::Result;
use crate::objects::Folder;
use crate::sink::{mysql, postgres, sqlite};

/// What the ledger says now, and where it is; without a state where there is none yet. It is where a run looks for it: in
/// the first database sink's database, else under the first lake's root.
pub async fn peek(identity: &str, checked: &Checked, env: &Env) -> Result<(String, Option<State>)> {
    for sink in &checked.sinks {
        match &sink.kind {
            SinkKind::Postgres { connection, .. } => {
                let field = format!("{}.postgres.connection", sink.field);
                let name = "report_operator.ledger".to_owned();
                let text = in_postgres(env.secret(connection, &field)?, identity, &field).await?;
                return Ok((name.clone(), text.map(|text| parse(&text, &name)).transpose()?));
            }
            SinkKind::Mysql { connection, .. } => {
                let field = format!("{}.mysql.connection", sink.field);
                let name = "report_operator.ledger".to_owned();
                let text = in_mysql(env.secret(connection, &field)?, identity, &field).await?;
                return Ok((name.clone(), text.map(|text| parse(&text, &name)).transpose()?));
            }
            SinkKind::Sqlite { path, .. } => {
                let text = in_sqlite(path, identity, &format!("{}.sqlite.path", sink.field)).await?;
                return Ok((path.clone(), text.map(|text| parse(&text, path)).transpose()?));
            }
            SinkKind::Lake { .. } => {}
        }
    }
    for sink in &checked.sinks {
        if let SinkKind::Lake { url, .. } = &sink.kind {
            let folder = url::Url::parse(url).ok().filter(|url| url.scheme() == "file");
            if folder.and_then(|url| url.to_file_path().ok()).is_some_and(|folder| !folder.exists()) {
                return Ok((url.clone(), None));
            }
            let store = LakeStore::new(Folder::open(url, env, &format!("{}.lake.url", sink.field))?);
            let (_, text) = store.read().await?;
            return Ok((store.name(), text.map(|text| parse(&text, &store.name())).transpose()?));
        }
    }
    Ok((String::new(), None))
}

async fn in_postgres(url: &str, identity: &str, field: &str) -> Result<Option<String>> {
    use postgres::{Database, connect, options, run_error};
    let failed = |error| run_error(error, field, "the ledger report_operator.ledger", Database::Ledger);
    let mut connection = connect(&options(url, field)?, field, Database::Ledger).await?;
    let mut transaction = connection.begin_with("BEGIN READ ONLY").await.map_err(failed)?;
    let there: bool = sqlx::query_scalar("SELECT to_regclass('report_operator.ledger') IS NOT NULL")
        .fetch_one(&mut *transaction)
        .await
        .map_err(failed)?;
    let text = if there {
        sqlx::query_scalar("SELECT state::text FROM report_operator.ledger WHERE identity = $1")
            .bind(identity)
            .fetch_optional(&mut *transaction)
            .await
            .map_err(failed)?
    } else {
        None
    };
    drop(transaction);
    let _ = connection.close().await;
    Ok(text)
}

async fn in_mysql(url: &str, identity: &str, field: &str) -> Result<Option<String>> {
    use mysql::{connect, options, run_error};
    use mysql_async::prelude::Queryable;
    let failed = |error| run_error(error, field, "the ledger report_operator.ledger", postgres::Database::Ledger);
    let mut connection = connect(&options(url, field)?, field, postgres::Database::Ledger).await?;
    let there: Option<i64> = connection
        .query_first(
            "SELECT 1 FROM information_schema.tables WHERE table_schema = 'report_operator' AND table_name = 'ledger'",
        )
        .await
        .map_err(failed)?;
    let text = match there {
        Some(_) => connection
            .exec_first("SELECT state FROM report_operator.ledger WHERE identity = ?", (identity,))
            .await
            .map_err(failed)?,
        None => None,
    };
    let _ = connection.disconnect().await;
    Ok(text)
}

async fn in_sqlite(path: &str, identity: &str, field: &str) -> Result<Option<String>> {
    let failed = |error| sqlite::run_error(error, field, path);
    let Some(mut connection) = sqlite::connect_to_read(path, field).await? else { return Ok(None) };
    let there = sqlite::has_table(&mut connection, "report_operator_ledger").await.map_err(failed)?;
    let text = if there {
        sqlx::query_scalar("SELECT state FROM report_operator_ledger WHERE identity = ?")
            .bind(identity)
            .fetch_optional(&mut connection)
            .await
            .map_err(failed)?
    } else {
        None
    };
    let _ = connection.close().await;
    Ok(text)
}
