//! Finds the records and fields of separated values in a stream of bytes (RFC 4180).
//!
//! Records end with LF, CRLF or CR; empty lines are passed over. Fields are places in the reader's own buffer: nothing is
//! copied, and whether a field was in quotes stays known, which tells an empty text from NULL. Memory: the buffer, which
//! grows to the longest record and is small again after it.

use std::io::{Empty, Error as IoError, ErrorKind, Read};
use std::ops::Range;

use memchr::{memchr, memchr2, memchr3};

use super::input::BUFFER_BYTES;

/// The bytes that mean something.
#[derive(Clone, Copy, Debug)]
pub(super) struct Dialect {
    pub(super) delimiter: u8,
    pub(super) quote: Option<u8>,
    pub(super) comment: Option<u8>,
    /// Whether white space may stand between a closing quote and the next delimiter.
    pub(super) trim: bool,
}

/// A field's content in the record's bytes, without its quotes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Field {
    pub(super) start: usize,
    pub(super) end: usize,
    pub(super) quoted: bool,
    /// Whether quotes in it are doubled.
    pub(super) doubled: bool,
}

/// A record: its bytes are [`Framer::bytes`] of `bytes`, and its fields are in the list that was given.
#[derive(Clone, Debug)]
pub(super) struct Record {
    /// The line on which it begins, from 1.
    pub(super) line: u64,
    pub(super) bytes: Range<usize>,
    /// The first field in which text follows the closing quote: nobody can say what was meant.
    pub(super) misquoted: Option<usize>,
}

/// Why there is no record.
#[derive(Debug)]
pub(super) enum Broken {
    Read(IoError),
    /// A quote that is opened in the record on this line is still open at the end.
    OpenQuote(u64),
    /// The record on this line is longer than the limit.
    TooLong(u64),
}

pub(super) struct Framer<R> {
    reader: R,
    dialect: Dialect,
    buffer: Vec<u8>,
    /// What is not yet given out: `buffer[start..end]`.
    start: usize,
    end: usize,
    /// Whether the reader has no more.
    is_last: bool,
    line: u64,
    /// Whether the byte before `start` is a CR: an LF that follows belongs to it.
    after_cr: bool,
    record_bytes_max: usize,
}

/// What one look at the buffer gives.
enum Look {
    Whole {
        end: usize,
        line_breaks: u64,
        misquoted: Option<usize>,
    },
    /// The buffer ends before the record does.
    More,
    OpenQuote,
}

impl<R: Read> Framer<R> {
    pub(super) fn new(reader: R, dialect: Dialect, record_bytes_max: usize) -> Self {
        let buffer = vec![0; BUFFER_BYTES];
        Self { reader, dialect, buffer, start: 0, end: 0, is_last: false, line: 1, after_cr: false, record_bytes_max }
    }

    /// The bytes that mean something.
    pub(super) fn dialect(&self) -> Dialect {
        self.dialect
    }

    /// What is not yet read, to be framed by others: the reader, what was read and not given out, and its line.
    pub(super) fn into_rest(mut self) -> Result<(R, Vec<u8>, u64), Broken> {
        self.skip_line_feed()?;
        self.buffer.truncate(self.end);
        self.buffer.drain(..self.start);
        Ok((self.reader, self.buffer, self.line))
    }

    /// Bytes of the record that was found last.
    pub(super) fn bytes(&self, range: Range<usize>) -> &[u8] {
        &self.buffer[range]
    }

    /// Passes over a line.
    pub(super) fn skip_line(&mut self) -> Result<(), Broken> {
        self.skip_line_feed()?;
        loop {
            match memchr2(b'\n', b'\r', &self.buffer[self.start..self.end]) {
                Some(at) => {
                    self.after_cr = self.buffer[self.start + at] == b'\r';
                    self.start += at + 1;
                    self.line += 1;
                    return Ok(());
                }
                None => self.start = self.end,
            }
            if !self.fill()? {
                return Ok(());
            }
        }
    }

    /// Finds the next record and its fields; None at the end.
    pub(super) fn next(&mut self, fields: &mut Vec<Field>) -> Result<Option<Record>, Broken> {
        if !self.begin()? {
            return Ok(None);
        }
        loop {
            match self.look(fields) {
                Look::Whole { end, line_breaks, misquoted } => {
                    let record = Record { line: self.line, bytes: self.start..end, misquoted };
                    self.line += line_breaks;
                    self.start = end;
                    if let Some(byte) = self.buffer[..self.end].get(end) {
                        self.after_cr = *byte == b'\r';
                        self.line += 1;
                        self.start += 1;
                    }
                    return Ok(Some(record));
                }
                Look::OpenQuote => return Err(Broken::OpenQuote(self.line)),
                Look::More => {
                    self.fill()?;
                }
            }
        }
    }

