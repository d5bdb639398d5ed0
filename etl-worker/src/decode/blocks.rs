//! Cuts separated values into blocks of whole records, so that several threads can make rows of them.
//!
//! Where a record ends is told here by the same rules as in [`frame`](super::frame), without looking at its fields: a
//! quote counts where a field begins, and up to the quote that closes it. Memory: one block, which grows to the longest
//! record.

use std::io::Read;

use memchr::{memchr, memchr2, memchr3};

use super::frame::{Broken, Dialect, line_feeds};

/// Bytes of a block: enough rows for a batch or two.
pub(super) const BLOCK_BYTES: usize = 1 << 20;

/// Whole records, and the line on which the first one begins.
pub(super) struct Block {
    pub(super) bytes: Vec<u8>,
    pub(super) line: u64,
}

/// The blocks of an input.
pub(super) struct Blocks<R> {
    reader: R,
    dialect: Dialect,
    record_bytes_max: usize,
    block_bytes: usize,
    /// What is not yet given out: it begins with a record.
    rest: Vec<u8>,
    line: u64,
    is_last: bool,
}

/// Where a record ends.
#[derive(Debug, Eq, PartialEq)]
enum End {
    /// Behind its line break, before this byte; and how many lines it has.
    At(usize, u64),
    /// Behind the bytes that are there, if at all.
    Beyond,
}

impl<R: Read> Blocks<R> {
    /// The blocks of what follows: `rest` was read already and begins on `line`.
    pub(super) fn new(
        reader: R,
        dialect: Dialect,
        record_bytes_max: usize,
        block_bytes: usize,
        rest: Vec<u8>,
        line: u64,
    ) -> Self {
        Self { reader, dialect, record_bytes_max, block_bytes, rest, line, is_last: false }
    }

    /// The next block; None at the end. The last one may end inside of a record.
    pub(super) fn next(&mut self) -> Result<Option<Block>, Broken> {
        let mut wanted = self.block_bytes;
        let (mut cut, mut lines) = (0, 0);
        loop {
            self.fill(wanted)?;
            while let End::At(end, breaks) = self.dialect.record_end(&self.rest, cut) {
                cut = end;
                lines += breaks;
            }
            if self.is_last {
                cut = self.rest.len();
            }
            if cut > 0 || self.is_last {
                break;
            }
            if self.rest.len() > self.record_bytes_max {
                return Err(Broken::TooLong(self.line));
            }
            // One byte more than the limit is enough to know that it is passed.
            wanted = (self.rest.len() * 2).min(self.record_bytes_max.max(self.block_bytes) + 1);
        }
        if cut == 0 {
            return Ok(None);
        }
        let mut bytes = Vec::with_capacity(self.block_bytes.max(self.rest.len() - cut));
        bytes.extend_from_slice(&self.rest[cut..]);
        std::mem::swap(&mut bytes, &mut self.rest);
        bytes.truncate(cut);
        let block = Block { bytes, line: self.line };
        self.line += lines;
        Ok(Some(block))
    }

    fn fill(&mut self, wanted: usize) -> Result<(), Broken> {
        let missing = wanted.saturating_sub(self.rest.len());
        if missing > 0 && !self.is_last {
            let count = self.reader.by_ref().take(missing as u64).read_to_end(&mut self.rest).map_err(Broken::Read)?;
            self.is_last = count < missing;
        }
        Ok(())
    }
}

impl Dialect {
    /// The end of the record, comment or empty line that begins at `start`.
    fn record_end(&self, bytes: &[u8], start: usize) -> End {
        let (mut from, mut breaks) = (start, 1);
        let is_comment = self.comment.is_some() && bytes.get(start).copied() == self.comment;
        let quote = self.quote.filter(|_| !is_comment);
        loop {
            let found = match quote {
                Some(quote) => memchr3(quote, b'\n', b'\r', &bytes[from..]),
                None => memchr2(b'\n', b'\r', &bytes[from..]),
            };
            let Some(at) = found.map(|found| from + found) else { return End::Beyond };
            match bytes[at] {
                b'\n' => return End::At(at + 1, breaks),
                b'\r' => match bytes.get(at + 1) {
                    Some(b'\n') => return End::At(at + 2, breaks),
                    Some(_) => return End::At(at + 1, breaks),
                    // A line feed that follows belongs to it.
                    None => return End::Beyond,
                },
                quote if at == start || bytes[at - 1] == self.delimiter => {
                    let Some(closed) = closed(bytes, at, quote) else { return End::Beyond };
                    breaks += line_feeds(&bytes[at..closed]);
                    from = closed + 1;
                }
                // Text like any other.
                _ => from = at + 1,
            }
        }
    }
}

