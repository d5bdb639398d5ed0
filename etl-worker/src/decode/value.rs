//! Reads a text as a type of a contract: strictly, exactly, without a clock or a locale.
//!
//! A column may say that its values are written in another way: [`number`] and the functions that take a format.
//!
//! A text that is none, or could be kept only by rounding or cutting, is a [`Misfit`]. No thousands separators, no
//! white space, no two-digit years, no guessed zones.

use std::fmt;

use jiff::civil::{Date, DateTime, date};
use jiff::fmt::strtime::BrokenDownTime;

const EPOCH: Date = date(1970, 1, 1);
const SECOND: i64 = 1_000_000;
const DAY_SECONDS: i64 = 86_400;
/// Powers of ten that a decimal of 38 digits needs.
const POWERS: [i128; 39] = powers();
/// Longest text that is read in 64 bits: 18 digits and a sign and a point.
const SHORT_BYTES: usize = 18;

/// Why a text is not of a type.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Misfit {
    /// It is not written like one.
    Form,
    /// It is one, but too large or too small.
    Range,
    /// It has more digits after the point than the type keeps.
    Fraction,
    /// It has digits after the sixth of a second's fraction.
    Nanoseconds,
    /// It has an offset where none can be.
    Offset,
    /// It has no offset where one has to be.
    NoOffset,
    /// It is not base64.
    Base64,
}

/// What to add to "… is not TYPE".
impl fmt::Display for Misfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Form => "",
            Self::Range => ", it is out of range",
            Self::Fraction => ", it has more digits after the point",
            Self::Nanoseconds => ", it is finer than a microsecond",
            Self::Offset => ", it has an offset from UTC (that would be timestamptz)",
            Self::NoOffset => ", it has no offset from UTC (that would be timestamp)",
            Self::Base64 => ", which is base64 with its padding (RFC 4648)",
        })
    }
}

/// true, t, yes, 1 and false, f, no, 0 in any case.
pub(super) fn boolean(text: &str) -> Result<bool, Misfit> {
    let is = |words: [&str; 4]| words.iter().any(|word| text.eq_ignore_ascii_case(word));
    match () {
        () if is(["true", "t", "1", "yes"]) => Ok(true),
        () if is(["false", "f", "0", "no"]) => Ok(false),
        () => Err(Misfit::Form),
    }
}

/// Rewrites a number with other characters before its fraction and between its thousands as one with a point and without
/// thousands. Where thousands are marked at all, they have to be so throughout: `1.23` with a point between thousands
/// is none, since it may well mean a fraction.
pub(super) fn number(text: &str, decimal: char, group: Option<char>, out: &mut String) -> Result<(), Misfit> {
    out.clear();
    let (whole, fraction) = match text.split_once(decimal) {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (text, None),
    };
    let unsigned = whole.strip_prefix(['-', '+']).unwrap_or(whole);
    out.push_str(&whole[..whole.len() - unsigned.len()]);
    match group.filter(|group| unsigned.contains(*group)) {
        None => out.push_str(unsigned),
        Some(group) => {
            for (at, part) in unsigned.split(group).enumerate() {
                let digits = part.bytes().all(|byte| byte.is_ascii_digit());
                let fits = if at == 0 { (1..=3).contains(&part.len()) } else { part.len() == 3 };
                if !digits || !fits {
                    return Err(Misfit::Form);
                }
                out.push_str(part);
            }
        }
    }
    if out.contains('.') || fraction.is_some_and(|fraction| fraction.contains('.')) {
        return Err(Misfit::Form);
    }
    if let Some(fraction) = fraction {
        out.push('.');
        out.push_str(fraction);
    }
    Ok(())
}

/// A whole number: `42`, `-7`, `+7`, and also `4799277.0` and `1e3`, which are the same numbers in other clothes.
pub(super) fn integer<T: TryFrom<i128>>(text: &str) -> Result<T, Misfit> {
    let value = match text.parse::<i64>() {
        Ok(value) => i128::from(value),
        Err(_) => decimal(text, 38, 0)?,
    };
    T::try_from(value).map_err(|_| Misfit::Range)
}

/// A floating-point number of 32 bits: the nearest one, as everywhere. NaN and ±Infinity by name.
pub(super) fn float32(text: &str) -> Result<f32, Misfit> {
    let value: f32 = text.parse().map_err(|_| Misfit::Form)?;
    let lost = value.is_infinite() && names_no_infinity(text) || value == 0.0 && !names_zero(text);
    if lost { Err(Misfit::Range) } else { Ok(value) }
}

