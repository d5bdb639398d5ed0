//! Validation that needs no server: a manifest becomes a [`Checked`], or every [`Problem`] in it. The operator, its
//! worker and whoever looks at a manifest offline call it, so it also checks what the CRD's schema and CEL rules say.
//!
//! One file per part of the manifest. Each function takes its part's field path and leaves its problems in [`Problems`];
//! what it returns is used only where there are none. Whether columns and types of the SQL fit is the worker's to say.

mod check;
mod delta;
mod incremental;
mod model;
mod pod_template;
mod rows;
mod sink;
mod source;
mod worker;

use std::collections::{BTreeMap, HashMap};

use crate::checked::{Checked, CheckedRaw, CheckedSink, SinkMode};
use crate::column::ContractMode;
use crate::connection::SecretKey;
use crate::contract::SECRET_PREFIX;
use crate::cron::{self, Schedule};
use crate::pipeline::{CHECKS_MAX, MODELS_MAX, PIPELINE_NAME_MAX, Raw, ReportPipelineSpec, SINKS_MAX, SOURCES_MAX};
use crate::problem::{Problem, near};
use crate::source::Source;
use crate::template;
use crate::units::{Size, Span};

/// Longest name of a source, model or column, as in PostgreSQL.
const IDENTIFIER_BYTES_MAX: usize = 63;
/// Longest name of a check or sink.
const LABEL_BYTES_MAX: usize = 40;
/// Longest description, in characters.
const DESCRIPTION_CHARS_MAX: usize = 1024;
/// Longest URL of raw copies, in characters.
const RAW_URL_CHARS_MAX: usize = 1024;
/// Fewest seconds of `startingDeadline`; [`ReportPipelineSpec::starting_deadline_seconds`] says why.
const STARTING_DEADLINE_SECONDS_MIN: u64 = 900;
/// Most names that a message lists when none of them is close to what was written.
const NAMES_LISTED_MAX: usize = 8;

/// Checks a manifest with this `metadata.name`. The problems are all that there are, in the manifest's order.
pub fn validate(name: &str, spec: &ReportPipelineSpec) -> Result<Checked, Vec<Problem>> {
    let mut problems = Problems::default();
    pipeline_name(name, &mut problems);
    let schedule = run_settings(spec, &mut problems);

    for (list, len, min, max) in [
        ("sources", spec.sources.len(), 1, SOURCES_MAX),
        ("models", spec.models.len(), 0, MODELS_MAX),
        ("checks", spec.checks.len(), 0, CHECKS_MAX),
        ("sinks", spec.sinks.len(), 1, SINKS_MAX),
    ] {
        problems.list_len(&format!("spec.{list}"), len, min, max);
    }

    let tables = Tables::of(spec, &mut problems);
    let sources: Vec<_> = (spec.sources.iter().enumerate())
        .filter_map(|(n, source)| source::check(format!("spec.sources[{n}]"), source, &mut problems))
        .collect();
    let models = model::check_all(&spec.models, &tables, &mut problems);
    problems.unique_names("spec.checks", spec.checks.iter().map(|check| check.name.as_str()));
    let checks: Vec<_> = (spec.checks.iter().enumerate())
        .filter_map(|(n, check)| check::check(format!("spec.checks[{n}]"), check, &tables, &mut problems))
        .collect();
    problems.unique_names("spec.sinks", spec.sinks.iter().map(|sink| sink.name.as_str()));
    let sinks: Vec<_> = (spec.sinks.iter().enumerate())
        .filter_map(|(n, sink)| sink::check(format!("spec.sinks[{n}]"), sink, &tables, &mut problems))
        .collect();
    sink::check_targets(&sinks, &mut problems);
    let max_interval_seconds = max_interval(spec, &sinks, &mut problems);
    delta::check(&sources, &models, &sinks, &mut problems);
    if let Some(worker) = &spec.worker {
        worker::check(worker, &mut problems);
    }
    let raw = spec.raw.as_ref().and_then(|raw| raw_copies(raw, &mut problems));
    let secrets = secrets(spec, &mut problems);

    if problems.found.is_empty() {
        Ok(Checked {
            sources,
            models,
            checks,
            sinks,
            secrets,
            timeout_seconds: spec.timeout_seconds(),
            when_busy: spec.when_busy(),
            raw,
            initial: spec.initial,
            max_interval_seconds,
            schedule,
            spec: spec.clone(),
        })
    } else {
        Err(problems.in_order())
    }
}

