//! Operators and sums at the edges of their types, beside the engine as it comes and beside arithmetic of 128 bits.

#![expect(clippy::disallowed_methods, reason = "tables of a few rows are collected")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{
    ArrayRef, AsArray, Date32Array, Decimal128Array, Float64Array, Int16Array, Int32Array, Int64Array,
    TimestampMicrosecondArray, UInt64Array,
};
use arrow::datatypes::{Field, Schema};
use arrow::record_batch::RecordBatch;
use arrow::util::pretty::pretty_format_batches;
use datafusion::datasource::MemTable;
use datafusion::prelude::{Expr, SessionContext, col, lit};
use jiff::{Timestamp, ToSpan};
use proptest::prelude::*;
use report_api::interval::Interval;
use tempfile::TempDir;

use crate::env::Env;
use crate::error::{Code, RunError};
use crate::events::Log;
use crate::session::{Parameters, open, query, sql_error};

const FIELD: &str = "spec.models[0].sql";

/// The session of a run, and the folder that it lives in.
fn session() -> (SessionContext, Env, TempDir) {
    let files = TempDir::new().unwrap();
    let scratch = files.path().join("scratch");
    let env = Env::new(BTreeMap::new(), files.path().to_owned(), &scratch, 1 << 30, 1 << 30, Arc::new(Log)).unwrap();
    let end = Timestamp::UNIX_EPOCH + 1.hour();
    let interval = Interval { start: Timestamp::UNIX_EPOCH, end };
    let context = open(&env, Parameters { interval, run_id: "run".into() }).unwrap();
    register(&context);
    (context, env, files)
}

/// The engine as it comes, with the same settings.
fn plain(context: &SessionContext) -> SessionContext {
    let plain = SessionContext::new_with_config(context.copied_config());
    register(&plain);
    plain
}

/// `small` has small numbers and NULLs, `edge` a row of the last ones of each type and one of harmless ones.
fn register(context: &SessionContext) {
    fn decimals(values: Vec<Option<i128>>, digits: u8, scale: i8) -> ArrayRef {
        Arc::new(Decimal128Array::from(values).with_precision_and_scale(digits, scale).unwrap())
    }
    let table = |name: &str, columns: Vec<(&str, bool, ArrayRef)>| {
        let fields: Vec<Field> = columns
            .iter()
            .map(|(name, nullable, array)| Field::new(*name, array.data_type().clone(), *nullable))
            .collect();
        let schema = Arc::new(Schema::new(fields));
        let arrays = columns.into_iter().map(|(_, _, array)| array).collect();
        let batch = RecordBatch::try_new(Arc::clone(&schema), arrays).unwrap();
        // Two partitions, so that sums are merged.
        let parts = vec![vec![batch.slice(0, 1)], vec![batch.slice(1, batch.num_rows() - 1)]];
        context.register_table(name, Arc::new(MemTable::try_new(schema, parts).unwrap())).unwrap();
    };
    table(
        "small",
        vec![
            ("k", false, Arc::new(Int64Array::from(vec![1, 2, 3, 4]))),
            ("n", true, Arc::new(Int64Array::from(vec![Some(1), Some(-2), None, Some(4)]))),
            ("m", true, Arc::new(Int64Array::from(vec![Some(3), Some(2), Some(5), None]))),
            ("i", true, Arc::new(Int32Array::from(vec![Some(1), None, Some(-3), Some(7)]))),
            ("s", true, Arc::new(Int16Array::from(vec![Some(2), Some(3), None, Some(-4)]))),
            ("u", true, Arc::new(UInt64Array::from(vec![Some(5), Some(6), Some(7), None]))),
            ("f", true, Arc::new(Float64Array::from(vec![Some(0.5), Some(1.5), None, Some(-2.0)]))),
            ("d", true, decimals(vec![Some(10), Some(-20), None, Some(30)], 38, 0)),
            ("p", true, decimals(vec![Some(100), Some(100), Some(0), None], 15, 2)),
            ("day", true, Arc::new(Date32Array::from(vec![Some(0), Some(19_000), None, Some(-1)]))),
            ("at", true, Arc::new(TimestampMicrosecondArray::from(vec![Some(0), Some(1), None, Some(-1)]))),
        ],
    );
    let (half, most) = (6 * 10_i128.pow(37), 10_i128.pow(38) - 1);
    table(
        "edge",
        vec![
            ("k", false, Arc::new(Int64Array::from(vec![1, 2]))),
            ("n", true, Arc::new(Int64Array::from(vec![i64::MAX, 1]))),
            ("lo", true, Arc::new(Int64Array::from(vec![i64::MIN, -1]))),
            ("i", true, Arc::new(Int32Array::from(vec![i32::MAX, 1]))),
            ("ilo", true, Arc::new(Int32Array::from(vec![i32::MIN, -1]))),
            ("s", true, Arc::new(Int16Array::from(vec![i16::MAX, 1]))),
            ("slo", true, Arc::new(Int16Array::from(vec![i16::MIN, -1]))),
            ("u", true, Arc::new(UInt64Array::from(vec![u64::MAX, 1]))),
            ("d", true, decimals(vec![Some(half), Some(half)], 38, 0)),
            ("dlo", true, decimals(vec![Some(-half), Some(-half)], 38, 0)),
            ("most", true, decimals(vec![Some(most), Some(1)], 38, 0)),
        ],
    );
}

