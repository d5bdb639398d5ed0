//! What one SELECT reads. The parser and its dialect are those of DataFusion in the worker, so that what is understood
//! here is understood there; whether columns and types fit is the worker's to say.

mod delta;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use sqlparser::ast::{
    Expr, Ident, ObjectName, Query, Select, SetExpr, Spanned, Statement, TableFactor, Value, Visit, Visitor,
    visit_expressions,
};
use sqlparser::dialect::PostgreSqlDialect;
use sqlparser::parser::{Parser, ParserError};
use sqlparser::tokenizer::{Location, Token};

pub(crate) use self::delta::needs_all_rows;

/// A chain such as `1 + 1 + 1` nests as deep as it is long, and dropping what was parsed takes a piece of stack for each
/// link: 64 KiB of SQL would overflow the 2 MiB of a thread and end the process. Pages are taken only as they are used.
const STACK_BYTES: usize = 16 << 20;
/// Deepest nesting that is taken: a chain of a thousand conditions is more than people write, and the worker has to
/// plan, optimise and drop what is taken here on the stack of one thread.
const DEPTH_MAX: usize = 1000;

const TOO_DEEP: &str =
    "the SQL is nested too deeply; write IN (…) instead of a long chain, and inner parts as models of their own";

/// The parameters that SQL may name: the run's interval as timestamps with time zone, and the run's id as text.
pub const PARAMETERS: [&str; 3] = ["$interval_start", "$interval_end", "$run_id"];

/// Where something stands in an SQL text, both from 1.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Place {
    /// The line.
    pub line: u64,
    /// The character in the line.
    pub column: u64,
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "line {}, column {}", self.line, self.column)
    }
}

impl From<Location> for Place {
    fn from(location: Location) -> Self {
        Self { line: location.line, column: location.column }
    }
}

/// The tables that a SELECT reads, each with the place where it is named first. Names of common table expressions are
/// left out where they are in scope; unquoted names are in lower case, as DataFusion takes them.
///
/// The errors say where and what to write instead: the text is no SQL, is not one SELECT, or names a table by a schema.
pub fn reads(sql: &str) -> Result<BTreeMap<String, Place>, Vec<String>> {
    stacker::grow(STACK_BYTES, || reads_on_this_stack(sql))
}

/// The functions that a SELECT calls, in lower case; those of a text that is no SELECT are none.
pub fn functions(sql: &str) -> BTreeSet<String> {
    stacker::grow(STACK_BYTES, || {
        let mut names = BTreeSet::new();
        if let Ok(query) = select(sql) {
            let _ = visit_expressions(&query, |expr| {
                if let Expr::Function(function) = expr {
                    names.insert(function.name.to_string().to_ascii_lowercase().replace('"', ""));
                }
                ControlFlow::<()>::Continue(())
            });
        }
        names
    })
}

fn reads_on_this_stack(sql: &str) -> Result<BTreeMap<String, Place>, Vec<String>> {
    let query = select(sql).map_err(|message| vec![message])?;
    let mut reads = Reads::default();
    let _ = query.visit(&mut reads);
    if reads.too_deep {
        reads.problems.push(TOO_DEEP.into());
    }
    if reads.problems.is_empty() { Ok(reads.tables) } else { Err(reads.problems) }
}

/// The one SELECT in a text.
fn select(sql: &str) -> Result<Box<Query>, String> {
    let mut parser = Parser::new(&PostgreSqlDialect {}).try_with_sql(sql).map_err(in_words)?;
    while parser.consume_token(&Token::SemiColon) {}
    let first = parser.peek_token();
    if first.token == Token::EOF {
        return Err("there is no SQL here; write one SELECT".into());
    }
    let statement = parser.parse_statement().map_err(in_words)?;
    let Statement::Query(query) = statement else {
        return Err(format!(
            "{}: {} is not a SELECT; write one SELECT: sinks do the writing",
            Place::from(first.span.start),
            first.token
        ));
    };
    let ended = parser.consume_token(&Token::SemiColon);
    while parser.consume_token(&Token::SemiColon) {}
    let next = parser.peek_token();
    let (token, place) = (next.token, Place::from(next.span.start));
    match (token, ended) {
        (Token::EOF, _) => Ok(query),
        (_, true) => {
            Err(format!("{place}: another statement begins; write one SELECT, and the other as a model of its own"))
        }
        (token, false) => {
            Err(format!("{place}: {token} is not expected here; a comma or an operator may be missing before it"))
        }
    }
}

