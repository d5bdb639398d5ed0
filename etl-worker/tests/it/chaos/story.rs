//! One round: the runs of a pipeline, disturbed as planned, beside readers; then what is left, compared with a twin's.

use std::collections::BTreeSet;
use std::fs::File;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use report_api::result::State;

use super::disk::Disk;
use super::left;
use super::plan::{Action, Attempt, How, Place, PlannedSink, Round, Step, When};
use super::proxy::Fault;
use super::readers::{Look, Reader, Table};
use super::rows::{COLUMNS, Commits, commits_in, csv, rows};
use super::services::Services;
use crate::databases::Database;
use crate::harness::{Ended, World};

/// A worker that is left alone ends within this, also where other tests have the CPUs.
const WORKER_MAX: Duration = Duration::from_secs(120);
/// One that meets something and takes longer is killed: it waits for a lock, or for an answer that never comes.
const DISTURBED_MAX: Duration = Duration::from_secs(45);
/// What stalls, refuses or slows does so as long at most.
const FAULT_MAX: Duration = Duration::from_millis(1500);
/// The successor of one that stands still in a transaction waits for its locks; then it is killed.
const SUCCESSOR_MAX: Duration = Duration::from_secs(45);
const POLL: Duration = Duration::from_millis(5);
/// What is told of a worker's output, in bytes from its end.
const OUTPUT_TOLD: usize = 6000;

/// What happened, and what was wrong.
pub(super) struct Story {
    pub(super) lines: Vec<String>,
    pub(super) wrong: Vec<String>,
    pub(super) disturbances: u64,
    /// States of tables that readers saw.
    pub(super) states: u64,
    started: Instant,
}

impl Story {
    fn tell(&mut self, words: impl AsRef<str>) {
        self.lines.push(format!("{:7.3} s  {}", self.started.elapsed().as_secs_f64(), words.as_ref()));
    }

    fn wrong(&mut self, words: impl Into<String>) {
        let words = words.into();
        self.tell(format!("WRONG: {words}"));
        self.wrong.push(words);
    }
}

/// A worker under way.
struct Worker {
    child: Child,
    label: String,
    result: PathBuf,
    output: PathBuf,
    scratch: PathBuf,
}

/// A pipeline in a world of its own, disturbed or not.
struct Pipeline<'a> {
    world: World,
    sinks: &'a [PlannedSink],
    disk: Disk,
    manifest: PathBuf,
    workers: u32,
}

impl<'a> Pipeline<'a> {
    async fn new(sinks: &'a [PlannedSink], services: &Services, disturbed: bool) -> Self {
        let mut world = World::on(services.settings.clone()).await;
        if disturbed {
            for (name, value) in services.by_proxy() {
                world.set(&name, &value);
            }
        }
        let disk = Disk::new(world.folder.path().join("disk"), disturbed);
        let texts: String = sinks
            .iter()
            .map(|PlannedSink { name, place, mode }| {
                let target = match place {
                    Place::Postgres => Database::Postgres.sink(name),
                    Place::Mysql => Database::Mysql.sink(name),
                    Place::Sqlite => format!("sqlite: {{path: '{{folder}}/disk/r.db', table: {name}}}"),
                    Place::S3 => format!("lake: {{url: '{{lake}}/{name}', partitionBy: [part]}}"),
                    Place::Folder => format!("lake: {{url: 'file://{{folder}}/disk/{name}', partitionBy: [part]}}"),
                };
                let mode = match place {
                    Place::Postgres | Place::Mysql => mode.text().to_owned(),
                    Place::Sqlite => mode.text().replace("by: swap", ""),
                    Place::S3 | Place::Folder => mode.text().replace("by: swap", "").replace(", primaryKey: [id]", ""),
                };
                format!("  - {{name: {name}, from: rows, {target}, mode: {mode}}}\n")
            })
            .collect();
        let spec =
            format!("sources:\n  - {{name: rows, file: {{path: rows.csv}}, columns: {COLUMNS}}}\nsinks:\n{texts}");
        let manifest = world.manifest("p", &spec);
        if sinks.iter().any(|sink| sink.place == Place::Mysql) {
            // Readers look from the start.
            Database::Mysql.sql(&world, "DO 0").await;
        }
        Self { world, sinks, disk, manifest, workers: 0 }
    }

    fn table(&self, sink: &PlannedSink) -> Table {
        Table::new(sink, &self.world, self.disk.path.clone())
    }

    /// Puts a version of the source in the place of what is there, at once.
    fn write(&self, step: &Step, version: u32) {
        let new = self.world.file("rows.csv.new", csv(&rows(step.number, step.day, version)));
        std::fs::rename(new, self.world.folder.path().join("rows.csv")).unwrap();
    }

