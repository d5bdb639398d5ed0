//! Format `csv`: separated values as in RFC 4180, with any delimiter and quote, or no quote.
//!
//! Records end with LF, CRLF or CR; empty lines are passed over. An empty field is NULL. Only the contract's columns are
//! decoded and read. Guarantees: a record with too few or too many fields is an error, and so is a quote that is still
//! open at the end of the input. Memory: one record and one batch.

use std::borrow::Cow;
use std::io::Read;

use csv::{ByteRecord, ReaderBuilder};
use report_api::checked::{CheckedColumn, CheckedSource, CsvFormat};
use report_api::format::Encoding;

use super::Decoder;
use super::input::{self, BUFFER_BYTES, Budget};
use super::names;
use super::rows::{Place, Records, Rows, decoder};
use super::text::{self, decode};
use crate::error::{Code, Result, RunError};
use crate::source::RawInput;

/// Opens separated values and reads their header.
pub(super) fn open(input: &RawInput, source: &CheckedSource, format: CsvFormat) -> Result<Decoder> {
    let mut file = CsvFile::open(input, source, format)?;
    let (cells, width) = match format.header {
        true => file.header()?,
        false => ((0..source.columns.len()).map(Some).collect(), source.columns.len()),
    };
    Ok(decoder(&source.columns, CsvRows { file, cells, width }))
}

/// Records as the rows of a contract.
struct CsvRows {
    file: CsvFile,
    /// For each column the index of its field.
    cells: Vec<Option<usize>>,
    /// How many fields a record has to have.
    width: usize,
}

impl Records for CsvRows {
    fn read(&mut self, rows: &mut Rows) -> Result<bool> {
        if !self.file.next()? {
            return Ok(false);
        }
        let file = &self.file;
        if file.record.len() != self.width {
            return Err(file.ragged(self.width));
        }
        // One look at the whole record instead of one per field. Where it fails, the fields are looked at one by one.
        let whole = match file.format.encoding {
            Encoding::Utf8 => std::str::from_utf8(file.record.as_slice()).ok(),
            Encoding::Latin1 | Encoding::Windows1252 => None,
        };
        for (column, cell) in self.cells.iter().enumerate() {
            let text = match cell {
                Some(cell) => file.field(*cell, whole, &file.source.columns[column])?,
                None => Cow::Borrowed(""),
            };
            let value = Some(&*text).filter(|text| !text.is_empty());
            rows.push(column, value, || Place::Line(file.line()))?;
        }
        rows.end();
        Ok(true)
    }
}

/// A file of records.
struct CsvFile {
    source: CheckedSource,
    format: CsvFormat,
    reader: csv::Reader<Tail>,
    budget: Budget,
    record: ByteRecord,
    /// The line after the record, if that ended with LF.
    line_after: u64,
}

impl CsvFile {
    fn open(input: &RawInput, source: &CheckedSource, format: CsvFormat) -> Result<Self> {
        let (reader, budget) = input::open(input, source)?;
        let mark = (1..=3).find(|byte| *byte != format.delimiter && Some(*byte) != format.quote).unwrap_or(1);
        let reader = ReaderBuilder::new()
            .delimiter(format.delimiter)
            .quoting(format.quote.is_some())
            .quote(format.quote.unwrap_or(b'"'))
            .has_headers(false)
            .flexible(true)
            .buffer_capacity(BUFFER_BYTES)
            .from_reader(Tail { reader, mark, crlf: None, tail: None });
        let (source, record) = (source.clone(), ByteRecord::new());
        Ok(Self { source, format, reader, budget, record, line_after: 1 })
    }

    /// Reads the next record; false at the end.
    fn next(&mut self) -> Result<bool> {
        self.budget.renew();
        let more = self.reader.read_byte_record(&mut self.record).map_err(|error| match error.into_kind() {
            csv::ErrorKind::Io(error) => input::explain(error, &self.source),
            other => RunError::new(Code::Internal, format!("a CSV reader without rules complains: {other:?}")),
        })?;
        self.line_after = self.reader.position().line();
        let mark = self.reader.get_ref().mark();
        match self.record.as_slice().ends_with(&mark) {
            false => Ok(more),
            true if self.record.len() == 1 && self.record.as_slice() == mark => Ok(false),
            true => Err(self.error(self.line_after - self.line_breaks(), "a quote is opened that is never closed; close it, or set format.csv.quote to \"\" if quotes are plain text")),
        }
    }

