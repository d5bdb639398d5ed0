//! Format `ndjson`: one JSON object per line. Empty lines are passed over.
//!
//! Memory: one line and one batch.

use std::io::{BufRead, BufReader};

use report_api::checked::CheckedSource;

use super::Decoder;
use super::input::{self, BUFFER_BYTES, Budget, Reader};
use super::object::Objects;
use super::rows::{Place, Records, Rows, decoder};
use crate::error::{Code, Result, RunError};
use crate::source::RawInput;

/// Opens lines of JSON.
pub(super) fn open(input: &RawInput, source: &CheckedSource) -> Result<Decoder> {
    let (reader, budget) = input::open(input, source)?;
    let lines = Lines {
        reader: BufReader::with_capacity(BUFFER_BYTES, reader),
        budget,
        line: Vec::new(),
        number: 0,
        objects: Objects::new(source),
    };
    Ok(decoder(&source.columns, lines))
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
            if !self.line.trim_ascii().is_empty() {
                break;
            }
        }
        let number = self.number;
        let line = std::str::from_utf8(&self.line).map_err(|error| {
            let offset = error.valid_up_to();
            let text =
                format!("line {number}: the byte at offset {offset} is not utf-8; have the input written in utf-8");
            RunError::at(Code::EncodingInvalid, &self.objects.source.field, text)
        })?;
        self.objects.read(line, Place::Line(number), rows)?;
        Ok(true)
    }
}
