//! What checks learn of rows while these pass: each check is made ready once for a table's columns, and looks at each
//! batch with kernels over whole columns.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Datum, Scalar};
use arrow::buffer::NullBuffer;
use arrow::compute::kernels::cmp::{gt, lt};
use arrow::compute::{cast, max, or, sum};
use arrow::datatypes::{DataType, Float32Type, Float64Type, Schema, TimeUnit, TimestampMicrosecondType};
use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::{Column, Literal, in_list};
use regex::Regex;
use report_api::checked::{CheckRule, CheckedCheck};
use report_api::result::Sample;

use super::sample::{self, SAMPLES_MAX};
use crate::decode::{literal, type_words};
use crate::error::{Code, Result, RunError};

/// One check's look at the rows of its table.
#[derive(Debug)]
pub(crate) struct Watch {
    name: String,
    /// The columns that a sample must have.
    columns: Vec<String>,
    eye: Eye,
    seen: Seen,
}

/// What was seen so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    /// Rows that fail.
    pub(crate) failing: u64,
    /// NULLs in each of the check's columns, of notNull.
    pub(crate) nulls: Vec<u64>,
    /// Sum and number of the values of meanChange's column.
    pub(crate) sum: f64,
    pub(crate) values: u64,
    /// The newest value of fresh's column, in microseconds since 1970.
    pub(crate) newest: Option<i64>,
    pub(crate) samples: Vec<Sample>,
    /// Why a batch could not be looked at.
    pub(crate) broken: Option<String>,
}

/// How a check looks at a batch.
enum Eye {
    /// Which rows are NULL in one of these columns.
    Nulls(Vec<usize>),
    /// Which rows have a value that is none of these: an SQL expression, whose values are hashed once.
    Others(Arc<dyn PhysicalExpr>),
    /// Which rows have a value outside of these bounds.
    Outside { at: usize, min: Option<Scalar<ArrayRef>>, max: Option<Scalar<ArrayRef>> },
    /// Which rows have a text that does not match.
    Unlike { at: usize, pattern: Regex },
    /// The sum of a column.
    Sum(usize),
    /// The greatest time of a column.
    Newest(usize),
    /// Only how many rows there are, which the table counts.
    Rows,
}

impl std::fmt::Debug for Eye {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Nulls(_) => "Nulls",
            Self::Others(_) => "Others",
            Self::Outside { .. } => "Outside",
            Self::Unlike { .. } => "Unlike",
            Self::Sum(_) => "Sum",
            Self::Newest(_) => "Newest",
            Self::Rows => "Rows",
        })
    }
}

impl Watch {
    /// Makes a check ready for a table with these columns. Refuses columns that are not there, and types and values that
    /// don't go together.
    pub(crate) fn new(check: &CheckedCheck, schema: &Schema) -> Result<Self> {
        let place = Place { field: &check.field, option: check.rule.name(), schema };
        let mut columns = Vec::new();
        let eye = match &check.rule {
            CheckRule::NotNull { columns: all, .. } => {
                columns.clone_from(all);
                Eye::Nulls(place.positions("", all)?)
            }
            CheckRule::Unique { columns: all, .. } => {
                place.positions("", all)?;
                Eye::Rows
            }
            CheckRule::References { columns: all, .. } => {
                place.positions(".columns", all)?;
                Eye::Rows
            }
            CheckRule::Accepted { column, values, .. } => {
                columns.push(column.clone());
                Eye::Others(place.others(column, values)?)
            }
            CheckRule::Range { column, min, max, .. } => {
                columns.push(column.clone());
                let at = place.position(".column", column)?;
                let type_ = schema.field(at).data_type();
                if !(is_number(type_) || is_time(type_)) {
                    return Err(place.wrong_type(
                        column,
                        type_,
                        "range is for numbers, dates and times; use accepted or regex",
                    ));
                }
                let bound = |name: &str, value: &Option<String>| -> Result<Option<Scalar<ArrayRef>>> {
                    value.as_ref().map(|value| place.value(&format!(".{name}"), value, type_)).transpose()
                };
                Eye::Outside { at, min: bound("min", min)?, max: bound("max", max)? }
            }
            CheckRule::Regex { column, pattern, .. } => {
                columns.push(column.clone());
                let at = place.position(".column", column)?;
                let type_ = schema.field(at).data_type();
                if *type_ != DataType::Utf8 {
                    return Err(place.wrong_type(column, type_, "regex is for texts; cast it to text in a model"));
                }
                let pattern = Regex::new(pattern).map_err(|error| {
                    place.wrong(".pattern", format!("the pattern can't be read: {}", one_line(&error.to_string())))
                })?;
                Eye::Unlike { at, pattern }
            }
            CheckRule::MeanChange { column, .. } => {
                let at = place.position(".column", column)?;
                let type_ = schema.field(at).data_type();
                if !is_number(type_) {
                    return Err(place.wrong_type(column, type_, "only numbers have a mean"));
                }
                Eye::Sum(at)
            }
            CheckRule::Fresh { column, .. } => {
                let at = place.position(".column", column)?;
                let type_ = schema.field(at).data_type();
                if !is_time(type_) {
                    return Err(place.wrong_type(column, type_, "only dates and times have an age"));
                }
                Eye::Newest(at)
            }
            CheckRule::Rows { .. } | CheckRule::RowsChange { .. } | CheckRule::Sql { .. } => Eye::Rows,
        };
        let seen = Seen { nulls: vec![0; columns.len()], ..Seen::default() };
        Ok(Self { name: check.name.clone(), columns, eye, seen })
    }

