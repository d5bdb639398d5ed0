//! What the sinks for databases share: names of the runs' tables, who owns a table, what staged rows must hold, and the
//! statements that put them in their place. Each database brings its connection, its types and its way to load rows.

use async_trait::async_trait;
use report_api::checked::CheckedSink;

use super::{Owner, PreparedMode, PreparedSink};
use crate::error::{Code, Result, RunError};
use crate::quote::{ident, idents};

/// Commit rows kept per sink: three years of daily runs, six weeks of hourly ones.
pub(crate) const COMMITS_KEPT: i64 = 1000;
/// What the name of a replaced table ends with until it is dropped, where a swap can't drop it in the same step.
pub(super) const OLD: &str = "_old";

/// Epochs are far below 2^63: one is spent per attempt of a run.
pub(crate) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// A number that [`signed`] wrote.
pub(crate) fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

/// What the names of the tables of a pipeline's sink begin with.
pub(super) fn staging_prefix(owner: &Owner, spec: &CheckedSink) -> String {
    format!("_report_{}_", owner.tag(&spec.name))
}

/// The name of the run's table. Its start tells the pipeline's sink, its end the epoch.
pub(super) fn staging_name(owner: &Owner, spec: &CheckedSink, epoch: u64) -> String {
    format!("{}{epoch}", staging_prefix(owner, spec))
}

/// The tables among these that runs of lower epochs left, except for `keep`.
pub(super) fn left_behind(tables: Vec<String>, prefix: &str, epoch: u64, keep: Option<&PreparedSink>) -> Vec<String> {
    let is_left = |table: &String| {
        let number = table.strip_prefix(prefix).map(|end| end.strip_suffix(OLD).unwrap_or(end));
        number.and_then(|number| number.parse::<u64>().ok()).is_some_and(|of| of < epoch)
            && keep.is_none_or(|keep| keep.staging != *table)
    };
    tables.into_iter().filter(is_left).collect()
}

/// A pipeline's sink that has written a table.
pub(super) struct TableOwner {
    pub(super) identity: String,
    pub(super) sink: String,
    pub(super) exclusive: bool,
}

impl From<(String, String, bool)> for TableOwner {
    fn from((identity, sink, exclusive): (String, String, bool)) -> Self {
        Self { identity, sink, exclusive }
    }
}

/// Refuses a table that another pipeline fills, or that has rows and that nobody has filled before. `list` is where the
/// owners are kept.
pub(super) fn refuse_owner(
    owners: &[TableOwner],
    name: &str,
    has_rows: bool,
    exclusive: bool,
    list: &str,
    spec: &CheckedSink,
    owner: &Owner,
) -> Result<()> {
    // A pipeline has one sink per table, whatever it was called before.
    let other = owners.iter().find(|other| other.identity != owner.identity && (exclusive || other.exclusive));
    if let Some(TableOwner { identity, sink, .. }) = other {
        return Err(RunError::at(
            Code::TableNotOwned,
            &spec.field,
            format!(
                "{name} is filled by the sink {sink} of the pipeline {identity}, and a table whose rows are replaced has one owner; \
                 write to another table, or delete that row from {list} if the pipeline is gone"
            ),
        ));
    }
    if owners.is_empty() && has_rows && !spec.adopt {
        return Err(RunError::at(
            Code::TableNotOwned,
            &spec.field,
            format!(
                "{name} has rows that no pipeline has written; set adopt: true to take it over, or write to another table"
            ),
        ));
    }
    Ok(())
}

/// Refuses to commit into a table that another pipeline has come to own since the rows were staged.
pub(super) fn refuse_late_owner(
    owners: &[TableOwner],
    prepared: &PreparedSink,
    spec: &CheckedSink,
    owner: &Owner,
) -> Result<()> {
    let exclusive = prepared.mode.is_exclusive();
    match owners.iter().find(|other| other.identity != owner.identity && (exclusive || other.exclusive)) {
        None => Ok(()),
        Some(TableOwner { identity, .. }) => Err(RunError::at(
            Code::TableNotOwned,
            &spec.field,
            format!(
                "{} has become the pipeline {identity}'s since this run was staged; write to another table",
                prepared.target
            ),
        )),
    }
}

/// A database that counts.
#[async_trait]
pub(super) trait Counting: Send {
    /// The number that a SELECT gives.
    async fn count(&mut self, sql: String) -> Result<i64>;
}

