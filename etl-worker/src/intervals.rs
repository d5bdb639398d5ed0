//! Which time a run is for: intervals that follow one another from what is committed, whatever ticks were missed.
//!
//! Pure: from the request, the manifest and the ledger. A run begins where the last committed interval ends and goes up
//! to its tick, or up to the time that was asked for; with `maxInterval` in steps that are committed one by one.

use jiff::{SignedDuration, Timestamp};
use report_api::checked::{Checked, SinkMode};
use report_api::interval::Interval;

use crate::error::{Code, Result, RunError};
use crate::ledger::State;
use crate::run::{Request, Wanted};

/// What is left to do.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Planned {
    /// Nothing, and why.
    Nothing(String),
    /// These, one after another.
    Steps(Steps),
}

/// Intervals that follow one another without a gap.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Steps {
    start: Timestamp,
    end: Timestamp,
    longest: Option<SignedDuration>,
}

impl Steps {
    /// All of them as one.
    pub fn whole(&self) -> Interval {
        Interval { start: self.start, end: self.end }
    }
}

impl Iterator for Steps {
    type Item = Interval;

    fn next(&mut self) -> Option<Interval> {
        if self.start >= self.end {
            return None;
        }
        let longest = self.longest.and_then(|longest| self.start.checked_add(longest).ok());
        let interval = Interval { start: self.start, end: longest.map_or(self.end, |end| end.min(self.end)) };
        self.start = interval.end;
        Some(interval)
    }
}

/// Decides the intervals of a run. `sinks_until` is how far every sink says that it got: it counts where the ledger is
/// new, was lost or has moved.
pub fn plan(request: &Request, checked: &Checked, state: &State, sinks_until: Option<Timestamp>) -> Result<Planned> {
    let done = state.last.as_ref().filter(|last| last.run_id == request.run_id).map(|last| last.interval);
    if done.is_some_and(|done| done.end >= request.wanted.end()) {
        return Ok(Planned::Nothing("this run has committed already".into()));
    }
    let until = state.committed_until().or(sinks_until);
    let span = match request.wanted {
        Wanted::Exactly(interval) => rest_of(interval, done),
        Wanted::Tick(end) | Wanted::Until(end) => Interval { start: start(request, checked, state, until, end), end },
    };
    if span.end <= span.start {
        return Ok(Planned::Nothing(format!("everything up to {} is committed already", span.start)));
    }
    let appends = checked.sinks.iter().any(|sink| sink.mode == SinkMode::Append);
    if appends && !request.full_refresh {
        if state.covers(&span) {
            let why = format!("the interval {span} is committed already, and append adds an interval once");
            return Ok(Planned::Nothing(why));
        }
        if let Some(overlap) = state.overlap(&span) {
            return Err(RunError::at(
                Code::IntervalOverlaps,
                "spec.sinks",
                format!(
                    "{span} overlaps {overlap}, which is committed, and a sink appends; ask for the part that is missing, \
                     or for a full refresh"
                ),
            ));
        }
    }
    // A full refresh takes the place of all rows, so that it can't come in parts.
    let longest = checked.max_interval_seconds.filter(|_| !request.full_refresh);
    let longest = longest.map(|seconds| SignedDuration::from_secs(i64::try_from(seconds).unwrap_or(i64::MAX)));
    Ok(Planned::Steps(Steps { start: span.start, end: span.end, longest }))
}

/// The part of a run's own interval that an earlier attempt of it has not committed.
fn rest_of(interval: Interval, done: Option<Interval>) -> Interval {
    match done.filter(|done| done.start >= interval.start) {
        Some(done) => Interval { start: done.end, ..interval },
        None => interval,
    }
}

/// Where a run begins that goes up to `end`.
fn start(request: &Request, checked: &Checked, state: &State, until: Option<Timestamp>, end: Timestamp) -> Timestamp {
    let previous_tick = || {
        let schedule = checked.schedule.as_ref()?;
        schedule.latest_at_or_before(end - SignedDuration::from_micros(1))
    };
    let first = || checked.initial.or_else(previous_tick).unwrap_or(Timestamp::UNIX_EPOCH);
    match until {
        Some(_) if request.full_refresh => checked.initial.or_else(|| state.committed_from()).unwrap_or_else(first),
        Some(until) => until,
        None => first(),
    }
}

