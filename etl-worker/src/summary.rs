//! A finished run as a table for a person.

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use report_api::check::Severity;
use report_api::result::{RunResult, State};

/// What a run read, checked and wrote.
pub fn text(result: &RunResult) -> String {
    if result.state == State::Skipped {
        return format!("Skipped: {}", result.skipped.as_deref().unwrap_or("there was nothing to do"));
    }
    let mut table = Table::new();
    table.load_preset(presets::UTF8_BORDERS_ONLY).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(["", "name", "rows", ""]);
    for source in &result.sources {
        let mut words = format!("{} bytes", source.bytes);
        if let Some(watermark) = &source.watermark {
            let text = |value: &Option<String>, none: &str| value.clone().unwrap_or_else(|| none.to_owned());
            let (from, to) = (text(&watermark.from, "the beginning"), text(&watermark.to, "nothing yet"));
            words.push_str(&format!(", from {from} to {to}"));
        }
        if source.bad_rows > 0 {
            words.push_str(&format!(", {} bad rows left out", source.bad_rows));
        }
        if !source.changes.is_empty() {
            words.push_str(&format!(", columns: {}", source.changes.join(", ")));
        }
        table.add_row(["source", &source.name, &source.rows.to_string(), &words]);
    }
    for model in &result.models {
        table.add_row(["model", &model.name, &model.rows.to_string(), ""]);
    }
    for check in &result.checks {
        let outcome = match (check.passed, check.severity) {
            (true, _) => check.message.as_ref().map_or("holds".to_owned(), |message| format!("holds: {message}")),
            (false, Severity::Warn) => format!("warning: {}", check.message.as_deref().unwrap_or_default()),
            (false, Severity::Error) => format!("failed: {}", check.message.as_deref().unwrap_or_default()),
        };
        table.add_row(["check", &check.name, "", &outcome]);
    }
    for sink in &result.sinks {
        table.add_row(["sink", &sink.name, &sink.rows.to_string(), &format!("{} {}", sink.mode, sink.target)]);
    }
    if let Some(rows) = table.column_mut(2) {
        rows.set_cell_alignment(CellAlignment::Right);
    }
    let took = match (result.started, result.finished) {
        (Some(started), Some(finished)) => format!(" in {:.1} s", finished.duration_since(started).as_secs_f64()),
        _ => String::new(),
    };
    let as_of = result.interval.map_or_else(String::new, |interval| format!(", data as of {:.0}", interval.end));
    format!("{table}\n{} rows written{took}{as_of}", result.rows_written)
}