/// A floating-point number of 64 bits: the nearest one, as everywhere. NaN and ±Infinity by name.
pub(super) fn float64(text: &str) -> Result<f64, Misfit> {
    let value: f64 = text.parse().map_err(|_| Misfit::Form)?;
    let lost = value.is_infinite() && names_no_infinity(text) || value == 0.0 && !names_zero(text);
    if lost { Err(Misfit::Range) } else { Ok(value) }
}

/// Whether all digits before the exponent are zeros: 1e-400 is a number, too, and not zero.
fn names_zero(text: &str) -> bool {
    text.bytes().take_while(|byte| !matches!(byte, b'e' | b'E')).all(|byte| !matches!(byte, b'1'..=b'9'))
}

fn names_no_infinity(text: &str) -> bool {
    !text.bytes().any(|byte| byte.eq_ignore_ascii_case(&b'i'))
}

/// An exact number, as its digits without the point. Zeros at the end cost no digits, and exponents are fine as long as
/// the number is exact: `1.5e3` is 1500.
pub(super) fn decimal(text: &str, precision: u8, scale: u8) -> Result<i128, Misfit> {
    let (precision, scale) = (usize::from(precision), i64::from(scale));
    let number = short_number(text.as_bytes()).map_or_else(|| long_number(text.as_bytes()), Ok)?;
    if number.digits == 0 {
        return Ok(0);
    }
    let shift = scale + number.exponent;
    let value = if shift >= 0 {
        let power = usize::try_from(shift).ok().and_then(|shift| POWERS.get(shift)).ok_or(Misfit::Range)?;
        number.digits.checked_mul(*power).ok_or(Misfit::Range)?
    } else {
        let power = usize::try_from(-shift).ok().and_then(|shift| POWERS.get(shift)).ok_or(Misfit::Fraction)?;
        if number.digits % power != 0 {
            return Err(Misfit::Fraction);
        }
        number.digits / power
    };
    if value.abs() < POWERS[precision] { Ok(value) } else { Err(Misfit::Range) }
}

/// `digits` × 10^`exponent`.
struct Number {
    digits: i128,
    exponent: i64,
}

/// The usual case, in 64 bits: at most 18 bytes without an exponent.
fn short_number(text: &[u8]) -> Option<Number> {
    if text.len() > SHORT_BYTES {
        return None;
    }
    let (negative, text) = sign(text);
    let (mut digits, mut count, mut point) = (0_i64, 0, None);
    for (index, byte) in text.iter().enumerate() {
        match byte {
            b'0'..=b'9' => {
                digits = digits * 10 + i64::from(byte - b'0');
                count += 1;
            }
            b'.' if point.is_none() => point = Some(index),
            _ => return None,
        }
    }
    let exponent = point.map_or(0, |point| point as i64 + 1 - text.len() as i64);
    (count > 0).then(|| Number { digits: i128::from(if negative { -digits } else { digits }), exponent })
}

/// Any length. Zeros are held back until another digit follows, so that those at the end can't overflow.
fn long_number(text: &[u8]) -> Result<Number, Misfit> {
    let (negative, text) = sign(text);
    let (number, power) = match text.iter().position(|byte| matches!(byte, b'e' | b'E')) {
        Some(at) => (&text[..at], power(&text[at + 1..])?),
        None => (text, 0),
    };
    let (mut digits, mut zeros, mut fraction) = (0_i128, 0_usize, 0_i64);
    let (mut any, mut point, mut overflow) = (false, false, false);
    for byte in number {
        match byte {
            b'.' if !point => {
                point = true;
                continue;
            }
            b'0' => zeros += 1,
            b'1'..=b'9' => {
                let power = if digits == 0 { Some(&1) } else { POWERS.get(zeros + 1) };
                let next = power.and_then(|power| digits.checked_mul(*power)?.checked_add(i128::from(byte - b'0')));
                overflow |= next.is_none();
                digits = next.unwrap_or(digits);
                zeros = 0;
            }
            _ => return Err(Misfit::Form),
        }
        any = true;
        fraction += i64::from(point);
    }
    match () {
        () if !any => Err(Misfit::Form),
        () if overflow => Err(Misfit::Range),
        () => Ok(Number {
            digits: if negative { -digits } else { digits },
            exponent: power.saturating_add(zeros as i64).saturating_sub(fraction),
        }),
    }
}

