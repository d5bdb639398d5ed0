//! Intervals `[start, end)` in UTC, and the scheduled time in a Job's name.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// The time that a run is for: from `start` up to but not including `end`.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[cfg_attr(feature = "crd", derive(schemars::JsonSchema))]
pub struct Interval {
    /// The first instant.
    #[cfg_attr(feature = "crd", schemars(with = "String", extend("format" = "date-time")))]
    pub start: Timestamp,
    /// The first instant after it.
    #[cfg_attr(feature = "crd", schemars(with = "String", extend("format" = "date-time")))]
    pub end: Timestamp,
}

impl fmt::Display for Interval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}, {})", self.start, self.end)
    }
}

impl Interval {
    /// Whether the two have an instant in common.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.start < other.end && other.start < self.end
    }
}

/// The scheduled time of a CronJob's Job, from its name: the CronJob controller names it `NAME-<unix time in minutes>`.
/// None for any other name.
pub fn tick_of_job(pipeline: &str, job: &str) -> Option<Timestamp> {
    let minutes = job.strip_prefix(pipeline)?.strip_prefix('-')?;
    if !looks_like_minutes(minutes) {
        return None;
    }
    Timestamp::from_second(minutes.parse::<i64>().ok()?.checked_mul(60)?).ok()
}

/// The name that the CronJob controller gives to the Job of a scheduled time.
pub fn job_of_tick(pipeline: &str, tick: Timestamp) -> String {
    format!("{pipeline}-{}", tick.as_second().div_euclid(60))
}

/// Whether a text could be the number that the CronJob controller appends: eight digits until the year 2160.
fn looks_like_minutes(text: &str) -> bool {
    (8..=9).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::{job_of_tick, tick_of_job};

    #[test]
    fn a_scheduled_time_is_in_the_name_of_its_job() {
        let tick = "2027-03-01T03:00:00Z".parse().unwrap();
        assert_eq!(job_of_tick("daily", tick), "daily-30064500");
        assert_eq!(tick_of_job("daily", "daily-30064500"), Some(tick));
        for other in ["daily-3006450", "daily-now", "daily", "dailyx-30064500", "daily-30064500-x", "weekly-30064500"] {
            assert_eq!(tick_of_job("daily", other), None, "{other}");
        }
    }
}
