//! `plan`: what a run would do, found out without reading an input, writing anything or taking the lock.

use std::fmt::{self, Write};

use arrow::datatypes::{Schema, SchemaRef};
use jiff::{SignedDuration, Timestamp};
use report_api::check::Severity;
use report_api::checked::{Checked, CheckedCheck, CheckedSource, FormatKind, PostgresRead, SourceKind};
use report_api::interval::Interval;

use crate::check;
use crate::decode::type_words;
use crate::env::Env;
use crate::error::{Result, RunError};
use crate::ledger::{State, peek};
use crate::session::{self, Parameters};
use crate::sink::Owner;
use crate::sink::outlook::{self, Outlook};
use crate::tables::{Planned, Tables};

/// The interval that is asked for: exactly one, or what is missing up to a time.
#[derive(Clone, Copy, Debug)]
pub enum Asked {
    /// Exactly this.
    Exactly(Interval),
    /// From the end of the last committed interval to this time.
    Until(Timestamp),
}

/// What a run would do.
#[derive(Debug)]
pub struct Plan<'a> {
    identity: &'a str,
    checked: &'a Checked,
    asked: Asked,
    ledger: String,
    state: Option<State>,
    planned: Planned,
    /// For each sink; None where its columns are not known.
    sinks: Vec<Option<Outlook>>,
    now: Timestamp,
}

/// Plans a run of a pipeline.
pub async fn plan<'a>(identity: &'a str, checked: &'a Checked, asked: Asked, env: &'a Env) -> Result<Plan<'a>> {
    let parameters = Parameters::of_a_look(checked, env);
    let interval = parameters.interval;
    let planned = Tables::plan(session::open(env, parameters)?, checked, env).await?;
    let (ledger, state) = peek::peek(identity, checked, env).await?;
    let owner = Owner { identity: identity.to_owned() };
    let mut sinks = Vec::with_capacity(checked.sinks.len());
    for sink in &checked.sinks {
        sinks.push(match planned.schemas.get(&sink.from) {
            Some(schema) => Some(outlook::look(sink, &owner, schema, &interval, env).await?),
            None => None,
        });
    }
    Ok(Plan { identity, checked, asked, ledger, state, planned, sinks, now: env.now() })
}

impl Plan<'_> {
    /// Why a run would be refused, as far as this is known.
    pub fn problems(&self) -> impl Iterator<Item = &RunError> {
        self.sinks.iter().flatten().filter_map(|sink| sink.problem.as_ref())
    }

    fn interval(&self) -> String {
        let (end, until) = match self.asked {
            Asked::Exactly(interval) => return interval.to_string(),
            Asked::Until(end) => (end, self.state.as_ref().and_then(State::committed_until)),
        };
        let schedule = self.checked.schedule.as_ref();
        let previous = schedule.and_then(|schedule| schedule.latest_at_or_before(end - SignedDuration::from_micros(1)));
        let start = until.or(self.checked.initial).or(previous).unwrap_or(Timestamp::UNIX_EPOCH);
        if end <= start {
            return format!("none: everything up to {start} is committed already");
        }
        let since = match (until, previous) {
            (Some(_), _) => "since the last committed one",
            (None, _) if self.checked.initial.is_some() => "the first one: since spec.initial",
            (None, Some(_)) => "the first one: since the tick before",
            (None, None) => "the first one",
        };
        format!("{}, {since}", Interval { start, end })
    }

    fn ledger(&self) -> String {
        let Some(state) = &self.state else { return format!("{}: nothing yet, this is the first run", self.ledger) };
        let mut text = self.ledger.clone();
        match state.committed_until() {
            Some(until) => _ = write!(text, ": committed up to {until}"),
            None => text.push_str(": nothing is committed"),
        }
        if let Some(lock) = state.lock.as_ref().filter(|lock| lock.expires > self.now) {
            _ = write!(text, "; the run {} is under way", lock.run_id);
        }
        if let Some(prepared) = &state.prepared {
            _ = write!(
                text,
                "; the run {} has staged {}, which the next run looks after first",
                prepared.run_id, prepared.interval
            );
        }
        text
    }
}

