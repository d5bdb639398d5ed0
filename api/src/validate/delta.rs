//! What may be made of an incremental source: a run sees only its new rows. What needs all rows would be wrong over
//! them, and wrong without a sign, so it is refused unless the model says `reads: delta`.

use std::collections::{BTreeMap, BTreeSet};

use super::Problems;
use crate::checked::{CheckedModel, CheckedSink, CheckedSource, DeleteBy, Late, SinkMode};
use crate::sql;

const HISTORY: &str = "read the history from the sink that keeps it, by a source of its own, or write reads: delta if only new rows are meant";

/// What a table has of incremental sources.
#[derive(Clone, Debug, Default)]
struct Fed {
    /// The incremental sources that it is made of.
    sources: BTreeSet<String>,
    /// Those of them that read some rows again.
    lagging: BTreeSet<String>,
    /// Whether it is a model that says `reads: delta`.
    meant: bool,
}

/// Refuses what would be wrong over a part of the rows. `models` are in an order in which each comes after what it reads.
pub(super) fn check(
    sources: &[CheckedSource],
    models: &[CheckedModel],
    sinks: &[CheckedSink],
    problems: &mut Problems,
) {
    let mut fed: BTreeMap<&str, Fed> = BTreeMap::new();
    for source in sources {
        if let Some(incremental) = &source.incremental {
            let mut of = Fed::default();
            of.sources.insert(source.name.clone());
            if matches!(incremental.late, Late::Lag(_)) {
                of.lagging.insert(source.name.clone());
            }
            fed.insert(&source.name, of);
        }
    }
    for model in models {
        let mut of = Fed { meant: model.delta, ..Fed::default() };
        for read in model.reads.iter().filter_map(|name| fed.get(name.as_str())) {
            of.sources.extend(read.sources.iter().cloned());
            of.lagging.extend(read.lagging.iter().cloned());
        }
        if of.sources.is_empty() {
            if model.delta {
                let remedy = "leave it out: this model reads no incremental source";
                problems.add(format!("{}.reads", model.field), format!("there is no delta here; {remedy}"));
            }
            continue;
        }
        if !model.delta {
            let deltas: BTreeSet<String> =
                model.reads.iter().filter(|name| fed.contains_key(name.as_str())).cloned().collect();
            for need in sql::needs_all_rows(&model.sql, &deltas) {
                problems.add(
                    format!("{}.sql", model.field),
                    format!("{need} over new rows only ({}); {HISTORY}", names(&of.sources)),
                );
            }
        }
        fed.insert(&model.name, of);
    }
    for sink in sinks {
        let Some(of) = fed.get(sink.from.as_str()) else { continue };
        let field = format!("{}.mode", sink.field);
        match &sink.mode {
            SinkMode::Replace(_) if !of.meant => problems.add(
                field,
                format!(
                    "replace would leave only the new rows of {}; write merge or append, or read it by a model that says reads: delta if only new rows are meant",
                    names(&of.sources)
                ),
            ),
            SinkMode::Append if !of.lagging.is_empty() => problems.add(
                field,
                format!(
                    "append would add the rows again that lag reads again ({}); write merge or deleteInsert, or delay instead of lag",
                    names(&of.lagging)
                ),
            ),
            // Rows of the same partition that an earlier run has read would go.
            SinkMode::DeleteInsert(DeleteBy::Partition(_)) if !of.meant => problems.add(
                field,
                format!(
                    "deleteInsert by partition would leave only the new rows of {} in a partition; write merge or append, or read it by a model that says reads: delta if only new rows are meant",
                    names(&of.sources)
                ),
            ),
            SinkMode::Replace(_) | SinkMode::Append | SinkMode::Merge { .. } | SinkMode::DeleteInsert(_) => {}
        }
    }
}

fn names(sources: &BTreeSet<String>) -> String {
    sources.iter().map(String::as_str).collect::<Vec<_>>().join(", ")
}