/// The target and the run's table as SQL, and whose SQL.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) dialect: Dialect,
    pub(super) target: String,
    pub(super) staging: String,
}

/// Whose SQL. MySQL's sessions are set to ANSI_QUOTES, so that identifiers are quoted alike.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Dialect {
    Postgres,
    Sqlite,
    Mysql,
}

/// Refuses keys that occur twice in the run's table. NULL in a key was refused while the rows passed.
pub(super) async fn check_key(
    database: &mut dyn Counting,
    place: &Place,
    key: &[String],
    spec: &CheckedSink,
) -> Result<()> {
    let columns = idents(key);
    let twice = database
        .count(format!(
            "SELECT count(*) FROM (SELECT 1 FROM {} GROUP BY {columns} HAVING count(*) > 1) AS d",
            place.staging
        ))
        .await?;
    if twice == 0 {
        return Ok(());
    }
    Err(RunError::at(
        Code::KeyInvalid,
        format!("{}.mode.merge.key", spec.field),
        format!(
            "{twice} keys ({}) occur more than once; keep one row per key in the model, or set dedupe: {{latestBy: …}}",
            key.join(", ")
        ),
    ))
}

/// Refuses rows that would meet a unique key of the target, or one another in it, at the commit, when other sinks have
/// committed.
pub(super) async fn check_added(
    database: &mut dyn Counting,
    place: &Place,
    mode: &PreparedMode,
    key: &[String],
    spec: &CheckedSink,
    name: &str,
) -> Result<()> {
    let (target, staging) = (&place.target, &place.staging);
    let columns = idents(key);
    let nulls = key.iter().map(|column| format!("{} IS NOT NULL", ident(column))).collect::<Vec<_>>().join(" AND ");
    let stays = place.stays(mode).map(|stays| format!(" AND {stays}")).unwrap_or_default();
    for (sql, what, remedy) in [
        (
            format!(
                "SELECT count(*) FROM {staging} AS _s WHERE EXISTS (SELECT 1 FROM {target} AS _t WHERE {}{stays})",
                same(key)
            ),
            "rows are in the table already, by its unique key",
            "use merge, or give only new rows",
        ),
        (
            format!(
                "SELECT count(*) FROM (SELECT 1 FROM {staging} WHERE {nulls} GROUP BY {columns} HAVING count(*) > 1) AS d"
            ),
            "keys occur more than once in",
            "keep one row per key in the model",
        ),
    ] {
        let count = database.count(sql).await?;
        if count > 0 {
            return Err(RunError::at(
                Code::KeyInvalid,
                &spec.field,
                format!("{count} {what} ({}) of {name}; {remedy}", key.join(", ")),
            ));
        }
    }
    Ok(())
}

/// `_s` and `_t` are the run's table and the target in all statements.
fn same(key: &[String]) -> String {
    key.iter().map(|column| format!("_s.{0} = _t.{0}", ident(column))).collect::<Vec<_>>().join(" AND ")
}

impl Place {
    /// The statements that put the staged rows in their place, in order, in one transaction. A swap that could not be
    /// done comes here as rows.
    pub(super) fn statements(&self, mode: &PreparedMode, columns: &[String]) -> Vec<String> {
        let (target, staging) = (&self.target, &self.staging);
        let list = idents(columns);
        let insert = format!("INSERT INTO {target} ({list}) SELECT {list} FROM {staging}");
        match mode {
            PreparedMode::Swap | PreparedMode::ReplaceRows => vec![format!("DELETE FROM {target}"), insert],
            PreparedMode::Append => vec![insert],
            PreparedMode::ReplaceByKey { key } => {
                let mut statements = self.upsert(key, columns, None, None);
                statements.push(self.delete_others(key));
                statements
            }
            PreparedMode::Merge { key, only_if_newer, delete_when } => {
                let newer = only_if_newer.as_deref();
                let flag = delete_when.as_deref();
                let mut statements = Vec::new();
                if let Some(flag) = flag {
                    let mut which = vec![format!("_s.{}", ident(flag))];
                    which.extend(newer.map(is_newer));
                    statements.push(self.delete_matching(staging, key, &which));
                }
                statements.extend(self.upsert(key, columns, newer, flag));
                statements
            }
            PreparedMode::DeleteInterval { column, from, to } => {
                let (column, from, to) = (ident(column), self.time(from), self.time(to));
                vec![format!("DELETE FROM {target} WHERE {column} >= {from} AND {column} < {to}"), insert]
            }
            PreparedMode::DeletePartitions { columns } => {
                let partitions = format!("(SELECT DISTINCT {} FROM {staging})", idents(columns));
                vec![self.delete_matching(&partitions, columns, &[]), insert]
            }
        }
    }

