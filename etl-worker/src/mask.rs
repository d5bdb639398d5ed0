//! Masks columns of a source, right after its decoder: before SQL, checks, scratch or any sink sees a row.
//!
//! Guarantees: equal values of one type have equal hashes under one key; NULL stays NULL. What is masked as text becomes
//! a string column. Errors: `secret_invalid` (no key, or too short a one), `column_missing`, `type_unsupported`.

use std::fmt::Write;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StringBuilder};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Date32Type, Field, Schema, SchemaRef, TimestampMicrosecondType};
use hmac::{Hmac, KeyInit, Mac};
use hmac_sha2::Sha256;
use jiff::Span;
use jiff::civil::Date;
use report_api::checked::{CheckedMask, CheckedSource, MaskKind};

use crate::decode;
use crate::env::Env;
use crate::error::{Code, Result, RunError};
use crate::logical;

/// What is left of a redacted value.
const REDACTED: &str = "***";
/// Shortest key of a keyed hash, in bytes: whoever can guess the key can try all e-mail addresses.
const KEY_BYTES_MIN: usize = 16;
/// Bytes of a keyed hash as hexadecimal digits.
const HASH_BYTES: usize = 64;

/// The masks of a source.
#[derive(Clone, Default)]
pub struct Masks {
    masks: Vec<Masking>,
}

#[derive(Clone)]
struct Masking {
    field: String,
    column: String,
    kind: Kind,
}

#[derive(Clone)]
enum Kind {
    /// None where only the columns are asked for.
    Hash(Option<Box<Hmac<Sha256>>>),
    Redact,
    Characters(usize),
    Year,
    Month,
}

impl Masks {
    /// The masks of a source, with their keys.
    pub fn open(source: &CheckedSource, env: &Env) -> Result<Self> {
        let key = |mask: &CheckedMask| match &mask.kind {
            MaskKind::HmacSha256 { key } => {
                let field = format!("{}.key", mask.field);
                let secret = env.secret(key, &field)?;
                if secret.len() < KEY_BYTES_MIN {
                    let message = format!(
                        "the key {} of the Secret {} is shorter than {KEY_BYTES_MIN} bytes; set a longer one, such as the output of openssl rand -hex 32",
                        key.key, key.name
                    );
                    return Err(RunError::at(Code::SecretInvalid, field, message));
                }
                let keyed = Hmac::<Sha256>::new_from_slice(secret.as_bytes());
                keyed
                    .map(|keyed| Some(Box::new(keyed)))
                    .map_err(|error| RunError::at(Code::SecretInvalid, field, error.to_string()))
            }
            MaskKind::Redact | MaskKind::Characters(_) | MaskKind::Year | MaskKind::Month => Ok(None),
        };
        Self::with_keys(source, key)
    }

    /// The masks of a source without their keys: what is known before a run.
    pub fn keyless(source: &CheckedSource) -> Result<Self> {
        Self::with_keys(source, |_| Ok(None))
    }

    fn with_keys(
        source: &CheckedSource,
        key: impl Fn(&CheckedMask) -> Result<Option<Box<Hmac<Sha256>>>>,
    ) -> Result<Self> {
        let masking = |mask: &CheckedMask| {
            let kind = match &mask.kind {
                MaskKind::HmacSha256 { .. } => Kind::Hash(key(mask)?),
                MaskKind::Redact => Kind::Redact,
                MaskKind::Characters(count) => Kind::Characters(usize::try_from(*count).unwrap_or(usize::MAX)),
                MaskKind::Year => Kind::Year,
                MaskKind::Month => Kind::Month,
            };
            Ok(Masking { field: mask.field.clone(), column: mask.column.clone(), kind })
        };
        Ok(Self { masks: source.masks.iter().map(masking).collect::<Result<_>>()? })
    }

    /// Whether the source has any: no value of its rows may then be shown anywhere.
    pub fn any(&self) -> bool {
        !self.masks.is_empty()
    }

    /// The keyed hash of a whole row; None without a key.
    pub fn hash(&self, row: &[u8]) -> Option<String> {
        let key = self.masks.iter().find_map(|mask| match &mask.kind {
            Kind::Hash(key) => key.as_deref(),
            Kind::Redact | Kind::Characters(_) | Kind::Year | Kind::Month => None,
        })?;
        let mut hash = String::with_capacity(HASH_BYTES);
        digest(key, row, &mut hash);
        Some(hash)
    }

    /// The columns of a source after its masks.
    pub fn schema(&self, schema: &SchemaRef) -> Result<SchemaRef> {
        if self.masks.is_empty() {
            return Ok(Arc::clone(schema));
        }
        let mut fields: Vec<Arc<Field>> = schema.fields().iter().cloned().collect();
        for mask in &self.masks {
            let Some(at) = fields.iter().position(|field| field.name() == &mask.column) else {
                let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
                let message = format!("the source has no column {}; it has {}", mask.column, names.join(", "));
                return Err(RunError::at(Code::ColumnMissing, format!("{}.column", mask.field), message));
            };
            let type_ = fields[at].data_type();
            let dated = matches!(type_, DataType::Date32 | DataType::Timestamp(..));
            let masked = match mask.kind {
                Kind::Hash(_) | Kind::Redact => DataType::Utf8,
                Kind::Characters(_) if *type_ == DataType::Utf8 => DataType::Utf8,
                Kind::Year | Kind::Month if dated => type_.clone(),
                Kind::Characters(_) | Kind::Year | Kind::Month => {
                    let message = format!("the column {} is {type_}, which can't be truncated so", mask.column);
                    return Err(RunError::at(Code::TypeUnsupported, &mask.field, message));
                }
            };
            fields[at] = Arc::new(logical::without_mark(fields[at].as_ref().clone().with_data_type(masked)));
        }
        Ok(Arc::new(Schema::new(fields)))
    }

