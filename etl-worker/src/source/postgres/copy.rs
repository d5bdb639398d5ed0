//! Decodes COPY BINARY into batches: <https://www.postgresql.org/docs/current/sql-copy.html#id-1.9.3.55.9.4>, the values
//! as the send functions of the server's types write them (`src/backend/utils/adt/`).
//!
//! Nothing is rounded or cut: a value that its column can't hold is an error with the row and the column. Memory: one
//! batch under construction and the chunk that is decoded. Errors: `value_invalid`, `encoding_invalid`, `input_malformed`.

use std::fmt;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryArray, BinaryBuilder, BooleanBuilder, Date32Builder, Decimal128Builder, Float32Builder,
    Float64Builder, Int16Builder, Int32Builder, Int64Builder, RecordBatch, StringArray, TimestampMicrosecondBuilder,
};
use arrow::datatypes::SchemaRef;
use bytes::Bytes;
use report_api::checked::CheckedColumn;
use report_api::column::ColumnType;
use tokio::sync::mpsc::Receiver;

use crate::decode::{BATCH_BYTES_MAX, BATCH_ROWS_MAX, DAYS, MICROS, arrow_type, schema};
use crate::error::{Code, Result, RunError};

const SIGNATURE: &[u8] = b"PGCOPY\n\xff\r\n\0";
/// What a text is taken to need, when the first batch is planned.
const TEXT_BYTES_EXPECTED: usize = 16;
/// Fewest rows that a batch is planned for, however many columns there are.
const BATCH_ROWS_MIN: usize = 64;
/// PostgreSQL counts from 2000-01-01.
const EPOCH_DAYS: i32 = 10_957;
const EPOCH_MICROS: i64 = 946_684_800_000_000;

/// A part of the stream: whole rows; None after the last one.
pub(super) type Chunk = Result<Option<Bytes>>;

/// The batches of a stream. Blocking: drive it on a blocking thread.
pub(super) struct Batches {
    chunks: Box<dyn FnMut() -> Option<Chunk> + Send>,
    decoder: Decoder,
    done: bool,
}

impl Batches {
    /// Reads the chunks that `start` gives when the first batch is asked for.
    pub(super) fn new(columns: &[CheckedColumn], start: impl FnOnce() -> Receiver<Chunk> + Send + 'static) -> Self {
        let mut start = Some(start);
        let mut receiver = None;
        let chunks = move || {
            if let Some(start) = start.take() {
                receiver = Some(start());
            }
            receiver.as_mut()?.blocking_recv()
        };
        Self { chunks: Box::new(chunks), decoder: Decoder::new(columns), done: false }
    }

    fn advance(&mut self) -> Result<Option<RecordBatch>> {
        loop {
            self.decoder.decode()?;
            if self.decoder.is_full() {
                return self.decoder.take().map(Some);
            }
            match (self.chunks)() {
                Some(Ok(Some(chunk))) => self.decoder.feed(chunk),
                Some(Ok(None)) => {
                    self.done = true;
                    self.decoder.end()?;
                    return (self.decoder.rows > 0).then(|| self.decoder.take()).transpose();
                }
                Some(Err(error)) => return Err(error),
                None => return Err(RunError::new(Code::Internal, "reading a database ended early")),
            }
        }
    }
}

impl Iterator for Batches {
    type Item = Result<RecordBatch>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let batch = self.advance();
        self.done |= batch.is_err();
        batch.transpose()
    }
}

/// A batch under construction, and what is left of a chunk.
struct Decoder {
    columns: Vec<CheckedColumn>,
    schema: SchemaRef,
    builders: Vec<Builder>,
    chunk: Bytes,
    has_header: bool,
    has_trailer: bool,
    rows: usize,
    rows_max: usize,
    text_bytes: usize,
    /// Rows before this batch.
    row: u64,
}

impl Decoder {
    fn new(columns: &[CheckedColumn]) -> Self {
        let width = |column: &CheckedColumn| arrow_type(column.type_).primitive_width().unwrap_or(TEXT_BYTES_EXPECTED);
        let row_bytes = columns.iter().map(width).sum::<usize>().max(1);
        let rows_max = (BATCH_BYTES_MAX / row_bytes).clamp(BATCH_ROWS_MIN, BATCH_ROWS_MAX);
        Self {
            columns: columns.to_vec(),
            schema: schema(columns),
            builders: columns.iter().map(|column| Builder::new(column.type_, rows_max)).collect(),
            chunk: Bytes::new(),
            has_header: false,
            has_trailer: false,
            rows: 0,
            rows_max,
            text_bytes: 0,
            row: 0,
        }
    }