async fn run(context: &SessionContext, sql: &str) -> Result<(Schema, String), RunError> {
    let frame = query(context, sql, FIELD).await?;
    let schema = frame.schema().as_arrow().clone();
    let batches = frame.collect().await.map_err(|error| sql_error(error, FIELD))?;
    Ok((schema, pretty_format_batches(&batches).unwrap().to_string()))
}

/// The one value of a query.
async fn value(context: &SessionContext, sql: &str) -> String {
    let frame = query(context, sql, FIELD).await.unwrap();
    let batches = frame.collect().await.unwrap_or_else(|error| panic!("{sql}: {error}"));
    let batch = batches.iter().find(|batch| batch.num_rows() > 0).unwrap_or_else(|| panic!("{sql}: no rows"));
    assert_eq!((batch.num_rows(), batch.num_columns()), (1, 1), "{sql}");
    arrow::util::display::array_value_to_string(batch.column(0), 0).unwrap()
}

#[tokio::test]
async fn what_fits_has_the_value_type_and_name_that_the_engine_gives_it() {
    let (context, _env, _files) = session();
    let plain = plain(&context);
    let columns = [
        "n + 1",
        "n + m",
        "n - m",
        "n * m",
        "m * 2 - n + 3",
        "-n",
        "- -n",
        "-i",
        "-s",
        "-f",
        "-d",
        "k + 1",
        "-k",
        "i + i",
        "i - n",
        "i * s",
        "s + s",
        "s * s",
        "s + 1",
        "u + u",
        "u * u",
        "u - n",
        "n + u",
        "n + NULL",
        "NULL * i",
        "n + 1.5",
        "n * 0.1",
        "n / 2",
        "n % 2",
        "i / 0.5",
        "f + 1",
        "n * f",
        "d + d",
        "d - n",
        "d * 2",
        "d / 3",
        "d % 7",
        "p + p",
        "p * p",
        "p * 1.5",
        "p / 3",
        "-p",
        "day + 1",
        "day - day",
        "1 + day",
        "at + INTERVAL '1 day'",
        "at - at",
        "n + 1 > m",
        "n + 1 AS x",
        "CASE WHEN n > 1 THEN n + 1 ELSE m - 1 END",
        "coalesce(n + 1, m * 2)",
        "row_number() OVER (ORDER BY k) + 1",
        "(SELECT max(n) + 1 FROM small)",
        "sum(n) OVER (PARTITION BY k % 2)",
        "sum(i) OVER (ORDER BY k)",
        "sum(d) OVER (ORDER BY k)",
        "sum(p) OVER (ORDER BY k)",
        "sum(n) OVER (ORDER BY k ROWS BETWEEN 1 PRECEDING AND CURRENT ROW)",
        "sum(u) OVER (ORDER BY k ROWS BETWEEN 1 PRECEDING AND 1 FOLLOWING)",
        "sum(d) OVER (ORDER BY k ROWS BETWEEN 1 PRECEDING AND CURRENT ROW)",
        "sum(n + 1) OVER (ORDER BY k DESC)",
    ];
    let groups = [
        "sum(n)",
        "sum(i)",
        "sum(s)",
        "sum(u)",
        "sum(f)",
        "sum(d)",
        "sum(p)",
        "sum(p * p)",
        "sum(d * 1.5)",
        "sum(n + 1)",
        "sum(n) + 1",
        "-sum(n)",
        "sum(n) / count(n)",
        "sum(DISTINCT m)",
        "sum(DISTINCT d)",
        "sum(DISTINCT n), sum(m)",
        "sum(DISTINCT n), count(DISTINCT m)",
        "sum(n) FILTER (WHERE m > 2)",
        "sum(n) FILTER (WHERE m > 200)",
        "sum(d) FILTER (WHERE m > 2)",
        "avg(n)",
        "avg(p)",
        "avg(d)",
        "sum(arrow_cast(n, 'Decimal64(10, 2)'))",
        "sum(sum(n)) OVER ()",
    ];
    let mut queries: Vec<String> =
        columns.iter().map(|column| format!("SELECT k AS key, {column} FROM small ORDER BY key")).collect();
    for group in groups {
        queries.push(format!("SELECT {group} FROM small"));
        queries.push(format!("SELECT k % 2 AS g, {group} FROM small GROUP BY k % 2 ORDER BY g"));
        queries.push(format!("SELECT {group} FROM small WHERE k > 100"));
    }
    queries.extend(
        [
            "SELECT n + 1, count(*) AS c FROM small GROUP BY n + 1 ORDER BY n + 1",
            "SELECT n + 1 AS x, sum(m) FROM small GROUP BY n + 1 HAVING sum(m) + 1 > 3 ORDER BY x",
            "SELECT n + i, m FROM small GROUP BY ROLLUP (n + i, m) ORDER BY 1, 2",
            "SELECT a.k FROM small AS a JOIN small AS b ON a.n + 1 = b.m - 1 ORDER BY a.k",
            "SELECT a.k FROM small AS a LEFT JOIN small AS b ON a.k = b.k + 1 WHERE b.n * 2 < 9 ORDER BY a.k",
            "SELECT k FROM small AS a WHERE EXISTS (SELECT 1 FROM small AS b WHERE b.k = a.k + 1) ORDER BY k",
            "SELECT k FROM small WHERE k IN (SELECT m - 1 FROM small) ORDER BY k",
            "SELECT k FROM small ORDER BY -k LIMIT 1 + 1",
            "SELECT k + 1 FROM small UNION ALL SELECT m * 2 FROM small ORDER BY 1",
            "SELECT DISTINCT k * 0 FROM small",
            "WITH c AS (SELECT n * 2 AS x FROM small) SELECT a.x + b.x AS y FROM c AS a, c AS b ORDER BY y",
            "WITH RECURSIVE r AS (SELECT 1 AS x UNION ALL SELECT x + 1 FROM r WHERE x < 5) SELECT x FROM r ORDER BY x",
            "SELECT column1 + 1 FROM (VALUES (1), (2 + 3)) AS v ORDER BY 1",
        ]
        .map(str::to_owned),
    );
    for sql in queries {
        let want = run(&plain, &sql).await;
        let got = run(&context, &sql).await;
        match (want, got) {
            (Ok(want), Ok(got)) => assert_eq!(got, want, "{sql}"),
            (want, got) => panic!("{sql}: {want:?}, {got:?}"),
        }
    }
}

