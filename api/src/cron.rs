//! Schedules: five cron fields that mean exactly what Kubernetes' CronJob controller means by them, since the CronJob is
//! the clock and this only reads it.
//!
//! The controller uses github.com/robfig/cron/v3, whose search for the next tick has habits of its own where clocks
//! change (a day without midnight, a shift of half an hour), and [`Schedule::next_after`] finds what it finds.
//! `tests/data/cron_golden.tsv` is made with that very parser and gates it; docs/decisions/0004-schedules.md says why no
//! library does it. Where the controller takes more than a
//! careful reader would (an empty item of a list, `?`, `*-5`), a schedule is refused with what to write instead.

mod fields;

use jiff::civil::DateTime;
use jiff::tz::{Offset, TimeZone, TimeZoneDatabase};
use jiff::{SignedDuration, Timestamp};

use self::fields::STAR;
use crate::problem::{Problem, near};

/// A schedule in a time zone.
#[derive(Clone, Debug, PartialEq)]
pub struct Schedule {
    minute: u64,
    hour: u64,
    day: u64,
    month: u64,
    weekday: u64,
    zone: TimeZone,
}

/// How far the search goes, as in the controller: no tick within five years is no tick.
const SEARCH_YEARS: i16 = 5;
/// The longest search needs some 5 × (12 + 31 + 24 + 60) steps. The controller's never ends where a zone skips a whole
/// day, as Samoa did in 2011; this one gives up.
const SEARCH_STEPS_MAX: usize = 10_000;
/// How far back to look for the last tick: each step only where the one before found none.
const LOOK_BACK_HOURS: [i64; 5] = [1, 24, 32 * 24, 366 * 24, 5 * 365 * 24];

impl Schedule {
    /// Reads `spec.schedule` and `spec.timeZone`. The problems say what to write instead.
    pub fn parse(expression: &str, time_zone: &str) -> Result<Self, Vec<Problem>> {
        let mut problems = Vec::new();
        let mut keep = |field: &str, message: String| problems.push(Problem::new(field, message));
        let zone = self::time_zone(time_zone).map_err(|message| keep("spec.timeZone", message)).ok();
        let fields = fields::parse(expression)
            .map_err(|messages| messages.into_iter().for_each(|m| keep("spec.schedule", m)))
            .ok();
        if let (Some(zone), Some([minute, hour, day, month, weekday])) = (zone, fields) {
            let schedule = Self { minute, hour, day, month, weekday, zone };
            // A leap year within the search, so that 29 February is found.
            if schedule.next_after(Timestamp::constant(1_704_067_200, 0)).is_some() {
                return Ok(schedule);
            }
            keep("spec.schedule", format!("{expression:?} never comes: none of these months has such a day"));
        }
        problems.sort_by_key(|problem| problem.field == "spec.timeZone");
        Err(problems)
    }

    /// The first tick after a time; none where the next five years have none.
    pub fn next_after(&self, t: Timestamp) -> Option<Timestamp> {
        let below = i64::from(t.subsec_nanosecond() < 0);
        let start = Local::at(t.as_second() - below + 1, &self.zone)?;
        let year_max = start.civil.year() + SEARCH_YEARS;
        Search { schedule: self, now: start, added: false }.run(year_max)
    }

    /// The last tick at or before a time; none where the last five years have none.
    pub fn latest_at_or_before(&self, t: Timestamp) -> Option<Timestamp> {
        LOOK_BACK_HOURS.iter().find_map(|hours| {
            let start = t.checked_sub(SignedDuration::from_hours(*hours)).ok()?;
            self.ticks(start).take_while(|tick| *tick <= t).last()
        })
    }

    /// The ticks in `(after, until]`, the oldest first, at most `max`.
    pub fn ticks_between(&self, after: Timestamp, until: Timestamp, max: usize) -> Vec<Timestamp> {
        self.ticks(after).take_while(|tick| *tick <= until).take(max).collect()
    }

