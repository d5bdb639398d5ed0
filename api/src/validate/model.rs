//! Models: their SQL, what it reads, and an order in which each comes after what it reads.

use std::collections::BTreeSet;

use super::{Problems, Tables};
use crate::checked::CheckedModel;
use crate::model::{Model, SQL_BYTES_MAX};
use crate::sql;

/// The models, each after what it reads, else in the manifest's order.
pub(super) fn check_all(models: &[Model], tables: &Tables, problems: &mut Problems) -> Vec<CheckedModel> {
    let checked: Vec<CheckedModel> = (models.iter().enumerate())
        .map(|(n, model)| {
            let field = format!("spec.models[{n}]");
            problems.description(&field, model.description.as_deref());
            CheckedModel {
                reads: select(&format!("{field}.sql"), &model.sql, tables, problems),
                field,
                name: model.name.clone(),
                description: model.description.clone(),
                sql: model.sql.clone(),
                delta: model.reads == Some(crate::model::Reads::Delta),
            }
        })
        .collect();
    let order = order(&checked, problems);
    order.into_iter().map(|n| checked[n].clone()).collect()
}

/// Checks one SELECT and gives the sources and models that it reads, sorted.
pub(super) fn select(field: &str, text: &str, tables: &Tables, problems: &mut Problems) -> Vec<String> {
    if text.len() > SQL_BYTES_MAX {
        problems.add(
            field,
            format!(
                "{} bytes are too many; the most is {SQL_BYTES_MAX}: write parts of it as models of their own",
                text.len()
            ),
        );
        return Vec::new();
    }
    match sql::reads(text) {
        Ok(reads) => {
            let mut unknown: Vec<_> =
                reads.iter().filter_map(|(name, place)| Some((place, tables.unknown(name)?))).collect();
            unknown.sort();
            for (place, message) in unknown {
                problems.add(field, format!("{place}: {message}"));
            }
            reads.into_keys().collect()
        }
        Err(messages) => {
            messages.into_iter().for_each(|message| problems.add(field, message));
            Vec::new()
        }
    }
}

/// Takes, again and again, the first model that reads no model still to come. Where there is none, models read each
/// other in a circle: it is named, and taken as if it were resolved, so that the next circle is named too.
fn order(models: &[CheckedModel], problems: &mut Problems) -> Vec<usize> {
    let place = |name: &String| models.iter().position(|model| model.name == *name);
    let reads: Vec<Vec<usize>> = models.iter().map(|model| model.reads.iter().filter_map(place).collect()).collect();
    let mut waiting: BTreeSet<usize> = (0..models.len()).collect();
    let mut order = Vec::with_capacity(models.len());
    while let Some(&first) = waiting.first() {
        let ready = waiting.iter().copied().find(|n| !reads[*n].iter().any(|read| waiting.contains(read)));
        let next = ready.unwrap_or_else(|| {
            let circle = circle(first, &reads, &waiting);
            let start = circle.iter().copied().min().expect("a circle has a model");
            let turn = circle.iter().position(|n| *n == start).expect("the smallest is one of them");
            let names: Vec<&str> =
                circle.iter().cycle().skip(turn).take(circle.len() + 1).map(|n| models[*n].name.as_str()).collect();
            let what = if circle.len() == 1 {
                "a model can't read itself"
            } else {
                "models can't read each other in a circle"
            };
            problems.add(format!("{}.sql", models[start].field), format!("{what}: {}", names.join(" → ")));
            circle.iter().for_each(|n| {
                waiting.remove(n);
            });
            start
        });
        waiting.remove(&next);
        order.push(next);
    }
    order
}

/// Follows what is read until a model comes again: each of those waiting reads another one.
fn circle(first: usize, reads: &[Vec<usize>], waiting: &BTreeSet<usize>) -> Vec<usize> {
    let mut path = vec![first];
    loop {
        let last = path[path.len() - 1];
        let next = reads[last]
            .iter()
            .copied()
            .find(|read| waiting.contains(read))
            .expect("a model that waits reads one that waits");
        if let Some(at) = path.iter().position(|n| *n == next) {
            return path.split_off(at);
        }
        path.push(next);
    }
}
