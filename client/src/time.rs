//! Dates and timestamps as text, proleptic Gregorian calendar, UTC.
//!
//! Source  the day count of a civil date: Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", days_from_civil.

const DAY_US: i64 = 86_400_000_000;

/// Days since 1970-01-01 of a date; `None` where there is no such day or its year is outside 1..=9999.
#[must_use]
pub fn days(year: i64, month: u32, day: u32) -> Option<i32> {
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let longest = match month {
        4 | 6 | 9 | 11 => 30,
        2 => 28 + u32::from(leap),
        1..=12 => 31,
        _ => return None,
    };
    if !(1..=9999).contains(&year) || day == 0 || day > longest {
        return None;
    }
    // Years start in March, so that the leap day is the last of its year.
    let y = if month <= 2 { year - 1 } else { year };
    let era = y.div_euclid(400);
    let year_of_era = y.rem_euclid(400);
    let day_of_year = (153 * i64::from((month + 9) % 12) + 2) / 5 + i64::from(day) - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    i32::try_from(era * 146_097 + day_of_era - 719_468).ok()
}

/// Year, month and day of a day count.
#[must_use]
pub fn civil(days: i32) -> (i64, u32, u32) {
    let z = i64::from(days) + 719_468;
    let era = z.div_euclid(146_097);
    let doe = z.rem_euclid(146_097);
    let yoe = (doe - doe / 1_460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let day = (doy - (153 * mp + 2) / 5 + 1) as u32;
    let month = if mp < 10 { mp + 3 } else { mp - 9 } as u32;
    (yoe + era * 400 + i64::from(month <= 2), month, day)
}

/// `YYYY-MM-DD`.
#[must_use]
pub fn date_text(days: i32) -> String {
    let (y, m, d) = civil(days);
    format!("{y:04}-{m:02}-{d:02}")
}

/// `YYYY-MM-DDTHH:MM:SS[.ffffff]Z`.
#[must_use]
pub fn timestamp_text(us: i64) -> String {
    let day = us.div_euclid(DAY_US);
    let rest = us.rem_euclid(DAY_US);
    let Ok(day) = i32::try_from(day) else { return format!("{us}us") };
    let (s, frac) = (rest / 1_000_000, rest % 1_000_000);
    let frac = if frac == 0 { String::new() } else { format!(".{frac:06}") };
    format!("{}T{:02}:{:02}:{:02}{frac}Z", date_text(day), s / 3600, s / 60 % 60, s % 60)
}

/// Reads `YYYY-MM-DD`.
#[must_use]
pub fn parse_date(text: &str) -> Option<i32> {
    let b = text.as_bytes();
    if b.len() != 10 || b[4] != b'-' || b[7] != b'-' {
        return None;
    }
    days(number(&b[..4])?, number(&b[5..7])? as u32, number(&b[8..])? as u32)
}

/// Reads `YYYY-MM-DD[ T]HH:MM[:SS[.f]][Z|+HH:MM|-HH:MM]`, or a date alone (midnight); without an offset it is UTC.
/// More than six digits after the point are refused unless they are 0.
#[must_use]
pub fn parse_timestamp(text: &str) -> Option<i64> {
    let day = i64::from(parse_date(text.get(..10)?)?) * DAY_US;
    let rest = &text.as_bytes()[10..];
    if rest.is_empty() {
        return Some(day);
    }
    if !matches!(rest[0], b' ' | b'T' | b't') {
        return None;
    }
    let (clock, offset) = split_offset(&rest[1..])?;
    if clock.len() < 5 || clock[2] != b':' {
        return None;
    }
    let (h, m) = (number(&clock[..2])?, number(&clock[3..5])?);
    let mut us = (h * 3600 + m * 60) * 1_000_000;
    let mut s = 0;
    if clock.len() > 5 {
        if clock.len() < 8 || clock[5] != b':' {
            return None;
        }
        s = number(&clock[6..8])?;
        us += s * 1_000_000;
        if clock.len() > 8 {
            us += fraction(&clock[8..])?;
        }
    }
    if h > 23 || m > 59 || s > 59 {
        return None;
    }
    Some(day + us - offset)
}

fn fraction(text: &[u8]) -> Option<i64> {
    let digits = text.strip_prefix(b".")?;
    let (kept, dropped) = digits.split_at(digits.len().min(6));
    if kept.is_empty() || dropped.iter().any(|b| *b != b'0') {
        return None;
    }
    Some(number(kept)? * 10i64.pow(6 - kept.len() as u32))
}

/// Splits a trailing offset off; in microseconds east of UTC.
fn split_offset(text: &[u8]) -> Option<(&[u8], i64)> {
    if let Some(clock) = text.strip_suffix(b"Z").or_else(|| text.strip_suffix(b"z")) {
        return Some((clock, 0));
    }
    let Some(at) = text.iter().rposition(|b| matches!(b, b'+' | b'-')) else { return Some((text, 0)) };
    let (clock, offset) = text.split_at(at);
    let sign = if offset[0] == b'-' { -1 } else { 1 };
    let (h, m) = match &offset[1..] {
        [a, b] => (number(&[*a, *b])?, 0),
        [a, b, c, d] | [a, b, b':', c, d] => (number(&[*a, *b])?, number(&[*c, *d])?),
        _ => return None,
    };
    if h > 14 || m > 59 {
        return None;
    }
    Some((clock, sign * (h * 3600 + m * 60) * 1_000_000))
}

fn number(digits: &[u8]) -> Option<i64> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(digits.iter().fold(0, |n, b| n * 10 + i64::from(b - b'0')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_day_of_four_centuries_round_trips() {
        for d in (-150_000..150_000).step_by(7) {
            let (y, m, day) = civil(d);
            assert_eq!(days(y, m, day), Some(d));
            assert_eq!(parse_date(&date_text(d)), Some(d));
        }
        assert_eq!(days(1970, 1, 1), Some(0));
        assert_eq!(days(2013, 1, 1), Some(15_706));
        for bad in ["2013-02-29", "2013-13-01", "2013-00-10", "2013-1-1", "0000-01-01", "2013/01/01"] {
            assert_eq!(parse_date(bad), None, "{bad}");
        }
        assert!(parse_date("2012-02-29").is_some());
    }

    #[test]
    fn timestamps_are_read_in_utc_and_offsets_are_applied() {
        let t = parse_timestamp("2013-01-01T05:00:00Z").unwrap();
        assert_eq!(timestamp_text(t), "2013-01-01T05:00:00Z");
        for same in ["2013-01-01 05:00:00", "2013-01-01 05:00", "2013-01-01T07:00:00+02:00", "2013-01-01 00:30-0430"] {
            assert_eq!(parse_timestamp(same), Some(t), "{same}");
        }
        assert_eq!(parse_timestamp("1969-12-31 23:59:59.5"), Some(-500_000));
        assert_eq!(timestamp_text(-500_000), "1969-12-31T23:59:59.500000Z");
        for bad in ["2013-01-01 24:00", "2013-01-01 05", "2013-01-01 05:00:00.1234567", "2013-01-01 05:00:00.", "x"] {
            assert_eq!(parse_timestamp(bad), None, "{bad}");
        }
    }
}