/// The interval that a look at a pipeline is for, outside of a run: from the scheduled time before `now`, else an hour.
pub fn of_a_look(checked: &Checked, now: Timestamp) -> Interval {
    let previous = checked.schedule.as_ref().and_then(|schedule| schedule.latest_at_or_before(now));
    let start = previous.filter(|previous| *previous < now).unwrap_or(now - SignedDuration::from_hours(1));
    Interval { start, end: now }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::Commit;

    fn at(hour: i64) -> Timestamp {
        Timestamp::from_second(hour * 3600).unwrap()
    }

    fn span(start: i64, end: i64) -> Interval {
        Interval { start: at(start), end: at(end) }
    }

    fn checked(more: &str, mode: &str) -> Checked {
        let text = format!(
            "schedule: '0 * * * *'
{more}
sources: [{{name: a, file: {{path: a.csv}}, columns: [{{name: x, type: int64}}]}}]
sinks: [{{name: s, from: a, sqlite: {{path: /tmp/x.db, table: t}}, mode: {mode}}}]"
        );
        report_api::validate::validate("p", &serde_yaml::from_str(&text).unwrap()).unwrap()
    }

    fn request(wanted: Wanted) -> Request {
        Request {
            identity: "ns/p".into(),
            pipeline: "p".into(),
            namespace: Some("ns".into()),
            run_id: "run".into(),
            wanted,
            schedule_epoch: None,
            full_refresh: false,
        }
    }

    fn steps(planned: Planned) -> Vec<Interval> {
        match planned {
            Planned::Steps(steps) => steps.collect(),
            Planned::Nothing(why) => panic!("{why}"),
        }
    }

    const APPEND: &str = "{append: {}}";
    const REPLACE: &str = "{replace: {}}";

    #[test]
    fn intervals_follow_one_another_from_what_is_committed() {
        let tick = request(Wanted::Tick(at(9)));
        for (committed, sinks_until, more, want) in [
            (vec![], None, "", span(8, 9)),
            (vec![], None, "initial: 1970-01-01T02:00:00Z", span(2, 9)),
            (vec![], Some(at(3)), "initial: 1970-01-01T02:00:00Z", span(3, 9)),
            (vec![span(1, 5)], Some(at(3)), "initial: 1970-01-01T00:00:00Z", span(5, 9)),
            (vec![span(1, 2), span(4, 7)], None, "", span(7, 9)),
        ] {
            let state = State { committed, ..State::default() };
            let planned = plan(&tick, &checked(more, APPEND), &state, sinks_until).unwrap();
            assert_eq!(steps(planned), [want], "{state:?} {more}");
        }
    }

    #[test]
    fn a_long_interval_is_taken_in_steps_without_gap_or_overlap() {
        let checked = checked("maxInterval: 2h\ninitial: 1970-01-01T00:00:00Z", APPEND);
        let planned = plan(&request(Wanted::Tick(at(5))), &checked, &State::default(), None).unwrap();
        assert_eq!(steps(planned), [span(0, 2), span(2, 4), span(4, 5)]);
    }

    #[test]
    fn what_is_committed_is_not_run_again() {
        let state = State { committed: vec![span(0, 6)], ..State::default() };
        let checked = checked("", APPEND);
        for wanted in [Wanted::Tick(at(6)), Wanted::Until(at(5)), Wanted::Exactly(span(2, 4))] {
            assert!(matches!(plan(&request(wanted), &checked, &state, None), Ok(Planned::Nothing(_))), "{wanted:?}");
        }
        let error = plan(&request(Wanted::Exactly(span(4, 8))), &checked, &state, None).unwrap_err();
        assert_eq!(error.code, Code::IntervalOverlaps);
    }

    #[test]
    fn what_replaces_may_run_an_interval_again() {
        let state = State { committed: vec![span(0, 6)], ..State::default() };
        let planned = plan(&request(Wanted::Exactly(span(2, 4))), &checked("", REPLACE), &state, None).unwrap();
        assert_eq!(steps(planned), [span(2, 4)]);
    }

    #[test]
    fn another_attempt_goes_on_after_the_steps_that_are_committed() {
        let done = Commit { run_id: "run".into(), interval: span(2, 4), sinks: Vec::new() };
        let state = State { committed: vec![span(0, 4)], last: Some(done), ..State::default() };
        let checked = checked("maxInterval: 2h", APPEND);
        let planned = plan(&request(Wanted::Exactly(span(0, 8))), &checked, &state, None).unwrap();
        assert_eq!(steps(planned), [span(4, 6), span(6, 8)]);
        let planned = plan(&request(Wanted::Exactly(span(0, 4))), &checked, &state, None).unwrap();
        assert_eq!(planned, Planned::Nothing("this run has committed already".into()));
    }

    #[test]
    fn a_full_refresh_covers_all_at_once() {
        let state = State { committed: vec![span(1, 4), span(5, 6)], ..State::default() };
        let request = Request { full_refresh: true, ..request(Wanted::Until(at(9))) };
        let planned = plan(&request, &checked("maxInterval: 2h", APPEND), &state, None).unwrap();
        assert_eq!(steps(planned), [span(1, 9)]);
        let planned = plan(&request, &checked("initial: 1970-01-01T00:00:00Z", APPEND), &state, None).unwrap();
        assert_eq!(steps(planned), [span(0, 9)]);
    }
}