    fn is_full(&self) -> bool {
        self.rows >= self.rows_max || self.text_bytes >= BATCH_BYTES_MAX
    }

    fn feed(&mut self, chunk: Bytes) {
        debug_assert!(self.chunk.is_empty(), "a chunk holds whole rows");
        self.chunk = chunk;
    }

    /// Decodes rows until the batch is full or the chunk is at its end.
    fn decode(&mut self) -> Result<()> {
        let chunk = std::mem::take(&mut self.chunk);
        let mut bytes = &chunk[..];
        if !self.has_header && !bytes.is_empty() {
            header(&mut bytes).ok_or_else(broken)?;
            self.has_header = true;
        }
        while !bytes.is_empty() && !self.is_full() {
            if self.has_trailer {
                return Err(broken());
            }
            let count = i16::from_be_bytes(take(&mut bytes).ok_or_else(broken)?);
            if count == -1 {
                self.has_trailer = true;
                continue;
            }
            if usize::try_from(count) != Ok(self.builders.len()) {
                return Err(broken());
            }
            for index in 0..self.builders.len() {
                let length = i32::from_be_bytes(take(&mut bytes).ok_or_else(broken)?);
                if length == -1 {
                    self.null(index)?;
                    continue;
                }
                let length = usize::try_from(length).map_err(|_| broken())?;
                let (value, rest) = bytes.split_at_checked(length).ok_or_else(broken)?;
                bytes = rest;
                let builder = &mut self.builders[index];
                if let Builder::String(_) | Builder::Binary(_) = builder {
                    self.text_bytes += value.len();
                }
                builder.append(value).map_err(|misfit| self.unfit(index, misfit))?;
            }
            self.rows += 1;
        }
        let left = bytes.len();
        self.chunk = chunk.slice(chunk.len() - left..);
        Ok(())
    }

    fn end(&self) -> Result<()> {
        if self.has_trailer { Ok(()) } else { Err(broken()) }
    }

    fn null(&mut self, index: usize) -> Result<()> {
        if self.columns[index].required {
            let column = &self.columns[index];
            let message = format!(
                "row {}, column {}: NULL in a required column; fill it in the source, or set required: false",
                self.row + self.rows as u64 + 1,
                column.name
            );
            return Err(RunError::at(Code::ValueInvalid, &column.field, message));
        }
        self.builders[index].append_null();
        Ok(())
    }

    fn unfit(&self, index: usize, misfit: Misfit) -> RunError {
        let column = &self.columns[index];
        let place = format!("row {}, column {}", self.row + self.rows as u64 + 1, column.name);
        let message = match misfit {
            Misfit::Length => return broken(),
            _ => format!("{place}: {misfit}{}", misfit.remedy(column.type_)),
        };
        RunError::at(Code::ValueInvalid, &column.field, message)
    }

    fn take(&mut self) -> Result<RecordBatch> {
        let arrays = self
            .builders
            .iter_mut()
            .zip(&self.columns)
            .map(|(builder, column)| builder.finish().ok_or_else(|| not_utf8(column)))
            .collect::<Result<Vec<_>>>()?;
        self.row += self.rows as u64;
        (self.rows, self.text_bytes) = (0, 0);
        RecordBatch::try_new(Arc::clone(&self.schema), arrays)
            .map_err(|error| RunError::new(Code::Internal, "a batch does not fit its columns").caused_by(error))
    }
}

fn broken() -> RunError {
    RunError::new(Code::InputMalformed, "the server's rows are not in the format COPY BINARY; is it PostgreSQL?")
}

/// Texts come in UTF-8, unless the database's encoding is SQL_ASCII, which is no encoding.
fn not_utf8(column: &CheckedColumn) -> RunError {
    let message = format!(
        "column {}: a text is not UTF-8, since the database's encoding is SQL_ASCII; read it by a query with convert_from({}::bytea, 'LATIN1') or what it is in",
        column.name, column.name
    );
    RunError::at(Code::EncodingInvalid, &column.field, message)
}