    /// Starts a worker of a step's run.
    fn start(&mut self, step: &Step, days: u32, run: &str, label: &str, stop_at: Option<&str>) -> Worker {
        self.workers += 1;
        let at = |day: u32| format!("2026-01-{day:02}T00:00:00Z");
        let (start, end) = (at(step.day), at(step.day + 1));
        let scratch = self.disk.scratch().join(self.workers.to_string());
        let mut variables = vec![("REPORT_RUN_ID", run), ("REPORT_INTERVAL_END", &end), ("RUST_BACKTRACE", "1")];
        variables.push(("REPORT_SCRATCH", scratch.to_str().unwrap()));
        if step.day < days {
            variables.push(("REPORT_INTERVAL_START", &start));
        }
        variables.extend(stop_at.map(|point| ("REPORT_STOP_AT", point)));
        let (output, result) = (format!("output-{}", self.workers), format!("result-{}.json", self.workers));
        let (output, result) = (self.world.folder.path().join(output), self.world.folder.path().join(result));
        let mut command = self.world.command(&["run", self.manifest.to_str().unwrap()], &variables);
        let file = File::create(&output).unwrap();
        command.env("REPORT_RESULT", &result).stdout(Stdio::from(file.try_clone().unwrap())).stderr(Stdio::from(file));
        Worker { child: command.spawn().unwrap(), label: label.to_owned(), result, output, scratch }
    }

    /// Lets the lock of a run that was given up expire, as if a minute had passed.
    async fn expire_lock(&self) {
        let is = |place: Place| self.sinks.iter().any(|sink| sink.place == place);
        // Runs that died early have left no ledger.
        let there = "SELECT count(*) FROM information_schema.tables WHERE table_schema = 'report_operator' AND table_name = 'ledger'";
        for (place, database) in [(Place::Postgres, Database::Postgres), (Place::Mysql, Database::Mysql)] {
            if is(place) && database.rows(&self.world, there).await == ["1"] {
                database.expire_locks(&self.world).await;
            }
        }
        if is(Place::Sqlite) {
            left::expire_lock_in_sqlite(&self.disk.path.join("r.db")).await;
        } else if !is(Place::Postgres) && !is(Place::Mysql) {
            left::expire_lock_in_lake(&self.world, &self.sinks[0], &self.disk.path).await;
        }
    }
}

impl Worker {
    fn signal(&self, name: &str) {
        let _ = Command::new("kill").args([name, &self.child.id().to_string()]).stderr(Stdio::null()).status();
    }