#[tokio::test]
async fn what_does_not_fit_ends_the_run() {
    let (context, _env, _files) = session();
    for sql in [
        "SELECT n + 1 FROM edge",
        "SELECT 1 + n FROM edge",
        "SELECT n + k FROM edge",
        "SELECT n * 2 FROM edge",
        "SELECT n * n FROM edge",
        "SELECT lo - 1 FROM edge",
        "SELECT 0 - lo FROM edge",
        "SELECT -lo FROM edge",
        "SELECT lo / -1 FROM edge",
        "SELECT i + i FROM edge",
        "SELECT i * i FROM edge",
        "SELECT ilo - i FROM edge",
        "SELECT -ilo FROM edge",
        "SELECT s + s FROM edge",
        "SELECT s * s FROM edge",
        "SELECT slo - s FROM edge",
        "SELECT -slo FROM edge",
        "SELECT u + u FROM edge",
        "SELECT arrow_cast(k, 'UInt64') - u FROM edge",
        "SELECT arrow_cast(k, 'Int8') * arrow_cast(100, 'Int8') FROM edge",
        "SELECT d + d FROM edge",
        "SELECT dlo - d FROM edge",
        "SELECT d * 2 FROM edge",
        "SELECT most * most FROM edge",
        "SELECT most + 1 FROM edge",
        "SELECT most * 1.5 FROM edge",
        "SELECT most / 0.5 FROM edge",
        "SELECT 9223372036854775807 + 1 AS x",
        "SELECT -9223372036854775807 - 2 AS x",
        "SELECT 3037000500 * 3037000500 AS x",
        "SELECT k FROM edge WHERE 9223372036854775807 + 1 > k",
        "SELECT k FROM edge WHERE n + 1 > 0",
        "SELECT k FROM edge WHERE n BETWEEN 0 AND n + 1",
        "SELECT k FROM edge WHERE k IN (SELECT n + 1 FROM edge)",
        "SELECT k FROM edge AS a WHERE EXISTS (SELECT 1 FROM edge AS b WHERE b.k = a.n + 1)",
        "SELECT k FROM edge WHERE k < (SELECT max(n) + 1 FROM edge)",
        "SELECT a.k FROM edge AS a JOIN edge AS b ON a.n + 1 = b.n",
        "SELECT k FROM edge ORDER BY n + 1",
        "SELECT n + 1, count(*) FROM edge GROUP BY n + 1",
        "SELECT k FROM edge GROUP BY k HAVING max(n) + 1 > 0",
        "SELECT max(n) + 1 FROM edge",
        "SELECT max(n + 1) FROM edge",
        "SELECT row_number() OVER (ORDER BY n + 1) FROM edge",
        "SELECT coalesce(n + 1, 0) FROM edge",
        "SELECT CASE WHEN k = 1 THEN n + 1 ELSE 0 END FROM edge",
        "SELECT k FROM edge UNION ALL SELECT n + 1 FROM edge",
        "WITH c AS (SELECT n + 1 AS x FROM edge) SELECT a.x FROM c AS a, c AS b",
        "SELECT sum(n) FROM edge",
        "SELECT sum(lo) FROM edge",
        "SELECT sum(u) FROM edge",
        "SELECT sum(n + 1) FROM edge WHERE k = 1",
        "SELECT sum(d) FROM edge",
        "SELECT sum(dlo) FROM edge",
        "SELECT sum(a.d) FROM edge AS a, edge AS b, edge AS c",
        "SELECT sum(n) FROM edge GROUP BY k * 0",
        "SELECT sum(d) FROM edge GROUP BY k * 0",
        "SELECT sum(DISTINCT n) FROM edge",
        "SELECT sum(DISTINCT n), count(DISTINCT k) FROM edge",
        "SELECT sum(n) FILTER (WHERE k > 0) FROM edge",
        "SELECT sum(n) OVER () FROM edge",
        "SELECT sum(n) OVER (ORDER BY k) FROM edge",
        "SELECT sum(n) OVER (ORDER BY k ROWS BETWEEN 1 PRECEDING AND CURRENT ROW) FROM edge",
        "SELECT sum(d) OVER (ORDER BY k ROWS BETWEEN 1 PRECEDING AND CURRENT ROW) FROM edge",
    ] {
        let error = match run(&context, sql).await {
            Err(error) => error,
            Ok((_, rows)) => panic!("{sql}:\n{rows}"),
        };
        assert_eq!((error.code, error.field.as_deref()), (Code::ValueInvalid, Some(FIELD)), "{sql}: {error:?}");
    }
}