    /// The check's name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// What was seen so far.
    pub(crate) fn seen(&self) -> &Seen {
        &self.seen
    }

    /// Looks at rows that pass.
    pub(crate) fn see(&mut self, batch: &RecordBatch) {
        if self.seen.broken.is_some() {
            return;
        }
        if let Err(error) = self.look(batch) {
            // The types were checked when the watch was made, so that this is a bug; the check's result says it.
            self.seen.broken = Some(error.to_string());
        }
    }

    fn look(&mut self, batch: &RecordBatch) -> std::result::Result<(), ArrowError> {
        let failing = match &self.eye {
            Eye::Rows => return Ok(()),
            Eye::Nulls(columns) => {
                let mut all: Option<NullBuffer> = None;
                for (at, nulls) in columns.iter().zip(&mut self.seen.nulls) {
                    let here = batch.column(*at).logical_nulls();
                    *nulls += here.as_ref().map_or(0, |nulls| nulls.null_count() as u64);
                    all = NullBuffer::union(all.as_ref(), here.as_ref());
                }
                let Some(valid) = all.filter(|nulls| nulls.null_count() > 0) else { return Ok(()) };
                BooleanArray::new(!valid.inner(), None)
            }
            Eye::Others(expression) => {
                let found = expression.evaluate(batch).and_then(|value| value.into_array(batch.num_rows()));
                found.map_err(|error| ArrowError::ExternalError(Box::new(error)))?.as_boolean().clone()
            }
            Eye::Outside { at, min, max } => outside(batch.column(*at), min.as_ref(), max.as_ref())?,
            Eye::Unlike { at, pattern } => {
                let texts = batch.column(*at).as_string::<i32>();
                texts.iter().map(|text| text.map(|text| !pattern.is_match(text))).collect()
            }
            Eye::Sum(at) => {
                let numbers = cast(batch.column(*at), &DataType::Float64)?;
                self.seen.values += (numbers.len() - numbers.null_count()) as u64;
                self.seen.sum += sum(numbers.as_primitive::<Float64Type>()).unwrap_or(0.0);
                return Ok(());
            }
            Eye::Newest(at) => {
                let times = cast(batch.column(*at), &DataType::Timestamp(TimeUnit::Microsecond, None))?;
                self.seen.newest = self.seen.newest.max(max(times.as_primitive::<TimestampMicrosecondType>()));
                return Ok(());
            }
        };
        let count = failing.true_count();
        if count > 0 {
            self.seen.failing += count as u64;
            let left = SAMPLES_MAX.saturating_sub(self.seen.samples.len());
            let rows = (0..failing.len()).filter(|row| failing.is_valid(*row) && failing.value(*row)).take(left);
            self.seen.samples.extend(rows.map(|row| sample::of_row(batch, row, &self.columns)));
        }
        Ok(())
    }
}

