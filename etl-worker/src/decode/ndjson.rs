//! Format `ndjson`: one JSON object per line. Empty lines are passed over.
//!
//! Memory: one line and one batch.

use std::io::{BufRead, BufReader};
use std::sync::Arc;

use report_api::checked::CheckedSource;
use report_api::column::ColumnType;

use super::Decoder;
use super::contract::{self, Found};
use super::input::{self, BUFFER_BYTES, Budget, Reader};
use super::object::Objects;
use super::rows::{Place, Records, Rows, decoder};
use crate::error::{Code, Result, RunError};
use crate::rejected::SourceLog;
use crate::source::RawInput;

/// Opens lines of JSON.
pub(super) fn open(input: &RawInput, source: &CheckedSource, log: &Arc<SourceLog>) -> Result<Decoder> {
    let (columns, compared) = match contract::declared(source, log)? {
        Some(columns) => (columns, false),
        None => {
            let surveyed = survey(input, source)?;
            let found: Vec<Found<'_>> = surveyed.iter().map(|(key, _)| Found::text(key)).collect();
            (contract::settle(source, &found, log, || Ok(surveyed.clone()))?, true)
        }
    };
    let objects = Objects::new(source, &columns, log, compared);
    Ok(decoder(&columns, log, lines(input, source, objects)?))
}

/// Reads the input once for its objects' keys and the types of their values.
fn survey(input: &RawInput, source: &CheckedSource) -> Result<Vec<(String, ColumnType)>> {
    let log = SourceLog::of_survey(source);
    let mut lines = lines(input, source, Objects::survey(source, &log))?;
    let mut rows = Rows::new(&[], log);
    while lines.read(&mut rows)? {
        rows.clear();
    }
    lines.objects.surveyed()
}

fn lines(input: &RawInput, source: &CheckedSource, objects: Objects) -> Result<Lines> {
    let (reader, budget) = input::open(input, source)?;
    let reader = BufReader::with_capacity(BUFFER_BYTES, reader);
    Ok(Lines { reader, budget, line: Vec::new(), number: 0, objects })
}

struct Lines {
    reader: BufReader<Reader>,
    budget: Budget,
    line: Vec<u8>,
    number: u64,
    objects: Objects,
}

impl Records for Lines {
    fn read(&mut self, rows: &mut Rows) -> Result<bool> {
        loop {
            self.budget.renew();
            self.line.clear();
            let read = self.reader.read_until(b'\n', &mut self.line);
            if read.map_err(|error| input::explain(error, &self.objects.source))? == 0 {
                self.objects.finish()?;
                return Ok(false);
            }
            self.number += 1;
            while let Some(b'\n' | b'\r') = self.line.last() {
                self.line.pop();
            }
            if !self.line.trim_ascii().is_empty() {
                break;
            }
        }
        let number = self.number;
        match std::str::from_utf8(&self.line) {
            Ok(line) => self.objects.read(line, Place::Line(number), rows)?,
            Err(error) => {
                let offset = error.valid_up_to();
                let text =
                    format!("line {number}: the byte at offset {offset} is not utf-8; have the input written in utf-8");
                let error = RunError::at(Code::EncodingInvalid, &self.objects.source.field, text);
                rows.reject(error, Place::Line(number), || self.line.clone())?;
            }
        }
        Ok(true)
    }
}
