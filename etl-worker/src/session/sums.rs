//! `sum` that is exact or an error: the engine's own wraps around in the type of its result. This one adds up in a wider
//! type, where no number of rows can wrap, and looks at the end whether the sum fits.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, ArrowPrimitiveType, AsArray, BooleanArray};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{
    DECIMAL128_MAX_PRECISION, DECIMAL256_MAX_PRECISION, DataType, Decimal32Type, Decimal64Type, Decimal128Type,
    Decimal256Type, DecimalType, Field, FieldRef, Int64Type, UInt64Type, i256,
};
use datafusion::common::{Result, ScalarValue};
use datafusion::error::DataFusionError;
use datafusion::functions_aggregate::sum::sum_udaf;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::AggregateOrderSensitivity;
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, EmitTo, GroupsAccumulator, ReversedUDAF, Signature,
};

/// The most digits of a decimal whose sum needs no wider type: 16 digits are left, for more rows than a run can read.
const NARROW_DIGITS_MAX: u8 = DECIMAL128_MAX_PRECISION - 16;

/// `sum`, in place of the engine's own. Its types are the same.
pub(super) fn sum() -> AggregateUDF {
    ExactSum { inner: sum_udaf() }.into()
}

/// The type to add up in, or None where the engine's own way is exact, or no number of digits is (floats). Decimals of
/// more than 38 digits have no wider type; no sink holds a sum of theirs that comes near 76.
fn wide(type_: &DataType) -> Option<DataType> {
    match type_ {
        DataType::Int64 | DataType::UInt64 => Some(DataType::Decimal128(DECIMAL128_MAX_PRECISION, 0)),
        DataType::Decimal32(_, scale) | DataType::Decimal64(_, scale) => {
            Some(DataType::Decimal128(DECIMAL128_MAX_PRECISION, *scale))
        }
        DataType::Decimal128(digits, scale) if *digits > NARROW_DIGITS_MAX => {
            Some(DataType::Decimal256(DECIMAL256_MAX_PRECISION, *scale))
        }
        _ => None,
    }
}

/// The same numbers in the wide type. Never fails: each value has fewer digits.
fn widened(array: &ArrayRef, wide: &DataType) -> ArrayRef {
    fn unary<From: ArrowPrimitiveType, To: ArrowPrimitiveType>(
        array: &ArrayRef,
        wide: &DataType,
        value: impl Fn(From::Native) -> To::Native,
    ) -> ArrayRef {
        Arc::new(array.as_primitive::<From>().unary::<_, To>(value).with_data_type(wide.clone()))
    }
    match array.data_type() {
        DataType::Int64 => unary::<Int64Type, Decimal128Type>(array, wide, i128::from),
        DataType::UInt64 => unary::<UInt64Type, Decimal128Type>(array, wide, i128::from),
        DataType::Decimal32(..) => unary::<Decimal32Type, Decimal128Type>(array, wide, i128::from),
        DataType::Decimal64(..) => unary::<Decimal64Type, Decimal128Type>(array, wide, i128::from),
        DataType::Decimal128(..) => unary::<Decimal128Type, Decimal256Type>(array, wide, i256::from_i128),
        _ => Arc::clone(array),
    }
}

fn all_widened(arrays: &[ArrayRef], wide: &DataType) -> Vec<ArrayRef> {
    arrays.iter().map(|array| widened(array, wide)).collect()
}

/// Sums in the type of the result, or an error.
fn narrowed(array: &ArrayRef, narrow: &DataType) -> Result<ArrayRef> {
    Ok(cast_with_options(array, narrow, &CastOptions { safe: false, ..CastOptions::default() })?)
}