    /// Reads the header; gives the index of each column's field, and how many fields there are.
    fn header(&mut self) -> Result<(Vec<Option<usize>>, usize)> {
        if !self.next()? {
            let text = "the input is empty; its first line should name the columns";
            return Err(RunError::at(Code::InputMalformed, &self.source.field, text));
        }
        let cells = self
            .record
            .iter()
            .map(|cell| decode(cell, self.format.encoding).map(|cell| cell.trim().to_owned()))
            .collect::<Result<Vec<_>, usize>>()
            .map_err(|_| {
                let encoding = text::name(self.format.encoding);
                let text = format!("the header is not {encoding}; set format.csv.encoding to what it is");
                RunError::at(Code::EncodingInvalid, &self.source.field, text)
            })?;
        let names: Vec<&str> = cells.iter().map(String::as_str).collect();
        Ok((names::find(&self.source.columns, &names, &self.source.field)?, names.len()))
    }

    /// The text of a field. `whole` is the text of the whole record, where there is one.
    fn field<'a>(&'a self, index: usize, whole: Option<&'a str>, column: &CheckedColumn) -> Result<Cow<'a, str>> {
        let encoding = self.format.encoding;
        let text = match self.record.range(index).and_then(|range| whole?.get(range)) {
            Some(text) => Cow::Borrowed(text),
            None => {
                let bytes = self.record.get(index).unwrap_or_default();
                decode(bytes, encoding).map_err(|offset| {
                    let (line, name, byte) = (self.line(), &column.name, bytes.get(offset).copied().unwrap_or_default());
                    let message = format!(
                        "line {line}, column {name}: byte {byte:#04x} at offset {offset} of the field is not {}; set format.csv.encoding to what it is, such as windows-1252",
                        text::name(encoding)
                    );
                    RunError::at(Code::EncodingInvalid, &column.field, message)
                })?
            }
        };
        Ok(match (self.format.trim, text) {
            (false, text) => text,
            (true, Cow::Borrowed(text)) => Cow::Borrowed(text.trim()),
            (true, Cow::Owned(text)) => Cow::Owned(text.trim().to_owned()),
        })
    }

    fn ragged(&self, width: usize) -> RunError {
        let owner = if self.format.header { "the header" } else { "the contract" };
        let (fields, plural) = (self.record.len(), if self.record.len() == 1 { "" } else { "s" });
        RunError::at(
            Code::InputMalformed,
            &self.source.field,
            format!(
                "line {} has {fields} field{plural}, {owner} has {width}; put fields that hold a delimiter or a line break in quotes",
                self.line()
            ),
        )
    }

    fn error(&self, line: u64, what: &str) -> RunError {
        RunError::at(Code::InputMalformed, &self.source.field, format!("line {line}: {what}"))
    }

    /// The line on which the record begins. The reader has counted the record's own line breaks, and the one at its end
    /// if that is LF, but not yet if it is CRLF.
    fn line(&self) -> u64 {
        let end = u64::from(!self.reader.get_ref().crlf.unwrap_or_default());
        self.line_after.saturating_sub(end + self.line_breaks())
    }

    fn line_breaks(&self) -> u64 {
        self.record.as_slice().iter().filter(|byte| **byte == b'\n').count() as u64
    }
}

/// Length of the mark at the end: no data ends with so many control characters.
const MARK_BYTES: usize = 16;

/// Gives a record of its own after the end of the input. It arrives as it was given, unless a quote is still open: the
/// reader itself would take the end of the input for the closing quote.
struct Tail {
    reader: input::Reader,
    mark: u8,
    /// Whether lines end with CRLF, once the first one has ended.
    crlf: Option<bool>,
    /// What is still to be given.
    tail: Option<std::io::Cursor<Vec<u8>>>,
}

impl Tail {
    fn mark(&self) -> [u8; MARK_BYTES] {
        [self.mark; MARK_BYTES]
    }
}

impl Read for Tail {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if let Some(tail) = &mut self.tail {
            return tail.read(buffer);
        }
        let count = self.reader.read(buffer)?;
        if self.crlf.is_none() {
            let end = buffer[..count].iter().position(|byte| *byte == b'\n');
            self.crlf = end.map(|end| end > 0 && buffer[end - 1] == b'\r');
        }
        if count > 0 || buffer.is_empty() {
            return Ok(count);
        }
        let line_break: &[u8] = if self.crlf == Some(true) { b"\r\n" } else { b"\n" };
        self.tail.insert(std::io::Cursor::new([line_break, &self.mark()].concat())).read(buffer)
    }
}
