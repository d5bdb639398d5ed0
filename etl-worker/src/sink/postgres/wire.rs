//! Columns in the form in which COPY BINARY takes them best: UUIDs and JSON as the bytes of `uuid_recv` and `jsonb_recv`
//! in place of texts, short numbers in 64 bits.
//!
//! Errors: `value_invalid` for a text that is neither, and for an object that names a key twice, of which jsonb would keep
//! one without a word.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BinaryBuilder};
use arrow::datatypes::{DECIMAL64_MAX_PRECISION, DataType, Decimal64Type, Decimal128Type, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use serde::de::{Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::error::{Code, Result, RunError};
use crate::logical::Logical;

/// The only version of jsonb's binary form: the text follows.
const JSONB_VERSION: u8 = 1;
/// How deep values may lie within one another. Parsers of JSON stop at about this.
const DEPTH_MAX: usize = 128;

/// The columns that are sent in another form.
pub(super) struct Wire {
    changed: Vec<(usize, Form)>,
    schema: SchemaRef,
}

/// In which form.
#[derive(Clone, Copy)]
enum Form {
    Marked(Logical),
    /// A number of up to 18 digits in 64 bits, in which the encoder's divisions take a tenth of the time.
    Short,
}

impl Wire {
    pub(super) fn new(schema: &SchemaRef) -> Self {
        let mut fields = schema.fields().to_vec();
        let mut changed = Vec::new();
        for (at, field) in fields.iter_mut().enumerate() {
            let (form, type_) = match (Logical::of(field), field.data_type()) {
                (Some(mark), _) => (Form::Marked(mark), DataType::Binary),
                (None, DataType::Decimal128(precision, scale)) if *precision <= DECIMAL64_MAX_PRECISION => {
                    (Form::Short, DataType::Decimal64(*precision, *scale))
                }
                (None, _) => continue,
            };
            changed.push((at, form));
            *field = Arc::new(field.as_ref().clone().with_data_type(type_));
        }
        Self { changed, schema: Arc::new(Schema::new(fields)) }
    }

    /// The columns as they are sent.
    pub(super) fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Rows as they are sent.
    pub(super) fn rows(&self, batch: RecordBatch, field: &str) -> Result<RecordBatch> {
        if self.changed.is_empty() {
            return Ok(batch);
        }
        let mut columns = batch.columns().to_vec();
        for (at, form) in &self.changed {
            let sent = match form {
                Form::Marked(mark) => encoded(&columns[*at], *mark),
                Form::Short => short(&columns[*at], self.schema.field(*at).data_type()),
            };
            columns[*at] = sent.map_err(|what| {
                let name = self.schema.field(*at).name();
                RunError::at(Code::ValueInvalid, format!("{field}.from"), format!("column {name}: {what}"))
            })?;
        }
        RecordBatch::try_new(Arc::clone(&self.schema), columns)
            .map_err(|error| RunError::new(Code::Internal, "a batch does not fit its columns").caused_by(error))
    }
}

/// The same numbers in 64 bits.
fn short(column: &ArrayRef, type_: &DataType) -> std::result::Result<ArrayRef, &'static str> {
    let numbers = column.as_primitive::<Decimal128Type>();
    let narrowed = numbers.try_unary::<_, Decimal64Type, _>(|value| i64::try_from(value).map_err(|_| LONG))?;
    Ok(Arc::new(narrowed.with_data_type(type_.clone())))
}

const LONG: &str = "a number has more digits than its type says; cast it to a longer one";

fn encoded(column: &ArrayRef, mark: Logical) -> std::result::Result<ArrayRef, &'static str> {
    let texts = column.as_string::<i32>();
    let mut out = BinaryBuilder::with_capacity(texts.len(), texts.value_data().len() + texts.len());
    let mut jsonb = vec![JSONB_VERSION];
    for text in texts {
        match (text, mark) {
            (None, _) => out.append_null(),
            (Some(text), Logical::Uuid) => {
                out.append_value(Uuid::try_parse(text).map_err(|_| "a value is no UUID")?.as_bytes());
            }
            (Some(text), Logical::Json) => {
                check_keys(text, DEPTH_MAX)?;
                jsonb.truncate(1);
                jsonb.extend_from_slice(text.as_bytes());
                out.append_value(&jsonb);
            }
        }
    }
    Ok(Arc::new(out.finish()))
}

const TWICE: &str = "an object has a key twice, and jsonb would keep the last one only; make the column a string";
const DEEP: &str = "a JSON value is nested too deep; make the column a string";
const NO_JSON: &str = "a value is no JSON";

/// Refuses objects that name a key twice, however it is written.
fn check_keys(text: &str, depth: usize) -> std::result::Result<(), &'static str> {
    let text = text.trim_start();
    if depth == 0 {
        return Err(DEEP);
    }
    let mut failure = None;
    let visitor = Keys { depth, failure: &mut failure };
    let mut parser = serde_json::Deserializer::from_str(text);
    let read = match text.as_bytes().first() {
        Some(b'{') => serde::Deserializer::deserialize_map(&mut parser, visitor),
        Some(b'[') => serde::Deserializer::deserialize_seq(&mut parser, visitor),
        Some(_) | None => serde::Deserialize::deserialize(&mut parser).map(|IgnoredAny| ()),
    };
    match (failure, read.and_then(|()| parser.end())) {
        (Some(failure), _) => Err(failure),
        (None, Err(_)) => Err(NO_JSON),
        (None, Ok(())) => Ok(()),
    }
}

/// Visits the values of an object or an array. Numbers are passed over: a parser would make floats of them.
struct Keys<'a> {
    depth: usize,
    failure: &'a mut Option<&'static str>,
}

impl Keys<'_> {
    fn value<E: Error>(&mut self, raw: &RawValue) -> std::result::Result<(), E> {
        if !matches!(raw.get().as_bytes().first(), Some(b'{' | b'[')) {
            return Ok(());
        }
        check_keys(raw.get(), self.depth - 1).map_err(|failure| {
            *self.failure = Some(failure);
            E::custom(failure)
        })
    }
}

impl<'de> Visitor<'de> for Keys<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object or an array")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> std::result::Result<(), A::Error> {
        let mut keys: HashSet<String> = HashSet::new();
        while let Some(key) = map.next_key::<String>()? {
            let raw: &RawValue = map.next_value()?;
            if !keys.insert(key) {
                *self.failure = Some(TWICE);
                return Err(A::Error::custom(TWICE));
            }
            self.value(raw)?;
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut values: A) -> std::result::Result<(), A::Error> {
        while let Some(raw) = values.next_element::<&RawValue>()? {
            self.value(raw)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{DEEP, DEPTH_MAX, NO_JSON, TWICE, check_keys};

    #[test]
    fn no_key_of_json_gets_lost() {
        let deep = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        for (text, want) in [
            ("{\"a\": 1, \"b\": {\"a\": 1e400}}", Ok(())),
            (" [{\"a\": 1}, {\"a\": 2}, \"{\"]", Ok(())),
            ("\"a\"", Ok(())),
            ("{\"a\": 1, \"a\": 1}", Err(TWICE)),
            ("[[{\"b\": 0, \"a\": 1, \"\\u0061\": 2}]]", Err(TWICE)),
            ("{\"a\"}", Err(NO_JSON)),
            ("", Err(NO_JSON)),
            (&deep(DEPTH_MAX), Ok(())),
            (&deep(DEPTH_MAX + 1), Err(DEEP)),
            (&deep(1_000_000), Err(DEEP)),
        ] {
            assert_eq!(check_keys(text, DEPTH_MAX), want, "{:.40}", text);
        }
    }
}
