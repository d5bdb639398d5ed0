//! What a table in PostgreSQL is like, what depends on it, and whether rows fit into it.

use arrow::datatypes::{DataType, Field, SchemaRef};
use report_api::checked::{CheckedSink, SinkMode};
use report_api::sink::OnSchemaChange;
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Row};

use super::copy::type_name;
use crate::error::{Code, Result, RunError};
use crate::logical::Logical;
use crate::quote::ident;
use crate::sink::database::TableOwner;

/// Most views and the like that a message names.
const DEPENDANTS_NAMED_MAX: i64 = 5;

/// A table that exists.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) schema: String,
    pub(super) table: String,
    kind: String,
    pub(super) columns: Vec<TargetColumn>,
    pub(super) has_rows: bool,
    /// Why it can't be swapped: what depends on it or is set on it that a new table would not have.
    dependants: bool,
    /// Whether foreign keys of other tables refer to it.
    referenced: bool,
    /// `ADD CONSTRAINT` and `CREATE INDEX` of the target: (name, is a constraint, definition).
    pub(super) indexes: Vec<(String, bool, String)>,
    /// Columns of each unique index without a condition.
    unique_keys: Vec<Vec<String>>,
    /// CHECK constraints and the columns that each is about.
    pub(super) rules: Vec<(String, Vec<String>)>,
    /// Rights that others have on it: (role or PUBLIC, right, with grant option).
    pub(super) grants: Vec<(String, String, bool)>,
}

#[derive(Debug)]
pub(super) struct TargetColumn {
    pub(super) name: String,
    pub(super) type_name: String,
    /// Whether a row may leave it out.
    can_be_left_out: bool,
    pub(super) not_null: bool,
    generated: bool,
    is_enum: bool,
}

/// Makes the target's schema if it is missing.
pub(super) async fn create_schema(connection: &mut PgConnection, schema: &str) -> sqlx::Result<()> {
    let there: bool = sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM pg_namespace WHERE nspname = $1)")
        .bind(schema)
        .fetch_one(&mut *connection)
        .await?;
    if !there {
        let sql = format!("CREATE SCHEMA IF NOT EXISTS {}", ident(schema));
        match sqlx::query(AssertSqlSafe(sql)).execute(connection).await {
            // Another pipeline made it at the same moment.
            Err(sqlx::Error::Database(error)) if matches!(error.code().as_deref(), Some("23505" | "42P06")) => {}
            other => _ = other?,
        }
    }
    Ok(())
}