fn pipeline_name(name: &str, problems: &mut Problems) {
    problems.label("metadata.name", name, PIPELINE_NAME_MAX);
    // The Job of the pipeline `x` at that time would have this name, and the operator tells ticks by it.
    if let Some((_, end)) = name.rsplit_once('-')
        && (8..=9).contains(&end.len())
        && end.bytes().all(|b| b.is_ascii_digit())
    {
        problems.add(
            "metadata.name",
            format!("{name} ends like the name of a scheduled Job; write fewer or more than 8 or 9 digits"),
        );
    }
}

fn run_settings(spec: &ReportPipelineSpec, problems: &mut Problems) -> Option<Schedule> {
    problems.description("spec", spec.description.as_deref());
    let schedule = match &spec.schedule {
        Some(expression) => match Schedule::parse(expression, spec.time_zone()) {
            Ok(schedule) => Some(schedule),
            Err(found) => {
                problems.found.extend(found);
                None
            }
        },
        None => {
            if let Err(message) = cron::time_zone(spec.time_zone()) {
                problems.add("spec.timeZone", message);
            }
            None
        }
    };
    if let Some(seconds) = problems.span("spec.startingDeadline", spec.starting_deadline.as_ref())
        && seconds < STARTING_DEADLINE_SECONDS_MIN
    {
        let hint = "write 15m or more: Kubernetes may be that late when many schedules are due at once";
        problems.add(
            "spec.startingDeadline",
            format!("{} is less than 15m; {hint}", spec.starting_deadline.as_ref().map_or("", |span| &span.0)),
        );
    }
    problems.span("spec.timeout", spec.timeout.as_ref());
    problems.range("spec.retries", spec.retries, 0, 10);
    if let Some(history) = &spec.history {
        problems.range("spec.history.successful", history.successful, 1, 100);
        problems.range("spec.history.failed", history.failed, 1, 100);
    }
    problems.span("spec.freshness.maxAge", spec.freshness.as_ref().map(|freshness| &freshness.max_age));
    schedule
}

fn raw_copies(raw: &Raw, problems: &mut Problems) -> Option<CheckedRaw> {
    problems.plain_text("spec.raw.url", &raw.url, RAW_URL_CHARS_MAX);
    let retention_seconds = problems.span("spec.raw.retention", raw.retention.as_ref());
    let url = sink::lake_url(&raw.url).map_err(|message| problems.add("spec.raw.url", message)).ok()?;
    Some(CheckedRaw { url, retention_seconds })
}

fn max_interval(spec: &ReportPipelineSpec, sinks: &[CheckedSink], problems: &mut Problems) -> Option<u64> {
    let seconds = problems.span("spec.maxInterval", spec.max_interval.as_ref())?;
    for sink in sinks.iter().filter(|sink| matches!(sink.mode, SinkMode::Replace(_))) {
        let what = "of several intervals it would keep the rows of the last one only";
        problems.add(
            "spec.maxInterval",
            format!(
                "the sink {} replaces: {what}; use append, merge or deleteInsert there, or leave maxInterval out",
                sink.name
            ),
        );
    }
    Some(seconds)
}

