//! What happens in a round: all of it follows from the seed. What does not: how far a worker has come when so many
//! milliseconds are over, and which of two workers is first.

use std::fmt;

use super::proxy::Fault;
use super::rows::Mode;
use super::seed::Numbers;
use super::services::Service;

/// Where a sink writes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Place {
    Postgres,
    Mysql,
    Sqlite,
    /// A lake on S3.
    S3,
    /// A lake in a folder.
    Folder,
}

#[derive(Clone, Debug)]
pub(super) struct PlannedSink {
    pub(super) name: String,
    pub(super) place: Place,
    pub(super) mode: Mode,
}

/// What a worker meets.
#[derive(Clone, Debug)]
pub(super) enum Action {
    /// SIGKILL.
    Kill,
    /// SIGTERM.
    Terminate,
    Fault(Service, Fault),
    /// The server ends, as asked to or by a crash, and comes back.
    Restart {
        service: Service,
        crash: bool,
    },
    /// The disk of SQLite, of the lake in a folder and of the scratch folder has so much left.
    FillDisk {
        left_kib: u64,
    },
    /// Another worker of the same run.
    Successor {
        how: How,
        version: u32,
    },
    /// Another run of the pipeline, which finds it busy.
    Other,
}

/// How two workers of a run go on.
#[derive(Clone, Debug)]
pub(super) enum How {
    /// The second one to its end while the first one stands still: a zombie.
    Alone,
    /// Both at once.
    Beside,
    /// The second one up to this point, the first one to its end, the second one to its end.
    Until(String),
}

/// When a worker meets it.
#[derive(Clone, Debug)]
pub(super) enum When {
    Start,
    Point(String),
    AfterMs(u64),
}

/// One worker and what it meets.
#[derive(Clone, Debug)]
pub(super) struct Attempt {
    /// The version of the source.
    pub(super) version: u32,
    pub(super) when: When,
    pub(super) action: Action,
    /// Whether it comes also when an attempt before it has committed: its answer may have been lost.
    pub(super) also_when_done: bool,
}

/// One run: its attempts, the last of which is left alone.
#[derive(Clone, Debug)]
pub(super) struct Step {
    pub(super) number: u32,
    /// The day that it is for. Earlier than the day before: that interval again.
    pub(super) day: u32,
    pub(super) attempts: Vec<Attempt>,
    /// The version of the source in the attempt that is left alone; None: the run is given up, and the next one follows.
    pub(super) clean: Option<u32>,
}

#[derive(Clone, Debug)]
pub(super) struct Round {
    pub(super) number: u64,
    pub(super) sinks: Vec<PlannedSink>,
    pub(super) steps: Vec<Step>,
}

/// Every mode in every place that has it.
fn all() -> Vec<(Place, Mode)> {
    let mut all = Vec::new();
    for place in [Place::Postgres, Place::Mysql, Place::Sqlite] {
        for mode in [Mode::Swap, Mode::Append, Mode::Merge, Mode::Interval, Mode::Partition] {
            all.push((place, mode));
        }
    }
    all.extend([(Place::Postgres, Mode::Rows), (Place::Mysql, Mode::Rows)]);
    for place in [Place::S3, Place::Folder] {
        all.extend([(place, Mode::Swap), (place, Mode::Append)]);
    }
    all
}

/// The rounds of a seed: all modes in all places are dealt out to them, again and again.
pub(super) fn rounds(seed: u64) -> impl Iterator<Item = Round> {
    let mut deck: Vec<(Place, Mode)> = Vec::new();
    let mut numbers = Numbers::new(seed);
    (0..).map(move |number| {
        let count = 2 + numbers.below(2);
        let mut dealt = Vec::new();
        for _ in 0..count {
            if deck.is_empty() {
                deck = all();
                numbers.shuffle(&mut deck);
            }
            dealt.extend(deck.pop());
        }
        round(number, dealt, &mut Numbers::new(seed ^ super::seed::mix(number)))
    })
}

fn round(number: u64, mut dealt: Vec<(Place, Mode)>, numbers: &mut Numbers) -> Round {
    if !dealt.iter().any(|(_, mode)| mode.tells_all()) {
        // It tells which runs were committed, and adds up wrongly when one is committed twice.
        let place = *numbers.pick(&[Place::Postgres, Place::Mysql, Place::Sqlite, Place::S3, Place::Folder]);
        dealt.insert(numbers.below(dealt.len() as u64 + 1) as usize, (place, Mode::Append));
    }
    let sinks: Vec<_> = (dealt.into_iter().enumerate())
        .map(|(at, (place, mode))| PlannedSink { name: format!("s{at}"), place, mode })
        .collect();
    let can_repeat = sinks.iter().all(|sink| sink.mode != Mode::Append);
    let steps_max = 3 + numbers.below(2) as u32;
    let mut day = 0;
    let steps = (1..=steps_max).map(|number| {
        let again = can_repeat && day > 1 && numbers.percent(40);
        let of = if again {
            1 + numbers.below(u64::from(day) - 1) as u32
        } else {
            day += 1;
            day
        };
        let count = if number == steps_max { 0 } else { 1 + numbers.below(4) as u32 };
        let attempts = (1..=count).map(|version| attempt(version, &sinks, numbers)).collect();
        let gives_up = number < steps_max && numbers.percent(25);
        Step { number, day: of, attempts, clean: (!gives_up).then_some(count + 1) }
    });
    let steps = steps.collect();
    Round { number, sinks, steps }
}

