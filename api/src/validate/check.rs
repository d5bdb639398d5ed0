//! Checks: what each asserts, of which table, and what a failure does.

use super::{Problems, Tables, model};
use crate::check::{Accepted, Check, Fresh, MeanChange, Pattern, References, Rows, RowsChange, Threshold, ValueRange};
use crate::checked::{CheckRule, CheckSeverity, CheckedCheck};

const COLUMNS_MAX: usize = 64;
const REFERENCE_COLUMNS_MAX: usize = 32;
const VALUES_MAX: usize = 1000;
/// Longest accepted value or bound, in bytes.
const VALUE_BYTES_MAX: usize = 1024;
const PATTERN_CHARS_MAX: usize = 1024;
/// How many good runs `meanChange` looks back on where it does not say.
const MEAN_RUNS: u32 = 5;
/// Most good runs that `meanChange` looks back on; the ledger keeps a number for each.
const MEAN_RUNS_MAX: u32 = 30;

pub(super) fn check(field: String, check: &Check, tables: &Tables, problems: &mut Problems) -> Option<CheckedCheck> {
    problems.description(&field, check.description.as_deref());
    let options = [
        ("notNull", check.not_null.is_some()),
        ("unique", check.unique.is_some()),
        ("accepted", check.accepted.is_some()),
        ("range", check.range.is_some()),
        ("regex", check.regex.is_some()),
        ("references", check.references.is_some()),
        ("rows", check.rows.is_some()),
        ("rowsChange", check.rows_change.is_some()),
        ("meanChange", check.mean_change.is_some()),
        ("fresh", check.fresh.is_some()),
        ("sql", check.sql.is_some()),
    ];
    let one = problems.one_of(&field, &options);
    if one {
        match (&check.on, &check.sql) {
            (Some(_), Some(_)) => {
                problems.add(format!("{field}.from"), "a sql check names its tables itself; leave it out")
            }
            (None, None) => problems.add(&field, "from is missing; name the source or model that is checked"),
            _ => {}
        }
    }
    let on = check.on.as_deref().unwrap_or_default();
    if let Some(message) = check.on.as_deref().and_then(|on| tables.unknown(on)) {
        problems.add(format!("{field}.from"), message);
    }
    let mut part = Part { field: &field, on, tables, problems };
    // All of them, so that a manifest with two options hears of the problems of both.
    let rules = [
        check.not_null.as_ref().map(|columns| part.not_null(columns)),
        check.unique.as_ref().map(|columns| part.unique(columns)),
        check.accepted.as_ref().map(|accepted| part.accepted(accepted)),
        check.range.as_ref().map(|range| part.range(range)),
        check.regex.as_ref().map(|pattern| part.regex(pattern)),
        check.references.as_ref().map(|references| part.references(references)),
        check.rows.as_ref().map(|rows| part.rows(rows)),
        check.rows_change.as_ref().map(|change| part.rows_change(change)),
        check.mean_change.as_ref().map(|change| part.mean_change(change)),
        check.fresh.as_ref().map(|fresh| part.fresh(fresh)),
        check.sql.as_ref().map(|sql| part.sql(sql)),
    ];
    let rule = rules.into_iter().flatten().next().filter(|_| one)?;
    let severity = severity(&field, check, &rule, problems);
    Some(CheckedCheck { field, name: check.name.clone(), rule, severity })
}

/// One check's field, table and problems.
struct Part<'a, 'b> {
    field: &'a str,
    on: &'a str,
    tables: &'a Tables<'b>,
    problems: &'a mut Problems,
}

impl Part<'_, '_> {
    fn at(&self, name: &str) -> String {
        format!("{}.{name}", self.field)
    }

    fn columns(&mut self, name: &str, columns: &[String], max: usize) {
        let field = self.at(name);
        self.tables.columns(&field, self.on, columns, (1, max), self.problems);
    }

    fn column(&mut self, option: &str, column: &str) {
        let field = self.at(&format!("{option}.column"));
        self.tables.column(&field, self.on, column, self.problems);
    }