fn sign(text: &[u8]) -> (bool, &[u8]) {
    match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        _ => (false, text),
    }
}

/// An exponent. One beyond all bounds is as good as a very large one.
fn power(text: &[u8]) -> Result<i64, Misfit> {
    let (negative, digits) = sign(text);
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return Err(Misfit::Form);
    }
    let value = digits.iter().fold(0_i64, |value, digit| (value * 10 + i64::from(digit - b'0')).min(1 << 40));
    Ok(if negative { -value } else { value })
}

const fn powers() -> [i128; 39] {
    let mut powers = [1; 39];
    let mut index = 1;
    while index < powers.len() {
        powers[index] = powers[index - 1] * 10;
        index += 1;
    }
    powers
}

/// A day, `2024-02-29`, as days since 1970. Years 0001 to 9999.
pub(super) fn day(text: &str) -> Result<i32, Misfit> {
    Ok(days(civil_date(text.as_bytes())?))
}

/// A wall clock time in ISO 8601, `2024-02-29T12:30`, `2024-02-29 12:30:00.123456`, as microseconds since 1970.
pub(super) fn timestamp(text: &str) -> Result<i64, Misfit> {
    match civil(text)? {
        (time, None) => Ok(time),
        (_, Some(_)) => Err(Misfit::Offset),
    }
}

/// A point in time in ISO 8601 with `Z` or an offset such as `+02:00`, `+0200`, `+02`, as microseconds since 1970 UTC.
pub(super) fn timestamptz(text: &str) -> Result<i64, Misfit> {
    let (time, offset_seconds) = civil(text)?;
    let time = time - offset_seconds.ok_or(Misfit::NoOffset)? * SECOND;
    // An offset may lead out of the years that dates can have.
    let year_first = i64::from(days(date(1, 1, 1))) * DAY_SECONDS * SECOND;
    let year_after = (i64::from(days(date(9999, 12, 31))) + 1) * DAY_SECONDS * SECOND;
    if (year_first..year_after).contains(&time) { Ok(time) } else { Err(Misfit::Range) }
}

/// A day that is written by a format of strptime.
pub(super) fn formatted_day(text: &str, format: &str) -> Result<i32, Misfit> {
    let date = broken_down(text, format)?.to_date().map_err(|_| Misfit::Form)?;
    if (1..=9999).contains(&date.year()) { Ok(days(date)) } else { Err(Misfit::Range) }
}

/// A wall clock time that is written by a format of strptime.
pub(super) fn formatted_timestamp(text: &str, format: &str) -> Result<i64, Misfit> {
    wall_clock(broken_down(text, format)?.to_datetime().map_err(|_| Misfit::Form)?)
}

/// A point in time that is written by a format of strptime.
pub(super) fn formatted_timestamptz(text: &str, format: &str) -> Result<i64, Misfit> {
    let time = broken_down(text, format)?.to_timestamp().map_err(|_| Misfit::Form)?;
    wall_clock(jiff::tz::Offset::UTC.to_datetime(time))
}

fn broken_down(text: &str, format: &str) -> Result<BrokenDownTime, Misfit> {
    BrokenDownTime::parse(format, text).map_err(|_| Misfit::Form)
}

fn wall_clock(time: DateTime) -> Result<i64, Misfit> {
    match (time.year(), time.subsec_nanosecond() % 1000) {
        (..=0, _) => Err(Misfit::Range),
        (1.., 0) => {
            let seconds = i64::from(days(time.date())) * DAY_SECONDS
                + i64::from(time.hour()) * 3600
                + i64::from(time.minute()) * 60
                + i64::from(time.second());
            Ok(seconds * SECOND + i64::from(time.subsec_nanosecond() / 1000))
        }
        (1.., _) => Err(Misfit::Nanoseconds),
    }
}