    /// Goes to the first byte of a record, past empty lines and comments; false where there is none.
    fn begin(&mut self) -> Result<bool, Broken> {
        loop {
            self.skip_line_feed()?;
            if self.start == self.end && !self.fill()? {
                return Ok(false);
            }
            match self.buffer[self.start..self.end].first().copied() {
                Some(byte @ (b'\n' | b'\r')) => {
                    self.after_cr = byte == b'\r';
                    self.line += 1;
                    self.start += 1;
                }
                Some(byte) if Some(byte) == self.dialect.comment => self.skip_line()?,
                Some(_) => return Ok(true),
                None => {}
            }
        }
    }

    /// Passes over the LF of a CRLF whose CR is behind.
    fn skip_line_feed(&mut self) -> Result<(), Broken> {
        if self.after_cr && (self.start < self.end || self.fill()?) {
            self.after_cr = false;
            if self.buffer[self.start] == b'\n' {
                self.start += 1;
            }
        }
        Ok(())
    }

    /// Looks for the record's end. Places in `fields` are those in the record.
    fn look(&self, fields: &mut Vec<Field>) -> Look {
        let bytes = &self.buffer[self.start..self.end];
        let Dialect { delimiter, quote, trim, .. } = self.dialect;
        let (mut at, mut line_breaks, mut misquoted) = (0, 0, None);
        fields.clear();
        loop {
            let mut field = Field { start: at, end: at, quoted: false, doubled: false };
            let mut rest = at;
            if quote.is_some() && bytes.get(at).copied() == quote {
                let quote = bytes[at];
                field = Field { start: at + 1, end: at + 1, quoted: true, doubled: false };
                let mut from = at + 1;
                loop {
                    let Some(found) = memchr(quote, &bytes[from..]) else {
                        return if self.is_last { Look::OpenQuote } else { Look::More };
                    };
                    field.end = from + found;
                    match bytes.get(field.end + 1) {
                        Some(next) if *next == quote => {
                            field.doubled = true;
                            from = field.end + 2;
                        }
                        None if !self.is_last => return Look::More,
                        _ => break,
                    }
                }
                line_breaks += line_feeds(&bytes[field.start..field.end]);
                rest = field.end + 1;
            }
            let end = memchr3(delimiter, b'\n', b'\r', &bytes[rest..]).map(|found| rest + found);
            if end.is_none() && !self.is_last {
                return Look::More;
            }
            let stop = end.unwrap_or(bytes.len());
            if !field.quoted {
                field.end = stop;
            } else if rest < stop && !(trim && bytes[rest..stop].trim_ascii().is_empty()) {
                misquoted = misquoted.or(Some(fields.len()));
            }
            fields.push(field);
            match end {
                Some(end) if bytes[end] == delimiter => at = end + 1,
                _ => return Look::Whole { end: self.start + stop, line_breaks, misquoted },
            }
        }
    }

    /// Reads on until the buffer is full; false at the end. What was found before has moved.
    fn fill(&mut self) -> Result<bool, Broken> {
        if self.is_last {
            return Ok(false);
        }
        self.buffer.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        if self.end == self.buffer.len() {
            if self.end > self.record_bytes_max {
                return Err(Broken::TooLong(self.line));
            }
            // One byte more than the limit is enough to know that it is passed.
            let len = (self.buffer.len() * 2).min(self.record_bytes_max.max(BUFFER_BYTES) + 1);
            self.buffer.reserve_exact(len - self.buffer.len());
            self.buffer.resize(len, 0);
        } else if self.buffer.len() > BUFFER_BYTES && self.end < BUFFER_BYTES / 2 {
            self.buffer.truncate(BUFFER_BYTES);
            self.buffer.shrink_to_fit();
        }
        let before = self.end;
        while self.end < self.buffer.len() && !self.is_last {
            match self.reader.read(&mut self.buffer[self.end..]) {
                Ok(count) => {
                    self.end += count;
                    self.is_last = count == 0;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(Broken::Read(error)),
            }
        }
        // A record that ends with the input is whole only now.
        Ok(self.end > before)
    }
}

impl Framer<Empty> {
    /// The records of these bytes, the first of which is on this line.
    pub(super) fn over(bytes: Vec<u8>, dialect: Dialect, line: u64) -> Self {
        let end = bytes.len();
        let reader = std::io::empty();
        Self {
            reader,
            dialect,
            buffer: bytes,
            start: 0,
            end,
            is_last: true,
            line,
            after_cr: false,
            record_bytes_max: usize::MAX,
        }
    }
}

/// How many line feeds there are. Fields are short: a plain loop is quicker here than a search for each.
pub(super) fn line_feeds(bytes: &[u8]) -> u64 {
    bytes.iter().map(|byte| u64::from(*byte == b'\n')).sum()
}

/// A field's content with its doubled quotes made single ones, at the end of `out`.
pub(super) fn undouble(content: &[u8], quote: u8, out: &mut Vec<u8>) {
    let mut rest = content;
    while let Some(at) = memchr(quote, rest) {
        out.extend_from_slice(&rest[..=at]);
        // The second one of each pair.
        rest = rest.get(at + 2..).unwrap_or_default();
    }
    out.extend_from_slice(rest);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Dialect, Framer, undouble};