    fn not_null(&mut self, columns: &[String]) -> CheckRule {
        self.columns("notNull", columns, COLUMNS_MAX);
        CheckRule::NotNull { on: self.on.into(), columns: columns.into() }
    }

    fn unique(&mut self, columns: &[String]) -> CheckRule {
        self.columns("unique", columns, COLUMNS_MAX);
        CheckRule::Unique { on: self.on.into(), columns: columns.into() }
    }

    fn accepted(&mut self, accepted: &Accepted) -> CheckRule {
        self.column("accepted", &accepted.column);
        let field = self.at("accepted.values");
        self.problems.list_len(&field, accepted.values.len(), 1, VALUES_MAX);
        let values = (accepted.values.iter().enumerate())
            .map(|(n, value)| self.value(&format!("{field}[{n}]"), value))
            .collect();
        CheckRule::Accepted { on: self.on.into(), column: accepted.column.clone(), values }
    }

    fn range(&mut self, range: &ValueRange) -> CheckRule {
        self.column("range", &range.column);
        if range.min.is_none() && range.max.is_none() {
            let field = self.at("range");
            self.problems.add(field, "none is set; set min, max or both");
        }
        let (min_field, max_field) = (self.at("range.min"), self.at("range.max"));
        let min = range.min.as_ref().map(|value| self.value(&min_field, value));
        let max = range.max.as_ref().map(|value| self.value(&max_field, value));
        CheckRule::Range { on: self.on.into(), column: range.column.clone(), min, max }
    }

    fn value(&mut self, field: &str, value: &crate::check::Value) -> String {
        match value.text() {
            Ok(text) if text.len() > VALUE_BYTES_MAX => {
                self.problems.add(field, format!("{} bytes are too many; the most is {VALUE_BYTES_MAX}", text.len()));
                text
            }
            Ok(text) => text,
            Err(message) => {
                self.problems.add(field, message);
                String::new()
            }
        }
    }

    fn regex(&mut self, pattern: &Pattern) -> CheckRule {
        self.column("regex", &pattern.column);
        let chars = pattern.pattern.chars().count();
        if chars == 0 || chars > PATTERN_CHARS_MAX {
            let field = self.at("regex.pattern");
            let message = format!("{chars} characters can't be a pattern; write 1 to {PATTERN_CHARS_MAX}");
            self.problems.add(field, message);
        }
        CheckRule::Regex { on: self.on.into(), column: pattern.column.clone(), pattern: pattern.pattern.clone() }
    }

    fn references(&mut self, references: &References) -> CheckRule {
        let References { columns, to, to_columns } = references;
        self.columns("references.columns", columns, REFERENCE_COLUMNS_MAX);
        if let Some(message) = self.tables.unknown(to) {
            let field = self.at("references.to");
            self.problems.add(field, message);
        }
        let to_columns = match to_columns {
            Some(to_columns) => {
                let field = self.at("references.toColumns");
                self.tables.columns(&field, to, to_columns, (1, REFERENCE_COLUMNS_MAX), self.problems);
                if to_columns.len() != columns.len() {
                    let (here, there) = (columns.len(), to_columns.len());
                    self.problems.add(field, format!("{there} columns for {here}; name as many, in the same order"));
                }
                to_columns.clone()
            }
            None => {
                let field = self.at("references.columns");
                self.tables.columns(&field, to, columns, (1, REFERENCE_COLUMNS_MAX), self.problems);
                columns.clone()
            }
        };
        CheckRule::References { on: self.on.into(), columns: columns.clone(), to: to.clone(), to_columns }
    }

    fn rows(&mut self, rows: &Rows) -> CheckRule {
        let field = self.at("rows");
        for (name, value) in [("min", rows.min), ("max", rows.max)] {
            if let Some(value) = value.filter(|value| *value < 0) {
                self.problems.add(format!("{field}.{name}"), format!("{value} is less than nothing; write 0 or more"));
            }
        }
        match (rows.min, rows.max) {
            (None, None) => self.problems.add(field, "none is set; set min, max or both"),
            (Some(min), Some(max)) if min > max => {
                self.problems.add(field, format!("min {min} is more than max {max}; no count can be both"))
            }
            _ => {}
        }
        CheckRule::Rows { on: self.on.into(), rows: *rows }
    }