#[tokio::test]
async fn a_guard_keeps_a_number_from_being_computed() {
    let (context, _env, _files) = session();
    for (sql, want) in [
        ("SELECT max(CASE WHEN n < 9223372036854775807 THEN n + 1 ELSE 0 END) FROM edge", "2"),
        ("SELECT n + 1 FROM edge WHERE n < 9223372036854775807", "2"),
        ("SELECT x FROM (SELECT n + 1 AS x, k FROM edge WHERE k = 2) AS e", "2"),
        ("SELECT max(CASE WHEN k > 100 THEN 9223372036854775807 + 1 ELSE 0 END) FROM edge", "0"),
        ("SELECT max(coalesce(k, n + 1)) FROM edge", "2"),
        ("SELECT sum(n) FILTER (WHERE k = 2) FROM edge", "1"),
        (
            "SELECT sum(a + b) FROM (SELECT CASE WHEN k = 2 THEN n + 1 ELSE 0 END AS a, CASE WHEN k = 2 THEN n + 1 ELSE 1 END AS b FROM edge) AS e",
            "5",
        ),
        ("SELECT coalesce(try_cast(most + 0.0 AS bigint), -1) FROM edge WHERE k = 2", "1"),
    ] {
        assert_eq!(value(&context, sql).await, want, "{sql}");
    }
}

