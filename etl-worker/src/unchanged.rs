//! Whether a run would read just what the last good one has read, and make the same of it: then there is nothing to do,
//! and the data is as of the end of this run's interval.
//!
//! That is known only where every input has a digest, no SQL asks for something that changes by itself (the time, a
//! random number, the run's interval), and nothing else is different: the manifest's data part and the worker's version.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use datafusion::execution::FunctionRegistry;
use datafusion::logical_expr::Volatility;
use datafusion::prelude::SessionContext;
use report_api::checked::{CheckRule, Checked, SinkMode};
use report_api::sql;
use sha2::{Digest, Sha256};
use tokio::task::JoinHandle;

use crate::error::{Code, Result, RunError};
use crate::source::{Input, RawInput, hexadecimal};

/// One text for all that decides what a run gives, while the digests of its inputs are computed. Two runs with the same
/// one give the same rows.
pub struct Fingerprint {
    coming: Option<JoinHandle<Result<String>>>,
    known: Option<String>,
    is_wanted: Arc<AtomicBool>,
}

impl Fingerprint {
    /// Begins to read inputs whose digests are not known yet.
    pub fn begin<'i>(checked: &Checked, context: &SessionContext, input: impl Fn(&str) -> Option<&'i Input>) -> Self {
        let is_wanted = Arc::new(AtomicBool::new(true));
        let parts = parts(checked, context, input);
        let coming = parts.map(|parts| tokio::spawn(parts.whole(Arc::clone(&is_wanted))));
        Self { coming, known: None, is_wanted }
    }

    /// The text; None where it can't be known.
    pub async fn get(&mut self) -> Result<Option<String>> {
        if let Some(coming) = self.coming.take() {
            let broken = |panic| RunError::new(Code::Internal, "the inputs' digest ended early").caused_by(panic);
            self.known = Some(coming.await.map_err(broken)??);
        }
        Ok(self.known.clone())
    }
}

impl Drop for Fingerprint {
    fn drop(&mut self) {
        self.is_wanted.store(false, Ordering::Relaxed);
    }
}

/// What decides what a run gives.
struct Parts {
    hash: Sha256,
    inputs: Vec<(String, Option<Arc<RawInput>>)>,
}

impl Parts {
    async fn whole(mut self, is_wanted: Arc<AtomicBool>) -> Result<String> {
        for (source, input) in &self.inputs {
            // A source that nobody reads is not fetched, and changes nothing.
            let digest = match input {
                None => String::new(),
                Some(input) => input.digest(&is_wanted).await?,
            };
            self.hash.update(format!("\n{source} {digest}"));
        }
        Ok(hexadecimal(&self.hash.finalize()))
    }
}

fn parts<'i>(checked: &Checked, context: &SessionContext, input: impl Fn(&str) -> Option<&'i Input>) -> Option<Parts> {
    let sqls = checked.models.iter().map(|model| model.sql.as_str());
    let sqls = sqls.chain(checked.checks.iter().filter_map(|check| match &check.rule {
        CheckRule::Sql { sql, .. } => Some(sql.as_str()),
        _ => None,
    }));
    if checked.checks.iter().any(|check| check.rule.is_volatile()) {
        return None;
    }
    // What these write differs from interval to interval.
    let by_interval = |mode: &SinkMode| matches!(mode, SinkMode::Append | SinkMode::DeleteInsert(_));
    let writes_anew = checked.sinks.iter().any(|sink| by_interval(&sink.mode));
    if writes_anew || sqls.into_iter().any(|sql| is_volatile(sql, context)) {
        return None;
    }
    // What is new for an incremental source changes by itself, and another key makes other hashes of the same input.
    if checked.sources.iter().any(|source| source.incremental.is_some() || !source.masks.is_empty()) {
        return None;
    }
    let mut hash = Sha256::new();
    let spec = &checked.spec;
    let data = (&spec.sources, &spec.models, &spec.checks, &spec.sinks);
    hash.update(env!("CARGO_PKG_VERSION"));
    hash.update(serde_json::to_vec(&data).ok()?);
    let inputs = checked.sources.iter().map(|source| match input(&source.name) {
        None => Some((source.name.clone(), None)),
        Some(Input::File(file)) => Some((source.name.clone(), Some(Arc::clone(file)))),
        Some(Input::Rows(_)) => None,
    });
    Some(Parts { hash, inputs: inputs.collect::<Option<_>>()? })
}

fn is_volatile(text: &str, context: &SessionContext) -> bool {
    if sql::PARAMETERS.iter().any(|parameter| text.contains(parameter)) {
        return true;
    }
    sql::functions(text).iter().any(|name| match context.udf(name) {
        Ok(function) => function.signature().volatility != Volatility::Immutable,
        Err(_) => context.udaf(name).is_err() && context.udwf(name).is_err(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changes_by_itself_is_volatile() {
        let context = SessionContext::new();
        for (sql, want) in [
            ("SELECT a, lower(b), sum(c), row_number() OVER (ORDER BY a) FROM t", false),
            ("SELECT now()", true),
            ("SELECT a FROM t WHERE d < CURRENT_DATE", true),
            ("SELECT random()", true),
            ("SELECT uuid() FROM t", true),
            ("SELECT a FROM t WHERE d < $interval_end", true),
            ("SELECT no_such_function(a) FROM t", true),
        ] {
            assert_eq!(is_volatile(sql, &context), want, "{sql}");
        }
    }
}