    fn rows_change(&mut self, change: &RowsChange) -> CheckRule {
        let field = self.at("rowsChange.max");
        ratio(&field, change.max, f64::MAX, self.problems);
        CheckRule::RowsChange { on: self.on.into(), max: change.max }
    }

    fn mean_change(&mut self, change: &MeanChange) -> CheckRule {
        self.column("meanChange", &change.column);
        let field = self.at("meanChange");
        ratio(&format!("{field}.max"), change.max, f64::MAX, self.problems);
        self.problems.range(&format!("{field}.runs"), change.runs, 1, MEAN_RUNS_MAX);
        CheckRule::MeanChange {
            on: self.on.into(),
            column: change.column.clone(),
            max: change.max,
            runs: change.runs.unwrap_or(MEAN_RUNS) as usize,
        }
    }

    fn fresh(&mut self, fresh: &Fresh) -> CheckRule {
        self.column("fresh", &fresh.column);
        let field = self.at("fresh.maxAge");
        let max_age_seconds = self.problems.span(&field, Some(&fresh.max_age)).unwrap_or_default();
        CheckRule::Fresh { on: self.on.into(), column: fresh.column.clone(), max_age_seconds }
    }

    fn sql(&mut self, sql: &str) -> CheckRule {
        let reads = model::select(&self.at("sql"), sql, self.tables, self.problems);
        CheckRule::Sql { sql: sql.into(), reads }
    }
}

fn severity(field: &str, check: &Check, rule: &CheckRule, problems: &mut Problems) -> CheckSeverity {
    let (warn, error) = (check.warn_if, check.error_if);
    if warn.is_none() && error.is_none() {
        return CheckSeverity::Any(check.severity.unwrap_or_default());
    }
    if check.severity.is_some() {
        problems.add(
            format!("{field}.severity"),
            "warnIf and errorIf say what a failure does; leave severity out, or leave them out",
        );
    }
    for (name, threshold) in [("warnIf", warn), ("errorIf", error)] {
        let Some(threshold) = threshold else { continue };
        let field = format!("{field}.{name}");
        if rule.counts_rows() {
            bounds(&field, &threshold, rule, problems);
        } else {
            problems.add(field, format!("{} counts no failing rows; leave it out and set severity", rule.name()));
        }
    }
    if let (Some(warn), Some(error)) = (warn, error)
        && (warn.count.zip(error.count).is_some_and(|(warn, error)| warn >= error)
            || warn.ratio.zip(error.ratio).is_some_and(|(warn, error)| warn >= error))
    {
        problems.add(format!("{field}.warnIf"), "it is not below errorIf, so that it would never warn; write less");
    }
    CheckSeverity::Above { warn, error }
}

fn bounds(field: &str, threshold: &Threshold, rule: &CheckRule, problems: &mut Problems) {
    if threshold.count.is_none() && threshold.ratio.is_none() {
        problems.add(field, "none is set; set count, ratio or both");
    }
    if let Some(count) = threshold.count.filter(|count| *count < 0) {
        problems.add(format!("{field}.count"), format!("{count} is less than nothing; write 0 or more"));
    }
    if let Some(part) = threshold.ratio {
        let field = format!("{field}.ratio");
        if matches!(rule, CheckRule::Sql { .. }) {
            problems.add(field, "a sql check knows no number of all rows; set count");
        } else {
            ratio(&field, part, 1.0, problems);
        }
    }
}

fn ratio(field: &str, value: f64, max: f64, problems: &mut Problems) {
    if !(0.0..=max).contains(&value) {
        let most = if max == f64::MAX { " or more".into() } else { format!(" to {max}") };
        problems.add(field, format!("{value} is no part; write a number from 0{most}, such as 0.05 for 5%"));
    }
}