impl fmt::Display for Plan<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "Pipeline {}", self.identity)?;
        writeln!(f, "  interval: {}", self.interval())?;
        writeln!(f, "  ledger:   {}", self.ledger())?;
        writeln!(f, "\nSources")?;
        for source in &self.checked.sources {
            writeln!(f, "  {}: {}, {}", source.name, place(source), format_name(&source.format))?;
            columns(f, self.planned.schemas.get(&source.name), "its columns come with the file")?;
        }
        if !self.checked.models.is_empty() {
            writeln!(f, "\nModels, in their order")?;
        }
        for model in &self.checked.models {
            writeln!(f, "  {}: reads {}", model.name, list(&model.reads))?;
            columns(f, self.planned.schemas.get(&model.name), "its columns depend on a file's")?;
        }
        if !self.checked.checks.is_empty() {
            writeln!(f, "\nChecks")?;
        }
        for check in &self.checked.checks {
            writeln!(f, "  {}: {}", check.name, check_words(check))?;
        }
        writeln!(f, "\nSinks")?;
        for (sink, outlook) in self.checked.sinks.iter().zip(&self.sinks) {
            let Some(outlook) = outlook else {
                writeln!(
                    f,
                    "  {}: {} from {}, whose columns are not known yet",
                    sink.name,
                    sink.mode.name(),
                    sink.from
                )?;
                continue;
            };
            writeln!(f, "  {}: {} {} from {}", sink.name, sink.mode.name(), outlook.target, sink.from)?;
            match (outlook.exists, outlook.has_rows) {
                (Some(false), _) => writeln!(f, "    does not exist; the first commit makes it")?,
                (Some(true), true) => writeln!(f, "    exists and has rows")?,
                (Some(true), false) => writeln!(f, "    exists and has no rows")?,
                (None, _) => writeln!(f, "    not looked at")?,
            }
            if let Some(how) = &outlook.how {
                writeln!(f, "    the rows take their place {how}")?;
            }
            for statement in &outlook.statements {
                writeln!(f, "    {statement};")?;
            }
            if let Some(problem) = &outlook.problem {
                writeln!(f, "    a run would fail, {}: {problem}", problem.code.as_str())?;
            }
        }
        write!(f, "\nNothing was read from the sources, and nothing was written.")
    }
}

fn columns(f: &mut fmt::Formatter<'_>, schema: Option<&SchemaRef>, otherwise: &str) -> fmt::Result {
    let Some(schema) = schema else { return writeln!(f, "    {otherwise}") };
    let width = schema.fields().iter().map(|field| field.name().chars().count()).max().unwrap_or(0);
    let schema: &Schema = schema;
    for field in schema.fields() {
        let required = if field.is_nullable() { "" } else { ", required" };
        writeln!(f, "    {:width$}  {}{required}", field.name(), type_words(field.data_type()))?;
    }
    Ok(())
}

fn place(source: &CheckedSource) -> String {
    match &source.kind {
        SourceKind::Http(http) => format!("{} is fetched", http.url),
        SourceKind::File(file) => format!("the file {}", file.path),
        SourceKind::Postgres { read: PostgresRead::Table { schema, table }, .. } => {
            format!("the table {schema}.{table}")
        }
        SourceKind::Postgres { read: PostgresRead::Query(_), .. } => "a query on a database".into(),
    }
}

fn format_name(format: &FormatKind) -> &'static str {
    match format {
        FormatKind::Csv(_) => "csv",
        FormatKind::Json { .. } => "json",
        FormatKind::NdJson => "ndjson",
        FormatKind::Parquet => "parquet",
        FormatKind::Rows => "rows",
    }
}

fn check_words(check: &CheckedCheck) -> String {
    let severity = match check.worst() {
        Severity::Error => "error",
        Severity::Warn => "warn",
    };
    let how = if check::query(check).is_some() { "by a query" } else { "as rows pass" };
    let reads = check.rule.reads().into_iter().map(str::to_owned).collect::<Vec<_>>();
    format!("{} on {}, {how}, {severity}", check.rule.name(), list(&reads))
}

fn list(names: &[String]) -> String {
    if names.is_empty() { "nothing".into() } else { names.join(", ") }
}