/// Microseconds of the wall clock, and the offset in seconds where there is one.
fn civil(text: &str) -> Result<(i64, Option<i64>), Misfit> {
    let bytes = text.as_bytes();
    let (day, rest) = bytes.split_at_checked(10).ok_or(Misfit::Form)?;
    let day = civil_date(day)?;
    let [b'T' | b't' | b' ', rest @ ..] = rest else { return Err(Misfit::Form) };
    let [h1, h2, b':', m1, m2, rest @ ..] = rest else { return Err(Misfit::Form) };
    let (hour, minute) = (two(*h1, *h2)?, two(*m1, *m2)?);
    let (second, rest) = match rest {
        [b':', s1, s2, rest @ ..] => (two(*s1, *s2)?, rest),
        _ => (0, rest),
    };
    // The fraction belongs to seconds: 12:30.5 is refused below, since 12:30 leaves `.5` as an offset.
    let (micros, rest) = match rest {
        [b'.', rest @ ..] if bytes.get(16) == Some(&b':') => fraction(rest)?,
        _ => (0, rest),
    };
    let offset = offset(rest)?;
    let time = DateTime::new(day.year(), day.month(), day.day(), hour, minute, second, 0).map_err(|_| Misfit::Form)?;
    let seconds = i64::from(days(day)) * DAY_SECONDS
        + i64::from(time.hour()) * 3600
        + i64::from(time.minute()) * 60
        + i64::from(time.second());
    Ok((seconds * SECOND + micros, offset))
}

fn civil_date(text: &[u8]) -> Result<Date, Misfit> {
    let [y1, y2, y3, y4, b'-', m1, m2, b'-', d1, d2] = text else { return Err(Misfit::Form) };
    let year = i16::from(two(*y1, *y2)?) * 100 + i16::from(two(*y3, *y4)?);
    match Date::new(year, two(*m1, *m2)?, two(*d1, *d2)?) {
        Ok(date) if year > 0 => Ok(date),
        _ => Err(Misfit::Form),
    }
}

fn two(tens: u8, ones: u8) -> Result<i8, Misfit> {
    match (tens, ones) {
        (b'0'..=b'9', b'0'..=b'9') => Ok(((tens - b'0') * 10 + (ones - b'0')) as i8),
        _ => Err(Misfit::Form),
    }
}

/// Digits after the point as microseconds, and what follows them.
fn fraction(text: &[u8]) -> Result<(i64, &[u8]), Misfit> {
    let count = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (digits, rest) = text.split_at(count);
    if digits.is_empty() {
        return Err(Misfit::Form);
    }
    if digits.iter().skip(6).any(|digit| *digit != b'0') {
        return Err(Misfit::Nanoseconds);
    }
    let micros =
        (0..6).fold(0, |micros, index| micros * 10 + i64::from(digits.get(index).map_or(0, |digit| digit - b'0')));
    Ok((micros, rest))
}

/// Nothing, `Z`, or a sign with hours and perhaps minutes, as seconds east of UTC.
fn offset(text: &[u8]) -> Result<Option<i64>, Misfit> {
    let (sign, hours, minutes) = match text {
        [] => return Ok(None),
        [b'Z' | b'z'] => return Ok(Some(0)),
        [sign, h1, h2] => (sign, two(*h1, *h2)?, 0),
        [sign, h1, h2, m1, m2] | [sign, h1, h2, b':', m1, m2] => (sign, two(*h1, *h2)?, two(*m1, *m2)?),
        _ => return Err(Misfit::Form),
    };
    let seconds = i64::from(hours) * 3600 + i64::from(minutes) * 60;
    match sign {
        // 18 hours are the most that ISO 8601's users and java.time know; the world has -12 to +14.
        _ if minutes > 59 || seconds > 18 * 3600 => Err(Misfit::Form),
        b'+' => Ok(Some(seconds)),
        b'-' => Ok(Some(-seconds)),
        _ => Err(Misfit::Form),
    }
}

