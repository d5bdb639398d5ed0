//! Format `json`: one document with an array of objects at a path.
//!
//! A thread walks the document and hands the array's elements over as texts, some at a time; they become rows on the
//! reader's thread. Memory: three chunks of elements and one batch, whatever the document's size. What lies beside the
//! path is passed over, but has to be JSON up to the document's end. Dropping the decoder ends the thread.

use std::fmt;
use std::io::BufReader;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use report_api::checked::CheckedSource;
use report_api::column::ColumnType;
use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::Decoder;
use super::contract::{self, Found};
use super::input::{self, BUFFER_BYTES, Budget, Reader};
use super::names::{self, NAMES_SHOWN_MAX};
use super::object::Objects;
use super::rows::{Place, Records, Rows, decoder};
use crate::error::{Code, Result, RunError};
use crate::rejected::SourceLog;
use crate::source::RawInput;

/// About the most bytes of a chunk: enough that handing over does not count.
const CHUNK_BYTES_MAX: usize = 1 << 20;
/// Most elements of a chunk, since each small one takes memory beside its text.
const CHUNK_ELEMENTS_MAX: usize = 4096;

/// Elements in their order; None after the last one.
type Chunk = Result<Option<Vec<Box<RawValue>>>>;

/// Opens a document.
pub(super) fn open(input: &RawInput, source: &CheckedSource, path: &[String], log: &Arc<SourceLog>) -> Result<Decoder> {
    let (columns, compared) = match contract::declared(source, log)? {
        Some(columns) => (columns, false),
        None => {
            let surveyed = survey(input, source, path)?;
            let found: Vec<Found<'_>> = surveyed.iter().map(|(key, _)| Found::text(key)).collect();
            (contract::settle(source, &found, log, || Ok(surveyed.clone()))?, true)
        }
    };
    let objects = Objects::new(source, &columns, log, compared);
    Ok(decoder(&columns, log, elements(input, source, path, objects)?))
}

/// Reads the document once for its rows' keys and the types of their values.
fn survey(input: &RawInput, source: &CheckedSource, path: &[String]) -> Result<Vec<(String, ColumnType)>> {
    let log = SourceLog::of_survey(source);
    let mut elements = elements(input, source, path, Objects::survey(source, &log))?;
    let mut rows = Rows::new(&[], log);
    while elements.read(&mut rows)? {
        rows.clear();
    }
    std::mem::replace(&mut elements.objects, Objects::survey(source, &SourceLog::of_survey(source))).surveyed()
}

/// Starts the thread that walks a document.
fn elements(input: &RawInput, source: &CheckedSource, path: &[String], objects: Objects) -> Result<Elements> {
    let (reader, budget) = input::open(input, source)?;
    let (sender, receiver) = sync_channel(0);
    let walk =
        Walk { source: source.clone(), sender, chunk: Vec::new(), bytes: 0, budget: budget.clone(), failure: None };
    let path = path.to_vec();
    std::thread::Builder::new()
        .name(format!("json {}", source.name))
        .spawn(move || walk.run(reader, &path))
        .map_err(|error| RunError::new(Code::Internal, "can't start a thread").caused_by(error))?;
    Ok(Elements { receiver, chunk: Vec::new().into_iter(), number: 0, objects, budget })
}

/// The elements that come from the thread.
struct Elements {
    receiver: Receiver<Chunk>,
    chunk: std::vec::IntoIter<Box<RawValue>>,
    number: u64,
    objects: Objects,
    budget: Budget,
}

impl Drop for Elements {
    fn drop(&mut self) {
        self.budget.stop();
    }
}

impl Records for Elements {
    fn read(&mut self, rows: &mut Rows) -> Result<bool> {
        let element = loop {
            if let Some(element) = self.chunk.next() {
                break element;
            }
            match self.receiver.recv() {
                Ok(Ok(Some(chunk))) => self.chunk = chunk.into_iter(),
                Ok(Ok(None)) => {
                    self.objects.finish()?;
                    return Ok(false);
                }
                Ok(Err(error)) => return Err(error),
                Err(_) => return Err(RunError::new(Code::Internal, "the JSON reader ended early")),
            }
        };
        self.number += 1;
        self.objects.read(element.get(), Place::Row(self.number), rows)?;
        Ok(true)
    }
}

/// The thread's side.
struct Walk {
    source: CheckedSource,
    sender: SyncSender<Chunk>,
    chunk: Vec<Box<RawValue>>,
    bytes: usize,
    budget: Budget,
    /// What is wrong with the document's shape, which a parser's error could not carry.
    failure: Option<RunError>,
}

impl Walk {
    fn run(mut self, reader: Reader, path: &[String]) {
        self.budget.suspend();
        let mut parser = serde_json::Deserializer::from_reader(BufReader::with_capacity(BUFFER_BYTES, reader));
        let walked = Step { path, depth: 0, walk: &mut self }.deserialize(&mut parser).and_then(|()| parser.end());
        let last = match (self.failure.take(), walked) {
            (Some(error), _) => Err(error),
            (None, Err(error)) => Err(self.explain(error)),
            (None, Ok(())) => self.send().map(|()| None),
        };
        // Nobody may be there any more to hear it.
        let _ = self.sender.send(last);
    }