    /// Whether it is still there after this time, or once it stands still.
    async fn goes_on(&mut self, time: Duration, until_stopped: bool) -> bool {
        let end = Instant::now() + time;
        loop {
            if self.child.try_wait().unwrap().is_some() {
                return false;
            }
            let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap_or_default();
            let is_stopped = stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('T'));
            if Instant::now() >= end || until_stopped && is_stopped {
                return true;
            }
            if is_stopped {
                // Several sinks have the same point.
                self.signal("-CONT");
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Its end, at most after this time.
    async fn end(mut self, time: Duration, story: &mut Story) -> Ended {
        if self.goes_on(time, false).await {
            story.tell(format!("{}: not at its end after {time:?}: killed", self.label));
            self.signal("-KILL");
        }
        let status = self.child.wait().unwrap();
        let (output, scratch) = (std::fs::read(&self.output).unwrap(), self.scratch);
        let ended = Ended::read(&Output { status, stdout: output, stderr: Vec::new() }, &self.result);
        Disk::clear_scratch(&scratch);
        let from = ended.output.char_indices().rev().take(OUTPUT_TOLD).last().map_or(0, |(at, _)| at);
        let result = ended.result.as_ref().map_or("no result".into(), |result| match &result.error {
            Some(error) => format!("{:?} {}", result.state, error.code),
            None => format!("{:?}", result.state),
        });
        let signal = status.signal().map(|signal| format!(" by signal {signal}")).unwrap_or_default();
        story.tell(format!(
            "{}: ended, {:?}{signal}, {result}; its output:\n{}",
            self.label,
            ended.code,
            &ended.output[from..]
        ));
        ended
    }
}

/// Plays a round.
pub(super) async fn play(round: &Round, services: &Services) -> Story {
    let mut story = Story { lines: Vec::new(), wrong: Vec::new(), disturbances: 0, states: 0, started: Instant::now() };
    story.tell(round.to_string());
    let mut pipeline = Pipeline::new(&round.sinks, services, true).await;
    let readers: Vec<_> = round.sinks.iter().map(|sink| Reader::start(pipeline.table(sink))).collect();
    let mut days = 0;
    for step in &round.steps {
        days = days.max(step.day);
        run(step, days, &mut pipeline, services, &mut story).await;
        for reader in &readers {
            reader.wrong().into_iter().for_each(|words| story.wrong(format!("a reader saw: {words}")));
        }
        if !story.wrong.is_empty() {
            break;
        }
    }
    for reader in readers {
        let seen = reader.stop().await;
        story.states += seen.states;
        if story.wrong.is_empty() {
            seen.wrong.into_iter().for_each(|words| story.wrong(format!("a reader saw: {words}")));
        }
    }
    if story.wrong.is_empty() {
        compare(round, &pipeline, services, &mut story).await;
    }
    story
}

/// A step's run: the disturbed attempts, then one that is left alone.
async fn run(step: &Step, days: u32, pipeline: &mut Pipeline<'_>, services: &Services, story: &mut Story) {
    let mut is_done = false;
    for attempt in &step.attempts {
        if is_done && !attempt.also_when_done {
            continue;
        }
        story.tell(format!("step {}, day {}: {attempt:?}", step.number, step.day));
        story.disturbances += 1;
        is_done |= disturbed(step, days, attempt, pipeline, services, story).await;
        if is_done {
            look(step, pipeline, story).await;
        }
        if !story.wrong.is_empty() {
            return;
        }
    }
    match step.clean {
        None => {
            story.tell(format!("step {}: given up", step.number));
            pipeline.expire_lock().await;
        }
        Some(version) => {
            pipeline.write(step, version);
            let label = format!("step {}, clean attempt of version {version}", step.number);
            let worker = pipeline.start(step, days, &format!("run-{}", step.number), &label, None);
            let ended = worker.end(WORKER_MAX, story).await;
            judge(&ended, &label, &[0], story);
            look(step, pipeline, story).await;
        }
    }
}

/// A worker that meets something. Gives whether one said that the step is done.
async fn disturbed(
    step: &Step,
    days: u32,
    attempt: &Attempt,
    pipeline: &mut Pipeline<'_>,
    services: &Services,
    story: &mut Story,
) -> bool {
    let run = format!("run-{}", step.number);
    let label = format!("step {}, attempt of version {}", step.number, attempt.version);
    pipeline.write(step, attempt.version);
    let stop_at = match &attempt.when {
        When::Point(point) => Some(point.as_str()),
        When::Start | When::AfterMs(_) => None,
    };
    let mut allowed = vec![0, 20, 143];
    if let (When::Start, Action::Fault(service, fault)) = (&attempt.when, &attempt.action) {
        services.proxy(*service).arm(*fault);
    }
    let mut worker = pipeline.start(step, days, &run, &label, stop_at);
    let is_there = match &attempt.when {
        When::Start => true,
        When::AfterMs(ms) => worker.goes_on(Duration::from_millis(*ms), false).await,
        When::Point(_) => worker.goes_on(WORKER_MAX, true).await,
    };
    story.tell(if is_there { "now" } else { "the worker has ended before" });
    let mut is_done = false;
    match &attempt.action {
        Action::Kill => worker.signal("-KILL"),
        Action::Terminate => worker.signal("-TERM"),
        Action::Fault(service, fault) => {
            if !matches!(attempt.when, When::Start) {
                services.proxy(*service).arm(*fault);
            }
            worker.signal("-CONT");
            if matches!(fault, Fault::Stall { .. } | Fault::Refuse | Fault::Slow { .. })
                && worker.goes_on(FAULT_MAX, false).await
            {
                services.heal();
            }
        }
        Action::Restart { service, crash } => {
            tokio::task::block_in_place(|| services.restart(*service, *crash));
            story.tell("it is back");
        }
        Action::FillDisk { left_kib } => {
            allowed.push(14);
            if !pipeline.disk.fill(*left_kib) {
                story.tell("the disk can't be full here");
            }
        }
        Action::Successor { how, version } => {
            let stop_at = if let How::Until(point) = how { Some(point.as_str()) } else { None };
            if !matches!(how, How::Beside) {
                worker.signal("-STOP");
            }
            pipeline.write(step, *version);
            let label = format!("step {}, successor of version {version}", step.number);
            let mut successor = pipeline.start(step, days, &run, &label, stop_at);
            if stop_at.is_some() {
                successor.goes_on(SUCCESSOR_MAX, true).await;
            }
            if !matches!(how, How::Alone) {
                worker.signal("-CONT");
            }
            if stop_at.is_some() {
                story.tell("the successor stands still, the worker goes on");
                worker.goes_on(DISTURBED_MAX, false).await;
                successor.signal("-CONT");
            }
            let ended = successor.end(SUCCESSOR_MAX, story).await;
            judge(&ended, &label, &[0, 20], story);
            is_done |= ended.code == Some(0);
        }
        Action::Other if is_there && stop_at.is_some() => {
            let label = format!("step {}, another run", step.number);
            let other = pipeline.start(step, days, "run-other", &label, None);
            let ended = other.end(WORKER_MAX, story).await;
            judge(&ended, &label, &[21], story);
        }
        Action::Other => {}
    }
    worker.signal("-CONT");
    let ended = worker.end(DISTURBED_MAX, story).await;
    services.heal();
    pipeline.disk.free();
    judge(&ended, &label, &allowed, story);
    is_done | (ended.code == Some(0))
}

/// Whether a worker ended as one may.
fn judge(ended: &Ended, label: &str, allowed: &[i32], story: &mut Story) {
    let code = ended.result.as_ref().and_then(|result| result.error.as_ref()).map(|error| error.code.as_str());
    if ended.output.contains("panicked at") {
        story.wrong(format!("{label}: a panic"));
    } else if code == Some("internal") {
        story.wrong(format!("{label}: an error that is a bug"));
    } else if ended.code.is_some_and(|code| !allowed.contains(&code)) || allowed == [0] && ended.code != Some(0) {
        story.wrong(format!("{label}: it ended with {:?}, not one of {allowed:?}", ended.code));
    } else if ended.code == Some(0) && ended.result.as_ref().is_none_or(|result| result.state != State::Succeeded) {
        story.wrong(format!("{label}: it ended well and says no success"));
    }
}

/// A step that is said to be done is there, in all tables alike.
async fn look(step: &Step, pipeline: &Pipeline<'_>, story: &mut Story) {
    let mut versions = BTreeSet::new();
    for sink in pipeline.sinks {
        match commits(sink, pipeline).await {
            Err(words) => story.wrong(format!("{} after step {}: {words}", sink.name, step.number)),
            Ok(commits) => match commits.last_key_value() {
                Some((last, (_, version))) if *last == step.number => {
                    versions.insert(*version);
                }
                _ => story.wrong(format!("{} has no rows of step {}: {commits:?}", sink.name, step.number)),
            },
        }
    }
    if versions.len() > 1 {
        story.wrong(format!("tables have the versions {versions:?} of step {}", step.number));
    }
}

async fn commits(sink: &PlannedSink, pipeline: &Pipeline<'_>) -> Result<Commits, String> {
    match pipeline.table(sink).look().await {
        Look::Rows(found) => commits_in(sink.mode, &found),
        Look::Missing => Err("the table is missing".into()),
        Look::Away => Err("the server is away".into()),
        Look::Wrong(words) => Err(words),
    }
}

/// Runs the twin: the runs that were committed, with what they read, and nothing else.
async fn compare(round: &Round, pipeline: &Pipeline<'_>, services: &Services, story: &mut Story) {
    let telling = round.sinks.iter().find(|sink| sink.mode.tells_all()).expect("each round has one");
    let told = match commits(telling, pipeline).await {
        Ok(told) => told,
        Err(words) => return story.wrong(format!("{}: {words}", telling.name)),
    };
    let mut twin = Pipeline::new(&round.sinks, services, false).await;
    let mut days = 0;
    for step in &round.steps {
        days = days.max(step.day);
        if let Some((_, version)) = told.get(&step.number) {
            twin.write(step, *version);
            let label = format!("twin, step {}, version {version}", step.number);
            let worker = twin.start(step, days, &format!("run-{}", step.number), &label, None);
            let ended = worker.end(WORKER_MAX, story).await;
            judge(&ended, &label, &[0], story);
        }
    }
    for sink in &round.sinks {
        let (found, want) = (commits(sink, pipeline).await, commits(sink, &twin).await);
        if found != want {
            story.wrong(format!("{}: {found:?}, the twin's {want:?}", sink.name));
        }
    }
    let [found, want] = [everything(pipeline).await, everything(&twin).await];
    let differs = |from: &[String], other: &[String], what: &str| {
        let lines = from.iter().filter(|line| !other.contains(line));
        lines.map(|line| format!("{what}: {line}")).collect::<Vec<_>>()
    };
    for words in [differs(&found, &want, "it has"), differs(&want, &found, "the twin has")].concat() {
        story.wrong(words);
    }
}

/// What a pipeline has left, without its world's name and folder.
async fn everything(pipeline: &Pipeline<'_>) -> Vec<String> {
    let world = &pipeline.world;
    let mut all = left::left(world, pipeline.sinks, &pipeline.disk.path).await;
    let ledger = left::comparable(left::ledger(world, pipeline.sinks, &pipeline.disk.path).await);
    for (field, value) in ledger.as_object().unwrap() {
        all.push(format!("ledger|{field}|{value}"));
    }
    let folder = world.folder.path().to_str().unwrap();
    all.into_iter()
        .map(|line| {
            line.replace(folder, "FOLDER").replace(&world.name, "WORLD").replace(&world.name.replace('_', "-"), "WORLD")
        })
        .collect()
}
