//! What a table in MySQL is like, what depends on it, whether rows fit into it, and the run's table.

use arrow::datatypes::{DataType, Field, SchemaRef};
use mysql_async::Conn;
use mysql_async::prelude::Queryable;
use report_api::checked::{CheckedSink, SinkMode};
use report_api::sink::OnSchemaChange;

use super::values::type_name;
use crate::error::{Code, Result, RunError};
use crate::logical::Logical;
use crate::quote::ident;
use crate::sink::database::TableOwner;

type Mysql<T> = std::result::Result<T, mysql_async::Error>;

/// Longest comment of a table, in characters.
const COMMENT_CHARS_MAX: usize = 2048;
/// Room in it for what tells the run: see [`marker`].
const MARKER_CHARS_MAX: usize = 64;

/// A table that exists.
#[derive(Debug)]
pub(super) struct Target {
    name: String,
    is_table: bool,
    /// Whether it lives in InnoDB, which has transactions.
    is_transactional: bool,
    pub(super) columns: Vec<TargetColumn>,
    /// The columns of each index: its name, whether it is unique, and each column with the length of its prefix.
    indexes: Vec<Index>,
    pub(super) has_rows: bool,
    /// The comment without what tells the run.
    pub(super) comment: String,
    /// Why it can't be swapped: what depends on it or is set on it that a new table would not have.
    dependants: Vec<String>,
    /// Whether foreign keys of other tables refer to it.
    referenced: bool,
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct TargetColumn {
    pub(super) name: String,
    /// As in `decimal(10,2)`.
    type_: String,
    nullable: bool,
    has_default: bool,
    extra: String,
    precision: Option<u64>,
    scale: Option<u64>,
    time_precision: Option<u64>,
}

#[derive(Clone, Debug, Eq, PartialEq)]
struct Index {
    name: String,
    unique: bool,
    /// None for an expression.
    columns: Vec<(Option<String>, Option<u64>)>,
}

/// What the comment of a run's table ends with. It becomes the target's by the swap, which can't be in one transaction
/// with the commit row, and says whose rows the table has until that row is written.
pub(super) fn marker(tag: &str, epoch: u64) -> String {
    format!("[report {tag} {epoch}]")
}

fn split_marker(comment: &str) -> (String, Option<String>) {
    match comment.rfind("[report ") {
        Some(at) if comment.ends_with(']') => (comment[..at].trim_end().to_owned(), Some(comment[at..].to_owned())),
        _ => (comment.to_owned(), None),
    }
}

/// What tells the run that swapped a table in.
pub(super) async fn marker_of(connection: &mut Conn, database: &str, table: &str) -> Mysql<Option<String>> {
    let comment: Option<String> = connection
        .exec_first(
            "SELECT table_comment AS a FROM information_schema.tables WHERE table_schema = ? AND table_name = ?",
            (database, table),
        )
        .await?;
    Ok(comment.and_then(|comment| split_marker(&comment).1))
}

/// The comment of a run's table.
pub(super) fn comment(text: &str, marker: &str) -> String {
    if text.is_empty() { marker.to_owned() } else { format!("{text} {marker}") }
}

/// Makes the target's database if it is missing.
pub(super) async fn create_database(connection: &mut Conn, database: &str) -> Mysql<()> {
    let there: Option<u8> =
        connection.exec_first("SELECT 1 FROM information_schema.schemata WHERE schema_name = ?", (database,)).await?;
    if there.is_none() {
        connection.query_drop(format!("CREATE DATABASE IF NOT EXISTS {}", ident(database))).await?;
    }
    Ok(())
}

/// The collation of texts in tables that are created: it tells all texts apart, also by case and by spaces at the end.
pub(super) async fn collation(connection: &mut Conn) -> Mysql<&'static str> {
    let version: Option<String> = connection.query_first("SELECT version()").await?;
    let is_mariadb = version.is_some_and(|version| version.to_ascii_lowercase().contains("mariadb"));
    Ok(if is_mariadb { "utf8mb4_nopad_bin" } else { "utf8mb4_0900_bin" })
}

/// The tables of a database whose names begin so.
pub(super) async fn tables(connection: &mut Conn, database: &str, prefix: &str) -> Mysql<Vec<String>> {
    connection
        .exec(
            "SELECT table_name AS name FROM information_schema.tables
             WHERE table_schema = ? AND left(table_name, char_length(?)) = ?",
            (database, prefix, prefix),
        )
        .await
}

