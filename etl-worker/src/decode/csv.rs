//! Format `csv`: separated values as in RFC 4180, with any delimiter and quote, or no quote.
//!
//! [`frame`](super::frame) finds records and fields. Only the contract's columns are decoded and read. An empty field is
//! NULL; one in quotes is an empty text in a string column. Bad rows: a record with too few or too many fields, text after
//! a closing quote, bytes that the encoding does not have. A quote that is still open at the end of the input is an
//! error: nobody can say which rows are inside it. Memory: one record and one batch.

use std::borrow::Cow;
use std::io::Read;
use std::sync::Arc;

use report_api::checked::{CheckedColumn, CheckedSource, CsvFormat};
use report_api::column::ColumnType;
use report_api::format::Encoding;

use super::Decoder;
use super::blocks::{BLOCK_BYTES, Block, Blocks};
use super::contract::{self, Found};
use super::frame::{Broken, Dialect, Field, Framer, Record, undouble};
use super::infer::Inference;
use super::input;
use super::names;
use super::parallel;
use super::rows::{Place, Records, Rows, decoder};
use super::text::{self, decode};
use crate::error::{Code, Result, RunError};
use crate::rejected::SourceLog;
use crate::source::RawInput;

/// Inputs from this size on are decoded by several threads: below it one is done before others have begun.
const PARALLEL_BYTES_MIN: u64 = 8 << 20;

/// Opens separated values and reads their header.
pub(super) fn open(
    input: &RawInput,
    source: &CheckedSource,
    format: &CsvFormat,
    log: &Arc<SourceLog>,
) -> Result<Decoder> {
    let mut file = CsvFile::open(input, source, format)?;
    if !format.header {
        let columns = &source.columns;
        let cells = (0..columns.len()).map(Some).collect();
        return rows(file, Table { columns: columns.clone(), cells, width: columns.len() }, input, log);
    }
    let names = file.header()?;
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let found = names.iter().map(|name| Found::text(name)).collect::<Vec<_>>();
    let infer = || infer(input, source, format, &names);
    let settled = contract::settle(source, &found, log, infer)?;
    let cells = names::find(&settled, &names, &source.field)?;
    rows(file, Table { columns: settled.clone(), cells, width: names.len() }, input, log)
}

/// The rows that follow, by several threads where there are many.
fn rows(file: CsvFile<input::Reader>, table: Table, input: &RawInput, log: &Arc<SourceLog>) -> Result<Decoder> {
    let (table, threads) = (Arc::new(table), parallel::threads());
    if threads == 1 || input.bytes < PARALLEL_BYTES_MIN {
        return Ok(decoder(&table.columns, log, CsvRows::new(file, &table)));
    }
    let (source, format) = (Arc::clone(&file.source), Arc::clone(&file.format));
    let dialect = file.framer.dialect();
    let (reader, rest, line) = file.framer.into_rest().map_err(|broken| explain(broken, &source))?;
    let mut blocks = Blocks::new(reader, dialect, record_bytes_max(&source), BLOCK_BYTES, rest, line);
    let cut_for = Arc::clone(&source);
    let next = move || blocks.next().map_err(|broken| explain(broken, &cut_for));
    let columns = table.columns.clone();
    let records = move |block: Block| {
        let framer = Framer::over(block.bytes, dialect, block.line);
        let (source, format) = (Arc::clone(&source), Arc::clone(&format));
        CsvRows::new(CsvFile { source, format, framer, fields: Vec::new() }, &table)
    };
    parallel::blocks(&columns, log, threads, next, records)
}

/// The columns of an input without a contract, from all of its values.
fn infer(
    input: &RawInput,
    source: &CheckedSource,
    format: &CsvFormat,
    names: &[&str],
) -> Result<Vec<(String, ColumnType)>> {
    let mut file = CsvFile::open(input, source, format)?;
    file.header()?;
    let mut types = vec![Inference::default(); names.len()];
    let mut scratch = Scratch::default();
    while let Some(record) = file.next()? {
        if file.fields.len() != names.len() || record.misquoted.is_some() {
            continue;
        }
        let whole = file.whole(&record);
        for (index, inference) in types.iter_mut().enumerate() {
            // A field that can't be decoded is a bad row later, whatever its column's type.
            let Ok((text, quoted)) = file.field(index, &record, whole, &mut scratch) else { continue };
            if !file.is_null(&text, quoted) {
                inference.see(&text);
            }
        }
    }
    Ok(names.iter().map(|name| (*name).to_owned()).zip(types.iter().map(Inference::column_type)).collect())
}

