//! What in a SELECT needs all rows of a table, and is wrong over a part of them: aggregates, DISTINCT, window functions,
//! LIMIT, set operations, and joins in which a row that is missing changes the others.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use sqlparser::ast::{
    Expr, GroupByExpr, Join, JoinOperator, ObjectName, Query, Select, SetExpr, TableFactor, TableWithJoins, Visit,
    Visitor,
};

use super::{STACK_BYTES, normal, select};

/// The aggregate functions of DataFusion, with their other names.
const AGGREGATES: [&str; 43] = [
    "any_value",
    "approx_distinct",
    "approx_median",
    "approx_percentile_cont",
    "approx_percentile_cont_with_weight",
    "array_agg",
    "avg",
    "bit_and",
    "bit_or",
    "bit_xor",
    "bool_and",
    "bool_or",
    "corr",
    "count",
    "covar",
    "covar_pop",
    "covar_samp",
    "first_value",
    "grouping",
    "last_value",
    "max",
    "mean",
    "median",
    "min",
    "nth_value",
    "percentile_cont",
    "quantile_cont",
    "regr_avgx",
    "regr_avgy",
    "regr_count",
    "regr_intercept",
    "regr_r2",
    "regr_slope",
    "regr_sxx",
    "regr_sxy",
    "regr_syy",
    "stddev",
    "stddev_pop",
    "stddev_samp",
    "string_agg",
    "sum",
    "var",
    "var_pop",
];
const MORE_AGGREGATES: [&str; 3] = ["var_population", "var_samp", "var_sample"];

/// What in this SELECT needs all rows of one of the tables in `partial`, in words; nothing if its rows can be made of
/// new rows one by one. An SQL text that is not one SELECT gives nothing: [`super::reads`] says what is wrong with it.
pub(crate) fn needs_all_rows(sql: &str, partial: &BTreeSet<String>) -> Vec<String> {
    stacker::grow(STACK_BYTES, || {
        let Ok(query) = select(sql) else { return Vec::new() };
        let mut needs = Needs { partial, frames: Vec::new(), expressions: 0, found: BTreeSet::new() };
        let _ = query.visit(&mut needs);
        needs.found.into_iter().collect()
    })
}

/// Walks a query from the inside out: what a query needs counts only if it, or a query in it, reads partial rows.
struct Needs<'a> {
    partial: &'a BTreeSet<String>,
    frames: Vec<Frame>,
    /// Expressions around the present place.
    expressions: usize,
    found: BTreeSet<String>,
}

/// A query on the way.
#[derive(Default)]
struct Frame {
    /// Partial tables that are named in it.
    reads: usize,
    /// What it needs all rows for.
    needs: BTreeSet<String>,
    /// Its common table expressions, and whether each is partial.
    names: BTreeMap<String, bool>,
    /// Their bodies, by address.
    bodies: Vec<(*const Query, String)>,
    /// Expressions around it.
    expressions: usize,
}