/// Reads what a table is like; None if it does not exist.
pub(super) async fn read(connection: &mut PgConnection, schema: &str, table: &str) -> sqlx::Result<Option<Target>> {
    let found = sqlx::query(
        "SELECT c.oid::bigint AS oid, c.relkind::text AS kind,
                c.relowner <> (SELECT oid FROM pg_roles WHERE rolname = current_user)
                OR c.relrowsecurity OR c.reloptions IS NOT NULL OR c.relreplident <> 'd' OR c.relpersistence <> 'p'
                OR EXISTS (SELECT 1 FROM pg_depend d WHERE d.refclassid = 'pg_class'::regclass AND d.refobjid = c.oid AND d.deptype = 'n'
                           AND NOT EXISTS (SELECT 1 FROM pg_constraint k WHERE d.classid = 'pg_constraint'::regclass AND k.oid = d.objid AND k.conrelid = c.oid))
                OR EXISTS (SELECT 1 FROM pg_depend d JOIN pg_class s ON s.oid = d.objid AND d.classid = 'pg_class'::regclass
                           WHERE d.refclassid = 'pg_class'::regclass AND d.refobjid = c.oid AND s.relkind = 'S')
                OR EXISTS (SELECT 1 FROM pg_constraint k WHERE k.conrelid = c.oid AND k.contype NOT IN ('p', 'u', 'c', 'n'))
                OR EXISTS (SELECT 1 FROM pg_trigger t WHERE t.tgrelid = c.oid AND NOT t.tgisinternal)
                OR EXISTS (SELECT 1 FROM pg_inherits i WHERE c.oid IN (i.inhrelid, i.inhparent))
                OR EXISTS (SELECT 1 FROM pg_publication_tables p WHERE p.schemaname = n.nspname AND p.tablename = c.relname)
                OR EXISTS (SELECT 1 FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attacl IS NOT NULL) AS dependants,
                EXISTS (SELECT 1 FROM pg_constraint k WHERE k.confrelid = c.oid AND k.conrelid <> c.oid AND k.contype = 'f') AS referenced
         FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = $1 AND c.relname = $2",
    )
    .bind(schema)
    .bind(table)
    .fetch_optional(&mut *connection)
    .await?;
    let Some(found) = found else { return Ok(None) };
    let (oid, kind): (i64, String) = (found.try_get("oid")?, found.try_get("kind")?);
    let dependants: bool = found.try_get("dependants")?;
    let referenced: bool = found.try_get("referenced")?;

    let columns = sqlx::query(
        "SELECT attname::text AS name, format_type(atttypid, atttypmod) AS type,
                attnotnull AS not_null, NOT attnotnull OR atthasdef OR attidentity <> '' AS can_be_left_out, attgenerated <> '' OR attidentity = 'a' AS generated,
                EXISTS (SELECT 1 FROM pg_type t WHERE t.oid = atttypid AND t.typtype = 'e') AS is_enum
         FROM pg_attribute WHERE attrelid = $1::oid AND attnum > 0 AND NOT attisdropped ORDER BY attnum",
    )
    .bind(oid)
    .fetch_all(&mut *connection)
    .await?;
    let columns = columns
        .iter()
        .map(|row| {
            Ok(TargetColumn {
                name: row.try_get("name")?,
                type_name: row.try_get("type")?,
                can_be_left_out: row.try_get("can_be_left_out")?,
                not_null: row.try_get("not_null")?,
                generated: row.try_get("generated")?,
                is_enum: row.try_get("is_enum")?,
            })
        })
        .collect::<sqlx::Result<_>>()?;

    // The definition without the table's and the index's name: a constraint's own, or what follows them in CREATE INDEX.
    let indexes = sqlx::query(
        "SELECT i.relname::text AS name, k.oid IS NOT NULL AS is_constraint,
                coalesce(pg_get_constraintdef(k.oid),
                         substr(pg_get_indexdef(x.indexrelid), strpos(pg_get_indexdef(x.indexrelid), ' USING ') + 1)) AS definition,
                x.indisunique AND x.indpred IS NULL AND x.indexprs IS NULL AND x.indisvalid AS is_key, x.indisunique AS is_unique,
                ARRAY(SELECT a.attname::text FROM unnest(x.indkey[0:x.indnkeyatts - 1]) WITH ORDINALITY AS u(attnum, at)
                      JOIN pg_attribute a ON a.attrelid = x.indrelid AND a.attnum = u.attnum ORDER BY at) AS columns
         FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid
         LEFT JOIN pg_constraint k ON k.conindid = x.indexrelid AND k.conrelid = x.indrelid AND k.contype IN ('p', 'u', 'x')
         WHERE x.indrelid = $1::oid ORDER BY i.relname",
    )
    .bind(oid)
    .fetch_all(&mut *connection)
    .await?;
    let mut unique_keys = Vec::new();
    let mut index_definitions = Vec::new();
    for row in &indexes {
        if row.try_get::<bool, _>("is_key")? {
            unique_keys.push(row.try_get("columns")?);
        }
        let is_constraint: bool = row.try_get("is_constraint")?;
        let unique = if row.try_get("is_unique")? && !is_constraint { "UNIQUE " } else { "" };
        let definition: String = row.try_get("definition")?;
        index_definitions.push((row.try_get("name")?, is_constraint, format!("{unique}{definition}")));
    }

    let rules = sqlx::query_as(
        "SELECT pg_get_constraintdef(k.oid),
                ARRAY(SELECT a.attname::text FROM pg_attribute a WHERE a.attrelid = k.conrelid AND a.attnum = ANY (k.conkey))
         FROM pg_constraint k WHERE k.conrelid = $1::oid AND k.contype = 'c' AND k.convalidated ORDER BY k.conname",
    )
    .bind(oid)
    .fetch_all(&mut *connection)
    .await?;

    let grants = sqlx::query(
        "SELECT coalesce(r.rolname::text, 'PUBLIC') AS role, a.privilege_type AS privilege, a.is_grantable AS grantable
         FROM pg_class c, aclexplode(c.relacl) a LEFT JOIN pg_roles r ON r.oid = a.grantee
         WHERE c.oid = $1::oid AND a.grantee <> c.relowner",
    )
    .bind(oid)
    .fetch_all(&mut *connection)
    .await?;
    let grants = grants
        .iter()
        .map(|row| Ok((row.try_get("role")?, row.try_get("privilege")?, row.try_get("grantable")?)))
        .collect::<sqlx::Result<_>>()?;

    let has_rows = if kind == "r" || kind == "p" {
        let sql = format!("SELECT EXISTS (SELECT 1 FROM {}.{})", ident(schema), ident(table));
        sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(&mut *connection).await?
    } else {
        false
    };
    Ok(Some(Target {
        schema: schema.into(),
        table: table.into(),
        kind,
        columns,
        has_rows,
        dependants,
        referenced,
        indexes: index_definitions,
        unique_keys,
        rules,
        grants,
    }))
}

