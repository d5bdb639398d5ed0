//! Compares an input's columns with those that the manifest declares and those that the last good run has seen.
//!
//! What a source had is remembered in the ledger, with a mark of the part of the manifest that it was read by: when that
//! changes, the input is taken as it is and remembered anew.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use report_api::checked::{CheckedColumn, CheckedSource, FormatKind, Written};
use report_api::column::{COLUMN_NAME_BYTES_MAX, COLUMNS_MAX, ColumnType, ContractMode, snake_case};
use report_api::result::CHANGES_MAX;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::names::{self, NAMES_SHOWN_MAX};
use super::text::{self, quoted};
use super::{arrow_type, parquet};
use crate::error::{Code, Result, RunError};
use crate::rejected::SourceLog;

/// Most names of an input that are remembered, since the ledger is one small document. Columns of an input with more are
/// not compared.
const INPUT_NAMES_MAX: usize = 10_000;

/// The columns of a source in the last good run.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RecordedColumns {
    /// The part of the manifest that they were read by.
    pub manifest: String,
    /// The names in the input.
    pub input: Vec<String>,
    /// The columns that the source had.
    pub columns: Vec<RecordedColumn>,
}

/// A column of a source in the last good run.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RecordedColumn {
    /// Its name in SQL.
    pub name: String,
    /// Its name in the input, where that is known.
    pub from: Option<String>,
    /// Its type, as in manifests.
    #[serde(rename = "type")]
    pub type_: String,
    /// Whether the input had it.
    pub found: bool,
}

/// A column of an input.
#[derive(Clone, Debug)]
pub(super) struct Found<'a> {
    pub(super) name: &'a str,
    pub(super) type_: FoundType,
}

/// What an input says of the type of one of its columns.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum FoundType {
    /// Nothing: values are texts.
    Text,
    /// A type; None for one that no column can have.
    Typed(Option<ColumnType>),
}

impl<'a> Found<'a> {
    pub(super) fn text(name: &'a str) -> Self {
        Self { name, type_: FoundType::Text }
    }
}

/// What stands in the ledger for the part of the manifest that says a source's columns. Only what decides about columns is
/// in it, in words of its own: a newer worker must not take what is remembered for another manifest's.
pub(crate) fn manifest_mark(source: &CheckedSource) -> String {
    let format = match &source.format {
        FormatKind::Csv(csv) => {
            let encoding = text::name(csv.encoding);
            format!("csv {} {:?} {} {encoding} {}", csv.delimiter, csv.quote, csv.header, csv.skip_lines)
        }
        FormatKind::Json { path } => format!("json {path:?}"),
        FormatKind::NdJson => "ndjson".into(),
        FormatKind::Parquet => "parquet".into(),
        FormatKind::Rows => "rows".into(),
    };
    let contract = match source.contract {
        ContractMode::Freeze => "freeze",
        ContractMode::Evolve => "evolve",
        ContractMode::Discard => "discard",
    };
    let columns: Vec<_> = source.columns.iter().map(|c| (&c.name, &c.from, c.type_.to_string(), c.required)).collect();
    let text = format!("{format} {contract} {columns:?}");
    crate::source::hexadecimal(&Sha256::digest(text)[..8])
}