    /// Gives at most so many bytes at once, so that records lie across reads.
    struct Slow<'a>(&'a [u8], usize);

    impl std::io::Read for Slow<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            let count = self.0.len().min(self.1).min(buffer.len());
            buffer[..count].copy_from_slice(&self.0[..count]);
            self.0 = &self.0[count..];
            Ok(count)
        }
    }

    const COMMA: Dialect = Dialect { delimiter: b',', quote: Some(b'"'), comment: None, trim: false };

    type Records = Vec<(u64, Vec<Option<Vec<u8>>>)>;

    /// Lines and fields, None for a misquoted one; and what ended it.
    fn read(bytes: &[u8], dialect: Dialect, step: usize, max: usize) -> (Records, Option<String>) {
        let mut framer = Framer::new(Slow(bytes, step), dialect, max);
        let (mut records, mut fields) = (Vec::new(), Vec::new());
        loop {
            match framer.next(&mut fields) {
                Ok(None) => return (records, None),
                Err(error) => return (records, Some(format!("{error:?}"))),
                Ok(Some(record)) => {
                    let bytes = framer.bytes(record.bytes.clone());
                    let content = |(at, field): (usize, &super::Field)| {
                        let content = &bytes[field.start..field.end];
                        let mut out = Vec::new();
                        match field.doubled {
                            true => undouble(content, b'"', &mut out),
                            false => out.extend_from_slice(content),
                        }
                        (record.misquoted.is_none_or(|bad| at < bad)).then_some(out)
                    };
                    records.push((record.line, fields.iter().enumerate().map(content).collect()));
                }
            }
        }
    }

    #[test]
    fn lines_are_counted_and_quotes_known() {
        let bytes = b"\n#no\na,\"\",\r\n\r\n\"x\r\ny\",\"a\"\"b\"\rz,\"\"";
        for step in [1, 2, 3, 7, 1000] {
            let dialect = Dialect { comment: Some(b'#'), ..COMMA };
            let (records, end) = read(bytes, dialect, step, 1000);
            assert_eq!(end, None);
            let texts: Vec<(u64, Vec<String>)> = records
                .into_iter()
                .map(|(line, fields)| {
                    (line, fields.into_iter().map(|field| String::from_utf8(field.unwrap()).unwrap()).collect())
                })
                .collect();
            let want = [(3, vec!["a", "", ""]), (5, vec!["x\r\ny", "a\"b"]), (7, vec!["z", ""])];
            let want: Vec<(u64, Vec<String>)> =
                want.into_iter().map(|(line, texts)| (line, texts.into_iter().map(str::to_owned).collect())).collect();
            assert_eq!(texts, want, "{step} bytes at once");
        }
    }

    #[test]
    fn a_record_may_be_as_long_as_the_limit_and_not_longer() {
        let max = super::BUFFER_BYTES * 3;
        let line = |len: usize| [vec![b'x'; len], b"\ny\n".to_vec()].concat();
        assert_eq!(read(&line(max), COMMA, 1 << 20, max).0.len(), 2);
        assert_eq!(read(&line(max + 1), COMMA, 1 << 20, max).1.as_deref(), Some("TooLong(1)"));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2000) })]

        #[test]
        fn records_are_those_of_the_csv_crate(
            bytes in proptest::collection::vec(prop::sample::select(b"ab\",,\"\n\r \xf1".to_vec()), 0..60),
            step in 1..20_usize,
        ) {
            let (got, end) = read(&bytes, COMMA, step, 1 << 20);
            let mut oracle =
                csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(&bytes[..]);
            let want: Vec<Vec<Vec<u8>>> = oracle
                .byte_records()
                .map(|record| record.unwrap().iter().map(<[u8]>::to_vec).collect())
                .collect();
            // The csv crate takes the end of the input for a closing quote; this is an error here.
            let compared = if end.is_some() { got.len() } else { want.len() };
            prop_assert_eq!(got.len(), compared);
            for ((_, got), want) in got.iter().zip(&want) {
                prop_assert_eq!(got.len(), want.len());
                for (got, want) in got.iter().zip(want) {
                    if let Some(got) = got {
                        prop_assert_eq!(got, want);
                    }
                }
            }
        }

        #[test]
        fn what_is_written_reads_back(
            rows in proptest::collection::vec(proptest::collection::vec("[a\",\r\nñ ]{0,6}", 3), 0..8),
            step in 1..30_usize,
        ) {
            let mut writer = csv::WriterBuilder::new().quote_style(csv::QuoteStyle::Always).from_writer(Vec::new());
            for row in &rows {
                writer.write_record(row).unwrap();
            }
            let (got, end) = read(&writer.into_inner().unwrap(), COMMA, step, 1 << 20);
            prop_assert_eq!(end, None);
            let got: Vec<Vec<String>> = got
                .into_iter()
                .map(|(_, fields)| fields.into_iter().map(|f| String::from_utf8(f.unwrap()).unwrap()).collect())
                .collect();
            prop_assert_eq!(got, rows);
        }
    }
}