fn header(bytes: &mut &[u8]) -> Option<()> {
    let (signature, rest) = bytes.split_at_checked(SIGNATURE.len())?;
    *bytes = rest;
    let flags = i32::from_be_bytes(take(bytes)?);
    let extension = usize::try_from(i32::from_be_bytes(take(bytes)?)).ok()?;
    *bytes = bytes.split_at_checked(extension)?.1;
    // The upper half of the flags changes the format.
    (signature == SIGNATURE && (flags as u32) >> 16 == 0).then_some(())
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (value, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(*value)
}

/// Why a value is none of its column's type.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Misfit {
    Length,
    NotANumber,
    Infinity,
    Fraction { scale: u8 },
    TooLarge { precision: u8, scale: u8 },
    Year,
}

impl fmt::Display for Misfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Length => f.write_str("a value of a wrong length"),
            Self::NotANumber => f.write_str("NaN is no decimal"),
            Self::Infinity => f.write_str("infinity is no value of the column's type"),
            Self::Fraction { scale } => write!(f, "a number has more than {scale} digits after the point"),
            Self::TooLarge { precision, scale } => {
                write!(f, "a number has more than {} digits before the point", precision - scale)
            }
            Self::Year => f.write_str("a date or time is outside of the years 1 to 9999"),
        }
    }
}

impl Misfit {
    fn remedy(self, type_: ColumnType) -> &'static str {
        match (self, type_) {
            (Self::Fraction { .. } | Self::TooLarge { .. }, _) => {
                "; declare more digits under columns, type: decimal(PRECISION,SCALE), or round it in a query"
            }
            (Self::NotANumber | Self::Infinity, ColumnType::Decimal { .. }) => {
                "; declare the column a float64 by a query with a cast, or a string under columns, or leave such rows out"
            }
            (_, _) => "; declare the column a string under columns, or replace the value in a query",
        }
    }
}

enum Builder {
    String(BinaryBuilder),
    Binary(BinaryBuilder),
    Boolean(BooleanBuilder),
    Int16(Int16Builder),
    Int32(Int32Builder),
    Int64(Int64Builder),
    Float32(Float32Builder),
    Float64(Float64Builder),
    Decimal { builder: Decimal128Builder, precision: u8, scale: u8 },
    Date(Date32Builder),
    Timestamp(TimestampMicrosecondBuilder),
}

impl Builder {
    fn new(type_: ColumnType, rows: usize) -> Self {
        match type_ {
            ColumnType::String | ColumnType::Uuid | ColumnType::Json => {
                Self::String(BinaryBuilder::with_capacity(rows, rows * TEXT_BYTES_EXPECTED))
            }
            ColumnType::Binary => Self::Binary(BinaryBuilder::with_capacity(rows, rows * TEXT_BYTES_EXPECTED)),
            ColumnType::Boolean => Self::Boolean(BooleanBuilder::with_capacity(rows)),
            ColumnType::Int16 => Self::Int16(Int16Builder::with_capacity(rows)),
            ColumnType::Int32 => Self::Int32(Int32Builder::with_capacity(rows)),
            ColumnType::Int64 => Self::Int64(Int64Builder::with_capacity(rows)),
            ColumnType::Float32 => Self::Float32(Float32Builder::with_capacity(rows)),
            ColumnType::Float64 => Self::Float64(Float64Builder::with_capacity(rows)),
            ColumnType::Decimal { precision, scale } => {
                let builder = Decimal128Builder::with_capacity(rows).with_data_type(arrow_type(type_));
                Self::Decimal { builder, precision, scale }
            }
            ColumnType::Date => Self::Date(Date32Builder::with_capacity(rows)),
            ColumnType::Timestamp | ColumnType::TimestampTz => {
                Self::Timestamp(TimestampMicrosecondBuilder::with_capacity(rows).with_data_type(arrow_type(type_)))
            }
        }
    }

    fn append(&mut self, value: &[u8]) -> Result<(), Misfit> {
        match self {
            Self::String(builder) | Self::Binary(builder) => builder.append_value(value),
            Self::Boolean(builder) => builder.append_value(fixed::<1>(value)? != [0]),
            Self::Int16(builder) => builder.append_value(i16::from_be_bytes(fixed(value)?)),
            Self::Int32(builder) => builder.append_value(i32::from_be_bytes(fixed(value)?)),
            Self::Int64(builder) => builder.append_value(i64::from_be_bytes(fixed(value)?)),
            Self::Float32(builder) => builder.append_value(f32::from_be_bytes(fixed(value)?)),
            Self::Float64(builder) => builder.append_value(f64::from_be_bytes(fixed(value)?)),
            Self::Decimal { builder, precision, scale } => builder.append_value(numeric(value, *precision, *scale)?),
            Self::Date(builder) => builder.append_value(date(i32::from_be_bytes(fixed(value)?))?),
            Self::Timestamp(builder) => builder.append_value(timestamp(i64::from_be_bytes(fixed(value)?))?),
        }
        Ok(())
    }