#[tokio::test]
async fn sums_are_exact_whatever_they_pass_on_their_way() {
    let (context, _env, _files) = session();
    for (sql, want) in [
        ("SELECT sum(x) FROM (SELECT n AS x FROM edge UNION ALL SELECT lo FROM edge) AS e", "-1"),
        ("SELECT sum(x) FROM (SELECT d AS x FROM edge UNION ALL SELECT dlo FROM edge) AS e", "0"),
        // 96 times 6e37, which is beyond 128 bits, and back.
        (
            "SELECT sum(x) FROM (SELECT a.d AS x FROM edge AS a, small, small AS b UNION ALL SELECT a.dlo FROM edge AS a, small, small AS b UNION ALL SELECT 1) AS e",
            "1",
        ),
        ("SELECT sum(lo) FROM edge WHERE k = 1", "-9223372036854775808"),
        ("SELECT sum(most) FROM edge WHERE k = 1", "99999999999999999999999999999999999999"),
        ("SELECT sum(u) FROM edge WHERE k = 1", "18446744073709551615"),
    ] {
        assert_eq!(value(&context, sql).await, want, "{sql}");
    }
}

/// What docs/tables.md says of SQL where it does not keep all digits.
#[tokio::test]
async fn casts_and_averages_cut_as_documented() {
    let (context, _env, _files) = session();
    for (sql, want) in [
        ("SELECT CAST(1.5 AS bigint)", "1"),
        ("SELECT CAST(-1.5 AS bigint)", "-1"),
        ("SELECT avg(p) FROM small", "0.666666"),
    ] {
        assert_eq!(value(&context, sql).await, want, "{sql}");
    }
}

#[tokio::test]
async fn plans_are_optimised_as_with_operators() {
    let (context, _env, _files) = session();
    let sql = "SELECT a.n FROM small AS a JOIN small AS b ON a.n + 1 = b.m WHERE a.m * 2 > 1 + 2";
    let plan = query(&context, sql, FIELD).await.unwrap().into_optimized_plan().unwrap();
    let plan = plan.display_indent().to_string();
    let line =
        |text: &str| plan.lines().position(|line| line.contains(text)).unwrap_or_else(|| panic!("{text}:\n{plan}"));
    assert!(line("Join: checked_add") < line("checked_multiply"), "{plan}");
    assert!(!plan.contains("Cross"), "{plan}");
    line("> Int64(3)");
}

