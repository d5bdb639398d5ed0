//! The five fields of a schedule, read as the CronJob controller reads them into sets of bits: bit 5 of the minutes is the
//! fifth minute. What it would take and mean in an unexpected way is refused, with what to write instead.

use crate::problem::near;

/// Set in a field that holds a `*` (not one with a step of two or more): a day then has to match both the day of month
/// and the day of week, else either of them.
pub(super) const STAR: u64 = 1 << 63;

pub(super) fn parse(expression: &str) -> Result<[u64; 5], Vec<String>> {
    let one = |message: String| Err(vec![message]);
    let trimmed = expression.trim();
    if trimmed.is_empty() {
        return one("the schedule is empty; write five cron fields such as 0 6 * * *, or leave it out".into());
    }
    if expression.contains("TZ=") {
        let zone = trimmed
            .split_whitespace()
            .next()
            .and_then(|word| word.split_once('='))
            .map_or("Europe/Berlin", |(_, zone)| zone);
        return one(format!("the time zone does not belong here; write it as spec.timeZone: {zone}"));
    }
    if trimmed.starts_with('@') {
        if let Some((_, fields)) = NICKNAMES.iter().find(|(name, _)| *name == expression) {
            return parse(fields);
        }
        if trimmed.starts_with("@every") {
            return one(format!(
                "{trimmed} counts from the controller's start; write five cron fields, such as */15 * * * *"
            ));
        }
        let names = NICKNAMES.map(|(name, _)| name);
        let hint = near(&trimmed.to_lowercase(), names)
            .map_or(format!("write one of {}", names.join(", ")), |name| format!("write {name}"));
        return one(format!("{expression:?} is not a schedule; {hint}"));
    }
    let words: Vec<&str> = trimmed.split_whitespace().collect();
    if let [_, rest @ ..] = &words[..]
        && rest.len() == 5
    {
        return one(format!("there are six fields, and seconds can't be said; write {}", rest.join(" ")));
    }
    if words.len() != 5 {
        let hint = "minute, hour, day of month, month, day of week, such as 0 6 * * *";
        return one(format!("there are {} fields instead of five; write {hint}", words.len()));
    }
    let mut bits = [0; 5];
    let mut problems = Vec::new();
    for ((bits, field), word) in bits.iter_mut().zip(&FIELDS).zip(words) {
        match field.parse(word) {
            Ok(found) => *bits = found,
            Err(message) => problems.push(message),
        }
    }
    if problems.is_empty() { Ok(bits) } else { Err(problems) }
}

/// One of the five fields.
struct Field {
    name: &'static str,
    min: u32,
    max: u32,
    names: &'static [&'static str],
}

const FIELDS: [Field; 5] = [
    Field { name: "minute", min: 0, max: 59, names: &[] },
    Field { name: "hour", min: 0, max: 23, names: &[] },
    Field { name: "day of month", min: 1, max: 31, names: &[] },
    Field {
        name: "month",
        min: 1,
        max: 12,
        names: &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"],
    },
    Field { name: "day of week", min: 0, max: 6, names: &["sun", "mon", "tue", "wed", "thu", "fri", "sat"] },
];

const NICKNAMES: [(&str, &str); 7] = [
    ("@hourly", "0 * * * *"),
    ("@daily", "0 0 * * *"),
    ("@midnight", "0 0 * * *"),
    ("@weekly", "0 0 * * 0"),
    ("@monthly", "0 0 1 * *"),
    ("@yearly", "0 0 1 1 *"),
    ("@annually", "0 0 1 1 *"),
];

impl Field {
    fn parse(&self, text: &str) -> Result<u64, String> {
        text.split(',').try_fold(0, |bits, item| Ok(bits | self.item(item)?))
    }