/// The values outside of bounds, which belong to the range. NULL is neither; NaN, which the kernels order above all
/// numbers, is in no range.
fn outside(
    column: &ArrayRef,
    min: Option<&Scalar<ArrayRef>>,
    max: Option<&Scalar<ArrayRef>>,
) -> std::result::Result<BooleanArray, ArrowError> {
    let nan = match column.data_type() {
        DataType::Float32 => {
            Some(BooleanArray::from_unary(column.as_primitive::<Float32Type>(), |value: f32| value.is_nan()))
        }
        DataType::Float64 => {
            Some(BooleanArray::from_unary(column.as_primitive::<Float64Type>(), |value: f64| value.is_nan()))
        }
        _ => None,
    };
    let below = min.map(|min| lt(column as &dyn Datum, min)).transpose()?;
    let above = max.map(|max| gt(column as &dyn Datum, max)).transpose()?;
    let mut all: Option<BooleanArray> = None;
    for found in [nan, below, above].into_iter().flatten() {
        all = Some(match all {
            Some(all) => or(&all, &found)?,
            None => found,
        });
    }
    Ok(all.unwrap_or_else(|| BooleanArray::new_null(column.len())))
}

fn is_number(type_: &DataType) -> bool {
    type_.is_numeric()
}

fn is_time(type_: &DataType) -> bool {
    matches!(type_, DataType::Date32 | DataType::Timestamp(..))
}

fn one_line(text: &str) -> String {
    text.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" ")
}

/// Where a check is in the manifest, and the columns of its table.
struct Place<'a> {
    field: &'a str,
    option: &'static str,
    schema: &'a Schema,
}

impl Place<'_> {
    fn wrong(&self, part: &str, message: String) -> RunError {
        RunError::at(Code::SqlInvalid, format!("{}.{}{part}", self.field, self.option), message)
    }

    fn wrong_type(&self, column: &str, type_: &DataType, remedy: &str) -> RunError {
        self.wrong(".column", format!("the column {column} is {}; {remedy}", type_words(type_)))
    }

    fn position(&self, part: &str, column: &str) -> Result<usize> {
        self.schema.index_of(column).map_err(|_| {
            let names = self.schema.fields().iter().map(|f| f.name().as_str());
            let near = report_api::problem::near(column, names.clone()).map_or_else(
                || format!("it has {}", names.collect::<Vec<_>>().join(", ")),
                |near| format!("did you mean {near}?"),
            );
            self.wrong(part, format!("there is no column {column}; {near}"))
        })
    }

    fn positions(&self, part: &str, columns: &[String]) -> Result<Vec<usize>> {
        columns.iter().enumerate().map(|(n, column)| self.position(&format!("{part}[{n}]"), column)).collect()
    }

    fn value(&self, part: &str, text: &str, type_: &DataType) -> Result<Scalar<ArrayRef>> {
        let value = literal(text, type_)
            .map_err(|message| self.wrong(part, format!("{message}, the column's type; write a value of that type")))?;
        value.to_scalar().map_err(|error| RunError::at(Code::Internal, self.field, error.to_string()))
    }

    /// The expression `column NOT IN (values)`.
    fn others(&self, column: &str, values: &[String]) -> Result<Arc<dyn PhysicalExpr>> {
        let at = self.position(".column", column)?;
        let type_ = self.schema.field(at).data_type();
        let mut list: Vec<Arc<dyn PhysicalExpr>> = Vec::with_capacity(values.len());
        for (n, value) in values.iter().enumerate() {
            let value = literal(value, type_).map_err(|message| {
                let remedy = "the column's type; write values of that type";
                self.wrong(&format!(".values[{n}]"), format!("{message}, {remedy}"))
            })?;
            list.push(Arc::new(Literal::new(value)));
        }
        in_list(Arc::new(Column::new(column, at)), list, &true, self.schema)
            .map_err(|error| self.wrong(".values", error.strip_backtrace()))
    }
}