    fn ticks(&self, after: Timestamp) -> impl Iterator<Item = Timestamp> {
        std::iter::successors(self.next_after(after), |tick| self.next_after(*tick))
    }

    fn day_matches(&self, civil: DateTime) -> bool {
        let day = self.day & (1 << civil.day()) != 0;
        let weekday = self.weekday & (1 << civil.weekday().to_sunday_zero_offset()) != 0;
        if (self.day | self.weekday) & STAR != 0 { day && weekday } else { day || weekday }
    }
}

/// A point in time, as a count of seconds and as the clock of a zone shows it.
#[derive(Clone, Copy)]
struct Local {
    second: i64,
    civil: DateTime,
}

impl Local {
    fn at(second: i64, zone: &TimeZone) -> Option<Self> {
        Some(Self { second, civil: zone.to_datetime(Timestamp::from_second(second).ok()?) })
    }

    /// The point at which the zone's clock shows this, chosen as Go's `time.Date` does where there are two or none.
    fn of(civil: DateTime, zone: &TimeZone) -> Option<Self> {
        let offset = |second| Some(i64::from(zone.to_offset(Timestamp::from_second(second).ok()?).seconds()));
        let wall = Offset::UTC.to_timestamp(civil).ok()?.as_second();
        let guess = offset(wall)?;
        let second = if guess == 0 { wall } else { wall - offset(wall - guess)? };
        Self::at(second, zone)
    }
}

/// The search of robfig/cron's `SpecSchedule.Next`: from the largest field to the smallest, each moved on until it
/// matches, and all over again when one has come round to its beginning.
struct Search<'a> {
    schedule: &'a Schedule,
    now: Local,
    /// Whether a field was moved, and all smaller ones with it set to their beginning.
    added: bool,
}

impl Search<'_> {
    fn run(mut self, year_max: i16) -> Option<Timestamp> {
        for _ in 0..SEARCH_STEPS_MAX {
            if self.now.civil.year() > year_max {
                return None;
            }
            if self.step()? {
                return Timestamp::from_second(self.now.second).ok();
            }
        }
        None
    }

    /// Moves the first field that does not match by one; true when all of them do. The controller goes on with the
    /// smaller fields until one has come round, and only then looks at the larger ones again: `step` does the same.
    fn step(&mut self) -> Option<bool> {
        let schedule = self.schedule;
        while schedule.month & (1 << self.now.civil.month()) == 0 {
            self.truncate(|civil| civil.date().first_of_month().at(0, 0, 0, 0))?;
            let civil = self.now.civil;
            // As Go counts: a day that the next month does not have runs over into the one after it.
            let days = i64::from(civil.day()) - 1;
            let next = civil
                .date()
                .last_of_month()
                .tomorrow()
                .ok()?
                .checked_add(SignedDuration::from_hours(days * 24))
                .ok()?;
            self.now = Local::of(next.to_datetime(civil.time()), &schedule.zone)?;
            if self.now.civil.month() == 1 {
                return Some(false);
            }
        }
        while !schedule.day_matches(self.now.civil) {
            self.truncate(|civil| civil.date().at(0, 0, 0, 0))?;
            let before = self.now;
            self.now = Local::of(before.civil.tomorrow().ok()?, &schedule.zone)?;
            // A day that has no midnight begins at 23 or 1 o'clock.
            let hour = i64::from(self.now.civil.hour());
            if hour != 0 {
                self.add(if hour > 12 { (24 - hour) * 3600 } else { -hour * 3600 })?;
            }
            if self.now.second <= before.second {
                return None;
            }
            if self.now.civil.day() == 1 {
                return Some(false);
            }
        }
        while schedule.hour & (1 << self.now.civil.hour()) == 0 {
            self.truncate(|civil| civil.date().at(civil.hour(), 0, 0, 0))?;
            self.add(3600)?;
            if self.now.civil.hour() == 0 {
                return Some(false);
            }
        }
        while schedule.minute & (1 << self.now.civil.minute()) == 0 {
            self.truncate_to_minute()?;
            self.add(60)?;
            if self.now.civil.minute() == 0 {
                return Some(false);
            }
        }
        // Ticks are at second 0. The controller counts up to it and then looks at all fields again.
        let second = i64::from(self.now.civil.second());
        if second != 0 {
            self.added = true;
            self.add(60 - second)?;
        }
        Some(second == 0)
    }

    fn add(&mut self, seconds: i64) -> Option<()> {
        self.now = Local::at(self.now.second + seconds, &self.schedule.zone)?;
        Some(())
    }

    /// Sets the smaller fields to their beginning, once in a search.
    fn truncate(&mut self, beginning: fn(DateTime) -> DateTime) -> Option<()> {
        if !std::mem::replace(&mut self.added, true) {
            self.now = Local::of(beginning(self.now.civil), &self.schedule.zone)?;
        }
        Some(())
    }

    fn truncate_to_minute(&mut self) -> Option<()> {
        if !std::mem::replace(&mut self.added, true) {
            self.now = Local::at(self.now.second.div_euclid(60) * 60, &self.schedule.zone)?;
        }
        Some(())
    }
}