/// All Secret keys that the manifest names. Two that would become one environment variable are a problem.
fn secrets(spec: &ReportPipelineSpec, problems: &mut Problems) -> Vec<SecretKey> {
    let mut named: Vec<(String, SecretKey)> = Vec::new();
    for (s, source) in spec.sources.iter().enumerate() {
        for (h, header) in source.http.iter().flat_map(|http| &http.headers).enumerate() {
            if let Some(from) = &header.value_from {
                named.push((
                    format!("spec.sources[{s}].http.headers[{h}].valueFrom.secretKeyRef"),
                    (&from.secret_key_ref).into(),
                ));
            }
        }
    }
    for (s, source) in spec.sources.iter().enumerate() {
        for (m, key) in source.mask.iter().enumerate().filter_map(|(m, mask)| Some((m, mask.key.as_ref()?))) {
            named.push((format!("spec.sources[{s}].mask[{m}].key.secretKeyRef"), (&key.secret_key_ref).into()));
        }
        if let Some(postgres) = &source.postgres {
            named.push((
                format!("spec.sources[{s}].postgres.connection.secretRef"),
                (&postgres.connection.secret_ref).into(),
            ));
        }
    }
    for (s, sink) in spec.sinks.iter().enumerate() {
        if let Some(postgres) = &sink.postgres {
            named.push((
                format!("spec.sinks[{s}].postgres.connection.secretRef"),
                (&postgres.connection.secret_ref).into(),
            ));
        }
        if let Some(mysql) = &sink.mysql {
            named.push((format!("spec.sinks[{s}].mysql.connection.secretRef"), (&mysql.connection.secret_ref).into()));
        }
    }
    let mut variables: HashMap<String, SecretKey> = HashMap::new();
    let mut keys = Vec::new();
    for (field, key) in named {
        secret_key(&field, &key, problems);
        let first = variables.entry(key.variable()).or_insert_with(|| key.clone());
        if *first != key {
            let both = format!("the key {} of {} and the key {} of {}", first.key, first.name, key.key, key.name);
            problems.add(
                field,
                format!("{both} would both be the environment variable {}; rename one of them", key.variable()),
            );
        }
        keys.push(key);
    }
    keys.sort();
    keys.dedup();
    keys
}

fn secret_key(field: &str, key: &SecretKey, problems: &mut Problems) {
    problems.object_name(&format!("{field}.name"), &key.name, "Secret");
    let usable = |b: u8| b.is_ascii_alphanumeric() || b"-._".contains(&b);
    if key.key.is_empty() || key.key.len() > 253 || !key.key.bytes().all(usable) {
        problems.add(
            format!("{field}.key"),
            format!("{:?} can't be a key of a Secret; write letters, digits, dashes, dots and underscores", key.key),
        );
    }
}

/// The names that models, checks and sinks may refer to, and the columns of those whose manifest lists them.
struct Tables<'a> {
    /// Sources first, both in the manifest's order.
    names: Vec<&'a str>,
    columns: BTreeMap<&'a str, Vec<&'a str>>,
}

impl<'a> Tables<'a> {
    fn of(spec: &'a ReportPipelineSpec, problems: &mut Problems) -> Self {
        let mut tables = Self { names: Vec::new(), columns: BTreeMap::new() };
        let mut places: HashMap<&str, String> = HashMap::new();
        let sources =
            spec.sources.iter().enumerate().map(|(n, source)| (source.name.as_str(), format!("spec.sources[{n}]")));
        let models =
            spec.models.iter().enumerate().map(|(n, model)| (model.name.as_str(), format!("spec.models[{n}]")));
        for (name, place) in sources.chain(models) {
            problems.identifier(&format!("{place}.name"), name);
            match places.get(name) {
                Some(first) => {
                    problems.add(
                        format!("{place}.name"),
                        format!("`{name}` is the name of {first} too; sources and models need names of their own"),
                    );
                }
                None => {
                    places.insert(name, place);
                    tables.names.push(name);
                }
            }
        }
        let is_known = |source: &&Source| !source.columns.is_empty() && source.contract != Some(ContractMode::Evolve);
        for source in spec.sources.iter().filter(is_known) {
            tables.columns.insert(&source.name, source.columns.iter().map(|column| column.name.as_str()).collect());
        }
        tables
    }

    /// What to say of a name that is none of a source or model.
    fn unknown(&self, name: &str) -> Option<String> {
        if self.names.contains(&name) {
            return None;
        }
        Some(match near(name, self.names.iter().copied()) {
            Some(meant) => format!("no model or source `{name}`; did you mean `{meant}`?"),
            None => format!("no model or source `{name}`; there is {}", listed(&self.names)),
        })
    }