    fn append_null(&mut self) {
        match self {
            Self::String(builder) | Self::Binary(builder) => builder.append_null(),
            Self::Boolean(builder) => builder.append_null(),
            Self::Int16(builder) => builder.append_null(),
            Self::Int32(builder) => builder.append_null(),
            Self::Int64(builder) => builder.append_null(),
            Self::Float32(builder) => builder.append_null(),
            Self::Float64(builder) => builder.append_null(),
            Self::Decimal { builder, .. } => builder.append_null(),
            Self::Date(builder) => builder.append_null(),
            Self::Timestamp(builder) => builder.append_null(),
        }
    }

    /// The values so far; None if texts are not UTF-8, which is looked at once for all of them.
    fn finish(&mut self) -> Option<ArrayRef> {
        Some(match self {
            Self::String(builder) => Arc::new(StringArray::try_from_binary(values(builder)).ok()?),
            Self::Binary(builder) => Arc::new(values(builder)),
            Self::Boolean(builder) => Arc::new(builder.finish()),
            Self::Int16(builder) => Arc::new(builder.finish()),
            Self::Int32(builder) => Arc::new(builder.finish()),
            Self::Int64(builder) => Arc::new(builder.finish()),
            Self::Float32(builder) => Arc::new(builder.finish()),
            Self::Float64(builder) => Arc::new(builder.finish()),
            Self::Decimal { builder, .. } => Arc::new(builder.finish()),
            Self::Date(builder) => Arc::new(builder.finish()),
            Self::Timestamp(builder) => Arc::new(builder.finish()),
        })
    }
}

/// The values so far. The next batch's are taken to need as much room.
fn values(builder: &mut BinaryBuilder) -> BinaryArray {
    let bytes = builder.values_slice().len().min(BATCH_BYTES_MAX);
    let next = BinaryBuilder::with_capacity(builder.offsets_slice().len(), bytes);
    std::mem::replace(builder, next).finish()
}

fn fixed<const N: usize>(value: &[u8]) -> Result<[u8; N], Misfit> {
    value.try_into().map_err(|_| Misfit::Length)
}

fn date(days: i32) -> Result<i32, Misfit> {
    match days {
        i32::MIN | i32::MAX => Err(Misfit::Infinity),
        _ => days.checked_add(EPOCH_DAYS).filter(|days| DAYS.contains(days)).ok_or(Misfit::Year),
    }
}

fn timestamp(micros: i64) -> Result<i64, Misfit> {
    match micros {
        i64::MIN | i64::MAX => Err(Misfit::Infinity),
        _ => micros.checked_add(EPOCH_MICROS).filter(|micros| MICROS.contains(micros)).ok_or(Misfit::Year),
    }
}

/// Groups of four digits that surely fit into 128 bits.
const GROUPS_SURE: usize = 9;
const POWERS: [i128; 39] = {
    let mut powers = [1; 39];
    let mut n = 1;
    while n < 39 {
        powers[n] = powers[n - 1] * 10;
        n += 1;
    }
    powers
};