    /// One item of a list: `*`, `n`, `n-m`, each with `/step`; `n/step` goes on to the largest value.
    fn item(&self, item: &str) -> Result<u64, String> {
        let name = self.name;
        self.refuse_extensions(item)?;
        let (range, step) = match item.split_once('/') {
            None => (item, None),
            Some((range, step)) => (range, Some(step)),
        };
        let step_by = match step {
            None => 1,
            Some(step) => match number(step) {
                Some(0) => {
                    return Err(format!("{name} {item}: a step of 0 stands still; write 1 or more"));
                }
                Some(step) => step,
                None => {
                    return Err(format!("{name} {item}: {step:?} is not a step; write a whole number, such as */5"));
                }
            },
        };
        let (start, end, star) = match range.split_once('-') {
            _ if range == "*" => (self.min, self.max, if step_by == 1 { STAR } else { 0 }),
            None => {
                let start = self.value(range, item)?;
                (start, if step.is_some() { self.max } else { start }, 0)
            }
            Some((start, end)) => (self.value(start, item)?, self.value(end, item)?, 0),
        };
        if start > end {
            let hint = format!("{start}-{},{}-{end}", self.max, self.min);
            return Err(format!("{name} {item}: {start} comes after {end}; write {hint} to go past the end"));
        }
        Ok((start..=end).step_by(step_by as usize).fold(star, |bits, value| bits | 1 << value))
    }

    fn value(&self, text: &str, item: &str) -> Result<u32, String> {
        let name = self.name;
        if let Some(at) = self.names.iter().position(|known| text.eq_ignore_ascii_case(known)) {
            return Ok(self.min + at as u32);
        }
        match number(text) {
            Some(value) if (self.min..=self.max).contains(&value) => Ok(value),
            Some(7) if name == "day of week" => Err(format!("{name} 7 is outside 0-6; write 0 or sun for Sunday")),
            Some(value) => Err(format!("{name} {value} is outside {}-{}", self.min, self.max)),
            None if text.is_empty() && item.is_empty() => {
                Err(format!("{name}: an item of the list is empty; remove a comma"))
            }
            None if text.is_empty() => {
                Err(format!("{name} {item}: a number is missing; write {}-{} or *", self.min, self.max))
            }
            None => {
                let short: String = text.chars().take(3).collect::<String>().to_lowercase();
                let hint = match self.names.iter().find(|known| **known == short) {
                    Some(known) => format!("write {known}"),
                    None if self.names.is_empty() => {
                        format!("write {} to {}, or *", self.min, self.max)
                    }
                    None => format!(
                        "write {} to {}, {} to {}, or *",
                        self.min,
                        self.max,
                        self.names[0],
                        self.names[self.names.len() - 1]
                    ),
                };
                Err(format!("{name} {text:?} is not a number; {hint}"))
            }
        }
    }

    /// What other crons understand and Kubernetes does not, or not in that way.
    fn refuse_extensions(&self, item: &str) -> Result<(), String> {
        let name = self.name;
        let days = name.starts_with("day");
        if item.contains('?') {
            return Err(format!("{name} {item}: write * instead of ?"));
        }
        if item.starts_with("*-") {
            return Err(format!("{name} {item}: write * or a range such as {}-{}", self.min, self.max));
        }
        if item.contains('+') {
            return Err(format!("{name} {item}: write the number without +"));
        }
        if days && item.contains('#') {
            let hint = "the nth such day of a month can't be said; write the day of week alone, such as mon";
            return Err(format!("{name} {item}: {hint}"));
        }
        let upper = item.to_ascii_uppercase();
        let last =
            upper == "L" || upper == "LW" || upper.strip_suffix('L').is_some_and(|rest| self.value(rest, item).is_ok());
        if days && last {
            let hint = "the last such day of a month can't be said; write day of month 1, the day after it, or 28";
            return Err(format!("{name} {item}: {hint}"));
        }
        if days && upper.strip_suffix('W').is_some_and(|rest| number(rest).is_some()) {
            return Err(format!(
                "{name} {item}: the nearest weekday can't be said; write day of week 1-5, or the day alone"
            ));
        }
        Ok(())
    }
}

/// Digits only. A number too large for any field reads as the largest there is.
fn number(text: &str) -> Option<u32> {
    (!text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())).then(|| text.parse().unwrap_or(u32::MAX))
}