/// Reads what a table is like; None if it does not exist.
pub(super) async fn read(connection: &mut Conn, database: &str, table: &str) -> Mysql<Option<Target>> {
    type TableRow = (String, Option<String>, Option<String>, Option<String>);
    let found: Option<TableRow> = connection
        .exec_first(
            "SELECT table_type AS a, engine AS b, table_comment AS c, create_options AS d FROM information_schema.tables
             WHERE table_schema = ? AND table_name = ?",
            (database, table),
        )
        .await?;
    let Some((kind, engine, comment, options)) = found else { return Ok(None) };
    let is_table = kind.eq_ignore_ascii_case("BASE TABLE");
    type ColumnRow = (String, String, String, Option<String>, Option<String>, Option<u64>, Option<u64>, Option<u64>);
    let columns: Vec<ColumnRow> = connection
        .exec(
            "SELECT column_name AS a, column_type AS b, is_nullable AS c, column_default AS d, extra AS e,
                    numeric_precision AS f, numeric_scale AS g, datetime_precision AS h
             FROM information_schema.columns WHERE table_schema = ? AND table_name = ? ORDER BY ordinal_position",
            (database, table),
        )
        .await?;
    let columns = columns
        .into_iter()
        .map(|(name, type_, nullable, default, extra, precision, scale, time_precision)| TargetColumn {
            name,
            type_: type_.to_ascii_lowercase(),
            nullable: nullable == "YES",
            has_default: default.is_some(),
            extra: extra.unwrap_or_default().to_ascii_uppercase(),
            precision,
            scale,
            time_precision,
        })
        .collect::<Vec<_>>();
    let parts: Vec<(String, u8, Option<String>, Option<u64>)> = connection
        .exec(
            "SELECT index_name AS a, non_unique AS b, column_name AS c, sub_part AS d FROM information_schema.statistics
             WHERE table_schema = ? AND table_name = ? ORDER BY index_name, seq_in_index",
            (database, table),
        )
        .await?;
    let mut indexes: Vec<Index> = Vec::new();
    for (name, non_unique, column, prefix) in parts {
        match indexes.last_mut() {
            Some(last) if last.name == name => last.columns.push((column, prefix)),
            _ => indexes.push(Index { name, unique: non_unique == 0, columns: vec![(column, prefix)] }),
        }
    }
    let mut dependants: Vec<String> = connection
        .exec(
            "SELECT concat('the trigger ', trigger_name) AS a FROM information_schema.triggers
             WHERE event_object_schema = ? AND event_object_table = ?
             UNION ALL SELECT concat('its foreign key ', constraint_name) FROM information_schema.referential_constraints
             WHERE constraint_schema = ? AND table_name = ?",
            (database, table, database, table),
        )
        .await?;
    if options.is_some_and(|options| options.contains("partitioned")) {
        dependants.push("its partitions".into());
    }
    if columns.iter().any(|column| column.extra.contains("AUTO_INCREMENT")) {
        dependants.push("its counter".into());
    }
    let (comment, _) = split_marker(&comment.unwrap_or_default());
    if comment.chars().count() + MARKER_CHARS_MAX > COMMENT_CHARS_MAX {
        dependants.push("its long comment".into());
    }
    let references: Vec<String> = connection
        .exec(
            "SELECT constraint_name AS a FROM information_schema.referential_constraints
             WHERE unique_constraint_schema = ? AND referenced_table_name = ? AND NOT (constraint_schema = ? AND table_name = ?)",
            (database, table, database, table),
        )
        .await?;
    let has_rows = if is_table {
        let sql = format!("SELECT EXISTS (SELECT 1 FROM {}.{})", ident(database), ident(table));
        connection.query_first::<u8, _>(sql).await? == Some(1)
    } else {
        false
    };
    Ok(Some(Target {
        name: format!("{database}.{table}"),
        is_table,
        is_transactional: engine.is_some_and(|engine| engine.eq_ignore_ascii_case("InnoDB")),
        columns,
        indexes,
        has_rows,
        comment,
        dependants,
        referenced: !references.is_empty(),
    }))
}

