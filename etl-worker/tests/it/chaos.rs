//! Workers, connections, databases, S3 and the disk fail at random points, in every mode and in every place; afterwards
//! all is as undisturbed runs leave it, and readers have seen nothing but whole commits.
//!
//! A round is a pipeline with two or three sinks and three or four runs. Each run but the last has one to three attempts
//! that are killed, cut off, starved or overtaken, over a source that changes between them; then one that is left alone,
//! or none, if the run is given up. Then a twin, which runs undisturbed over what was committed, must have the same tables,
//! ledger and lake, down to their files' sizes.
//!
//! The plan of a round follows from the seed and its number. What does not: how far a worker is after some milliseconds.
//!
//! - `CHAOS_SEED`: the seed; else one from the clock, which is printed, if CHAOS_ROUNDS is set, and otherwise always the same
//! - `CHAOS_ROUNDS`: how many rounds
//! - `CHAOS_ROUND`: this one only, with its whole story

mod disk;
mod left;
mod plan;
mod proxy;
mod readers;
mod rows;
mod seed;
mod services;
mod story;

use std::time::{Duration, Instant};

use self::services::Services;

/// The seed where nobody asks for chaos: a test that fails now and then would tell nobody what they broke.
const SEED: u64 = 1;
/// Rounds unless CHAOS_ROUNDS says otherwise: all modes in all places, in some two minutes on two busy CPUs.
const ROUNDS: u64 = 12;
/// No round is begun after this time unless CHAOS_ROUNDS is given: a busy machine has other tests to run.
const TIME_MAX: Duration = Duration::from_secs(150);

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_fails_the_tables_the_ledger_and_the_lake_are_those_of_clean_runs() {
    let from_clock = || std::time::UNIX_EPOCH.elapsed().unwrap().as_micros() as u64 % 1_000_000;
    let (wanted, only) = (number("CHAOS_ROUNDS"), number("CHAOS_ROUND"));
    let seed = number("CHAOS_SEED").unwrap_or_else(|| if wanted.is_some() { from_clock() } else { SEED });
    let rounds = only.map_or(wanted.unwrap_or(ROUNDS), |only| only + 1);
    println!("chaos: CHAOS_SEED={seed}, {rounds} rounds");
    let services = Services::start().await;
    let started = Instant::now();
    let (mut disturbances, mut states, mut played) = (0, 0, 0);
    let mut failed = Vec::new();
    for round in plan::rounds(seed).take(rounds as usize).skip(only.unwrap_or(0) as usize) {
        if wanted.is_none() && started.elapsed() > TIME_MAX {
            println!("chaos: the machine is busy: {played} of {rounds} rounds were played");
            break;
        }
        let story = story::play(&round, &services).await;
        disturbances += story.disturbances;
        states += story.states;
        played += 1;
        println!(
            "chaos: {round}: {} disturbances{}",
            story.disturbances,
            if story.wrong.is_empty() { "" } else { ": FAILED" }
        );
        if !story.wrong.is_empty() || only.is_some() {
            println!("{}\n{}", "=".repeat(100), story.lines.join("\n"));
        }
        if !story.wrong.is_empty() {
            println!("chaos: repeat it by CHAOS_SEED={seed} CHAOS_ROUND={}", round.number);
            failed.push(format!("CHAOS_SEED={seed} CHAOS_ROUND={}: {}", round.number, story.wrong.join("\n  ")));
        }
    }
    println!(
        "chaos: {played} rounds, {disturbances} disturbances, {states} states seen by readers, {:.0} s",
        started.elapsed().as_secs_f64()
    );
    assert!(failed.is_empty(), "{} rounds failed:\n{}", failed.len(), failed.join("\n"));
    assert!(states >= played, "readers saw {states} states only");
}