    /// Masks rows. `schema` is what [`Masks::schema`] gave for their columns.
    pub fn apply(&self, schema: &SchemaRef, batch: RecordBatch) -> Result<RecordBatch> {
        if self.masks.is_empty() {
            return Ok(batch);
        }
        let mut columns = batch.columns().to_vec();
        for mask in &self.masks {
            let at = schema.index_of(&mask.column).map_err(|_| unmaskable(mask))?;
            columns[at] = masked(&mask.kind, &columns[at]).ok_or_else(|| unmaskable(mask))?;
        }
        RecordBatch::try_new(Arc::clone(schema), columns)
            .map_err(|_| RunError::new(Code::Internal, "masked rows do not fit their columns"))
    }

    /// Masks the rows of a source as they come.
    pub fn over(&self, decoder: decode::Decoder) -> Result<decode::Decoder> {
        if self.masks.is_empty() {
            return Ok(decoder);
        }
        let schema = self.schema(&decoder.schema)?;
        let (masks, masked) = (self.clone(), Arc::clone(&schema));
        let batches = decoder.batches.map(move |batch| masks.apply(&masked, batch?));
        Ok(decode::Decoder { schema, batches: Box::new(batches) })
    }
}

/// The cause is left out: it may show the value.
fn unmaskable(mask: &Masking) -> RunError {
    RunError::at(Code::Internal, &mask.field, format!("the column {} can't be masked", mask.column))
}

/// The masked values; None where they can't be masked.
fn masked(kind: &Kind, array: &ArrayRef) -> Option<ArrayRef> {
    match kind {
        Kind::Hash(None) => None,
        Kind::Hash(Some(key)) => {
            if let Some(values) = array.as_binary_opt::<i32>() {
                return Some(hashes(key, values.iter()));
            }
            let texts = texts(array)?;
            Some(hashes(key, texts.as_string_opt::<i32>()?.iter().map(|text| text.map(str::as_bytes))))
        }
        Kind::Redact => {
            let mut out = StringBuilder::with_capacity(array.len(), array.len() * REDACTED.len());
            (0..array.len()).for_each(|row| out.append_option(array.is_valid(row).then_some(REDACTED)));
            Some(Arc::new(out.finish()))
        }
        Kind::Characters(count) => {
            let texts = array.as_string_opt::<i32>()?;
            let mut out = StringBuilder::with_capacity(texts.len(), 0);
            for text in texts {
                let first = text.map(|text| text.char_indices().nth(*count).map_or(text, |(end, _)| &text[..end]));
                out.append_option(first);
            }
            Some(Arc::new(out.finish()))
        }
        Kind::Year => dates(array, |date| date.first_of_year()),
        Kind::Month => dates(array, |date| date.first_of_month()),
    }
}

fn hashes<'v>(key: &Hmac<Sha256>, values: impl ExactSizeIterator<Item = Option<&'v [u8]>>) -> ArrayRef {
    let mut out = StringBuilder::with_capacity(values.len(), values.len() * HASH_BYTES);
    let mut hash = String::with_capacity(HASH_BYTES);
    for value in values {
        let masked = value.map(|value| {
            digest(key, value, &mut hash);
            &hash
        });
        out.append_option(masked);
    }
    Arc::new(out.finish())
}

/// Values as their canonical texts: digits, ISO 8601, texts as they are.
fn texts(array: &ArrayRef) -> Option<ArrayRef> {
    let options = CastOptions { safe: false, ..CastOptions::default() };
    cast_with_options(array, &DataType::Utf8, &options).ok()
}

fn digest(key: &Hmac<Sha256>, value: &[u8], out: &mut String) {
    let mut keyed = key.clone();
    keyed.update(value);
    out.clear();
    for byte in keyed.finalize().into_bytes() {
        // Writing to a String can't fail.
        let _ = write!(out, "{byte:02x}");
    }
}

/// Days and times as the first day that `first` gives for them, in UTC.
fn dates(array: &ArrayRef, first: impl Fn(Date) -> Date) -> Option<ArrayRef> {
    const EPOCH: Date = jiff::civil::date(1970, 1, 1);
    const DAY_MICROSECONDS: i64 = 86_400_000_000;
    // Days since 1970: no clock and no zone, so that the last day of the year 9999 is one like the others.
    let masked = |day: i64| -> Result<i64, ()> {
        let day = Span::new().try_days(day).map_err(|_| ())?;
        let date = EPOCH.checked_add(day).map_err(|_| ())?;
        Ok(first(date).duration_since(EPOCH).as_hours() / 24)
    };
    match array.data_type() {
        DataType::Date32 => {
            let days = array.as_primitive_opt::<Date32Type>()?;
            let days = days.try_unary::<_, Date32Type, ()>(|day| {
                masked(i64::from(day)).and_then(|day| i32::try_from(day).map_err(|_| ()))
            });
            Some(Arc::new(days.ok()?))
        }
        type_ => {
            let times = array.as_primitive_opt::<TimestampMicrosecondType>()?;
            let times = times.try_unary::<_, TimestampMicrosecondType, ()>(|micros| {
                masked(micros.div_euclid(DAY_MICROSECONDS)).map(|day| day * DAY_MICROSECONDS)
            });
            Some(Arc::new(times.ok()?.with_data_type(type_.clone())))
        }
    }
}