impl Target {
    /// Refuses rows that do not fit into the table, each column by name. Gives the columns that the table is to get,
    /// with their types.
    pub(super) fn check(&self, schema: &SchemaRef, spec: &CheckedSink) -> Result<Vec<(String, String)>> {
        let name = &self.name;
        let mismatch = |message: String| Err(RunError::at(Code::SchemaMismatch, &spec.field, message));
        if !self.is_table {
            return mismatch(format!("{name} is no table; name a table, or drop what is there"));
        }
        if !self.is_transactional {
            return mismatch(format!("{name} has an engine without transactions; ALTER TABLE {name} ENGINE = InnoDB"));
        }
        let (mut wrong, mut adds) = (Vec::new(), Vec::new());
        for field in schema.fields() {
            let wanted = type_name(field, false).unwrap_or_default();
            match self.columns.iter().find(|column| column.name == *field.name()) {
                None if spec.on_schema_change == OnSchemaChange::AddColumns => {
                    adds.push((field.name().clone(), wanted));
                }
                None => wrong.push(format!(
                    "{name} has no column {0}; ALTER TABLE {name} ADD {0} {wanted}, set onSchemaChange: addColumns, or leave it out",
                    field.name()
                )),
                Some(column) if column.is_generated() => {
                    wrong.push(format!("{} is generated in {name}; leave it out", column.name));
                }
                Some(column) if !column.holds(field) => {
                    let mut message = format!(
                        "{} is {} in {name} but {wanted} in {}; cast it in the model, or change the table",
                        column.name, column.type_, spec.from
                    );
                    if !self.dependants.is_empty() {
                        message.push_str(&format!(", on which depend {}", self.dependants.join(", ")));
                    }
                    wrong.push(message);
                }
                Some(_) => {}
            }
        }
        for column in self.columns.iter().filter(|column| !column.can_be_left_out()) {
            if schema.index_of(&column.name).is_err() {
                wrong.push(format!("{} of {name} must be filled, but {} does not have it", column.name, spec.from));
            }
        }
        if let SinkMode::Merge { key, .. } = &spec.mode {
            let same =
                |columns: &Vec<String>| columns.len() == key.len() && key.iter().all(|column| columns.contains(column));
            if !self.unique_keys().iter().any(same) {
                let columns = key.join(", ");
                wrong.push(format!("{name} has no unique index on ({columns}), which merge needs; CREATE UNIQUE INDEX by_key ON {name} ({columns})"));
            }
        }
        if wrong.is_empty() { Ok(adds) } else { mismatch(wrong.join("; ")) }
    }

    /// The columns of each unique index over whole columns.
    pub(super) fn unique_keys(&self) -> Vec<Vec<String>> {
        let whole = |index: &Index| -> Option<Vec<String>> {
            let names = index.columns.iter().map(|(column, prefix)| column.clone().filter(|_| prefix.is_none()));
            names.collect()
        };
        self.indexes.iter().filter(|index| index.unique).filter_map(whole).collect()
    }

    /// The key by which rows are replaced one by one, where other tables refer to this one: deleting all rows, to put
    /// most of them back, would delete theirs, cut their links, or be refused. None where nobody does.
    pub(super) fn replace_key(&self, schema: &SchemaRef, spec: &CheckedSink) -> Result<Option<Vec<String>>> {
        if !self.referenced {
            return Ok(None);
        }
        let has = |column: &String| schema.index_of(column).is_ok();
        match self.unique_keys().into_iter().find(|key| key.iter().all(has)) {
            Some(key) => Ok(Some(key)),
            None => Err(RunError::at(
                Code::SchemaMismatch,
                &spec.field,
                format!(
                    "foreign keys refer to {0}, and the rows of {1} have no unique key of it, by which they could be \
                     replaced one by one; give {1} the key's columns, or write to another table",
                    self.name, spec.from
                ),
            )),
        }
    }

    /// Whether a new table like it can take its name without anybody missing something. Views and rights go by the name.
    pub(super) fn can_be_swapped(&self) -> bool {
        self.is_table && self.is_transactional && self.dependants.is_empty() && !self.referenced
    }

    /// Whether a table is like this one, of which it was made.
    pub(super) fn is_like(&self, staged: &Self) -> bool {
        self.columns == staged.columns && self.indexes == staged.indexes
    }
}

impl TargetColumn {
    fn is_generated(&self) -> bool {
        ["VIRTUAL GENERATED", "STORED GENERATED", "PERSISTENT"].iter().any(|kind| self.extra.contains(kind))
    }

    /// Whether a row may leave it out.
    fn can_be_left_out(&self) -> bool {
        self.nullable || self.has_default || self.is_generated() || self.extra.contains("AUTO_INCREMENT")
    }

