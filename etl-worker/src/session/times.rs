//! Times in SQL count microseconds, as those of sources and sinks do: the engine's own `now()` counts nanoseconds, and so
//! do texts that are cast to a time. A column of a model with a finer time ends the run: nothing is cut silently.

use std::sync::Arc;

use arrow::array::{Array, AsArray};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, TimeUnit, TimestampNanosecondType};
use datafusion::common::{Result, ScalarValue};
use datafusion::error::DataFusionError;
use datafusion::logical_expr::simplify::{ExprSimplifyResult, SimplifyContext};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

use crate::error::{Code, RunError};

/// `now()` and `current_timestamp`: the time at which the query began, to the microsecond.
pub(super) fn now() -> ScalarUDF {
    Now { signature: Signature::nullary(Volatility::Stable), aliases: vec!["current_timestamp".into()] }.into()
}

/// A column of nanoseconds as one of microseconds. `field` and `column` are what the error names.
pub(crate) fn whole_microseconds(expression: Expr, field: &str, column: &str) -> Expr {
    let signature = Signature::any(1, Volatility::Immutable);
    let function = WholeMicroseconds { signature, field: field.into(), column: column.into() };
    ScalarUDF::from(function).call(vec![expression])
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Now {
    signature: Signature,
    aliases: Vec<String>,
}

impl ScalarUDFImpl for Now {
    fn name(&self) -> &str {
        "now"
    }

    fn aliases(&self) -> &[String] {
        &self.aliases
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Timestamp(TimeUnit::Microsecond, None))
    }

    fn simplify(&self, args: Vec<Expr>, info: &SimplifyContext) -> Result<ExprSimplifyResult> {
        let Some(now) = info.query_execution_start_time() else { return Ok(ExprSimplifyResult::Original(args)) };
        let now = ScalarValue::TimestampMicrosecond(Some(now.timestamp_micros()), None);
        Ok(ExprSimplifyResult::Simplified(Expr::Literal(now, None)))
    }

    fn invoke_with_args(&self, _: ScalarFunctionArgs) -> Result<ColumnarValue> {
        Err(DataFusionError::Internal("now() is known before a query runs".into()))
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct WholeMicroseconds {
    signature: Signature,
    field: String,
    column: String,
}

impl ScalarUDFImpl for WholeMicroseconds {
    fn name(&self) -> &str {
        "whole_microseconds"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        match types {
            [DataType::Timestamp(_, zone)] => Ok(DataType::Timestamp(TimeUnit::Microsecond, zone.clone())),
            _ => Err(DataFusionError::Internal(format!("{types:?} are no time"))),
        }
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let [times] = &arrays[..] else {
            return Err(DataFusionError::Internal("whole_microseconds takes one column".into()));
        };
        let nanoseconds = times.as_primitive::<TimestampNanosecondType>();
        if nanoseconds.iter().flatten().any(|time| time % 1000 != 0) {
            let message = format!(
                "the column {0} has times that are finer than a microsecond, which no sink holds; cut them: date_trunc('microsecond', {0}) AS {0}",
                self.column
            );
            let error = RunError::at(Code::ValueInvalid, &self.field, message);
            return Err(DataFusionError::External(Box::new(error)));
        }
        let type_ = self.return_type(&[times.data_type().clone()])?;
        let array = cast_with_options(times, &type_, &CastOptions { safe: false, ..CastOptions::default() })?;
        Ok(ColumnarValue::Array(Arc::clone(&array)))
    }
}
