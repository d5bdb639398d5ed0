//! Arithmetic that says so when a result does not fit, as in PostgreSQL: the engine's own wraps integers around, and
//! keeps decimals of 39 digits in a type that has 38. A rule replaces these operators, after types are settled and before
//! constants are folded, by functions over the kernels that check. Sums are in `sums`.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::kernels::numeric::{add, div, mul, sub};
use arrow::datatypes::{
    DECIMAL32_MAX_PRECISION, DECIMAL64_MAX_PRECISION, DECIMAL128_MAX_PRECISION, DECIMAL256_MAX_PRECISION, DataType,
    Decimal32Type, Decimal64Type, Decimal128Type, Decimal256Type, Field, FieldRef,
};
use arrow::error::ArrowError;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, Result, ScalarValue};
use datafusion::error::DataFusionError;
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{
    BinaryExpr, ColumnarValue, Expr, ExprSchemable, LogicalPlan, Operator, ReturnFieldArgs, ScalarFunctionArgs,
    ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use datafusion::logical_expr_common::type_coercion::binary::BinaryTypeCoercer;
use datafusion::optimizer::AnalyzerRule;
use datafusion::physical_expr_common::datum::apply;

/// The rule that checks `+`, `-` and `*` of integers, also the minus before a number, and those and `/` of the decimals
/// that have all digits that their type can have. All else stays as it is: what can't overflow, and what the engine
/// checks by itself (dates, times, divisions of integers, casts).
#[derive(Debug)]
pub(super) struct CheckedArithmetic;

impl AnalyzerRule for CheckedArithmetic {
    fn name(&self) -> &str {
        "checked_arithmetic"
    }

    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        let plan = plan.transform_up_with_subqueries(|plan| {
            let schema = merge_schema(&plan.inputs());
            // Columns keep the names that they have without this rule.
            let names = NamePreserver::new(&plan);
            let rewrite = |expr: Expr| {
                let name = names.save(&expr);
                let checked = expr.transform_up(|expr| checked(expr, &schema))?;
                Ok(checked.update_data(|expr| name.restore(expr)))
            };
            let plan = plan.map_expressions(|expr| match expr {
                // Each of its expressions is a column of the result.
                Expr::GroupingSet(_) => expr.map_children(rewrite),
                _ => rewrite(expr),
            })?;
            if plan.transformed { plan.map_data(LogicalPlan::recompute_schema) } else { Ok(plan) }
        })?;
        Ok(plan.data)
    }
}

fn checked(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    match expr {
        Expr::BinaryExpr(BinaryExpr { left, op, right })
            if may_overflow(&left.get_type(schema)?, op, &right.get_type(schema)?)? =>
        {
            Ok(Transformed::yes(Checked::function(op).call(vec![*left, *right])))
        }
        Expr::Negative(number) => {
            let type_ = number.get_type(schema)?;
            if !type_.is_integer() {
                return Ok(Transformed::no(Expr::Negative(number)));
            }
            let zero = Expr::Literal(ScalarValue::new_zero(&type_)?, None);
            Ok(Transformed::yes(Checked::function(Operator::Minus).call(vec![zero, *number])))
        }
        other => Ok(Transformed::no(other)),
    }
}

fn may_overflow(left: &DataType, operator: Operator, right: &DataType) -> Result<bool> {
    Ok(match operator {
        Operator::Plus | Operator::Minus | Operator::Multiply if left.is_integer() => left == right,
        Operator::Plus | Operator::Minus | Operator::Multiply | Operator::Divide
            if left.is_decimal() && right.is_decimal() =>
        {
            has_all_digits(&BinaryTypeCoercer::new(left, &operator, right).get_result_type()?)
        }
        _ => false,
    })
}

/// Whether a result may have had to be given fewer digits than it needs. Other decimals are wide enough for any.
fn has_all_digits(type_: &DataType) -> bool {
    matches!(
        type_,
        DataType::Decimal32(DECIMAL32_MAX_PRECISION, _)
            | DataType::Decimal64(DECIMAL64_MAX_PRECISION, _)
            | DataType::Decimal128(DECIMAL128_MAX_PRECISION, _)
            | DataType::Decimal256(DECIMAL256_MAX_PRECISION, _)
    )
}

/// An operator between two numbers that fails where its result does not fit. Its type is the operator's own.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Checked {
    operator: Operator,
    signature: Signature,
}

impl Checked {
    fn function(operator: Operator) -> ScalarUDF {
        Self { operator, signature: Signature::any(2, Volatility::Immutable) }.into()
    }

    fn of_arrays(
        &self,
        left: &dyn arrow::array::Datum,
        right: &dyn arrow::array::Datum,
    ) -> std::result::Result<ArrayRef, ArrowError> {
        let result = match self.operator {
            Operator::Plus => add(left, right),
            Operator::Minus => sub(left, right),
            Operator::Multiply => mul(left, right),
            Operator::Divide => div(left, right),
            other => Err(ArrowError::NotYetImplemented(format!("a checked {other}"))),
        }?;
        match result.data_type() {
            DataType::Decimal32(digits, _) => {
                result.as_primitive::<Decimal32Type>().validate_decimal_precision(*digits)
            }
            DataType::Decimal64(digits, _) => {
                result.as_primitive::<Decimal64Type>().validate_decimal_precision(*digits)
            }
            DataType::Decimal128(digits, _) => {
                result.as_primitive::<Decimal128Type>().validate_decimal_precision(*digits)
            }
            DataType::Decimal256(digits, _) => {
                result.as_primitive::<Decimal256Type>().validate_decimal_precision(*digits)
            }
            _ => Ok(()),
        }?;
        Ok(result)
    }
}

impl ScalarUDFImpl for Checked {
    fn name(&self) -> &str {
        match self.operator {
            Operator::Plus => "checked_add",
            Operator::Minus => "checked_subtract",
            Operator::Multiply => "checked_multiply",
            _ => "checked_divide",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        let [left, right] = types else {
            return Err(DataFusionError::Internal(format!("{} takes two numbers", self.name())));
        };
        BinaryTypeCoercer::new(left, &self.operator, right).get_result_type()
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        let types: Vec<DataType> = args.arg_fields.iter().map(|field| field.data_type().clone()).collect();
        let nullable = args.arg_fields.iter().any(|field| field.is_nullable());
        Ok(Arc::new(Field::new(self.name(), self.return_type(&types)?, nullable)))
    }

    /// NULL for a NULL, so that outer joins become inner ones as they do with the operator.
    fn is_strict(&self) -> bool {
        true
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [left, right] = &args.args[..] else {
            return Err(DataFusionError::Internal(format!("{} takes two numbers", self.name())));
        };
        apply(left, right, |left, right| self.of_arrays(left, right))
    }
}

#[cfg(test)]
mod tests;
