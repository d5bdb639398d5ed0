//! Opens an input: decompresses it, takes its byte order mark off, and keeps it within limits.
//!
//! Memory: the buffers of gzip. A gzip stream that is broken or cut off, a record longer than the source allows and an
//! input longer than [`DECODED_BYTES_MAX`] are errors of the reader, which [`explain`] turns into the run's.

use std::fmt;
use std::fs::File;
use std::io::{BufReader, Cursor, Error as IoError, ErrorKind, Read, Seek};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use flate2::bufread::MultiGzDecoder;
use report_api::checked::CheckedSource;
use report_api::format::Compression;

use super::DECODED_BYTES_MAX;
use crate::error::{Code, Result, RunError};
use crate::source::RawInput;

/// What is read at once: large enough that the calls don't count.
pub(super) const BUFFER_BYTES: usize = 256 << 10;
/// How a gzip stream begins (RFC 1952).
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];
const UTF8_MARK: [u8; 3] = [0xef, 0xbb, 0xbf];
const UTF16_MARKS: [[u8; 2]; 2] = [[0xff, 0xfe], [0xfe, 0xff]];

/// The decompressed bytes of an input, without a byte order mark.
pub(super) struct Reader {
    inner: Box<dyn Read + Send>,
    left: u64,
    budget: Budget,
}

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader").field("left", &self.left).finish_non_exhaustive()
    }
}

/// How many bytes the reader may still give before the next record, shared with whoever knows where records begin.
#[derive(Clone, Debug)]
pub(super) struct Budget(Arc<Left>);

#[derive(Debug)]
struct Left {
    record_bytes: AtomicU64,
    record_bytes_max: u64,
    is_stopped: AtomicBool,
}

impl Budget {
    /// A record begins.
    pub(super) fn renew(&self) {
        self.0.record_bytes.store(self.0.record_bytes_max, Ordering::Relaxed);
    }

    /// What follows is passed over and takes no memory.
    pub(super) fn suspend(&self) {
        self.0.record_bytes.store(u64::MAX, Ordering::Relaxed);
    }

    /// Nobody wants more.
    pub(super) fn stop(&self) {
        self.0.is_stopped.store(true, Ordering::Relaxed);
    }
}

/// Opens an input for a text format.
pub(super) fn open(input: &RawInput, source: &CheckedSource) -> Result<(Reader, Budget)> {
    let (mut file, gzip) = file(input, source)?;
    let mut inner: Box<dyn Read + Send> = match gzip {
        true => Box::new(MultiGzDecoder::new(BufReader::with_capacity(BUFFER_BYTES, file))),
        false => {
            file.rewind().map_err(|error| explain(error, source))?;
            Box::new(file)
        }
    };
    let start = start(&mut inner, source)?;
    let record_bytes_max = source.record_bytes_max;
    let (record_bytes, is_stopped) = (AtomicU64::new(record_bytes_max), AtomicBool::new(false));
    let budget = Budget(Arc::new(Left { record_bytes, record_bytes_max, is_stopped }));
    let reader =
        Reader { inner: Box::new(Cursor::new(start).chain(inner)), left: DECODED_BYTES_MAX, budget: budget.clone() };
    Ok((reader, budget))
}

/// Opens an input as it is on disk, at its first byte, and says whether it is to be decompressed.
pub(super) fn file(input: &RawInput, source: &CheckedSource) -> Result<(File, bool)> {
    let mut file = File::open(&input.path).map_err(|error| explain(error, source))?;
    let gzip = match source.compression {
        Compression::None => false,
        Compression::Gzip => true,
        Compression::Auto => {
            let mut magic = Vec::with_capacity(GZIP_MAGIC.len());
            Read::by_ref(&mut file).take(2).read_to_end(&mut magic).map_err(|error| explain(error, source))?;
            magic == GZIP_MAGIC
        }
    };
    file.rewind().map_err(|error| explain(error, source))?;
    Ok((file, gzip))
}

/// The first bytes, less a byte order mark.
fn start(inner: &mut impl Read, source: &CheckedSource) -> Result<Vec<u8>> {
    let mut start = Vec::with_capacity(UTF8_MARK.len());
    inner.take(3).read_to_end(&mut start).map_err(|error| explain(error, source))?;
    if UTF16_MARKS.iter().any(|mark| start.starts_with(mark)) {
        let text = "the input is in UTF-16; have it written in utf-8";
        return Err(RunError::at(Code::EncodingInvalid, &source.field, text));
    }
    if start == UTF8_MARK {
        start.clear();
    }
    Ok(start)
}

impl Read for Reader {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, IoError> {
        let Left { record_bytes, is_stopped, .. } = &*self.budget.0;
        if is_stopped.load(Ordering::Relaxed) {
            return Err(IoError::other(Stop::Unwanted));
        }
        let count = self.inner.read(buffer)?;
        self.left = self.left.checked_sub(count as u64).ok_or_else(|| IoError::other(Stop::InputTooLong))?;
        let left = record_bytes.load(Ordering::Relaxed);
        let left = left.checked_sub(count as u64).ok_or_else(|| IoError::other(Stop::RecordTooLong))?;
        record_bytes.store(left, Ordering::Relaxed);
        Ok(count)
    }
}

/// Why a reader stops by itself.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Stop {
    Unwanted,
    InputTooLong,
    RecordTooLong,
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unwanted => "nobody reads on",
            Self::InputTooLong => "the input is too long",
            Self::RecordTooLong => "the record is too long",
        })
    }
}

impl std::error::Error for Stop {}

/// What a failed read means for the run.
pub(super) fn explain(error: IoError, source: &CheckedSource) -> RunError {
    let stop = error.get_ref().and_then(|error| error.downcast_ref::<Stop>()).copied();
    match (stop, error.kind()) {
        (Some(Stop::Unwanted), _) => {
            RunError::new(Code::Internal, "the input was read on after its end").caused_by(error)
        }
        (Some(Stop::InputTooLong), _) => RunError::at(
            Code::InputTooLarge,
            &source.field,
            format!("the input is larger than {} GiB when decompressed; split it", DECODED_BYTES_MAX >> 30),
        ),
        (Some(Stop::RecordTooLong), _) => RunError::at(Code::InputMalformed, &source.field, too_long(source)),
        // Files give none of these by themselves.
        (None, ErrorKind::UnexpectedEof | ErrorKind::InvalidInput | ErrorKind::InvalidData) => RunError::at(
            Code::InputMalformed,
            &source.field,
            "the gzip stream is cut off or broken; have it written again, or set compression: none if it is none",
        )
        .caused_by(error),
        (None, _) => RunError::at(Code::SourceUnreachable, &source.field, "can't read the input").caused_by(error),
    }
}

/// What to say of a record that is too long.
pub(super) fn too_long(source: &CheckedSource) -> String {
    let field = format!("{}.maxRecordSize", source.field);
    format!("a record is longer than {} MiB; if that is right, raise {field}", source.record_bytes_max >> 20)
}