/// What fields are which columns.
struct Table {
    columns: Vec<CheckedColumn>,
    /// For each column the index of its field.
    cells: Vec<Option<usize>>,
    /// How many fields a record has to have.
    width: usize,
}

/// Records as the rows of a contract.
struct CsvRows<R> {
    file: CsvFile<R>,
    table: Arc<Table>,
    scratch: Scratch,
}

impl<R: Read> CsvRows<R> {
    fn new(file: CsvFile<R>, table: &Arc<Table>) -> Self {
        Self { file, table: Arc::clone(table), scratch: Scratch::default() }
    }
}

/// Where a field is put together whose bytes in the input are not its text.
#[derive(Default)]
struct Scratch {
    bytes: Vec<u8>,
}

impl<R: Read + Send + 'static> Records for CsvRows<R> {
    fn read(&mut self, rows: &mut Rows) -> Result<bool> {
        let Self { file, table, scratch } = self;
        let Table { columns, cells, width } = &**table;
        let Some(record) = file.next()? else { return Ok(false) };
        let file = &*file;
        let place = Place::Line(record.line);
        let raw = || file.raw(&record);
        if file.fields.len() != *width {
            rows.reject(file.ragged(record.line, *width), place, raw)?;
            return Ok(true);
        }
        if let Some(field) = record.misquoted {
            let message = format!(
                "line {}, field {}: text follows a closing quote; double the quotes inside of quoted fields, or set format.csv.quote to \"\" if quotes are plain text",
                record.line,
                field + 1
            );
            rows.reject(RunError::at(Code::InputMalformed, &file.source.field, message), place, raw)?;
            return Ok(true);
        }
        let whole = file.whole(&record);
        for (at, (column, cell)) in columns.iter().zip(cells).enumerate() {
            let Some(cell) = cell else {
                rows.push(at, None, || place)?;
                continue;
            };
            match file.field(*cell, &record, whole, scratch) {
                Ok((text, quoted)) => {
                    // Only texts and bytes can be empty and not NULL.
                    let can_be_empty = matches!(column.type_, ColumnType::String | ColumnType::Binary);
                    let quoted = quoted && (can_be_empty || !text.is_empty());
                    let value = Some(&*text).filter(|text| !file.is_null(text, quoted));
                    rows.push(at, value, || place)?;
                }
                Err(byte) => rows.bad(at, file.undecodable(record.line, column, byte, rows.is_masked()), || place)?,
            }
        }
        rows.end(raw)?;
        Ok(true)
    }
}

/// A file of records.
struct CsvFile<R> {
    source: Arc<CheckedSource>,
    format: Arc<CsvFormat>,
    framer: Framer<R>,
    fields: Vec<Field>,
}

impl CsvFile<input::Reader> {
    fn open(input: &RawInput, source: &CheckedSource, format: &CsvFormat) -> Result<Self> {
        let (reader, budget) = input::open(input, source)?;
        // The framer keeps to the limit by itself.
        budget.suspend();
        let CsvFormat { delimiter, quote, comment, trim, .. } = *format;
        let framer = Framer::new(reader, Dialect { delimiter, quote, comment, trim }, record_bytes_max(source));
        let fields = Vec::new();
        let mut file = Self { source: Arc::new(source.clone()), format: Arc::new(format.clone()), framer, fields };
        for _ in 0..format.skip_lines {
            let skipped = file.framer.skip_line();
            skipped.map_err(|broken| explain(broken, source))?;
        }
        Ok(file)
    }
}

impl<R: Read> CsvFile<R> {
    /// Finds the next record; None at the end.
    fn next(&mut self) -> Result<Option<Record>> {
        let next = self.framer.next(&mut self.fields);
        next.map_err(|broken| explain(broken, &self.source))
    }

    /// Reads the names in the header.
    fn header(&mut self) -> Result<Vec<String>> {
        let Some(record) = self.next()? else {
            let text = "the input is empty; its first line should name the columns";
            return Err(RunError::at(Code::InputMalformed, &self.source.field, text));
        };
        let bytes = self.framer.bytes(record.bytes.clone());
        let name = |field: &Field| {
            let mut undoubled = Vec::new();
            let content = &bytes[field.start..field.end];
            let content = match field.doubled {
                true => {
                    undouble(content, self.format.quote.unwrap_or_default(), &mut undoubled);
                    &undoubled[..]
                }
                false => content,
            };
            decode(content, self.format.encoding).map(|name| name.trim().to_owned())
        };
        self.fields.iter().map(name).collect::<Result<_, usize>>().map_err(|_| {
            let encoding = text::name(self.format.encoding);
            let text = format!("the header is not {encoding}; set format.csv.encoding to what it is");
            RunError::at(Code::EncodingInvalid, &self.source.field, text)
        })
    }