    fn push(&mut self, element: Box<RawValue>) -> Result<()> {
        self.bytes += element.get().len();
        self.chunk.push(element);
        match self.bytes >= CHUNK_BYTES_MAX || self.chunk.len() >= CHUNK_ELEMENTS_MAX {
            true => self.send(),
            false => Ok(()),
        }
    }

    fn send(&mut self) -> Result<()> {
        self.bytes = 0;
        let sent = self.sender.send(Ok(Some(std::mem::take(&mut self.chunk))));
        sent.map_err(|_| RunError::new(Code::Internal, "nobody reads on"))
    }

    fn explain(&self, error: serde_json::Error) -> RunError {
        // Where the document has another shape, the parser's words show a value.
        let is_masked = !self.source.masks.is_empty();
        let at = |code, text: &str| RunError::at(code, &self.source.field, text);
        // serde_json tells bytes that are no UTF-8 apart by its text only.
        match error.classify() {
            serde_json::error::Category::Io => input::explain(error.into(), &self.source),
            serde_json::error::Category::Eof => at(Code::InputMalformed, "the document is cut off").caused_by(error),
            _ if error.to_string().starts_with("invalid unicode code point") => {
                at(Code::EncodingInvalid, "the document is not utf-8; have it written in utf-8").caused_by(error)
            }
            serde_json::error::Category::Data if is_masked => {
                let message = format!("the document has another shape at line {}", error.line());
                RunError::at(Code::InputMalformed, &self.source.field, message)
            }
            serde_json::error::Category::Syntax | serde_json::error::Category::Data => {
                at(Code::InputMalformed, "the document is not as it should be").caused_by(error)
            }
        }
    }
}

/// One level of the way: `path[..depth]` is behind.
struct Step<'a> {
    path: &'a [String],
    depth: usize,
    walk: &'a mut Walk,
}

impl Step<'_> {
    /// The path up to here, or the whole one.
    fn at(&self, depth: usize) -> String {
        std::iter::once("$").chain(self.path[..depth].iter().map(String::as_str)).collect::<Vec<_>>().join(".")
    }

    fn fail<E: serde::de::Error>(&mut self, message: String) -> E {
        let field = format!("{}.format.json.rows", self.walk.source.field);
        self.walk.failure = Some(RunError::at(Code::InputMalformed, field, message));
        E::custom("the document has another shape")
    }

    fn no_array<E: serde::de::Error>(&mut self, keys: &[&str]) -> E {
        let (here, whole) = (self.at(self.depth), self.at(self.path.len()));
        let example = keys.first().map_or_else(String::new, |key| format!(", such as {here}.{key}"));
        self.fail(format!(
            "{whole} is an object with the keys {}, not an array; name the array of rows{example}",
            names::list(keys)
        ))
    }
}

impl<'de> DeserializeSeed<'de> for Step<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Step<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = if self.depth == self.path.len() { "an array of rows" } else { "an object" };
        write!(f, "{what} at {}", self.at(self.depth))
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        let mut keys: Vec<String> = Vec::new();
        let mut found = false;
        loop {
            self.walk.budget.renew();
            let key: Option<String> = map.next_key()?;
            self.walk.budget.suspend();
            let Some(key) = key else { break };
            if self.path.get(self.depth) != Some(&key) {
                // One more than is shown, so that the list says that there are more.
                if keys.len() <= NAMES_SHOWN_MAX {
                    keys.push(key);
                }
                map.next_value::<IgnoredAny>()?;
                continue;
            }
            if found {
                return Err(self.fail(format!("{} is in the document twice", self.at(self.depth + 1))));
            }
            found = true;
            map.next_value_seed(Step { path: self.path, depth: self.depth + 1, walk: &mut *self.walk })?;
        }
        if found {
            return Ok(());
        }
        let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
        if self.depth == self.path.len() {
            return Err(self.no_array(&keys));
        }
        let (wanted, here) = (self.at(self.depth + 1), self.at(self.depth));
        Err(self.fail(format!(
            "{wanted} is not in the document; {here} has the keys {}; correct the path",
            names::list(&keys)
        )))
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut elements: A) -> Result<(), A::Error> {
        if self.depth < self.path.len() {
            let (here, next) = (self.at(self.depth), &self.path[self.depth]);
            let message = format!("{here} is an array, it has no key {next}; name the array of rows, such as {here}");
            return Err(self.fail(message));
        }
        loop {
            self.walk.budget.renew();
            let Some(element) = elements.next_element()? else { break };
            if let Err(error) = self.walk.push(element) {
                self.walk.failure = Some(error);
                return Err(A::Error::custom("nobody reads on"));
            }
        }
        self.walk.budget.suspend();
        Ok(())
    }
}
