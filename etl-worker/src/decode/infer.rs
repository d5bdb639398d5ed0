//! Guesses the type of a column from all of its values, so that no value changes: what could mean two things is text.

use report_api::column::ColumnType;

use super::value;

/// Most digits before the point, and after it, of numbers that are taken for numbers: longer ones are identifiers.
const DIGITS_MAX: usize = 18;

/// What the values of a column seen so far can be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Inference {
    any: bool,
    boolean: bool,
    number: bool,
    date: bool,
    timestamp: bool,
    timestamptz: bool,
    /// Most digits after the point.
    scale: usize,
}

impl Default for Inference {
    fn default() -> Self {
        Self { any: false, boolean: true, number: true, date: true, timestamp: true, timestamptz: true, scale: 0 }
    }
}

impl Inference {
    /// Sees a value that is not NULL.
    pub(super) fn see(&mut self, text: &str) {
        self.any = true;
        self.boolean &= text.eq_ignore_ascii_case("true") || text.eq_ignore_ascii_case("false");
        if self.number {
            match plain_number(text) {
                Some(scale) => self.scale = self.scale.max(scale),
                None => self.number = false,
            }
        }
        self.date &= value::day(text).is_ok();
        self.timestamp &= value::timestamp(text).is_ok();
        self.timestamptz &= value::timestamptz(text).is_ok();
    }

    /// Sees a value that is text and nothing else.
    pub(super) fn see_text(&mut self) {
        *self = Self {
            any: true,
            boolean: false,
            number: false,
            date: false,
            timestamp: false,
            timestamptz: false,
            scale: 0,
        };
    }

    /// The type that keeps every value.
    pub(super) fn column_type(&self) -> ColumnType {
        match () {
            () if !self.any => ColumnType::String,
            () if self.boolean => ColumnType::Boolean,
            () if self.number && self.scale == 0 => ColumnType::Int64,
            () if self.number => {
                let scale = self.scale as u8;
                ColumnType::Decimal { precision: DIGITS_MAX as u8 + scale, scale }
            }
            () if self.date => ColumnType::Date,
            () if self.timestamp => ColumnType::Timestamp,
            () if self.timestamptz => ColumnType::TimestampTz,
            () => ColumnType::String,
        }
    }
}

/// The digits after the point of a number that is written as numbers are: no leading zeros, no plus sign, no exponent.
fn plain_number(text: &str) -> Option<usize> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let plain = |part: &str| part.len() <= DIGITS_MAX && part.bytes().all(|byte| byte.is_ascii_digit());
    let leading_zero = whole.len() > 1 && whole.starts_with('0') || text == "-0";
    let complete = !whole.is_empty() && (digits.len() == whole.len() || !fraction.is_empty());
    (complete && !leading_zero && plain(whole) && plain(fraction)).then_some(fraction.len())
}

#[cfg(test)]
mod tests {
    use super::Inference;

    #[test]
    fn what_could_mean_two_things_is_text() {
        for (values, want) in [
            (&["1", "-20", "0"][..], "int64"),
            (&["1", "2.50", "-0.5"], "decimal(20,2)"),
            (&["01", "2"], "string"),
            (&["+1"], "string"),
            (&["1e3"], "string"),
            (&["1."], "string"),
            (&[".5"], "string"),
            (&["-"], "string"),
            (&["123456789012345678"], "int64"),
            (&["1234567890123456789"], "string"),
            (&["0.1234567890123456789"], "string"),
            (&["true", "FALSE"], "boolean"),
            (&["true", "1"], "string"),
            (&["yes"], "string"),
            (&["2024-02-29"], "date"),
            (&["2024-02-29", "2024-02-29T01:00"], "string"),
            (&["2024-02-29 01:00", "2024-02-29T01:00:00.5"], "timestamp"),
            (&["2024-02-29T01:00Z"], "timestamptz"),
            (&["2024-02-30"], "string"),
            (&["1", "x"], "string"),
            (&["-0"], "string"),
            (&[], "string"),
        ] {
            let mut inference = Inference::default();
            values.iter().for_each(|value| inference.see(value));
            assert_eq!(inference.column_type().to_string(), want, "{values:?}");
        }
    }
}