impl Target {
    /// Refuses rows that do not fit into the table, each column by name. Gives the columns that the table is to get,
    /// with their types.
    pub(super) fn check(&self, schema: &SchemaRef, spec: &CheckedSink) -> Result<Vec<(String, String)>> {
        let name = format!("{}.{}", self.schema, self.table);
        let mismatch = |message: String| Err(RunError::at(Code::SchemaMismatch, &spec.field, message));
        if self.kind != "r" && self.kind != "p" {
            return mismatch(format!("{name} is no table; name a table, or drop what is there"));
        }
        let (mut wrong, mut adds) = (Vec::new(), Vec::new());
        for field in schema.fields() {
            let wanted = type_name(field).unwrap_or_default();
            match self.columns.iter().find(|column| column.name == *field.name()) {
                None if spec.on_schema_change == OnSchemaChange::AddColumns => {
                    adds.push((field.name().clone(), wanted));
                }
                None => wrong.push(format!(
                    "{name} has no column {0}; ALTER TABLE {name} ADD {0} {wanted}, set onSchemaChange: addColumns, or leave it out",
                    field.name()
                )),
                Some(column) if column.generated => {
                    wrong.push(format!("{} is generated in {name}; leave it out", column.name))
                }
                Some(column) if !column.holds(field) => wrong.push(format!(
                    "{} is {} in {name} but {wanted} in {}; cast it in the model, or change the table",
                    column.name, column.type_name, spec.from
                )),
                Some(_) => {}
            }
        }
        for column in self.columns.iter().filter(|column| !column.can_be_left_out && !column.generated) {
            if schema.index_of(&column.name).is_err() {
                wrong.push(format!("{} of {name} must be filled, but {} does not have it", column.name, spec.from));
            }
        }
        if let SinkMode::Merge { key, .. } = &spec.mode {
            let same =
                |columns: &Vec<String>| columns.len() == key.len() && key.iter().all(|column| columns.contains(column));
            if !self.unique_keys.iter().any(same) {
                let columns = key.join(", ");
                wrong.push(format!("{name} has no unique index on ({columns}), which merge needs; CREATE UNIQUE INDEX ON {name} ({columns})"));
            }
        }
        if wrong.is_empty() { Ok(adds) } else { mismatch(wrong.join("; ")) }
    }

    /// Whether the table is still as it was when the run's table was made to take its place: days may lie between, if a
    /// dead run is completed, and a swap would drop what was added since.
    pub(super) fn is_as_staged(&self, columns: &[String], indexes: usize) -> bool {
        self.kind == "r"
            && !self.dependants
            && self.columns.len() == columns.len()
            && self.columns.iter().zip(columns).all(|(column, staged)| column.name == *staged)
            && self.indexes.len() == indexes
    }

    /// How many indexes it has.
    pub(super) fn index_count(&self) -> usize {
        self.indexes.len()
    }

    /// The key by which rows are replaced one by one, where other tables refer to this one: deleting all rows, to put
    /// most of them back, would delete theirs (ON DELETE CASCADE), cut their links, or be refused. None where nobody does.
    pub(super) fn replace_key(&self, schema: &SchemaRef, spec: &CheckedSink) -> Result<Option<Vec<String>>> {
        if !self.referenced {
            return Ok(None);
        }
        let has = |column: &String| schema.index_of(column).is_ok();
        match self.unique_keys.iter().find(|key| key.iter().all(has)) {
            Some(key) => Ok(Some(key.clone())),
            None => Err(RunError::at(
                Code::SchemaMismatch,
                &spec.field,
                format!(
                    "foreign keys refer to {0}.{1}, and the rows of {2} have no unique key of it, by which they could be \
                     replaced one by one; give {2} the key's columns, or write to another table",
                    self.schema, self.table, spec.from
                ),
            )),
        }
    }

    /// The unique keys that rows which are added must not meet, each with columns that the rows have.
    pub(super) fn keys_in(&self, schema: &SchemaRef) -> impl Iterator<Item = &Vec<String>> {
        self.unique_keys.iter().filter(|key| key.iter().all(|column| schema.index_of(column).is_ok()))
    }

    /// Whether a new table can take this one's name without anybody missing something.
    pub(super) fn can_be_swapped(&self, schema: &SchemaRef) -> bool {
        self.kind == "r"
            && !self.dependants
            && self.columns.len() == schema.fields().len()
            && self.columns.iter().zip(schema.fields()).all(|(column, field)| {
                column.name == *field.name()
                    && !column.generated
                    && type_name(field).as_ref() == Some(&column.type_name)
            })
    }
}

impl TargetColumn {
    /// Whether it holds every value of the rows' column, or says so when one does not fit.
    fn holds(&self, field: &Field) -> bool {
        // The server refuses a text that is none of the words.
        holds(&self.type_name, field) || self.is_enum && *field.data_type() == DataType::Utf8
    }
}