    /// Columns of a table: at least `min`, none twice, and none that a source does not have.
    fn columns(
        &self,
        field: &str,
        table: &str,
        columns: &[String],
        (min, max): (usize, usize),
        problems: &mut Problems,
    ) {
        problems.list_len(field, columns.len(), min, max);
        for (n, column) in columns.iter().enumerate() {
            let field = format!("{field}[{n}]");
            if columns[..n].contains(column) {
                problems.add(field, format!("`{column}` is named twice; remove one"));
            } else {
                self.column(&field, table, column, problems);
            }
        }
    }

    /// Checks a column of a table: refuses one that a source does not have.
    fn column(&self, field: &str, table: &str, column: &str, problems: &mut Problems) {
        if column.is_empty() || column.len() > IDENTIFIER_BYTES_MAX {
            problems.add(field, format!("{column:?} can't be a column; names have 1 to {IDENTIFIER_BYTES_MAX} bytes"));
        } else if let Some(known) = self.columns.get(table)
            && !known.contains(&column)
        {
            let hint = near(column, known.iter().copied())
                .map_or(format!("it has {}", listed(known)), |meant| format!("did you mean `{meant}`?"));
            problems.add(field, format!("{table} has no column `{column}`; {hint}"));
        }
    }
}

/// The problems found so far, and the checks that more than one part of the manifest needs.
#[derive(Default)]
struct Problems {
    found: Vec<Problem>,
}

impl Problems {
    fn add(&mut self, field: impl Into<String>, message: impl Into<String>) {
        self.found.push(Problem::new(field, message));
    }

    /// By place in the manifest; what was found in one item of a list stays in the order in which it was found.
    fn in_order(mut self) -> Vec<Problem> {
        const ORDER: [&str; 15] = [
            "metadata.name",
            "spec.description",
            "spec.schedule",
            "spec.timeZone",
            "spec.startingDeadline",
            "spec.timeout",
            "spec.retries",
            "spec.history",
            "spec.freshness",
            "spec.sources",
            "spec.models",
            "spec.checks",
            "spec.sinks",
            "spec.worker",
            "",
        ];
        self.found.sort_by_key(|problem| {
            let rank = ORDER.iter().position(|part| problem.field.starts_with(part));
            let item = problem.field.split_once('[').and_then(|(_, rest)| rest.split_once(']'));
            (rank, item.and_then(|(number, _)| number.parse::<usize>().ok()))
        });
        self.found.dedup();
        self.found
    }

    fn description(&mut self, field: &str, text: Option<&str>) {
        let chars = text.map_or(0, |text| text.chars().count());
        if chars > DESCRIPTION_CHARS_MAX {
            self.add(
                format!("{field}.description"),
                format!("{chars} characters are too many; the most is {DESCRIPTION_CHARS_MAX}"),
            );
        }
    }

    fn list_len(&mut self, field: &str, len: usize, min: usize, max: usize) {
        if len < min {
            self.add(field, format!("the list is empty; write at least {min}"));
        } else if len > max {
            self.add(field, format!("{len} are too many; the most is {max}"));
        }
    }

    fn range(&mut self, field: &str, value: Option<u32>, min: u32, max: u32) {
        if let Some(value) = value
            && !(min..=max).contains(&value)
        {
            self.add(field, format!("{value} is outside {min} to {max}"));
        }
    }

    /// The seconds of a span that can be read.
    fn span(&mut self, field: &str, span: Option<&Span>) -> Option<u64> {
        span?.parse().map_err(|message| self.add(field, message)).ok()
    }

    /// The bytes of a size that can be read.
    fn size(&mut self, field: &str, size: Option<&Size>) -> Option<u64> {
        size?.parse().map_err(|message| self.add(field, message)).ok()
    }

    /// A name in SQL.
    fn identifier(&mut self, field: &str, name: &str) {
        if name.len() > IDENTIFIER_BYTES_MAX {
            self.add(field, format!("{} bytes are too many; the most is {IDENTIFIER_BYTES_MAX}", name.len()));
        } else if !is_identifier(name) {
            let snake = crate::column::snake_case(name);
            let hint = if is_identifier(&snake) { format!("such as {snake}") } else { "and no digit first".into() };
            self.add(
                field,
                format!("{name:?} can't be a name in SQL; write lower case letters, digits and underscores, {hint}"),
            );
        }
    }