fn attempt(version: u32, sinks: &[PlannedSink], numbers: &mut Numbers) -> Attempt {
    let has = |place: Place| sinks.iter().any(|sink| sink.place == place);
    let mut services: Vec<Service> = Vec::new();
    for (place, service) in
        [(Place::Postgres, Service::Postgres), (Place::Mysql, Service::Mysql), (Place::S3, Service::S3)]
    {
        if has(place) {
            services.push(service);
        }
    }
    let has_disk = has(Place::Sqlite) || has(Place::Folder);
    loop {
        let when = when(sinks, numbers);
        let action = match numbers.below(100) {
            0..15 => Action::Kill,
            15..22 => Action::Terminate,
            22..52 if !services.is_empty() => {
                let service = *numbers.pick(&services);
                Action::Fault(service, fault(service, numbers))
            }
            52..66 if !services.is_empty() => {
                Action::Restart { service: *numbers.pick(&services), crash: numbers.percent(70) }
            }
            66..78 if has_disk || numbers.percent(30) => Action::FillDisk { left_kib: numbers.spread(1, 700) },
            78..96 => {
                let how = match numbers.below(4) {
                    0 => How::Alone,
                    1 => How::Beside,
                    _ => How::Until(point(sinks, numbers)),
                };
                Action::Successor { how, version: 50 + version }
            }
            96..100 => Action::Other,
            _ => continue,
        };
        let mut action = action;
        let mut when = when;
        if let Action::Successor { how: How::Until(until), .. } = &mut action
            && numbers.percent(60)
        {
            // Where only the fence tells who may commit: the one is about to, the other has found nothing committed.
            when = When::Point((*numbers.pick(&["after_prepared", "before_commit_0", "before_commit_1"])).into());
            *until = (*numbers.pick(&["after_complete", "after_complete", "after_fence", "after_lock"])).into();
        }
        // What counts bytes counts them from its start.
        let when = match action {
            Action::Fault(..) if numbers.percent(60) => When::Start,
            _ => when,
        };
        return Attempt { version, when, action, also_when_done: numbers.percent(15) };
    }
}

fn when(sinks: &[PlannedSink], numbers: &mut Numbers) -> When {
    if numbers.percent(45) {
        return When::AfterMs(numbers.spread(10, 500));
    }
    When::Point(point(sinks, numbers))
}

/// A point that a worker with these sinks comes by, or may come by.
fn point(sinks: &[PlannedSink], numbers: &mut Numbers) -> String {
    let mut points: Vec<String> =
        ["after_lock", "after_fence", "after_complete", "after_extract", "in_stage", "after_stage", "before_prepared"]
            .iter()
            .chain(&["after_prepared", "before_ledger", "after_ledger"])
            .map(|point| (*point).to_owned())
            .collect();
    for at in 0..sinks.len() {
        points.extend(["after_stage", "before_commit", "after_commit"].map(|point| format!("{point}_{at}")));
    }
    if sinks.iter().any(|sink| sink.place == Place::Postgres) {
        points.push("in_commit".into());
    }
    if sinks.iter().any(|sink| sink.place == Place::Mysql) {
        points.extend(["before_rename", "after_rename", "before_clear"].map(str::to_owned));
    }
    if sinks.iter().any(|sink| matches!(sink.place, Place::S3 | Place::Folder)) {
        points.push("before_latest".into());
    }
    numbers.pick(&points).clone()
}

fn fault(service: Service, numbers: &mut Numbers) -> Fault {
    let up = numbers.percent(50);
    // The worker sends rows and gets short answers.
    let after_bytes = numbers.spread(50, if up { 100_000 } else { 10_000 });
    if service == Service::S3 && numbers.percent(70) {
        return match numbers.below(3) {
            0 => {
                let status = *numbers.pick(&[500, 503]);
                // Up to six are tried again by the worker itself.
                Fault::Answer { status, first: numbers.below(30), times: *numbers.pick(&[1, 2, 8]) }
            }
            _ => Fault::LoseAnswer { request: numbers.below(30) },
        };
    }
    match numbers.below(10) {
        0..6 => Fault::Cut { up, after_bytes, reset: numbers.percent(60) },
        6..7 => Fault::Stall { up, after_bytes },
        7..8 => Fault::Refuse,
        _ => Fault::Slow { pause_ms: numbers.spread(2, 60) },
    }
}

impl fmt::Display for Round {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sinks: Vec<_> = self.sinks.iter().map(|sink| format!("{:?} {:?}", sink.place, sink.mode)).collect();
        write!(f, "round {}: {}", self.number, sinks.join(", "))
    }
}

#[test]
fn the_same_seed_gives_the_same_rounds_and_all_modes_in_all_places_come_up() {
    let text = |seed: u64| rounds(seed).take(20).map(|round| format!("{round:?}")).collect::<Vec<_>>();
    assert_eq!(text(7), text(7));
    assert_ne!(text(7), text(8));
    let of_default: Vec<_> = rounds(7).take(super::ROUNDS as usize).flat_map(|round| round.sinks).collect();
    for (place, mode) in all() {
        assert!(of_default.iter().any(|sink| (sink.place, sink.mode) == (place, mode)), "{place:?} {mode:?}");
    }
}
