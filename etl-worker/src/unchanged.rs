//! Whether a run would read just what the last good one has read, and make the same of it: then there is nothing to do,
//! and the data is as of the end of this run's interval.
//!
//! That is known only where every input has a digest, no SQL asks for something that changes by itself (the time, a
//! random number, the run's interval), and nothing else is different: the manifest's data part and the worker's version.

use datafusion::execution::FunctionRegistry;
use datafusion::logical_expr::Volatility;
use datafusion::prelude::SessionContext;
use report_api::checked::{CheckRule, Checked, SinkMode};
use report_api::sql;
use sha2::{Digest, Sha256};

use crate::source::RawInput;

/// One text for all that decides what a run gives; None where that can't be known. Two runs with the same one give the
/// same rows.
pub fn fingerprint<'i>(
    checked: &Checked,
    context: &SessionContext,
    input: impl Fn(&str) -> Option<&'i RawInput>,
) -> Option<String> {
    let sqls =
        checked.models.iter().map(|model| &model.sql).chain(checked.checks.iter().filter_map(
            |check| match &check.rule {
                CheckRule::Sql { sql, .. } => Some(sql),
                CheckRule::NotNull { .. } | CheckRule::Unique { .. } | CheckRule::Rows { .. } => None,
            },
        ));
    // Append adds its rows once more with each interval.
    let appends = checked.sinks.iter().any(|sink| sink.mode == SinkMode::Append);
    if appends || sqls.into_iter().any(|sql| is_volatile(sql, context)) {
        return None;
    }
    let mut hash = Sha256::new();
    let spec = &checked.spec;
    let data = (&spec.sources, &spec.models, &spec.checks, &spec.sinks);
    hash.update(env!("CARGO_PKG_VERSION"));
    hash.update(serde_json::to_vec(&data).ok()?);
    for source in &checked.sources {
        // A source that nobody reads is not fetched, and changes nothing.
        let digest = input(&source.name).map(|input| input.sha256.as_str());
        hash.update(format!("\n{} {}", source.name, digest.unwrap_or_default()));
    }
    Some(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
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