    /// A name that becomes part of names in Kubernetes.
    fn label(&mut self, field: &str, name: &str, bytes_max: usize) {
        if name.len() > bytes_max {
            self.add(field, format!("{} characters are too many; the most is {bytes_max}", name.len()));
        } else if !is_label(name) {
            let dashed = crate::column::snake_case(name).replace('_', "-");
            let hint = if is_label(&dashed) { format!(", such as {dashed}") } else { String::new() };
            self.add(field, format!("{name:?} can't be a name; write lower case letters, digits and dashes, with no dash at an end{hint}"));
        }
    }

    /// The name of a Kubernetes object.
    fn object_name(&mut self, field: &str, name: &str, kind: &str) {
        if name.len() > 253 || !name.split('.').all(is_label) {
            self.add(
                field,
                format!("{name:?} can't be the name of a {kind}; write lower case letters, digits, dashes and dots"),
            );
        }
    }

    fn unique_names<'a>(&mut self, list: &str, names: impl Iterator<Item = &'a str>) {
        let mut places: HashMap<&str, usize> = HashMap::new();
        for (n, name) in names.enumerate() {
            self.label(&format!("{list}[{n}].name"), name, LABEL_BYTES_MAX);
            let first = *places.entry(name).or_insert(n);
            if first != n {
                self.add(
                    format!("{list}[{n}].name"),
                    format!("`{name}` is the name of {list}[{first}] too; each needs one of its own"),
                );
            }
        }
    }

    /// Names the options where not exactly one of them is set.
    fn one_of(&mut self, field: &str, options: &[(&str, bool)]) -> bool {
        let set: Vec<&str> = options.iter().filter(|(_, set)| *set).map(|(name, _)| *name).collect();
        if set.len() != 1 {
            let names: Vec<&str> = options.iter().map(|(name, _)| *name).collect();
            let (last, rest) = names.split_last().expect("a union has options");
            let found = if set.is_empty() { "none is set".into() } else { format!("{} are set", set.join(" and ")) };
            self.add(field, format!("{found}; set exactly one of {} and {last}", rest.join(", ")));
        }
        set.len() == 1
    }

    /// A text without control characters, of at most so many characters.
    fn plain_text(&mut self, field: &str, text: &str, chars_max: usize) {
        let chars = text.chars().count();
        if chars > chars_max {
            self.add(field, format!("{chars} characters are too many; the most is {chars_max}"));
        } else if text.chars().any(char::is_control) {
            self.add(field, "there is a control character in it, such as a line break; remove it");
        }
    }

    /// What a template gives for made-up values.
    fn rendered(&mut self, field: &str, text: &str) -> Option<String> {
        match template::render(text, &template::Values::sample("pipeline")) {
            Ok(rendered) => Some(rendered),
            Err(message) => {
                self.add(field, message);
                None
            }
        }
    }

    /// A path that somebody wrote as a template where none is filled in.
    fn no_template(&mut self, field: &str, text: &str) {
        if text.contains("{{") {
            self.add(field, "{{ }} is not filled in here; write the text as it is");
        }
    }
}

fn is_identifier(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|b| b.is_ascii_lowercase() || b == b'_')
        && bytes.all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
}

fn is_label(name: &str) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let (first, last) = (name.bytes().next(), name.bytes().last());
    first.is_some_and(inner) && last.is_some_and(inner) && name.bytes().all(|b| inner(b) || b == b'-')
}

/// Names for a message: all, or the first few.
fn listed(names: &[&str]) -> String {
    match names.len() {
        0 => "none".into(),
        1..=NAMES_LISTED_MAX => names.join(", "),
        more => format!("{} and {} more", names[..NAMES_LISTED_MAX].join(", "), more - NAMES_LISTED_MAX),
    }
}

/// Whether an environment variable is one of those that the operator sets.
fn is_reserved_variable(name: &str) -> bool {
    name.starts_with(crate::contract::ENV_PREFIX) || name.starts_with(SECRET_PREFIX)
}

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod tests;