/// The place of the quote that closes the one at `open`; None where the bytes that are there don't tell.
fn closed(bytes: &[u8], open: usize, quote: u8) -> Option<usize> {
    let mut from = open + 1;
    loop {
        let at = from + memchr(quote, &bytes[from..])?;
        if *bytes.get(at + 1)? != quote {
            return Some(at);
        }
        from = at + 2;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::frame::{Dialect, Framer};
    use super::Blocks;

    type Found = (Vec<(u64, Vec<u8>)>, Option<String>);

    /// The lines and bytes of all records, and what ended them.
    fn records<R: std::io::Read>(mut framer: Framer<R>, found: &mut Found) {
        let mut fields = Vec::new();
        loop {
            match framer.next(&mut fields) {
                Ok(Some(record)) => found.0.push((record.line, framer.bytes(record.bytes).to_vec())),
                Ok(None) => return,
                Err(broken) => {
                    found.1 = Some(format!("{broken:?}"));
                    return;
                }
            }
        }
    }

    fn in_one(bytes: &[u8], dialect: Dialect) -> Found {
        let mut found = Found::default();
        records(Framer::new(bytes, dialect, 1 << 20), &mut found);
        found
    }

    fn in_blocks(bytes: &[u8], dialect: Dialect, block_bytes: usize, read: usize) -> Found {
        let (rest, reader) = bytes.split_at(read.min(bytes.len()));
        // What was read before begins with a record, like all that follows.
        let mut blocks = Blocks::new(reader, dialect, 1 << 20, block_bytes, rest.to_vec(), 1);
        let mut found = Found::default();
        while let Some(block) = blocks.next().unwrap() {
            assert!(found.1.is_none(), "a block after the one that is broken");
            records(Framer::over(block.bytes, dialect, block.line), &mut found);
        }
        found
    }

    #[test]
    fn records_that_are_longer_than_a_block_stay_whole() {
        let dialect = Dialect { delimiter: b',', quote: Some(b'"'), comment: None, trim: false };
        let bytes = [b"a,\"".to_vec(), vec![b'\n'; 5000], b"\"\r\nb,c\n".to_vec()].concat();
        let (records, end) = in_blocks(&bytes, dialect, 16, 0);
        assert_eq!(end, None);
        assert_eq!(
            records.iter().map(|(line, bytes)| (*line, bytes.len())).collect::<Vec<_>>(),
            [(1, 5004), (5002, 3)]
        );
    }

    #[test]
    fn a_record_longer_than_the_limit_is_told_by_its_line() {
        let dialect = Dialect { delimiter: b',', quote: Some(b'"'), comment: None, trim: false };
        let bytes = [b"a\n".to_vec(), vec![b'x'; 101]].concat();
        let mut blocks = Blocks::new(&bytes[..], dialect, 100, 8, Vec::new(), 1);
        assert_eq!(blocks.next().unwrap().unwrap().bytes, b"a\n");
        assert_eq!(blocks.next().err().map(|broken| format!("{broken:?}")).as_deref(), Some("TooLong(2)"));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(5000) })]

        #[test]
        fn blocks_hold_the_same_records_as_the_whole(
            bytes in proptest::collection::vec(prop::sample::select(b"ab\"\",,#\n\r ".to_vec()), 0..80),
            block_bytes in 1..30_usize,
            read in 0..40_usize,
            has_quote in any::<bool>(),
            has_comment in any::<bool>(),
        ) {
            let dialect = Dialect {
                delimiter: b',',
                quote: has_quote.then_some(b'"'),
                comment: has_comment.then_some(b'#'),
                trim: false,
            };
            prop_assert_eq!(in_blocks(&bytes, dialect, block_bytes, read), in_one(&bytes, dialect));
        }
    }
}
