//! Where a pipeline's ledger is.

use std::sync::Arc;

use report_api::checked::{Checked, SinkKind};

use super::Store;
use super::lake::LakeStore;
use super::mysql::MysqlStore;
use super::postgres::PostgresStore;
use super::sqlite::SqliteStore;
use crate::env::Env;
use crate::error::{Code, Result, RunError};
use crate::objects::Folder;

/// Opens the ledger: in the first database sink's database, else under the first lake's root.
pub async fn open(identity: &str, checked: &Checked, env: &Env) -> Result<Arc<dyn Store>> {
    for sink in &checked.sinks {
        match &sink.kind {
            SinkKind::Postgres { connection, .. } => {
                let field = format!("{}.postgres.connection", sink.field);
                let url = env.secret(connection, &field)?;
                return Ok(Arc::new(PostgresStore::open(url, identity, &field).await?));
            }
            SinkKind::Mysql { connection, .. } => {
                let field = format!("{}.mysql.connection", sink.field);
                let url = env.secret(connection, &field)?;
                return Ok(Arc::new(MysqlStore::open(url, identity, &field).await?));
            }
            SinkKind::Sqlite { path, .. } => {
                let field = format!("{}.sqlite.path", sink.field);
                return Ok(Arc::new(SqliteStore::open(path, identity, &field).await?));
            }
            SinkKind::Lake { .. } => {}
        }
    }
    for sink in &checked.sinks {
        if let SinkKind::Lake { url, .. } = &sink.kind {
            return Ok(Arc::new(LakeStore::new(Folder::open(url, env, &format!("{}.lake.url", sink.field))?)));
        }
    }
    Err(RunError::at(Code::ManifestInvalid, "spec.sinks", "there is no sink; name at least one"))
}