/// A time zone by its exact name, from the data inside the program: Kubernetes tells case apart, and an image may hold
/// no zone files.
pub(crate) fn time_zone(name: &str) -> Result<TimeZone, String> {
    let unknown = |hint: Option<&str>| match hint {
        Some(hint) => format!("there is no time zone {name:?}; did you mean {hint}?"),
        None => format!("there is no time zone {name:?}; write an IANA name such as America/Buenos_Aires"),
    };
    let zones = TimeZoneDatabase::bundled();
    match zones.get(name) {
        Ok(zone) if zone.iana_name() == Some(name) => Ok(zone),
        Ok(zone) => Err(unknown(zone.iana_name())),
        Err(_) => {
            let names: Vec<String> = zones.available().map(|known| known.to_string()).collect();
            Err(unknown(near(name, names.iter().map(String::as_str))))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Schedule;
    use jiff::Timestamp;

    /// Made by dev/tools/cron-golden with the parser of Kubernetes' CronJob controller.
    const GOLDEN: &str = include_str!("../tests/data/cron_golden.tsv");

    /// Taken by the controller and refused here, since each means something else than it seems to, or nothing at all.
    const STRICTER: &[&str] = &[
        "@every 1h",
        "@every 90s",
        "TZ=UTC 0 5 * * *",
        "CRON_TZ=Europe/Berlin 0 5 * * *",
        "0 0 ? * *",
        "? * * * *",
        "0 0 * * ?/2",
        "1,,2 * * * *",
        ", * * * *",
        "1, * * * *",
        "*-5 * * * *",
        "+5 * * * *",
        "*/+5 * * * *",
        "0 0 31 2 *",
        "0 0 31 4,6,9,11 *",
        "0 0 30 feb *",
    ];

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn schedule(expression: &str, zone: &str) -> Schedule {
        Schedule::parse(expression, zone).unwrap_or_else(|problems| panic!("{expression} in {zone}: {problems:?}"))
    }

    #[test]
    fn golden_table() {
        let mut differences = Vec::new();
        let mut rows = 0;
        for line in GOLDEN.lines().filter(|line| !line.starts_with('#')) {
            rows += 1;
            let cells: Vec<&str> = line.split('\t').collect();
            let expression: String = serde_json::from_str(cells[1]).unwrap();
            match cells[0] {
                "ticks" => {
                    let [zone, start] = [cells[2], cells[3]];
                    let want: Vec<Timestamp> = cells[4..].iter().map(|text| at(text)).collect();
                    let got: Vec<Timestamp> = schedule(&expression, zone).ticks(at(start)).take(5).collect();
                    if got != want {
                        differences.push(format!("{line}\n    got {got:?}"));
                    }
                }
                verdict => {
                    let taken = Schedule::parse(&expression, "Etc/UTC").is_ok();
                    let want = verdict == "accepted" && !STRICTER.contains(&expression.as_str());
                    if taken != want {
                        differences.push(format!("{line}: here {}", if taken { "accepted" } else { "refused" }));
                    }
                }
            }
        }
        assert!(rows > 2000, "the table has only {rows} rows");
        assert!(differences.is_empty(), "{} of {rows} rows differ:\n{}", differences.len(), differences.join("\n"));
    }

    #[test]
    fn a_clock_that_goes_back_ticks_twice_and_one_that_goes_forward_not_at_all() {
        let ticks = |zone, after, until| schedule("30 2 * * *", zone).ticks_between(at(after), at(until), 10);
        let october = ticks("Europe/Berlin", "2026-10-24T12:00:00Z", "2026-10-25T12:00:00Z");
        assert_eq!(october, [at("2026-10-25T00:30:00Z"), at("2026-10-25T01:30:00Z")]);
        assert_eq!(ticks("Europe/Berlin", "2026-03-28T12:00:00Z", "2026-03-29T12:00:00Z"), []);
    }

    #[test]
    fn the_last_tick_is_the_one_that_next_after_gives_from_before_it() {
        for (expression, now, want) in [
            ("* * * * *", "2026-05-05T05:05:05Z", Some("2026-05-05T05:05:00Z")),
            ("0 6 * * *", "2026-05-05T06:00:00Z", Some("2026-05-05T06:00:00Z")),
            ("0 6 * * *", "2026-05-05T05:59:59.999Z", Some("2026-05-04T06:00:00Z")),
            ("0 0 1 * *", "2026-05-31T00:00:00Z", Some("2026-05-01T00:00:00Z")),
            ("0 0 1 1 *", "2026-12-31T00:00:00Z", Some("2026-01-01T00:00:00Z")),
            ("0 0 29 2 *", "2027-12-31T00:00:00Z", Some("2024-02-29T00:00:00Z")),
            ("0 0 29 2 *", "2103-12-31T00:00:00Z", None),
        ] {
            let got = schedule(expression, "Etc/UTC").latest_at_or_before(at(now));
            assert_eq!(got, want.map(at), "{expression} at {now}");
        }
    }

    #[test]
    fn ticks_between_leaves_out_the_first_end_and_takes_the_last() {
        let hourly = schedule("@hourly", "Etc/UTC");
        let ticks = hourly.ticks_between(at("2026-05-05T05:00:00Z"), at("2026-05-05T08:00:00Z"), 10);
        assert_eq!(ticks, [at("2026-05-05T06:00:00Z"), at("2026-05-05T07:00:00Z"), at("2026-05-05T08:00:00Z")]);
        assert_eq!(hourly.ticks_between(at("2026-05-05T05:00:00Z"), at("2026-05-05T08:00:00Z"), 2), ticks[..2]);
    }

    #[test]
    fn a_zone_that_skipped_a_day_does_not_hang_the_search() {
        let daily = schedule("0 0 30 * *", "Pacific/Apia");
        assert_eq!(daily.next_after(at("2011-12-28T00:00:00Z")), None);
    }

    #[test]
    fn a_wrong_schedule_says_what_to_write() {
        for (expression, zone, want) in [
            ("61 * * * *", "Etc/UTC", "spec.schedule: minute 61 is outside 0-59"),
            ("* * * * 7", "Etc/UTC", "spec.schedule: day of week 7 is outside 0-6; write 0 or sun for Sunday"),
            (
                "* * * * fri-mon",
                "Etc/UTC",
                "spec.schedule: day of week fri-mon: 5 comes after 1; write 5-6,0-1 to go past the end",
            ),
            ("0 0 ? * *", "Etc/UTC", "spec.schedule: day of month ?: write * instead of ?"),
            (
                "0 0 L * *",
                "Etc/UTC",
                "spec.schedule: day of month L: the last such day of a month can't be said; write day of month 1, the day after it, or 28",
            ),
            (
                "0 0 * * friL",
                "Etc/UTC",
                "spec.schedule: day of week friL: the last such day of a month can't be said; write day of month 1, the day after it, or 28",
            ),
            (
                "0 0 15W * *",
                "Etc/UTC",
                "spec.schedule: day of month 15W: the nearest weekday can't be said; write day of week 1-5, or the day alone",
            ),
            (
                "0 0 * * mon#1",
                "Etc/UTC",
                "spec.schedule: day of week mon#1: the nth such day of a month can't be said; write the day of week alone, such as mon",
            ),
            (
                "0 0 5 * * *",
                "Etc/UTC",
                "spec.schedule: there are six fields, and seconds can't be said; write 0 5 * * *",
            ),
            (
                "0 5 * *",
                "Etc/UTC",
                "spec.schedule: there are 4 fields instead of five; write minute, hour, day of month, month, day of week, such as 0 6 * * *",
            ),
            (
                "@every 1h",
                "Etc/UTC",
                "spec.schedule: @every 1h counts from the controller's start; write five cron fields, such as */15 * * * *",
            ),
            ("@Daily", "Etc/UTC", "spec.schedule: \"@Daily\" is not a schedule; write @daily"),
            (
                "@reboot",
                "Etc/UTC",
                "spec.schedule: \"@reboot\" is not a schedule; write one of @hourly, @daily, @midnight, @weekly, @monthly, @yearly, @annually",
            ),
            (
                "CRON_TZ=Asia/Tokyo 0 5 * * *",
                "Etc/UTC",
                "spec.schedule: the time zone does not belong here; write it as spec.timeZone: Asia/Tokyo",
            ),
            ("0 0 31 2 *", "Etc/UTC", "spec.schedule: \"0 0 31 2 *\" never comes: none of these months has such a day"),
            ("1,,2 * * * *", "Etc/UTC", "spec.schedule: minute: an item of the list is empty; remove a comma"),
            ("*/0 * * * *", "Etc/UTC", "spec.schedule: minute */0: a step of 0 stands still; write 1 or more"),
            ("* * * august *", "Etc/UTC", "spec.schedule: month \"august\" is not a number; write aug"),
            (
                "* * * * *",
                "europe/berlin",
                "spec.timeZone: there is no time zone \"europe/berlin\"; did you mean Europe/Berlin?",
            ),
            (
                "* * * * *",
                "Europe/Berln",
                "spec.timeZone: there is no time zone \"Europe/Berln\"; did you mean Europe/Berlin?",
            ),
            (
                "* * * * *",
                "Local",
                "spec.timeZone: there is no time zone \"Local\"; write an IANA name such as America/Buenos_Aires",
            ),
        ] {
            let problems = Schedule::parse(expression, zone).expect_err(expression);
            assert_eq!(problems.iter().map(ToString::to_string).collect::<Vec<_>>(), [want], "{expression}");
        }
    }

    #[test]
    fn zones_have_their_names_of_old_too() {
        for zone in
            ["UTC", "GMT", "Etc/GMT+5", "US/Eastern", "EST5EDT", "America/Argentina/ComodRivadavia", "Asia/Calcutta"]
        {
            assert!(Schedule::parse("@daily", zone).is_ok(), "{zone}");
        }
    }

    #[test]
    fn all_that_is_wrong_with_a_schedule_is_said_at_once() {
        let problems = Schedule::parse("61 24 * * *", "Mars/Base").unwrap_err();
        let fields: Vec<&str> = problems.iter().map(|problem| problem.field.as_str()).collect();
        assert_eq!(fields, ["spec.schedule", "spec.schedule", "spec.timeZone"]);
    }
}