/// The parser says `Expected: an expression, found: FROM at Line: 1, Column: 8`.
fn in_words(error: ParserError) -> String {
    let text = match error {
        ParserError::TokenizerError(text) | ParserError::ParserError(text) => text,
        ParserError::RecursionLimitExceeded => {
            return TOO_DEEP.into();
        }
    };
    let (text, place) = match text.rsplit_once(" at Line: ") {
        Some((text, place)) => (text, place.split_once(", Column: ")),
        None => (text.as_str(), None),
    };
    let text = text.replacen("Expected: ", "expected ", 1).replacen(", found: EOF", ", found the end", 1).replacen(
        ", found: ",
        ", found ",
        1,
    );
    match place
        .and_then(|(line, column)| Some(Place { line: line.trim().parse().ok()?, column: column.trim().parse().ok()? }))
    {
        Some(place) if place.line > 0 => format!("{place}: {text}"),
        _ => format!("at the end: {text}"),
    }
}

/// Walks a query with the common table expressions that are in scope: one of them sees those before it, and itself
/// only after WITH RECURSIVE.
#[derive(Default)]
struct Reads {
    tables: BTreeMap<String, Place>,
    problems: Vec<String>,
    scopes: Vec<Scope>,
    depth: usize,
    too_deep: bool,
}

#[derive(Default)]
struct Scope {
    names: BTreeSet<String>,
    /// The bodies of the query's common table expressions, by address, and the name that each of them gets.
    bodies: Vec<(*const Query, String)>,
    recursive: bool,
}