    /// The whole record as text, where it is one: one look instead of one per field. Where it is none, the fields are
    /// looked at one by one, since those that nobody reads may hold anything.
    fn whole(&self, record: &Record) -> Option<&str> {
        match self.format.encoding {
            Encoding::Utf8 => std::str::from_utf8(self.framer.bytes(record.bytes.clone())).ok(),
            Encoding::Latin1 | Encoding::Windows1252 => None,
        }
    }

    /// The text of a field, and whether it is in quotes. The error is the byte that is not in the encoding, and where.
    fn field<'a>(
        &'a self,
        index: usize,
        record: &Record,
        whole: Option<&'a str>,
        scratch: &'a mut Scratch,
    ) -> Result<(Cow<'a, str>, bool), (u8, usize)> {
        let field = self.fields[index];
        let text = match whole {
            Some(whole) if !field.doubled => Cow::Borrowed(&whole[field.start..field.end]),
            _ => {
                let mut bytes = &self.framer.bytes(record.bytes.clone())[field.start..field.end];
                if field.doubled {
                    scratch.bytes.clear();
                    undouble(bytes, self.format.quote.unwrap_or_default(), &mut scratch.bytes);
                    bytes = &scratch.bytes;
                }
                decode(bytes, self.format.encoding).map_err(|at| (bytes.get(at).copied().unwrap_or_default(), at))?
            }
        };
        let text = match (self.format.trim, text) {
            (false, text) => text,
            (true, Cow::Borrowed(text)) => Cow::Borrowed(text.trim()),
            (true, Cow::Owned(text)) => Cow::Owned(text.trim().to_owned()),
        };
        Ok((text, field.quoted))
    }

    fn is_null(&self, text: &str, quoted: bool) -> bool {
        (!quoted || self.format.quoted_nulls)
            && (text.is_empty() || self.format.null_values.iter().any(|null| null == text))
    }

    /// The record as it came, for people.
    fn raw(&self, record: &Record) -> Vec<u8> {
        let bytes = self.framer.bytes(record.bytes.clone());
        match decode(bytes, self.format.encoding) {
            Ok(Cow::Owned(text)) => text.into_bytes(),
            Ok(Cow::Borrowed(_)) | Err(_) => bytes.to_vec(),
        }
    }

    fn undecodable(&self, line: u64, column: &CheckedColumn, (byte, at): (u8, usize), is_masked: bool) -> RunError {
        let (name, encoding) = (&column.name, text::name(self.format.encoding));
        let what =
            if is_masked { "a byte".to_owned() } else { format!("byte {byte:#04x} at offset {at} of the field") };
        let message = format!(
            "line {line}, column {name}: {what} is not {encoding}; set format.csv.encoding to what it is, such as windows-1252"
        );
        RunError::at(Code::EncodingInvalid, &column.field, message)
    }

    fn ragged(&self, line: u64, width: usize) -> RunError {
        let owner = if self.format.header { "the header" } else { "the contract" };
        let (fields, plural) = (self.fields.len(), if self.fields.len() == 1 { "" } else { "s" });
        RunError::at(
            Code::InputMalformed,
            &self.source.field,
            format!(
                "line {line} has {fields} field{plural}, {owner} has {width}; put fields that hold a delimiter or a line break in quotes",
            ),
        )
    }
}

fn record_bytes_max(source: &CheckedSource) -> usize {
    usize::try_from(source.record_bytes_max).unwrap_or(usize::MAX)
}

/// Why there is no record, in our terms.
fn explain(broken: Broken, source: &CheckedSource) -> RunError {
    let malformed = |message: String| RunError::at(Code::InputMalformed, &source.field, message);
    match broken {
        Broken::Read(error) => input::explain(error, source),
        Broken::OpenQuote(line) => malformed(format!(
            "line {line}: a quote is opened that is never closed; close it, or set format.csv.quote to \"\" if quotes are plain text"
        )),
        Broken::TooLong(line) => {
            malformed(format!("line {line}: {}; is there a quote that is never closed?", input::too_long(source)))
        }
    }
}