/// How the run's table gets the type of the target's column where PostgreSQL would not do it, or would do it with a loss.
pub(super) fn conversion(name: &str, column: &TargetColumn) -> Option<String> {
    if column.is_enum {
        return Some(format!("{name}::text::{}", column.type_name));
    }
    // A text that is too long for varchar(n) is refused only if something else than spaces would be cut.
    let length = column.type_name.strip_prefix("character varying(")?.strip_suffix(')')?;
    Some(format!("CASE WHEN char_length({name}::text) > {length} THEN {name}::text || '.' ELSE {name}::text END"))
}

/// Whether a column of a type holds every value of the rows' column.
fn holds(target: &str, field: &Field) -> bool {
    if type_name(field).as_deref() == Some(target) {
        return true;
    }
    let type_ = field.data_type();
    let numeric = |integer_digits: i16, scale: i16| -> bool {
        if target == "numeric" {
            return true;
        }
        let Some(arguments) = target.strip_prefix("numeric(").and_then(|rest| rest.strip_suffix(')')) else {
            return false;
        };
        let numbers: Vec<i16> = arguments.split(',').filter_map(|number| number.trim().parse().ok()).collect();
        matches!(numbers[..], [precision, s] if s >= scale && precision - s >= integer_digits)
    };
    match type_ {
        DataType::Int16 => matches!(target, "integer" | "bigint") || numeric(5, 0),
        DataType::Int32 => target == "bigint" || numeric(10, 0),
        DataType::Int64 => numeric(19, 0),
        DataType::Float32 => target == "double precision",
        DataType::Utf8 => {
            let is_json = Logical::of(field) == Some(Logical::Json);
            target == "text" || target.starts_with("character varying") || is_json && target == "json"
        }
        DataType::Decimal128(precision, scale) => numeric(i16::from(*precision) - i16::from(*scale), i16::from(*scale)),
        _ => false,
    }
}

/// The pipelines' sinks that write a table.
pub(super) async fn owners(connection: &mut PgConnection, schema: &str, table: &str) -> sqlx::Result<Vec<TableOwner>> {
    let owners: Vec<(String, String, bool)> = sqlx::query_as(
        "SELECT identity, sink, replaces FROM report_operator.tables WHERE table_schema = $1 AND table_name = $2",
    )
    .bind(schema)
    .bind(table)
    .fetch_all(connection)
    .await?;
    Ok(owners.into_iter().map(TableOwner::from).collect())
}

/// Views, foreign keys and publications that keep a column's type from being changed, or that have to follow it, for a
/// message: the first few.
pub(super) async fn dependants(connection: &mut PgConnection, schema: &str, table: &str) -> sqlx::Result<Vec<String>> {
    sqlx::query_scalar(
        "SELECT DISTINCT name FROM (
             SELECT 'the view ' || v.oid::regclass AS name FROM pg_depend d JOIN pg_rewrite r ON r.oid = d.objid
             JOIN pg_class v ON v.oid = r.ev_class JOIN pg_class c ON c.oid = d.refobjid JOIN pg_namespace n ON n.oid = c.relnamespace
             WHERE d.classid = 'pg_rewrite'::regclass AND d.refclassid = 'pg_class'::regclass AND v.oid <> c.oid
                   AND n.nspname = $1 AND c.relname = $2
             UNION ALL SELECT 'the foreign key ' || k.conname || ' of ' || k.conrelid::regclass FROM pg_constraint k
             JOIN pg_class c ON c.oid = k.confrelid JOIN pg_namespace n ON n.oid = c.relnamespace
             WHERE k.contype = 'f' AND n.nspname = $1 AND c.relname = $2
             UNION ALL SELECT 'the publication ' || pubname FROM pg_publication_tables WHERE schemaname = $1 AND tablename = $2
         ) AS found ORDER BY name LIMIT $3",
    )
    .bind(schema)
    .bind(table)
    .bind(DEPENDANTS_NAMED_MAX)
    .fetch_all(connection)
    .await
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::{DataType, Field};

    use super::holds;

    #[test]
    fn a_column_is_filled_only_if_it_holds_every_value() {
        for (target, type_, want) in [
            ("bigint", DataType::Int32, true),
            ("integer", DataType::Int64, false),
            ("numeric", DataType::Decimal128(38, 10), true),
            ("numeric(18,3)", DataType::Decimal128(18, 3), true),
            ("numeric(18,3)", DataType::Decimal128(28, 3), false),
            ("numeric(20,4)", DataType::Decimal128(18, 3), true),
            ("numeric(18,2)", DataType::Decimal128(10, 3), false),
            ("numeric(19,0)", DataType::Int64, true),
            ("double precision", DataType::Decimal128(10, 2), false),
            ("character varying(10)", DataType::Utf8, true),
            ("text", DataType::Int32, false),
        ] {
            assert_eq!(holds(target, &Field::new("c", type_.clone(), true)), want, "{type_} into {target}");
        }
    }
}