    /// The condition on rows of the target that a commit leaves; None if that is all of them.
    fn stays(&self, mode: &PreparedMode) -> Option<String> {
        match mode {
            PreparedMode::DeleteInterval { column, from, to } => {
                let (column, from, to) = (ident(column), self.time(from), self.time(to));
                Some(format!("(_t.{column} IS NULL OR _t.{column} < {from} OR _t.{column} >= {to})"))
            }
            PreparedMode::DeletePartitions { columns } => {
                let same: Vec<_> = columns.iter().map(|column| format!("_p.{0} = _t.{0}", ident(column))).collect();
                Some(format!("NOT EXISTS (SELECT 1 FROM {} AS _p WHERE {})", self.staging, same.join(" AND ")))
            }
            PreparedMode::Swap | PreparedMode::ReplaceRows => Some("false".into()),
            PreparedMode::ReplaceByKey { .. } | PreparedMode::Append | PreparedMode::Merge { .. } => None,
        }
    }

    /// A bound of an interval as a literal without a type: it takes the column's. It holds digits and signs only.
    fn time(&self, text: &str) -> String {
        match self.dialect {
            Dialect::Postgres | Dialect::Sqlite => format!("'{text}'"),
            // Its times have no zone, and all that it has are UTC.
            Dialect::Mysql => format!("'{}'", text.trim_end_matches("+00:00")),
        }
    }

    /// Deletes the rows of the target that have the same key as rows of `others` for which all conditions hold.
    fn delete_matching(&self, others: &str, key: &[String], which: &[String]) -> String {
        let conditions = [&[same(key)], which].concat().join(" AND ");
        match self.dialect {
            Dialect::Postgres | Dialect::Sqlite => {
                format!(
                    "DELETE FROM {} AS _t WHERE EXISTS (SELECT 1 FROM {others} AS _s WHERE {conditions})",
                    self.target
                )
            }
            // Its planner turns no EXISTS of a DELETE into a join.
            Dialect::Mysql => format!("DELETE _t FROM {} AS _t JOIN {others} AS _s ON {conditions}", self.target),
        }
    }

    /// Deletes the rows of the target whose key was not staged.
    fn delete_others(&self, key: &[String]) -> String {
        let (target, staging) = (&self.target, &self.staging);
        match self.dialect {
            Dialect::Postgres | Dialect::Sqlite => {
                format!(
                    "DELETE FROM {target} AS _t WHERE NOT EXISTS (SELECT 1 FROM {staging} AS _s WHERE {})",
                    same(key)
                )
            }
            Dialect::Mysql => format!(
                "DELETE _t FROM {target} AS _t LEFT JOIN {staging} AS _s ON {} WHERE {}",
                same(key),
                missing("_s", key)
            ),
        }
    }

    /// Updates rows whose key is there, unless they are as new, and adds the others; rows with the flag are left out.
    fn upsert(&self, key: &[String], columns: &[String], newer: Option<&str>, flag: Option<&str>) -> Vec<String> {
        let (target, staging) = (&self.target, &self.staging);
        let list = idents(columns);
        let values: Vec<_> = columns.iter().filter(|column| !key.contains(column)).map(|name| ident(name)).collect();
        match self.dialect {
            Dialect::Postgres | Dialect::Sqlite => {
                // Without a WHERE, SQLite takes ON for that of a join.
                let wanted = flag.map_or_else(|| "true".into(), |flag| format!("NOT {}", ident(flag)));
                let insert = format!("INSERT INTO {target} AS _t ({list}) SELECT {list} FROM {staging} WHERE {wanted}");
                let sets: Vec<_> = values.iter().map(|column| format!("{column} = excluded.{column}")).collect();
                let only = newer.map(|newer| {
                    let newer = ident(newer);
                    format!(" WHERE _t.{newer} IS NULL OR excluded.{newer} > _t.{newer}")
                });
                let action = if sets.is_empty() {
                    "NOTHING".into()
                } else {
                    format!("UPDATE SET {}{}", sets.join(", "), only.unwrap_or_default())
                };
                vec![format!("{insert} ON CONFLICT ({}) DO {action}", idents(key))]
            }
            // ON DUPLICATE KEY UPDATE would also take rows that another unique key has in common, and change the wrong
            // ones; these two leave that to fail.
            Dialect::Mysql => {
                let flagged = flag.map(|flag| format!("NOT _s.{}", ident(flag)));
                let mut statements = Vec::new();
                if !values.is_empty() {
                    let sets: Vec<_> = values.iter().map(|column| format!("_t.{column} = _s.{column}")).collect();
                    let mut which = vec![same(key)];
                    which.extend(newer.map(is_newer));
                    which.extend(flagged.clone());
                    statements.push(format!(
                        "UPDATE {target} AS _t JOIN {staging} AS _s ON {} SET {}",
                        which.join(" AND "),
                        sets.join(", ")
                    ));
                }
                let picked: Vec<_> = columns.iter().map(|column| format!("_s.{}", ident(column))).collect();
                let mut which = vec![missing("_t", key)];
                which.extend(flagged);
                statements.push(format!(
                    "INSERT INTO {target} ({list}) SELECT {} FROM {staging} AS _s LEFT JOIN {target} AS _t ON {} WHERE {}",
                    picked.join(", "),
                    same(key),
                    which.join(" AND ")
                ));
                statements
            }
        }
    }
}