    /// Whether it holds every value of the rows' column, or says so when one does not fit.
    fn holds(&self, field: &Field) -> bool {
        let type_ = field.data_type();
        let name = self.type_.split('(').next().unwrap_or_default().trim();
        if self.type_.contains("unsigned") {
            return false;
        }
        let decimal = |integer_digits: i64, scale: i64| {
            name == "decimal"
                && matches!((self.precision, self.scale), (Some(p), Some(s))
                    if i64::try_from(s).is_ok_and(|s| s >= scale && i64::try_from(p).is_ok_and(|p| p - s >= integer_digits)))
        };
        match type_ {
            DataType::Boolean => matches!(name, "tinyint" | "smallint" | "mediumint" | "int" | "bigint"),
            DataType::Int16 => matches!(name, "smallint" | "mediumint" | "int" | "bigint") || decimal(5, 0),
            DataType::Int32 => matches!(name, "int" | "bigint") || decimal(10, 0),
            DataType::Int64 => name == "bigint" || decimal(19, 0),
            DataType::Float32 | DataType::Float64 => name == "double",
            // CHAR loses spaces at the end. What is too long ends the run when it is loaded.
            DataType::Utf8 => match Logical::of(field) {
                Some(Logical::Uuid) => matches!(name, "uuid" | "char") || is_text(name),
                Some(Logical::Json) => name == "json" || is_text(name),
                // An enum takes other words than it was given: those of another case, and numbers of words.
                None => is_text(name),
            },
            DataType::Binary => matches!(name, "varbinary" | "tinyblob" | "blob" | "mediumblob" | "longblob"),
            DataType::Date32 => name == "date",
            DataType::Timestamp(_, None) => name == "datetime" && self.time_precision == Some(6),
            DataType::Timestamp(_, Some(_)) => {
                matches!(name, "datetime" | "timestamp") && self.time_precision == Some(6)
            }
            DataType::Decimal128(precision, scale) => {
                decimal(i64::from(*precision) - i64::from(*scale), i64::from(*scale))
            }
            _ => false,
        }
    }
}

fn is_text(name: &str) -> bool {
    matches!(name, "varchar" | "tinytext" | "text" | "mediumtext" | "longtext")
}

/// The pipelines' sinks that write a table.
pub(super) async fn owners(connection: &mut Conn, database: &str, table: &str) -> Mysql<Vec<TableOwner>> {
    let owners: Vec<(String, String, bool)> = connection
        .exec(
            "SELECT identity, sink, replaces FROM report_operator.tables WHERE table_schema = ? AND table_name = ?",
            (database, table),
        )
        .await?;
    Ok(owners.into_iter().map(TableOwner::from).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comment_keeps_its_text_and_tells_its_run() {
        let mark = marker("0123456789", 7);
        for text in ["", "What a row is", "[note] it"] {
            assert_eq!(split_marker(&comment(text, &mark)), (text.to_owned(), Some(mark.clone())));
            assert_eq!(split_marker(text), (text.to_owned(), None));
        }
        assert!(mark.len() + 20 < MARKER_CHARS_MAX);
    }

    #[test]
    fn a_column_is_filled_only_if_it_holds_every_value() {
        for (target, numbers, time_precision, type_, want) in [
            ("bigint(20)", (Some(19), Some(0)), None, DataType::Int32, true),
            ("bigint(20) unsigned", (Some(20), Some(0)), None, DataType::Int32, false),
            ("int(11)", (Some(10), Some(0)), None, DataType::Int64, false),
            ("decimal(18,3)", (Some(18), Some(3)), None, DataType::Decimal128(18, 3), true),
            ("decimal(18,2)", (Some(18), Some(2)), None, DataType::Decimal128(10, 3), false),
            ("decimal(19,0)", (Some(19), Some(0)), None, DataType::Int64, true),
            ("float", (Some(12), None), None, DataType::Float32, false),
            ("varchar(10)", (None, None), None, DataType::Utf8, true),
            ("char(10)", (None, None), None, DataType::Utf8, false),
            (
                "datetime",
                (None, None),
                Some(0),
                DataType::Timestamp(arrow::datatypes::TimeUnit::Microsecond, None),
                false,
            ),
            (
                "datetime(6)",
                (None, None),
                Some(6),
                DataType::Timestamp(arrow::datatypes::TimeUnit::Microsecond, None),
                true,
            ),
        ] {
            let column = TargetColumn {
                name: "c".into(),
                type_: target.into(),
                nullable: true,
                has_default: false,
                extra: String::new(),
                precision: numbers.0,
                scale: numbers.1,
                time_precision,
            };
            assert_eq!(column.holds(&Field::new("c", type_.clone(), true)), want, "{type_} into {target}");
        }
    }
}