/// `numeric_send`: how many groups of four digits, the power of 10,000 of the first one, the sign, how many digits are
/// shown after the point, then the groups. Zeros at both ends are left out. Gives the value times ten to the `scale`.
fn numeric(mut value: &[u8], precision: u8, scale: u8) -> Result<i128, Misfit> {
    let bytes = &mut value;
    let groups = usize::from(u16::from_be_bytes(take(bytes).ok_or(Misfit::Length)?));
    let weight = i32::from(i16::from_be_bytes(take(bytes).ok_or(Misfit::Length)?));
    let sign = u16::from_be_bytes(take(bytes).ok_or(Misfit::Length)?);
    let _shown: [u8; 2] = take(bytes).ok_or(Misfit::Length)?;
    let negative = match sign {
        0x0000 => false,
        0x4000 => true,
        0xC000 => return Err(Misfit::NotANumber),
        0xD000 | 0xF000 => return Err(Misfit::Infinity),
        _ => return Err(Misfit::Length),
    };
    if bytes.len() != groups * 2 {
        return Err(Misfit::Length);
    }
    let too_large = Misfit::TooLarge { precision, scale };
    // The power of ten by which a group of ones counts, in units of the column's last digit.
    let mut power = weight * 4 + i32::from(scale);
    let mut total = 0_i128;
    for (index, group) in bytes.chunks_exact(2).enumerate() {
        let group = i128::from(u16::from_be_bytes([group[0], group[1]]));
        let (factor, group) = match power {
            0.. => (10_000, group),
            // A part of the group lies behind the column's last digit.
            -3..=-1 => {
                let behind = POWERS[power.unsigned_abs() as usize];
                if group % behind != 0 {
                    return Err(Misfit::Fraction { scale });
                }
                (10_000 / behind, group / behind)
            }
            _ if group == 0 => (1, 0),
            _ => return Err(Misfit::Fraction { scale }),
        };
        total = if index < GROUPS_SURE {
            total * factor + group
        } else {
            total.checked_mul(factor).and_then(|total| total.checked_add(group)).ok_or(too_large)?
        };
        power -= 4;
    }
    // Groups of zeros that were left out.
    let missing = power + 4;
    if missing > 0 && total != 0 {
        let factor = usize::try_from(missing).ok().and_then(|missing| POWERS.get(missing)).ok_or(too_large)?;
        total = total.checked_mul(*factor).ok_or(too_large)?;
    }
    if total >= POWERS[usize::from(precision)] {
        return Err(too_large);
    }
    Ok(if negative { -total } else { total })
}

#[cfg(test)]
mod tests {
    use super::{Misfit, numeric};

    /// A value as the server sends it.
    fn sent(weight: i16, sign: u16, groups: &[u16]) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend((groups.len() as u16).to_be_bytes());
        bytes.extend(weight.to_be_bytes());
        bytes.extend(sign.to_be_bytes());
        bytes.extend(0_u16.to_be_bytes());
        bytes.extend(groups.iter().flat_map(|group| group.to_be_bytes()));
        bytes
    }

    #[test]
    fn numbers_are_exact_or_refused() {
        let nines: Vec<u16> = vec![99, 9999, 9999, 9999, 9999, 9999, 9999, 9999, 9999, 9999];
        let large = Misfit::TooLarge { precision: 5, scale: 2 };
        for (weight, sign, groups, precision, scale, want) in [
            (0, 0, &[][..], 5, 2, Ok(0)),
            (0, 0, &[1][..], 5, 2, Ok(100)),
            (0, 0x4000, &[1, 2500][..], 5, 2, Ok(-125)),
            (-1, 0, &[100][..], 5, 2, Ok(1)),
            (-1, 0, &[10][..], 5, 2, Err(Misfit::Fraction { scale: 2 })),
            (-2, 0, &[1][..], 5, 2, Err(Misfit::Fraction { scale: 2 })),
            (-1, 0, &[1][..], 4, 4, Ok(1)),
            (0, 0, &[999, 9900][..], 5, 2, Ok(99_999)),
            (0, 0, &[1000][..], 5, 2, Err(large)),
            (1, 0, &[1][..], 5, 0, Ok(10_000)),
            (9, 0, &nines[..], 38, 0, Ok(10_i128.pow(38) - 1)),
            (
                8,
                0x4000,
                &[9999, 9999, 9999, 9999, 9999, 9999, 9999, 9999, 9999, 9900][..],
                38,
                2,
                Ok(1 - 10_i128.pow(38)),
            ),
            (9, 0, &[100][..], 38, 0, Err(Misfit::TooLarge { precision: 38, scale: 0 })),
            (2000, 0, &[1][..], 5, 2, Err(large)),
            (0, 0xC000, &[][..], 5, 2, Err(Misfit::NotANumber)),
            (0, 0xD000, &[][..], 5, 2, Err(Misfit::Infinity)),
            (0, 0xF000, &[][..], 5, 2, Err(Misfit::Infinity)),
        ] {
            assert_eq!(numeric(&sent(weight, sign, groups), precision, scale), want, "{groups:?} {weight}");
        }
        assert_eq!(numeric(&[0, 1, 0, 0], 5, 2), Err(Misfit::Length));
    }
}
