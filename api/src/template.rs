//! Templates in addresses and paths: `https://example.org/{{ interval.start | date("%Y-%m") }}.csv`.
//!
//! The language is that of minijinja. A template knows `interval.start`, `interval.end` (texts in RFC 3339, UTC), `run.id`,
//! `pipeline.name` and `pipeline.namespace`, and the filter `date(FORMAT, ZONE)`, whose format is that of strftime. A name
//! that is not known is an error, and so is a template that takes too long. There are none in SQL: it has parameters.

use jiff::Timestamp;
use minijinja::{Environment, Error, ErrorKind, UndefinedBehavior, Value, context};

use crate::interval::Interval;

/// Steps that a template may take. Addresses need some tens; a loop that never ends takes all of them at once.
const STEPS_MAX: u64 = 10_000;
/// Longest text that a template may give.
const RENDERED_BYTES_MAX: usize = 4096;

/// What templates know.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Values {
    /// The time that the run is for.
    pub interval: Interval,
    /// The run's id.
    pub run_id: String,
    /// The pipeline's name.
    pub pipeline: String,
    /// Its namespace, where it has one.
    pub namespace: Option<String>,
}

impl Values {
    /// Made-up values, by which validation finds what is wrong with a template: the first hour of a year.
    pub fn sample(pipeline: &str) -> Self {
        let start = Timestamp::constant(1_767_225_600, 0);
        let end = Timestamp::constant(1_767_229_200, 0);
        Self {
            interval: Interval { start, end },
            run_id: "00000000-0000-0000-0000-000000000000".into(),
            pipeline: pipeline.into(),
            namespace: Some("default".into()),
        }
    }
}

/// Whether a text has anything to fill in.
pub fn is_template(text: &str) -> bool {
    text.contains("{{") || text.contains("{%") || text.contains("{#")
}

/// Fills a template in. A text without anything to fill in stays as it is. The error says what to write.
pub fn render(text: &str, values: &Values) -> Result<String, String> {
    if !is_template(text) {
        return Ok(text.to_owned());
    }
    let mut environment = Environment::empty();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_fuel(Some(STEPS_MAX));
    environment.add_filter("date", date);
    let known = context! {
        interval => context! { start => values.interval.start.to_string(), end => values.interval.end.to_string() },
        run => context! { id => values.run_id.as_str() },
        pipeline => context! { name => values.pipeline.as_str(), namespace => values.namespace.as_deref().unwrap_or_default() },
    };
    let rendered = environment.render_named_str("template", text, known).map_err(|error| in_words(&error))?;
    if rendered.len() > RENDERED_BYTES_MAX {
        return Err(format!("the template gives {} bytes; the most is {RENDERED_BYTES_MAX}", rendered.len()));
    }
    Ok(rendered)
}

/// `interval.start | date("%Y-%m")`, in UTC or in the time zone that is given.
fn date(time: &str, format: &str, zone: Option<&str>) -> Result<Value, Error> {
    let wrong = |text: String| Error::new(ErrorKind::InvalidOperation, text);
    let time: Timestamp =
        time.parse().map_err(|_| wrong(format!("{time:?} is no time; write interval.start or interval.end")))?;
    let zone = zone.unwrap_or("UTC");
    let local =
        time.in_tz(zone).map_err(|_| wrong(format!("{zone:?} is no time zone; write one such as Asia/Tokyo")))?;
    let text = jiff::fmt::strtime::format(format, &local).map_err(|error| wrong(error.to_string()))?;
    Ok(Value::from(text))
}

fn in_words(error: &Error) -> String {
    let what = match error.kind() {
        ErrorKind::UndefinedError => {
            "a name is not known; there are interval.start, interval.end, run.id, pipeline.name and pipeline.namespace"
        }
        ErrorKind::UnknownFilter => {
            "a filter is not known; there is date, as in {{ interval.start | date(\"%Y-%m\") }}"
        }
        ErrorKind::OutOfFuel => "the template takes too many steps",
        _ => return format!("the template is wrong: {}", error.detail().unwrap_or("it can't be read")),
    };
    format!("the template is wrong: {what}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_are_filled_in() {
        let values = Values::sample("daily");
        for (text, want) in [
            ("https://example.org/data.csv", "https://example.org/data.csv"),
            ("a/{{ interval.start | date(\"%Y-%m\") }}.csv", "a/2026-01.csv"),
            ("{{ interval.end | date('%Y%m%dT%H') }}", "20260101T01"),
            ("{{ interval.start | date('%Y-%m-%d %H', 'America/New_York') }}", "2025-12-31 19"),
            ("{{ interval.start }}/{{ pipeline.namespace }}/{{ pipeline.name }}", "2026-01-01T00:00:00Z/default/daily"),
            ("{{ run.id }}", "00000000-0000-0000-0000-000000000000"),
            ("{% if pipeline.name == 'daily' %}a{% else %}b{% endif %}", "a"),
        ] {
            assert_eq!(render(text, &values).as_deref(), Ok(want), "{text}");
        }
    }

    #[test]
    fn a_wrong_template_says_what_to_write() {
        let values = Values::sample("daily");
        for (text, want) in [
            ("{{ interval.begin }}", "a name is not known; there are interval.start"),
            ("{{ params.region }}", "a name is not known"),
            ("{{ interval.start | strftime('%Y') }}", "a filter is not known; there is date"),
            ("{{ interval.start | date('%') }}", "the template is wrong"),
            ("{{ pipeline.name | date('%Y') }}", "\"daily\" is no time; write interval.start"),
            ("{{ interval.start | date('%Y', 'Mars') }}", "\"Mars\" is no time zone"),
            ("{{ interval.start", "the template is wrong"),
            ("{% for a in [1] * 100 %}{% for b in [1] * 1000 %}x{% endfor %}{% endfor %}", "the template is wrong"),
        ] {
            let error = render(text, &values).unwrap_err();
            assert!(error.contains(want), "{text}: {error}");
        }
    }
}