impl Visitor for Needs<'_> {
    type Break = ();

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        let mut frame = Frame { expressions: self.expressions, ..Frame::default() };
        if let Some(with) = &query.with {
            frame.bodies = with.cte_tables.iter().map(|cte| (&raw const *cte.query, normal(&cte.alias.name))).collect();
        }
        if query.limit_clause.is_some() || query.fetch.is_some() {
            frame.needs.insert("LIMIT and OFFSET choose among all rows, not".into());
        }
        if let SetExpr::SetOperation { op, .. } = &*query.body {
            frame.needs.insert(format!("{op} puts all rows of both sides together, not"));
        }
        self.frames.push(frame);
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        let Some(frame) = self.frames.pop() else { return ControlFlow::Continue(()) };
        if frame.reads > 0 {
            self.found.extend(frame.needs);
        }
        if frame.reads > 1 {
            self.found.insert("a join of new rows with new rows misses older rows when it runs".into());
        }
        let Some(parent) = self.frames.last_mut() else { return ControlFlow::Continue(()) };
        match parent.bodies.iter().find(|(body, _)| std::ptr::eq(*body, query)) {
            // It is read where its name stands.
            Some((_, name)) => {
                parent.names.insert(name.clone(), frame.reads > 0);
            }
            None => {
                parent.reads += frame.reads;
                if frame.reads > 0 && frame.expressions > parent.expressions {
                    self.found.insert("a subquery in an expression sees too few rows when it runs".into());
                }
            }
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_select(&mut self, select: &Select) -> ControlFlow<()> {
        let joins = select.from.iter().any(|from| self.fills_in(from));
        let Some(frame) = self.frames.last_mut() else { return ControlFlow::Continue(()) };
        if joins {
            frame.needs.insert(
                "an outer join fills in NULL, and an anti join keeps a row, for older rows when it runs".into(),
            );
        }
        if select.distinct.is_some() {
            frame.needs.insert("DISTINCT compares all rows, not".into());
        }
        if select.top.is_some() {
            frame.needs.insert("LIMIT and OFFSET choose among all rows, not".into());
        }
        let groups = match &select.group_by {
            GroupByExpr::All(_) => true,
            GroupByExpr::Expressions(by, modifiers) => !by.is_empty() || !modifiers.is_empty(),
        };
        if groups || select.having.is_some() {
            frame.needs.insert("GROUP BY is about all rows, not".into());
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expression: &Expr) -> ControlFlow<()> {
        self.expressions += 1;
        if let (Expr::Function(function), Some(frame)) = (expression, self.frames.last_mut()) {
            let name = function.name.0.last().and_then(|part| part.as_ident()).map(normal).unwrap_or_default();
            if function.over.is_some() {
                frame.needs.insert(format!("{name}() OVER (…) is about all rows, not"));
            } else if AGGREGATES.contains(&name.as_str()) || MORE_AGGREGATES.contains(&name.as_str()) {
                frame.needs.insert(format!("{name}() is about all rows, not"));
            }
        }
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, _: &Expr) -> ControlFlow<()> {
        self.expressions -= 1;
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<()> {
        if let TableFactor::Table { name, args: None, .. } = factor
            && self.is_partial(name)
            && let Some(frame) = self.frames.last_mut()
        {
            frame.reads += 1;
        }
        ControlFlow::Continue(())
    }
}

impl Needs<'_> {
    /// Whether a name means partial rows here.
    fn is_partial(&self, name: &ObjectName) -> bool {
        let Some([name]) = name
            .0
            .iter()
            .map(|part| part.as_ident())
            .collect::<Option<Vec<_>>>()
            .as_deref()
            .map(<[_; 1]>::try_from)
            .and_then(Result::ok)
        else {
            return false;
        };
        let name = normal(name);
        let own = self.frames.iter().rev().find_map(|frame| frame.names.get(&name));
        own.copied().unwrap_or_else(|| self.partial.contains(&name))
    }

    /// Whether a join gives other rows when rows on its partial side are missing.
    fn fills_in(&self, from: &TableWithJoins) -> bool {
        let mut left = self.has_partial(&from.relation);
        from.joins.iter().any(|Join { relation, join_operator, .. }| {
            let right = self.has_partial(relation);
            let fills = match join_operator {
                JoinOperator::Join(_)
                | JoinOperator::Inner(_)
                | JoinOperator::CrossJoin(_)
                | JoinOperator::StraightJoin(_)
                | JoinOperator::CrossApply
                | JoinOperator::ArrayJoin
                | JoinOperator::InnerArrayJoin
                | JoinOperator::LeftArrayJoin => false,
                JoinOperator::Left(_)
                | JoinOperator::LeftOuter(_)
                | JoinOperator::OuterApply
                | JoinOperator::AsOf { .. }
                | JoinOperator::Semi(_)
                | JoinOperator::LeftSemi(_)
                | JoinOperator::Anti(_)
                | JoinOperator::LeftAnti(_) => right,
                JoinOperator::Right(_)
                | JoinOperator::RightOuter(_)
                | JoinOperator::RightSemi(_)
                | JoinOperator::RightAnti(_) => left,
                JoinOperator::FullOuter(_) => left || right,
            };
            left |= right;
            fills
        })
    }

    /// Whether a part of FROM names partial rows.
    fn has_partial(&self, factor: &TableFactor) -> bool {
        struct Names<'a, 'b>(&'a Needs<'b>);
        impl Visitor for Names<'_, '_> {
            type Break = ();
            fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<()> {
                match factor {
                    TableFactor::Table { name, args: None, .. } if self.0.is_partial(name) => ControlFlow::Break(()),
                    _ => ControlFlow::Continue(()),
                }
            }
        }
        factor.visit(&mut Names(self)).is_break()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::needs_all_rows;

    #[test]
    fn what_can_be_made_row_by_row_needs_nothing() {
        let partial = BTreeSet::from(["new".to_owned()]);
        for sql in [
            "SELECT * FROM new",
            "SELECT upper(a), coalesce(b, 0) FROM new WHERE c > 1 ORDER BY a",
            "SELECT * FROM new JOIN old USING (k)",
            "SELECT * FROM new LEFT JOIN old USING (k)",
            "SELECT * FROM old RIGHT JOIN new USING (k)",
            "WITH x AS (SELECT * FROM new) SELECT * FROM x JOIN old USING (k)",
            "SELECT * FROM new JOIN (SELECT k, max(v) AS v FROM old GROUP BY k) AS o USING (k)",
            "SELECT *, (SELECT max(v) FROM old) AS top FROM new",
            "SELECT * FROM new WHERE k IN (SELECT DISTINCT k FROM old)",
            "WITH new AS (SELECT * FROM old) SELECT count(*) FROM new",
            "SELECT count(*) FROM old",
        ] {
            assert_eq!(needs_all_rows(sql, &partial), Vec::<String>::new(), "{sql}");
        }
    }

    #[test]
    fn what_is_about_all_rows_is_named() {
        let partial = BTreeSet::from(["new".to_owned(), "other".to_owned()]);
        for (sql, want) in [
            ("SELECT sum(a) FROM new", "sum() is"),
            ("SELECT Count(*) FILTER (WHERE a > 1) FROM NEW", "count() is"),
            ("SELECT a FROM new GROUP BY a", "GROUP BY is"),
            ("SELECT DISTINCT a FROM new", "DISTINCT compares"),
            ("SELECT DISTINCT ON (a) a, b FROM new", "DISTINCT compares"),
            ("SELECT row_number() OVER (ORDER BY a) FROM new", "row_number() OVER"),
            ("SELECT * FROM new LIMIT 5", "LIMIT"),
            ("SELECT * FROM new OFFSET 5", "LIMIT"),
            ("SELECT * FROM new FETCH FIRST 5 ROWS ONLY", "LIMIT"),
            ("SELECT * FROM new UNION ALL SELECT * FROM old", "UNION puts"),
            ("SELECT * FROM old EXCEPT SELECT * FROM new", "EXCEPT puts"),
            ("SELECT * FROM new AS a JOIN new AS b USING (k)", "a join of new rows"),
            ("SELECT * FROM new JOIN other USING (k)", "a join of new rows"),
            ("WITH x AS (SELECT * FROM new) SELECT * FROM x AS a JOIN x AS b USING (k)", "a join of new rows"),
            ("WITH x AS (SELECT max(a) AS a FROM new) SELECT * FROM x", "max() is"),
            ("SELECT * FROM (SELECT a FROM new) AS s LIMIT 1", "LIMIT"),
            ("SELECT * FROM old LEFT JOIN new USING (k)", "an outer join"),
            ("SELECT * FROM new RIGHT JOIN old USING (k)", "an outer join"),
            ("SELECT * FROM new FULL JOIN old USING (k)", "an outer join"),
            ("SELECT * FROM old LEFT JOIN (SELECT * FROM new) AS s USING (k)", "an outer join"),
            ("SELECT * FROM old WHERE NOT EXISTS (SELECT 1 FROM new WHERE new.k = old.k)", "a subquery"),
            ("SELECT * FROM old WHERE k IN (SELECT k FROM new)", "a subquery"),
        ] {
            let found = needs_all_rows(sql, &partial);
            assert!(found.iter().any(|need| need.starts_with(want)), "{sql}: {found:?}");
        }
    }
}