fn is_newer(column: &str) -> String {
    format!("(_t.{0} IS NULL OR _s.{0} > _t.{0})", ident(column))
}

/// A key has no NULL, so that NULL in its first column means that an outer join found nothing.
fn missing(alias: &str, key: &[String]) -> String {
    key.iter().take(1).map(|column| format!("{alias}.{} IS NULL", ident(column))).collect()
}

/// The name of an index that a sink creates: the table's and the columns', as PostgreSQL would call it.
pub(super) fn index_name(table: &str, columns: &[String], bytes_max: usize) -> String {
    const END: &str = "_idx";
    let name = format!("{table}_{}", columns.join("_"));
    let mut end = name.len().min(bytes_max - END.len());
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}{END}", &name[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(dialect: Dialect) -> Place {
        Place { dialect, target: "t".into(), staging: "s".into() }
    }

    #[test]
    fn a_merge_deletes_what_is_flagged_before_it_adds_and_never_undoes_newer_rows() {
        let names = ["id", "name", "at"].map(str::to_owned);
        let mode = PreparedMode::Merge {
            key: vec!["id".into()],
            only_if_newer: Some("at".into()),
            delete_when: Some("gone".into()),
        };
        assert_eq!(
            place(Dialect::Postgres).statements(&mode, &names),
            [
                r#"DELETE FROM t AS _t WHERE EXISTS (SELECT 1 FROM s AS _s WHERE _s."id" = _t."id" AND _s."gone" AND (_t."at" IS NULL OR _s."at" > _t."at"))"#,
                r#"INSERT INTO t AS _t ("id", "name", "at") SELECT "id", "name", "at" FROM s WHERE NOT "gone" ON CONFLICT ("id") DO UPDATE SET "name" = excluded."name", "at" = excluded."at" WHERE _t."at" IS NULL OR excluded."at" > _t."at""#,
            ]
        );
        assert_eq!(
            place(Dialect::Mysql).statements(&mode, &names),
            [
                r#"DELETE _t FROM t AS _t JOIN s AS _s ON _s."id" = _t."id" AND _s."gone" AND (_t."at" IS NULL OR _s."at" > _t."at")"#,
                r#"UPDATE t AS _t JOIN s AS _s ON _s."id" = _t."id" AND (_t."at" IS NULL OR _s."at" > _t."at") AND NOT _s."gone" SET _t."name" = _s."name", _t."at" = _s."at""#,
                r#"INSERT INTO t ("id", "name", "at") SELECT _s."id", _s."name", _s."at" FROM s AS _s LEFT JOIN t AS _t ON _s."id" = _t."id" WHERE _t."id" IS NULL AND NOT _s."gone""#,
            ]
        );
    }

    #[test]
    fn only_tables_of_lower_epochs_are_left_behind() {
        let tables = ["p_1", "p_2", "p_2_old", "p_3", "p_x", "p_", "q_1"].map(str::to_owned).to_vec();
        assert_eq!(left_behind(tables, "p_", 3, None), ["p_1", "p_2", "p_2_old"]);
    }

    #[test]
    fn names_of_indexes_fit() {
        assert_eq!(index_name("orders", &["city".into(), "year".into()], 63), "orders_city_year_idx");
        assert_eq!(index_name(&"ü".repeat(31), &["city".into()], 63).len(), 62);
    }
}