fn days(date: Date) -> i32 {
    // 9999 years are 3.7 million days.
    (date.duration_since(EPOCH).as_secs() / DAY_SECONDS) as i32
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{
        Misfit, boolean, day, decimal, float32, float64, formatted_day, formatted_timestamp, formatted_timestamptz,
        integer, number, timestamp, timestamptz,
    };

    #[test]
    fn booleans_are_words() {
        for (text, want) in [
            ("true", Ok(true)),
            ("T", Ok(true)),
            ("1", Ok(true)),
            ("YES", Ok(true)),
            ("False", Ok(false)),
            ("f", Ok(false)),
            ("0", Ok(false)),
            ("no", Ok(false)),
            ("on", Err(Misfit::Form)),
            ("2", Err(Misfit::Form)),
            ("", Err(Misfit::Form)),
        ] {
            assert_eq!(boolean(text), want, "{text:?}");
        }
    }

    #[test]
    fn integers_are_exact() {
        for (text, want) in [
            ("0", Ok(0)),
            ("-32768", Ok(-32768)),
            ("+7", Ok(7)),
            ("007", Ok(7)),
            ("7.0", Ok(7)),
            ("7.", Ok(7)),
            ("1.2e1", Ok(12)),
            ("32768", Err(Misfit::Range)),
            ("99999999999999999999999999999999999999999", Err(Misfit::Range)),
            ("7.5", Err(Misfit::Fraction)),
            ("1,000", Err(Misfit::Form)),
            ("1_000", Err(Misfit::Form)),
            (" 7", Err(Misfit::Form)),
            ("0x10", Err(Misfit::Form)),
            ("-", Err(Misfit::Form)),
            ("", Err(Misfit::Form)),
        ] {
            assert_eq!(integer::<i16>(text), want, "{text:?}");
        }
        assert_eq!(integer::<i64>("9223372036854775807.0"), Ok(i64::MAX));
        assert_eq!(integer::<i64>("9223372036854775808"), Err(Misfit::Range));
        assert_eq!(integer::<i32>("4799277.0"), Ok(4_799_277));
    }

    #[test]
    fn floats_take_names_but_no_overflow() {
        for (text, want) in [
            ("1.5", Ok(1.5)),
            ("-1e3", Ok(-1000.0)),
            (".5", Ok(0.5)),
            ("Infinity", Ok(f64::INFINITY)),
            ("-inf", Ok(f64::NEG_INFINITY)),
            ("1e999", Err(Misfit::Range)),
            ("1,5", Err(Misfit::Form)),
            ("", Err(Misfit::Form)),
        ] {
            assert_eq!(float64(text), want, "{text:?}");
        }
        assert!(float64("NaN").unwrap().is_nan());
        assert_eq!(float32("1e39"), Err(Misfit::Range));
    }

    #[test]
    fn decimals_are_exact() {
        for (text, want) in [
            ("1228663.323", Ok(1_228_663_323)),
            ("-0.5", Ok(-500)),
            (".5", Ok(500)),
            ("5.", Ok(5_000)),
            ("1.5e3", Ok(1_500_000)),
            ("1500E-3", Ok(1_500)),
            ("1.2340000000000000000000000000000000000000000000", Ok(1_234)),
            ("000000000000000000000000000000000000000000000001", Ok(1_000)),
            ("0e999999999999999999999", Ok(0)),
            ("-0", Ok(0)),
            ("1.2345", Err(Misfit::Fraction)),
            ("1e-4", Err(Misfit::Fraction)),
            ("1e-99999999999999999999", Err(Misfit::Fraction)),
            ("999999999999999.999", Ok(999_999_999_999_999_999)),
            ("1000000000000000", Err(Misfit::Range)),
            ("1e99999999999999999999", Err(Misfit::Range)),
            ("12,x", Err(Misfit::Form)),
            ("1.2.3", Err(Misfit::Form)),
            ("1e", Err(Misfit::Form)),
            ("e5", Err(Misfit::Form)),
            (".", Err(Misfit::Form)),
            ("--1", Err(Misfit::Form)),
            ("NaN", Err(Misfit::Form)),
            ("", Err(Misfit::Form)),
        ] {
            assert_eq!(decimal(text, 18, 3), want, "{text:?}");
        }
        let most = "9".repeat(38);
        assert_eq!(decimal(&most, 38, 0), Ok(10_i128.pow(38) - 1));
        assert_eq!(decimal(&format!("0.{most}"), 38, 38), Ok(10_i128.pow(38) - 1));
        assert_eq!(decimal(&format!("{most}0"), 38, 0), Err(Misfit::Range));
    }

    /// Every decimal that is written out is read back, however it is padded or where its point is.
    #[test]
    fn decimals_survive_the_round_trip() {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut random = |below: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % below
        };
        for _ in 0..20_000 {
            let precision = 1 + random(38) as u8;
            let scale = random(u64::from(precision) + 1) as u8;
            let length = 1 + random(u64::from(precision));
            let digits: String = (0..length).map(|_| char::from(b'0' + random(10) as u8)).collect();
            let value: i128 = digits.parse().unwrap();
            let padded = format!("{digits:0>width$}", width = usize::from(scale) + 1);
            let (whole, fraction) = padded.split_at(padded.len() - usize::from(scale));
            let zeros = "0".repeat(random(30) as usize);
            let shift = random(5);
            for text in [
                format!("{whole}.{fraction}"),
                format!("{zeros}{whole}.{fraction}{zeros}"),
                format!("{digits}e-{scale}"),
                format!("{digits}{}E-{}", "0".repeat(shift as usize), u64::from(scale) + shift),
            ] {
                assert_eq!(decimal(&text, precision, scale), Ok(value), "{text} as decimal({precision},{scale})");
                assert_eq!(decimal(&format!("-{text}"), precision, scale), Ok(-value), "-{text}");
                assert_eq!(decimal(&format!("{text}x"), precision, scale), Err(Misfit::Form), "{text}x");
            }
            let finer = format!("{whole}.{fraction}1");
            assert!(decimal(&finer, precision, scale).is_err(), "{finer} as decimal({precision},{scale})");
        }
    }

    #[test]
    fn days_are_on_the_calendar() {
        for (text, want) in [
            ("1970-01-01", Ok(0)),
            ("1969-12-31", Ok(-1)),
            ("2000-02-29", Ok(11_016)),
            ("0001-01-01", Ok(-719_162)),
            ("9999-12-31", Ok(2_932_896)),
            ("0000-01-01", Err(Misfit::Form)),
            ("2023-02-29", Err(Misfit::Form)),
            ("2023-13-01", Err(Misfit::Form)),
            ("20230101", Err(Misfit::Form)),
            ("01/02/2023", Err(Misfit::Form)),
            ("2023-1-1", Err(Misfit::Form)),
            ("2023-01-01 ", Err(Misfit::Form)),
            ("", Err(Misfit::Form)),
        ] {
            assert_eq!(day(text), want, "{text:?}");
        }
    }

    #[test]
    fn timestamps_have_no_offset() {
        for (text, want) in [
            ("1970-01-01T00:00:00", Ok(0)),
            ("1970-01-02 00:00", Ok(86_400_000_000)),
            ("1969-12-31T23:59:59.999999", Ok(-1)),
            ("1970-01-01T00:00:00.5", Ok(500_000)),
            ("1970-01-01T00:00:00.123456000", Ok(123_456)),
            ("1970-01-01T00:00:00.1234567", Err(Misfit::Nanoseconds)),
            ("1970-01-01T00:00:00Z", Err(Misfit::Offset)),
            ("1970-01-01T00:00:00+02:00", Err(Misfit::Offset)),
            ("1970-01-01T24:00:00", Err(Misfit::Form)),
            ("1970-01-01T23:59:60", Err(Misfit::Form)),
            ("1970-01-01T00:00.5", Err(Misfit::Form)),
            ("1970-01-01T00:00:00.", Err(Misfit::Form)),
            ("1970-01-01", Err(Misfit::Form)),
            ("1970-01-01T", Err(Misfit::Form)),
            ("1970-01-01Tññ", Err(Misfit::Form)),
            ("0", Err(Misfit::Form)),
        ] {
            assert_eq!(timestamp(text), want, "{text:?}");
        }
    }

    #[test]
    fn timestamps_with_an_offset_become_utc() {
        for (text, want) in [
            ("1970-01-01T00:00:00Z", Ok(0)),
            ("1970-01-01 02:00:00+02", Ok(0)),
            ("1970-01-01T02:30:00+0230", Ok(0)),
            ("1969-12-31T19:00:00.000001-05:00", Ok(1)),
            ("1970-01-01T00:00Z", Ok(0)),
            ("1970-01-01T00:00:00", Err(Misfit::NoOffset)),
            ("1970-01-01T00:00:00+25:00", Err(Misfit::Form)),
            ("1970-01-01T00:00:00+02:60", Err(Misfit::Form)),
            ("1970-01-01T00:00:00 02:00", Err(Misfit::Form)),
            ("1970-01-01T00:00:00 UTC", Err(Misfit::Form)),
            ("0001-01-01T00:00:00+01:00", Err(Misfit::Range)),
            ("9999-12-31T23:59:59-01:00", Err(Misfit::Range)),
        ] {
            assert_eq!(timestamptz(text), want, "{text:?}");
        }
    }

    #[test]
    fn numbers_are_written_in_many_ways() {
        for (text, decimal, group, want) in [
            ("1.234.567,89", ',', Some('.'), Ok("1234567.89")),
            ("-1234,5", ',', Some('.'), Ok("-1234.5")),
            ("+1 234", '.', Some(' '), Ok("+1234")),
            ("1'234.5", '.', Some('\''), Ok("1234.5")),
            ("999", ',', Some('.'), Ok("999")),
            (",5", ',', None, Ok(".5")),
            ("1,", ',', None, Ok("1.")),
            ("1.23", ',', Some('.'), Err(Misfit::Form)),
            ("1.2345", ',', Some('.'), Err(Misfit::Form)),
            (".123", ',', Some('.'), Err(Misfit::Form)),
            ("1234.567", ',', Some('.'), Err(Misfit::Form)),
            ("1..234", ',', Some('.'), Err(Misfit::Form)),
            ("1.5", ',', None, Err(Misfit::Form)),
            ("1,5.5", ',', None, Err(Misfit::Form)),
            ("1.23e.456", ',', Some('.'), Err(Misfit::Form)),
        ] {
            let mut out = String::new();
            assert_eq!(number(text, decimal, group, &mut out).map(|()| out.as_str()), want, "{text:?}");
        }
        // Two marks for fractions leave a text that is no number.
        let mut out = String::new();
        assert!(number("1,5,5", ',', None, &mut out).is_ok() && float64(&out).is_err(), "{out}");
    }

    #[test]
    fn dates_follow_a_format() {
        for (text, format, want) in [
            ("29/02/2024", "%d/%m/%Y", Ok(19_782)),
            ("20240229", "%Y%m%d", Ok(19_782)),
            ("1/1/0001", "%d/%m/%Y", Ok(-719_162)),
            ("29/02/2023", "%d/%m/%Y", Err(Misfit::Form)),
            ("29/02/2024 ", "%d/%m/%Y", Err(Misfit::Form)),
            ("", "%d/%m/%Y", Err(Misfit::Form)),
        ] {
            assert_eq!(formatted_day(text, format), want, "{text:?} by {format:?}");
        }
        assert_eq!(
            formatted_timestamp("2024-02-29 01:00:00.123456", "%Y-%m-%d %H:%M:%S%.f").unwrap() % 1_000_000,
            123_456
        );
        assert_eq!(
            formatted_timestamp("2024-02-29 01:00:00.1234567", "%Y-%m-%d %H:%M:%S%.f"),
            Err(Misfit::Nanoseconds)
        );
        assert_eq!(formatted_timestamptz("01/01/1970 02:00 +0200", "%d/%m/%Y %H:%M %z"), Ok(0));
        assert_eq!(formatted_timestamptz("-1", "%s"), Ok(-1_000_000));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2000) })]

        #[test]
        fn every_decimal_reads_back(value in any::<i128>(), scale in 0_u8..=38) {
            let value = value % 10_i128.pow(38);
            let digits = format!("{:0>width$}", value.unsigned_abs(), width = usize::from(scale) + 1);
            let (whole, fraction) = digits.split_at(digits.len() - usize::from(scale));
            let sign = if value < 0 { "-" } else { "" };
            prop_assert_eq!(decimal(&format!("{sign}{whole}.{fraction}"), 38, scale), Ok(value));
            prop_assert_eq!(decimal(&format!("{sign}{digits}e-{scale}"), 38, scale), Ok(value));
        }

        #[test]
        fn every_time_reads_back(micros in -62_135_596_800_000_000_i64..253_402_214_400_000_000) {
            let time = jiff::Timestamp::from_microsecond(micros).unwrap();
            prop_assert_eq!(timestamptz(&time.to_string()), Ok(micros));
            prop_assert_eq!(timestamp(time.to_string().trim_end_matches('Z')), Ok(micros));
            prop_assert_eq!(day(&time.to_string()[..10]).map(i64::from), Ok(micros.div_euclid(86_400_000_000)));
        }

        #[test]
        fn no_text_makes_a_value_panic(text in "[-+.,:eTZ0-9 ñ]{0,50}", format in "(%[YmdHMSzsfpIjZQ.]|[-/ :ñ]){0,8}") {
            let mut out = String::new();
            let _ = (decimal(&text, 38, 10), integer::<i16>(&text), float32(&text), float64(&text), boolean(&text));
            let _ = (day(&text), timestamp(&text), timestamptz(&text), number(&text, ',', Some('.'), &mut out));
            let _ = (formatted_day(&text, &format), formatted_timestamp(&text, &format), formatted_timestamptz(&text, &format));
        }
    }
}