/// A number in an expression: how many bits its type has, and its value if it is not NULL.
type Number = (u32, Option<i128>);

/// An expression over `n`, `m` (int64) and `i` (int32).
#[derive(Clone, Debug)]
enum Tree {
    Column(&'static str),
    Literal(i64),
    Short(i32),
    Negative(Box<Tree>),
    Binary(char, Box<Tree>, Box<Tree>),
}

impl Tree {
    fn expr(&self) -> Expr {
        match self {
            Tree::Column(name) => col(*name),
            Tree::Literal(value) => lit(*value),
            Tree::Short(value) => lit(*value),
            Tree::Negative(tree) => Expr::Negative(Box::new(tree.expr())),
            Tree::Binary('+', left, right) => left.expr() + right.expr(),
            Tree::Binary('-', left, right) => left.expr() - right.expr(),
            Tree::Binary(_, left, right) => left.expr() * right.expr(),
        }
    }

    /// None if any number on the way does not fit into its type.
    fn value(&self, row: &[(&str, Number)]) -> Option<Number> {
        let fits = |bits: u32, value: i128| value >= -(1 << (bits - 1)) && value < 1 << (bits - 1);
        let (bits, value) = match self {
            Tree::Column(name) => row.iter().find(|(column, _)| column == name).unwrap().1,
            Tree::Literal(value) => (64, Some(i128::from(*value))),
            Tree::Short(value) => (32, Some(i128::from(*value))),
            Tree::Negative(tree) => {
                let (bits, value) = tree.value(row)?;
                (bits, value.map(|value| -value))
            }
            Tree::Binary(operator, left, right) => {
                let ((left_bits, left), (right_bits, right)) = (left.value(row)?, right.value(row)?);
                let value = left.zip(right).map(|(left, right)| match operator {
                    '+' => left + right,
                    '-' => left - right,
                    _ => left * right,
                });
                (left_bits.max(right_bits), value)
            }
        };
        value.is_none_or(|value| fits(bits, value)).then_some((bits, value))
    }
}

fn long() -> impl Strategy<Value = i64> {
    prop_oneof![
        4 => -9..9_i64,
        1 => prop::sample::select(vec![i64::MIN, i64::MIN + 1, i64::MAX, i64::MAX - 1, 3_037_000_500, 1 << 32]),
        1 => any::<i64>(),
    ]
}

fn short() -> impl Strategy<Value = i32> {
    prop_oneof![4 => -9..9_i32, 1 => prop::sample::select(vec![i32::MIN, i32::MAX, 46341]), 1 => any::<i32>()]
}

fn tree() -> impl Strategy<Value = Tree> {
    let leaf = prop_oneof![
        3 => prop::sample::select(vec!["n", "m", "i"]).prop_map(Tree::Column),
        1 => long().prop_map(Tree::Literal),
        1 => short().prop_map(Tree::Short),
    ];
    leaf.prop_recursive(4, 16, 2, |inner| {
        prop_oneof![
            1 => inner.clone().prop_map(|tree| Tree::Negative(Box::new(tree))),
            4 => (prop::sample::select(vec!['+', '-', '*']), inner.clone(), inner)
                .prop_map(|(operator, left, right)| Tree::Binary(operator, Box::new(left), Box::new(right))),
        ]
    })
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

#[test]
fn random_expressions_are_exact_or_errors() {
    let (context, _env, _files) = session();
    let runtime = runtime();
    let config = ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(400) };
    let row = (prop::option::weighted(0.9, long()), prop::option::weighted(0.9, long()), short());
    proptest!(config, |(tree in tree(), (n, m, i) in row)| {
        let batch = RecordBatch::try_from_iter_with_nullable([
            ("n", Arc::new(Int64Array::from(vec![n])) as ArrayRef, true),
            ("m", Arc::new(Int64Array::from(vec![m])), true),
            ("i", Arc::new(Int32Array::from(vec![i])), true),
        ]).unwrap();
        let row = [("n", (64, n.map(i128::from))), ("m", (64, m.map(i128::from))), ("i", (32, Some(i128::from(i))))];
        let frame = context.read_batch(batch).unwrap().select(vec![tree.expr().alias("x")]).unwrap();
        let got = runtime.block_on(frame.collect()).map_err(|error| sql_error(error, FIELD));
        match (tree.value(&row), got) {
            (None, Err(error)) => prop_assert_eq!(error.code, Code::ValueInvalid, "{:?}", error),
            (Some((bits, value)), Ok(batches)) => {
                let column = batches[0].column(0);
                prop_assert_eq!(column.data_type().to_string(), format!("Int{bits}"));
                let got = arrow::util::display::array_value_to_string(column, 0).unwrap();
                prop_assert_eq!(got, value.map_or(String::new(), |value| value.to_string()));
            }
            (want, got) => prop_assert!(false, "want {:?}, got {:?}", want, got),
        }
    });
}

#[test]
fn random_sums_are_exact_or_errors() {
    let (context, _env, _files) = session();
    let runtime = runtime();
    let config = ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(60) };
    proptest!(config, |(values in prop::collection::vec(prop::option::weighted(0.9, long()), 1..12))| {
        let keys = Int64Array::from_iter_values(0..values.len() as i64);
        let batch = RecordBatch::try_from_iter_with_nullable([
            ("k", Arc::new(keys) as ArrayRef, false),
            ("n", Arc::new(Int64Array::from(values.clone())), true),
        ]).unwrap();
        let table = MemTable::try_new(batch.schema(), vec![vec![batch]]).unwrap();
        context.deregister_table("r").unwrap();
        context.register_table("r", Arc::new(table)).unwrap();

        // The sum of some values: None without any, an error beyond 64 bits.
        let sum = |values: &mut dyn Iterator<Item = i64>| {
            let sum = values.map(i128::from).reduce(|sum, value| sum + value);
            sum.map(i64::try_from).transpose().map_err(|_| ())
        };
        let all = vec![sum(&mut values.iter().copied().flatten())];
        let distinct: BTreeSet<i64> = values.iter().copied().flatten().collect();
        let distinct = vec![sum(&mut distinct.into_iter())];
        let grouped = (0..values.len().min(3))
            .map(|group| sum(&mut values.iter().copied().skip(group).step_by(3).flatten()))
            .collect();
        let moving = (0..values.len())
            .map(|at| sum(&mut values[at.saturating_sub(2)..=at].iter().copied().flatten()))
            .collect();
        for (sql, want) in [
            ("SELECT sum(n) AS x FROM r", all),
            ("SELECT sum(DISTINCT n) AS x FROM r", distinct),
            ("SELECT x FROM (SELECT k % 3 AS g, sum(n) AS x FROM r GROUP BY k % 3) AS g ORDER BY g", grouped),
            ("SELECT sum(n) OVER (ORDER BY k ROWS BETWEEN 2 PRECEDING AND CURRENT ROW) AS x FROM r ORDER BY k", moving),
        ] {
            let want: Result<Vec<Option<i64>>, ()> = want.into_iter().collect();
            let got = runtime.block_on(async { query(&context, sql, FIELD).await.unwrap().collect().await });
            let got = got.map_err(|error| prop_assert_code(sql_error(error, FIELD))).map(|batches| {
                let columns = batches.iter().map(|batch| batch.column(0).as_primitive::<arrow::datatypes::Int64Type>());
                columns.flat_map(|column| column.iter().collect::<Vec<_>>()).collect::<Vec<_>>()
            });
            prop_assert_eq!(got, want, "{}", sql);
        }
    });
}

fn prop_assert_code(error: RunError) {
    assert_eq!(error.code, Code::ValueInvalid, "{error:?}");
}