/// The same for one sum. A window has one at each row, for which a cast of an array of one would be slow.
fn narrowed_one(sum: &ScalarValue, narrow: &DataType) -> Result<ScalarValue> {
    match (sum, narrow) {
        (ScalarValue::Decimal128(Some(sum), ..), DataType::Int64) if let Ok(sum) = i64::try_from(*sum) => {
            Ok(ScalarValue::Int64(Some(sum)))
        }
        (ScalarValue::Decimal256(Some(sum), ..), DataType::Decimal128(digits, scale))
            if let Some(sum) = sum.to_i128()
                && Decimal128Type::is_valid_decimal_precision(sum, *digits) =>
        {
            Ok(ScalarValue::Decimal128(Some(sum), *digits, *scale))
        }
        _ => ScalarValue::try_from_array(&narrowed(&sum.to_array()?, narrow)?, 0),
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct ExactSum {
    inner: Arc<AggregateUDF>,
}

/// The fields of the engine's own sum over the wide type.
struct Wide {
    types: Types,
    argument: [FieldRef; 1],
    return_field: FieldRef,
}

#[derive(Clone, Debug)]
struct Types {
    wide: DataType,
    narrow: DataType,
}

impl ExactSum {
    fn wide(&self, arguments: &[FieldRef], return_field: &FieldRef) -> Result<Option<Wide>> {
        let [argument] = arguments else {
            return Err(DataFusionError::Internal("sum takes one argument".into()));
        };
        let Some(wide) = wide(argument.data_type()) else { return Ok(None) };
        let return_type = self.inner.return_type(std::slice::from_ref(&wide))?;
        let field = |field: &Field, type_| Arc::new(field.clone().with_data_type(type_));
        Ok(Some(Wide {
            types: Types { wide: wide.clone(), narrow: return_field.data_type().clone() },
            argument: [field(argument, wide)],
            return_field: field(return_field, return_type),
        }))
    }
}

impl AggregateUDFImpl for ExactSum {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn signature(&self) -> &Signature {
        self.inner.signature()
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        self.inner.return_type(types)
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        match self.wide(args.input_fields, &args.return_field)? {
            None => self.inner.state_fields(args),
            Some(Wide { argument, return_field, .. }) => {
                self.inner.state_fields(StateFieldsArgs { input_fields: &argument, return_field, ..args })
            }
        }
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        match self.wide(args.expr_fields, &args.return_field)? {
            None => self.inner.accumulator(args),
            Some(Wide { types, argument, return_field }) => {
                let args = AccumulatorArgs { expr_fields: &argument, return_field, ..args };
                Ok(Box::new(WideSum { inner: self.inner.accumulator(args)?, types }))
            }
        }
    }

    fn create_sliding_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        if args.is_distinct {
            // The engine's own wraps, and PostgreSQL has no DISTINCT in windows.
            let message = "sum(DISTINCT …) over a window that moves; sum distinct rows of a subquery instead";
            return Err(DataFusionError::NotImplemented(message.into()));
        }
        match self.wide(args.expr_fields, &args.return_field)? {
            None => self.inner.create_sliding_accumulator(args),
            Some(Wide { types, argument, return_field }) => {
                let args = AccumulatorArgs { expr_fields: &argument, return_field, ..args };
                Ok(Box::new(WideSum { inner: self.inner.create_sliding_accumulator(args)?, types }))
            }
        }
    }

    fn groups_accumulator_supported(&self, args: AccumulatorArgs) -> bool {
        self.inner.groups_accumulator_supported(args)
    }

    fn create_groups_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn GroupsAccumulator>> {
        match self.wide(args.expr_fields, &args.return_field)? {
            None => self.inner.create_groups_accumulator(args),
            Some(Wide { types, argument, return_field }) => {
                let args = AccumulatorArgs { expr_fields: &argument, return_field, ..args };
                Ok(Box::new(WideSums { inner: self.inner.create_groups_accumulator(args)?, types }))
            }
        }
    }

    fn reverse_expr(&self) -> ReversedUDAF {
        ReversedUDAF::Identical
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        AggregateOrderSensitivity::Insensitive
    }
}

/// One sum.
#[derive(Debug)]
struct WideSum {
    inner: Box<dyn Accumulator>,
    types: Types,
}

impl Accumulator for WideSum {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.inner.update_batch(&all_widened(values, &self.types.wide))
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.inner.retract_batch(&all_widened(values, &self.types.wide))
    }

    fn supports_retract_batch(&self) -> bool {
        self.inner.supports_retract_batch()
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.inner.merge_batch(states)
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        self.inner.state()
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        narrowed_one(&self.inner.evaluate()?, &self.types.narrow)
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.inner.size()
    }
}

/// The sums of groups.
struct WideSums {
    inner: Box<dyn GroupsAccumulator>,
    types: Types,
}

impl GroupsAccumulator for WideSums {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        group_indices: &[usize],
        opt_filter: Option<&BooleanArray>,
        total_num_groups: usize,
    ) -> Result<()> {
        let values = all_widened(values, &self.types.wide);
        self.inner.update_batch(&values, group_indices, opt_filter, total_num_groups)
    }

    fn merge_batch(&mut self, states: &[ArrayRef], group_indices: &[usize], total_num_groups: usize) -> Result<()> {
        self.inner.merge_batch(states, group_indices, total_num_groups)
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        self.inner.state(emit_to)
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        narrowed(&self.inner.evaluate(emit_to)?, &self.types.narrow)
    }

    fn convert_to_state(&self, values: &[ArrayRef], opt_filter: Option<&BooleanArray>) -> Result<Vec<ArrayRef>> {
        self.inner.convert_to_state(&all_widened(values, &self.types.wide), opt_filter)
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.inner.size()
    }
}
