//! One JSON object as one row, for both JSON formats.
//!
//! Numbers are read from their digits, never through a float. Objects and arrays are text for `string` columns and an
//! error for others; a `json` column has any value but null as it stands there, a text with its quotes. A key that is missing or null is NULL.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use report_api::checked::{CheckedColumn, CheckedSource};
use report_api::column::{ColumnType, snake_case};
use serde::Deserializer as _;
use serde::de::{DeserializeSeed, Error as _, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::contract;
use super::infer::Inference;
use super::names;
use super::rows::{Place, Rows};
use crate::error::{Code, Result, RunError};
use crate::rejected::SourceLog;

/// Most keys that are remembered with what they mean. Objects with more different keys than columns may have are maps,
/// whose keys are data.
const KEYS_MAX: usize = 4 * report_api::column::COLUMNS_MAX;

/// Reads objects as rows of a contract.
pub(super) struct Objects {
    pub(super) source: CheckedSource,
    columns: Vec<CheckedColumn>,
    log: Arc<SourceLog>,
    /// Keys that were seen, as indexes of `known`.
    index: HashMap<String, usize>,
    /// Each with the columns that it fills.
    known: Vec<(String, Vec<usize>)>,
    /// For each column the key that has filled it in this row.
    filled: Vec<Option<usize>>,
    rows: u64,
    /// Whether any key has filled any column.
    matched: bool,
    purpose: Purpose,
}

/// What objects are read for.
enum Purpose {
    /// For their rows; at the end the keys are compared with those of the last good run.
    Rows,
    /// For their rows; the keys are compared already.
    RowsOnly,
    /// For their keys and the types of their values, for each of `known`.
    Survey(Vec<Inference>),
}

impl Objects {
    /// Reads rows. `compared` says whether the input's keys are compared with the last good run's already.
    pub(super) fn new(source: &CheckedSource, columns: &[CheckedColumn], log: &Arc<SourceLog>, compared: bool) -> Self {
        let purpose = if compared { Purpose::RowsOnly } else { Purpose::Rows };
        Self::for_purpose(source, columns, log, purpose)
    }

    /// Reads keys and types.
    pub(super) fn survey(source: &CheckedSource, log: &Arc<SourceLog>) -> Self {
        Self::for_purpose(source, &[], log, Purpose::Survey(Vec::new()))
    }

    fn for_purpose(source: &CheckedSource, columns: &[CheckedColumn], log: &Arc<SourceLog>, purpose: Purpose) -> Self {
        Self {
            source: source.clone(),
            columns: columns.to_vec(),
            log: Arc::clone(log),
            index: HashMap::new(),
            known: Vec::new(),
            filled: vec![None; columns.len()],
            rows: 0,
            matched: false,
            purpose,
        }
    }

    /// The keys that a survey has found, in the order in which they came, and the types that keep their values.
    pub(super) fn surveyed(self) -> Result<Vec<(String, ColumnType)>> {
        if self.known.len() >= KEYS_MAX {
            let text = "the objects have too many different keys to be columns; list those to read under columns";
            return Err(self.malformed(text.into()));
        }
        match self.purpose {
            Purpose::Survey(types) => {
                let keys = self.known.into_iter().map(|(key, _)| key);
                Ok(keys.zip(types.iter().map(Inference::column_type)).collect())
            }
            Purpose::Rows | Purpose::RowsOnly => Ok(Vec::new()),
        }
    }

    /// Reads an object as a row.
    pub(super) fn read(&mut self, text: &str, place: Place, rows: &mut Rows) -> Result<()> {
        let raw = || text.as_bytes().to_vec();
        if let Some(other) = kind(text).filter(|kind| *kind != "an object") {
            let error = self.malformed(format!("{place} is {other}, it should be an object with a key per column"));
            return rows.reject(error, place, raw);
        }
        self.filled.fill(None);
        let mut parser = serde_json::Deserializer::from_str(text);
        let mut failure = None;
        let row = Row { objects: self, rows, place, failure: &mut failure };
        let read = parser.deserialize_map(row).and_then(|()| parser.end());
        match (failure, read) {
            (Some(error), _) => return rows.reject(error, place, raw),
            (None, Err(error)) => {
                let error = self.malformed(format!("{place} is not JSON: {}", brief(&error)));
                return rows.reject(error, place, raw);
            }
            (None, Ok(())) => {}
        }
        for column in 0..self.filled.len() {
            if self.filled[column].is_none() {
                rows.push(column, None, || place)?;
            }
        }
        self.rows += 1;
        rows.end(raw)
    }

    /// After the last object: rows without any of the columns are a contract for another input.
    pub(super) fn finish(&self) -> Result<()> {
        if self.rows == 0 || matches!(self.purpose, Purpose::Survey(_)) {
            return Ok(());
        }
        if !self.matched {
            let keys: Vec<&str> = self.known.iter().map(|(key, _)| key.as_str()).collect();
            return Err(names::none(&keys, &self.source.field));
        }
        // Where keys are data, there are new ones in every input.
        if matches!(self.purpose, Purpose::RowsOnly) || self.known.len() >= KEYS_MAX {
            return Ok(());
        }
        let keys: Vec<(&str, bool)> = self.known.iter().map(|(key, hits)| (key.as_str(), !hits.is_empty())).collect();
        contract::compare_keys(&self.source, &self.columns, &keys, &self.log)
    }

    /// What a key means, as an index of `known`; None where that need not be known.
    fn key(&mut self, key: &str) -> Option<usize> {
        if let Some(known) = self.index.get(key) {
            return Some(*known);
        }
        let snake = snake_case(key);
        let columns = &self.columns;
        let hits: Vec<_> = (0..columns.len()).filter(|at| names::matches(&columns[*at], key, &snake)).collect();
        if hits.is_empty() && self.known.len() >= KEYS_MAX {
            return None;
        }
        self.matched |= !hits.is_empty();
        self.known.push((key.to_owned(), hits));
        if let Purpose::Survey(types) = &mut self.purpose {
            types.push(Inference::default());
        }
        self.index.insert(key.to_owned(), self.known.len() - 1);
        Some(self.known.len() - 1)
    }

    fn value(&mut self, key: usize, raw: &str, place: Place, rows: &mut Rows) -> Result<()> {
        if let Purpose::Survey(types) = &mut self.purpose {
            match raw.as_bytes().first() {
                Some(b'n') | None => {}
                Some(b'"' | b'{' | b'[') => types[key].see_text(),
                Some(_) => types[key].see(raw),
            }
        }
        for position in 0..self.known[key].1.len() {
            let at = self.known[key].1[position];
            let column = &self.columns[at];
            if let Some(other) = self.filled[at].replace(key) {
                let error = names::ambiguous(column, &self.known[other].0, &self.known[key].0);
                return Err(RunError { message: format!("{place}: {}", error.message), ..error });
            }
            match raw.as_bytes().first() {
                Some(b'n') => rows.push(at, None, || place)?,
                _ if column.type_ == ColumnType::Json => rows.push(at, Some(raw), || place)?,
                // Without escapes, what is between the quotes is the text.
                Some(b'"') if !raw.contains('\\') => rows.push(at, raw.get(1..raw.len() - 1), || place)?,
                Some(b'"') => {
                    let text: String = serde_json::from_str(raw).map_err(|error| {
                        self.malformed(format!("{place}, column {}: {}", column.name, brief(&error)))
                    })?;
                    rows.push(at, Some(&text), || place)?;
                }
                Some(b'{' | b'[') if column.type_ != ColumnType::String => {
                    let (name, kind, type_) = (&column.name, kind(raw).unwrap_or("a value"), column.type_);
                    let message = format!(
                        "{place}, column {name}: {kind} is not {type_}; make the column json or a string to keep it as JSON text"
                    );
                    rows.bad(at, RunError::at(Code::ValueInvalid, &column.field, message), || place)?;
                }
                _ => rows.push(at, Some(raw), || place)?,
            }
        }
        Ok(())
    }

    fn malformed(&self, message: String) -> RunError {
        RunError::at(Code::InputMalformed, &self.source.field, message)
    }
}

/// What a JSON text is, by its first byte.
fn kind(text: &str) -> Option<&'static str> {
    Some(match text.trim_start().as_bytes().first()? {
        b'{' => "an object",
        b'[' => "an array",
        b'"' => "a text",
        b'0'..=b'9' | b'-' => "a number",
        b't' | b'f' => "a boolean",
        b'n' => "null",
        _ => return None,
    })
}

/// The error without its line, which is that of the object and always 1.
pub(super) fn brief(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match text.split_once(" at line ") {
        Some((what, _)) => format!("{what} at character {}", error.column()),
        None => text,
    }
}

/// Visits an object's keys. `failure` holds what is wrong with a value, which a parser's error could not carry.
struct Row<'a> {
    objects: &'a mut Objects,
    rows: &'a mut Rows,
    place: Place,
    failure: &'a mut Option<RunError>,
}

impl<'de> Visitor<'de> for Row<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key_seed(Key(self.objects))? {
            let raw: &RawValue = map.next_value()?;
            let Some(key) = key else { continue };
            if let Err(error) = self.objects.value(key, raw.get(), self.place, self.rows) {
                *self.failure = Some(error);
                return Err(A::Error::custom("a value is not of its column's type"));
            }
        }
        Ok(())
    }
}

/// Looks a key up without keeping it.
struct Key<'a>(&'a mut Objects);

impl<'de> DeserializeSeed<'de> for Key<'_> {
    type Value = Option<usize>;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Key<'_> {
    type Value = Option<usize>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: serde::de::Error>(self, key: &str) -> Result<Self::Value, E> {
        Ok(self.0.key(key))
    }
}