impl Visitor for Reads {
    type Break = ();

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        if let Some(scope) = self.scopes.last_mut()
            && scope.recursive
            && let Some((_, name)) = scope.bodies.iter().find(|(body, _)| std::ptr::eq(*body, query))
        {
            scope.names.insert(name.clone());
        }
        let mut scope = Scope::default();
        if let Some(with) = &query.with {
            scope.recursive = with.recursive;
            scope.bodies = with.cte_tables.iter().map(|cte| (&raw const *cte.query, normal(&cte.alias.name))).collect();
        }
        self.scopes.push(scope);
        if !query.locks.is_empty() {
            self.refuse(query, "leave out FOR UPDATE and FOR SHARE: nothing is locked");
        }
        // A chain of UNIONs nests to the left.
        let (mut body, mut links) = (&*query.body, 0);
        while let SetExpr::SetOperation { left, right, .. } = body {
            links += 1;
            self.refuse_table_command(query, right);
            body = left;
        }
        self.too_deep |= links > DEPTH_MAX;
        self.refuse_table_command(query, body);
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        self.scopes.pop();
        if let Some(scope) = self.scopes.last_mut()
            && let Some((_, name)) = scope.bodies.iter().find(|(body, _)| std::ptr::eq(*body, query))
        {
            scope.names.insert(name.clone());
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_select(&mut self, select: &Select) -> ControlFlow<()> {
        if select.into.is_some() {
            self.refuse(select, "leave out INTO: sinks do the writing");
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        self.depth += 1;
        if let Expr::Value(value) = expr
            && let Value::Placeholder(name) = &value.value
            && !PARAMETERS.contains(&name.as_str())
        {
            self.refuse(expr, &format!("there is no parameter {name}; there are {}", PARAMETERS.join(", ")));
        }
        self.too_deep |= self.depth > DEPTH_MAX;
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, _: &Expr) -> ControlFlow<()> {
        self.depth -= 1;
        ControlFlow::Continue(())
    }

    fn pre_visit_statement(&mut self, statement: &Statement) -> ControlFlow<()> {
        self.refuse(statement, "an INSERT, UPDATE, DELETE or MERGE can't be part of a SELECT: sinks do the writing");
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<()> {
        // With arguments it is a function, such as generate_series(1, 12).
        if let TableFactor::Table { name, args: None, .. } = factor {
            self.table(name);
        }
        ControlFlow::Continue(())
    }
}

impl Reads {
    fn table(&mut self, name: &ObjectName) {
        let place = Place::from(name.span().start);
        match name.0.iter().map(|part| part.as_ident()).collect::<Option<Vec<_>>>().as_deref() {
            Some([one]) => {
                let one = normal(one);
                if !self.scopes.iter().any(|scope| scope.names.contains(&one)) {
                    let first = self.tables.entry(one).or_insert(place);
                    *first = place.min(*first);
                }
            }
            _ => self.problems.push(format!(
                "{place}: {name} has a schema; name a source or model: tables in databases are sources of their own"
            )),
        }
    }

    fn refuse_table_command(&mut self, query: &Query, body: &SetExpr) {
        if let SetExpr::Table(_) = body {
            self.refuse(query, "write SELECT * FROM instead of TABLE");
        }
    }

    fn refuse(&mut self, part: &impl Spanned, what: &str) {
        let place = Place::from(part.span().start);
        self.problems.push(if place.line > 0 { format!("{place}: {what}") } else { what.into() });
    }
}

/// An identifier as DataFusion takes it.
fn normal(name: &Ident) -> String {
    if name.quote_style.is_some() { name.value.clone() } else { name.value.to_ascii_lowercase() }
}

#[cfg(test)]
mod tests {
    use super::reads;
    use crate::model::SQL_BYTES_MAX;

    #[test]
    fn a_select_reads_the_tables_that_are_not_its_own() {
        for (sql, want) in [
            ("SELECT 1", ""),
            ("SELECT * FROM a", "a"),
            ("SELECT * FROM A, b AS x JOIN c USING (k) LEFT JOIN \"D\" ON true;", "D a b c"),
            (
                "SELECT (SELECT max(x) FROM a) FROM b WHERE EXISTS (SELECT 1 FROM c) AND k IN (SELECT k FROM d)",
                "a b c d",
            ),
            ("SELECT * FROM (SELECT * FROM (SELECT * FROM a) AS x) AS y", "a"),
            ("SELECT * FROM a UNION ALL SELECT * FROM b EXCEPT SELECT * FROM c", "a b c"),
            ("SELECT * FROM a ORDER BY (SELECT max(x) FROM b)", "a b"),
            ("SELECT * FROM a, LATERAL (SELECT * FROM b WHERE b.x = a.x) AS l", "a b"),
            ("SELECT * FROM generate_series(1, 12) AS g", ""),
            ("SELECT * FROM unnest([1, 2]) AS u, a", "a"),
            ("VALUES (1), (2)", ""),
            // Common table expressions and their scopes.
            ("WITH x AS (SELECT * FROM a) SELECT * FROM x", "a"),
            ("WITH a AS (SELECT * FROM a) SELECT * FROM a", "a"),
            ("WITH X AS (SELECT 1) SELECT * FROM x", ""),
            ("WITH x AS (SELECT * FROM y), y AS (SELECT * FROM a) SELECT * FROM x, y", "a y"),
            ("WITH x AS (SELECT * FROM a), y AS (SELECT * FROM x) SELECT * FROM y", "a"),
            ("WITH x AS (WITH y AS (SELECT * FROM a) SELECT * FROM y) SELECT * FROM x, y", "a y"),
            ("WITH x AS (SELECT * FROM a) SELECT * FROM b WHERE EXISTS (SELECT 1 FROM x)", "a b"),
            ("SELECT * FROM (WITH x AS (SELECT * FROM a) SELECT * FROM x) AS s, x", "a x"),
            ("WITH RECURSIVE t AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM t WHERE n < 9) SELECT * FROM t, a", "a"),
            ("WITH RECURSIVE t AS (SELECT * FROM u), u AS (SELECT 1) SELECT * FROM t", "u"),
            ("(WITH x AS (SELECT * FROM a) SELECT * FROM x) UNION ALL SELECT * FROM x", "a x"),
        ] {
            let tables = reads(sql).unwrap_or_else(|problems| panic!("{sql}: {problems:?}"));
            let got: Vec<&str> = tables.keys().map(String::as_str).collect();
            assert_eq!(got.join(" "), want, "{sql}");
        }
    }

    #[test]
    fn a_table_comes_with_the_place_where_it_is_named_first() {
        let tables = reads("SELECT *\nFROM b\n  JOIN a USING (k)\n  JOIN a AS c USING (k)").unwrap();
        assert_eq!(
            tables.iter().map(|(name, place)| format!("{name}: {place}")).collect::<Vec<_>>(),
            ["a: line 3, column 8", "b: line 2, column 6",]
        );
    }

    #[test]
    fn what_is_not_one_select_says_where_and_what_to_do() {
        for (sql, want) in [
            ("", "there is no SQL here; write one SELECT"),
            ("-- nothing yet\n;", "there is no SQL here; write one SELECT"),
            (
                "SELECT a FROM t GROUP y",
                "line 1, column 17: GROUP is not expected here; a comma or an operator may be missing before it",
            ),
            (
                "SELECT\n  a b c\nFROM t",
                "line 2, column 7: c is not expected here; a comma or an operator may be missing before it",
            ),
            ("SELECT 'open", "line 1, column 8: Unterminated string literal"),
            ("SELECT (1", "at the end: expected ), found the end"),
            ("DELETE FROM a", "line 1, column 1: DELETE is not a SELECT; write one SELECT: sinks do the writing"),
            (
                "\n  create table x (y int)",
                "line 2, column 3: create is not a SELECT; write one SELECT: sinks do the writing",
            ),
            (
                "SELECT 1;\nSELECT 2",
                "line 2, column 1: another statement begins; write one SELECT, and the other as a model of its own",
            ),
            ("SELECT * INTO b FROM a", "line 1, column 1: leave out INTO: sinks do the writing"),
            ("SELECT * FROM a FOR UPDATE", "line 1, column 1: leave out FOR UPDATE and FOR SHARE: nothing is locked"),
            ("SELECT 1 UNION TABLE a", "line 1, column 1: write SELECT * FROM instead of TABLE"),
            (
                "WITH x AS (DELETE FROM a RETURNING *) SELECT * FROM x",
                "line 1, column 12: an INSERT, UPDATE, DELETE or MERGE can't be part of a SELECT: sinks do the writing",
            ),
            (
                "SELECT * FROM a WHERE t < $interval_ende",
                "line 1, column 27: there is no parameter $interval_ende; there are $interval_start, $interval_end, $run_id",
            ),
            (
                "SELECT * FROM public.a",
                "line 1, column 15: public.a has a schema; name a source or model: tables in databases are sources of their own",
            ),
        ] {
            assert_eq!(reads(sql).map(|tables| format!("{tables:?}")), Err(vec![want.to_owned()]), "{sql}");
        }
    }

    #[test]
    fn functions_are_found_wherever_they_are() {
        let sql = "SELECT Lower(a), (SELECT max(b) FROM t WHERE c < now()) FROM t WHERE d > CURRENT_DATE";
        assert_eq!(super::functions(sql).into_iter().collect::<Vec<_>>(), ["current_date", "lower", "max", "now"]);
    }

    /// The operator reads the SQL of everybody: no text may end its process. Test threads have a stack of 2 MiB, as
    /// tokio's workers have.
    #[test]
    fn sql_of_any_depth_is_read_or_refused() {
        for (head, link) in [
            ("SELECT 1", "+1"),
            ("SELECT a", " AND a"),
            ("SELECT a", "::int"),
            ("SELECT a", "[1]"),
            ("SELECT a", " IS NULL"),
            ("SELECT ", "("),
            ("SELECT ", "- "),
            ("SELECT ", "NOT "),
            ("SELECT a", " COLLATE b"),
            ("SELECT 1", " UNION SELECT 1"),
            ("SELECT * FROM a", " NATURAL JOIN b"),
            ("SELECT * FROM ", "("),
            ("SELECT ", "CASE WHEN "),
            ("SELECT ", "f("),
            ("SELECT a", ".b"),
            ("", "WITH x AS ("),
        ] {
            let sql = format!("{head}{}", link.repeat((SQL_BYTES_MAX - head.len()) / link.len()));
            let _ = reads(&sql);
        }
    }

    #[test]
    fn what_the_worker_could_not_plan_on_its_stack_is_refused() {
        for (head, link) in [("SELECT 1", "+1"), ("SELECT a", "::int"), ("SELECT 1", " UNION SELECT 1")] {
            assert!(reads(&format!("{head}{}", link.repeat(900))).is_ok(), "{link}");
            assert_eq!(reads(&format!("{head}{}", link.repeat(1100))), Err(vec![super::TOO_DEEP.to_owned()]), "{link}");
        }
        assert!(reads(&format!("SELECT 1 WHERE 1 IN (1{})", ", 1".repeat(20_000))).is_ok());
    }
}