/// The columns that a source has, given those of its input. `infer` guesses them where neither manifest nor ledger knows.
pub(super) fn settle(
    source: &CheckedSource,
    found: &[Found<'_>],
    log: &Arc<SourceLog>,
    infer: impl FnOnce() -> Result<Vec<(String, ColumnType)>>,
) -> Result<Vec<CheckedColumn>> {
    let known = log.known();
    if !source.columns.is_empty() {
        // What the manifest asks for and is not there is said first, with the nearest name.
        let names: Vec<&str> = found.iter().map(|f| f.name).collect();
        names::find(&source.columns, &names, &source.field)?;
    }
    let mut columns = match (source.columns.is_empty(), known) {
        (false, _) => source.columns.clone(),
        (true, Some(known)) => recorded_columns(source, known)?,
        (true, None) => first_columns(source, found, infer)?,
    };
    let mut changes = Changes::default();
    let places = Places::of(&columns, found);

    // Columns of the input that nobody has named.
    let is_remembered: Option<HashSet<&str>> = known
        .filter(|known| known.input.len() < INPUT_NAMES_MAX)
        .map(|known| known.input.iter().map(String::as_str).collect());
    let is_new = |name: &str| is_remembered.as_ref().is_some_and(|input| !input.contains(name));
    let others: Vec<&Found<'_>> =
        (found.iter().zip(&places.used)).filter(|(_, used)| !**used).map(|(f, _)| f).collect();
    match source.contract {
        ContractMode::Freeze => {
            changes.broken(others.iter().filter(|f| is_new(f.name)).map(|f| format!("+ {}", shown(f.name))))
        }
        ContractMode::Discard => {
            changes.noted(others.iter().filter(|f| is_new(f.name)).map(|f| format!("+ {} (left out)", shown(f.name))))
        }
        ContractMode::Evolve => {
            let new =
                others.iter().map(|f| Ok((f.name.to_owned(), own_type(source, f)?))).collect::<Result<Vec<_>>>()?;
            add(source, &mut columns, new)?;
            // What came in once stays.
            for old in known.iter().flat_map(|known| &known.columns) {
                if !columns.iter().any(|column| column.name == old.name) {
                    columns.push(old.column(source)?);
                }
            }
        }
    }

    // Types, where the input has them.
    let places = Places::of(&columns, found);
    let known_types: HashMap<&str, &RecordedColumn> =
        known.iter().flat_map(|known| &known.columns).map(|column| (column.name.as_str(), column)).collect();
    for (column, place) in columns.iter_mut().zip(&places.columns) {
        let old = known_types.get(column.name.as_str());
        let old_type = old.map(|old| old.parsed()).transpose()?;
        let is_typed = found.first().is_some_and(|f| f.type_ != FoundType::Text);
        if is_typed
            && source.contract == ContractMode::Evolve
            && let Some(old) = old_type.filter(|old| widens(column.type_, *old))
        {
            column.type_ = old;
        }
        if let Some(FoundType::Typed(Some(now))) = place.map(|at| found[at].type_)
            && !widens(now, column.type_)
        {
            match source.contract {
                ContractMode::Evolve if widens(column.type_, now) => column.type_ = now,
                // The format says what is wrong with a type that the manifest declares.
                _ if !source.columns.is_empty() => {}
                ContractMode::Freeze | ContractMode::Discard | ContractMode::Evolve => {
                    changes.broken([format!("~ {} {} -> {now}", column.name, column.type_)]);
                }
            }
        }
        match (old, place) {
            (None, _) if known.is_some() => changes.noted([format!("+ {} {}", column.name, column.type_)]),
            (Some(old), None) if old.found => match source.contract {
                ContractMode::Evolve => changes.noted([format!("- {}", column.name)]),
                ContractMode::Freeze | ContractMode::Discard => changes.broken([format!("- {}", column.name)]),
            },
            (Some(_), _) if old_type != Some(column.type_) => {
                let old = old_type.map_or_else(String::new, |old| old.to_string());
                changes.noted([format!("~ {} {old} -> {}", column.name, column.type_)]);
            }
            (Some(_) | None, _) => {}
        }
    }
    changes.end(source)?;
    let recorded = RecordedColumns {
        manifest: manifest_mark(source),
        input: found.iter().take(INPUT_NAMES_MAX).map(|f| f.name.to_owned()).collect(),
        columns: record(&columns, |at| places.columns[at].is_some()),
    };
    log.record(recorded, changes.noted);
    Ok(columns)
}

/// The columns of a source whose input says them only row by row: those of the manifest, else those remembered.
pub(super) fn declared(source: &CheckedSource, log: &SourceLog) -> Result<Option<Vec<CheckedColumn>>> {
    match (source.columns.is_empty(), log.known()) {
        _ if source.contract == ContractMode::Evolve => Ok(None),
        (false, _) => Ok(Some(source.columns.clone())),
        (true, Some(known)) => recorded_columns(source, known).map(Some),
        (true, None) => Ok(None),
    }
}

/// Compares the keys of all rows with those remembered, at the end of such an input.
pub(super) fn compare_keys(
    source: &CheckedSource,
    columns: &[CheckedColumn],
    keys: &[(&str, bool)],
    log: &SourceLog,
) -> Result<()> {
    let known = log.known();
    let mut changes = Changes::default();
    // Rows need not have all keys: one that is not there now is not gone.
    let mut input: BTreeSet<&str> = known.iter().flat_map(|known| &known.input).map(String::as_str).collect();
    if known.is_some() && input.len() < INPUT_NAMES_MAX {
        let new = keys.iter().filter(|(key, used)| !used && !input.contains(key)).map(|(key, _)| shown(key));
        match source.contract {
            ContractMode::Freeze => changes.broken(new.map(|key| format!("+ {key}"))),
            ContractMode::Discard | ContractMode::Evolve => changes.noted(new.map(|key| format!("+ {key} (left out)"))),
        }
    }
    changes.end(source)?;
    input.extend(keys.iter().map(|(key, _)| *key));
    let recorded = RecordedColumns {
        manifest: manifest_mark(source),
        input: input.into_iter().take(INPUT_NAMES_MAX).map(str::to_owned).collect(),
        columns: record(columns, |_| true),
    };
    log.record(recorded, changes.noted);
    Ok(())
}

/// For each column the place of its name in the input, and for each name whether a column has it.
struct Places {
    columns: Vec<Option<usize>>,
    used: Vec<bool>,
}

impl Places {
    fn of(columns: &[CheckedColumn], found: &[Found<'_>]) -> Self {
        let snakes: Vec<String> = found.iter().map(|f| snake_case(f.name)).collect();
        let mut used = vec![false; found.len()];
        let columns = columns
            .iter()
            .map(|column| {
                let mut first = None;
                for (at, (f, snake)) in found.iter().zip(&snakes).enumerate() {
                    if names::matches(column, f.name, snake) {
                        used[at] = true;
                        first = first.or(Some(at));
                    }
                }
                first
            })
            .collect();
        Self { columns, used }
    }
}

/// What is different from the last good run.
#[derive(Default)]
struct Changes {
    noted: Vec<String>,
    noted_more: usize,
    broken: Vec<String>,
    broken_more: usize,
}

impl Changes {
    fn noted(&mut self, changes: impl IntoIterator<Item = String>) {
        for change in changes {
            // The last place is for the number of the others.
            if self.noted.len() + 1 < CHANGES_MAX { self.noted.push(change) } else { self.noted_more += 1 }
        }
    }

    fn broken(&mut self, changes: impl IntoIterator<Item = String>) {
        for change in changes {
            if self.broken.len() < NAMES_SHOWN_MAX { self.broken.push(change) } else { self.broken_more += 1 }
        }
    }

    fn end(&mut self, source: &CheckedSource) -> Result<()> {
        if self.noted_more > 0 {
            self.noted.push(format!("and {} more", self.noted_more));
        }
        if self.broken.is_empty() {
            return Ok(());
        }
        let more = if self.broken_more > 0 { format!(" and {} more", self.broken_more) } else { String::new() };
        let message = format!(
            "the input's columns are not those of the last good run: {}{more}; declare them under columns as they are now, or set contract to discard (new ones are left out) or evolve (they come in)",
            self.broken.join(", ")
        );
        Err(RunError::at(Code::ColumnsChanged, format!("{}.contract", source.field), message))
    }
}

/// A name of an input in a list of changes: as it is where it is a plain word.
fn shown(name: &str) -> String {
    let plain = !name.is_empty() && name.len() <= 40 && name.chars().all(|c| c.is_alphanumeric() || c == '_');
    if plain { name.to_owned() } else { quoted(name) }
}

fn record(columns: &[CheckedColumn], found: impl Fn(usize) -> bool) -> Vec<RecordedColumn> {
    let one = |(at, column): (usize, &CheckedColumn)| RecordedColumn {
        name: column.name.clone(),
        from: column.from.clone(),
        type_: column.type_.to_string(),
        found: found(at),
    };
    columns.iter().enumerate().map(one).collect()
}

fn recorded_columns(source: &CheckedSource, known: &RecordedColumns) -> Result<Vec<CheckedColumn>> {
    known.columns.iter().map(|column| column.column(source)).collect()
}

impl RecordedColumn {
    fn parsed(&self) -> Result<ColumnType> {
        ColumnType::parse(&self.type_)
            .map_err(|why| RunError::new(Code::Internal, format!("the ledger's column {}: {why}", self.name)))
    }

    fn column(&self, source: &CheckedSource) -> Result<CheckedColumn> {
        Ok(own_column(source, self.name.clone(), self.from.clone(), self.parsed()?))
    }
}

fn own_column(source: &CheckedSource, name: String, from: Option<String>, type_: ColumnType) -> CheckedColumn {
    let field = source.field.clone();
    CheckedColumn { field, name, from, type_, required: false, description: None, written: Written::Plain }
}

/// All columns of an input that is read for the first time.
fn first_columns(
    source: &CheckedSource,
    found: &[Found<'_>],
    infer: impl FnOnce() -> Result<Vec<(String, ColumnType)>>,
) -> Result<Vec<CheckedColumn>> {
    let mut columns = Vec::new();
    let all = match found.iter().any(|f| f.type_ == FoundType::Text) {
        true => infer()?,
        false => found.iter().map(|f| Ok((f.name.to_owned(), own_type(source, f)?))).collect::<Result<_>>()?,
    };
    if all.is_empty() {
        let text = "the input has no columns; list those that it should have under columns";
        return Err(RunError::at(Code::InputMalformed, &source.field, text));
    }
    add(source, &mut columns, all)?;
    Ok(columns)
}

/// Adds columns of the input under names of their own.
fn add(source: &CheckedSource, columns: &mut Vec<CheckedColumn>, new: Vec<(String, ColumnType)>) -> Result<()> {
    let malformed = |message: String| Err(RunError::at(Code::InputMalformed, &source.field, message));
    let mut taken: HashMap<String, String> = columns
        .iter()
        .map(|column| (column.name.clone(), column.from.clone().unwrap_or_else(|| column.name.clone())))
        .collect();
    for (from, type_) in new {
        let name = snake_case(&from);
        if name.is_empty() || name.len() > COLUMN_NAME_BYTES_MAX {
            return malformed(format!(
                "the column {} needs a name of 1 to {COLUMN_NAME_BYTES_MAX} bytes; list the columns to read under columns, with from",
                quoted(&from)
            ));
        }
        if let Some(other) = taken.insert(name.clone(), from.clone()) {
            let (one, two) = (quoted(&other), quoted(&from));
            return malformed(format!(
                "the columns {one} and {two} both become {name}; name them under columns, with from"
            ));
        }
        columns.push(own_column(source, name, Some(from), type_));
        if columns.len() > COLUMNS_MAX {
            return malformed(format!(
                "the input has more than {COLUMNS_MAX} columns; list those to read under columns"
            ));
        }
    }
    Ok(())
}

/// The type under which a column that nobody has declared comes in.
fn own_type(source: &CheckedSource, found: &Found<'_>) -> Result<ColumnType> {
    match found.type_ {
        FoundType::Text => Ok(ColumnType::String),
        FoundType::Typed(Some(type_)) => Ok(type_),
        FoundType::Typed(None) => Err(RunError::at(
            Code::TypeUnsupported,
            &source.field,
            format!(
                "the column {} has a type that no column can have; list the columns to read without it",
                quoted(found.name)
            ),
        )),
    }
}

/// Whether every value of a type is one of another, or the two are the same. A text is looked at as it is read, where
/// the other is one of those that are texts in a certain form.
fn widens(from: ColumnType, to: ColumnType) -> bool {
    parquet::fits(&arrow_type(from), to)
}
