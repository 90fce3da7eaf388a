//! Instants as signed milliseconds since 1970-01-01T00:00:00Z, and their minutes and days.
//!
//! Minutes and days round toward the past, also before 1970.

use jiff::civil::Date;

/// Milliseconds since 1970-01-01T00:00:00Z; the whole range of `i64` is a valid time.
pub type Millis = i64;

/// A day number: days since 1970-01-01, negative before.
pub type Day = i64;

/// One second in milliseconds.
pub const SECOND: Millis = 1_000;
/// One minute in milliseconds.
pub const MINUTE: Millis = 60 * SECOND;
/// One hour in milliseconds.
pub const HOUR: Millis = 60 * MINUTE;
/// One UTC day in milliseconds.
pub const DAY: Millis = 24 * HOUR;

/// Returns the start of the minute that holds `time`: m(t) of the rule language.
///
/// The first, incomplete minute of the range starts at `i64::MIN`.
pub fn minute_start(time: Millis) -> Millis {
    time.saturating_sub(time.rem_euclid(MINUTE))
}

/// Returns the UTC day that holds `time`.
pub fn day_of(time: Millis) -> Day {
    time.div_euclid(DAY)
}

/// Returns the first millisecond of `day`, or the end of the range where it lies beyond.
pub fn day_start(day: Day) -> Millis {
    day.saturating_mul(DAY)
}

/// Reads an RFC 3339 time that states its zone; digits after the millisecond are cut.
pub fn parse_rfc3339(text: &str) -> Option<Millis> {
    // jiff also takes forms that RFC 3339 does not know (a week date, a zone in brackets, no zone
    // for a civil time); the shape is held here.
    let bytes = text.as_bytes();
    let fixed = bytes.len() >= 20
        && bytes[4] == b'-'
        && bytes[7] == b'-'
        && matches!(bytes[10], b'T' | b't' | b' ')
        && bytes[13] == b':'
        && bytes[16] == b':'
        && [0, 1, 2, 3, 5, 6, 8, 9, 11, 12, 14, 15, 17, 18]
            .iter()
            .all(|&i| bytes[i].is_ascii_digit());
    if !fixed {
        return None;
    }
    let mut rest = &bytes[19..];
    if let Some(fraction) = rest.strip_prefix(b".") {
        let digits = fraction.iter().take_while(|b| b.is_ascii_digit()).count();
        if digits == 0 {
            return None;
        }
        rest = &fraction[digits..];
    }
    let offset_minutes: i64 = match rest {
        b"Z" | b"z" => 0,
        [sign @ (b'+' | b'-'), h1, h2, b':', m1, m2]
            if [h1, h2, m1, m2].iter().all(|b| b.is_ascii_digit()) =>
        {
            let hours = i64::from((h1 - b'0') * 10 + (h2 - b'0'));
            let minutes = i64::from((m1 - b'0') * 10 + (m2 - b'0'));
            if hours > 23 || minutes > 59 {
                return None;
            }
            if *sign == b'-' { -(hours * 60 + minutes) } else { hours * 60 + minutes }
        }
        _ => return None,
    };
    let number = |from: usize, to: usize| text.get(from..to)?.parse::<i64>().ok();
    let date = Date::new(
        i16::try_from(number(0, 4)?).ok()?,
        i8::try_from(number(5, 7)?).ok()?,
        i8::try_from(number(8, 10)?).ok()?,
    )
    .ok()?;
    let (hour, minute, mut second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
    if hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    second = second.min(59); // A leap second counts as the second before it.
    let fraction =
        text[19..].strip_prefix('.').unwrap_or("").bytes().take_while(u8::is_ascii_digit);
    let millis = fraction
        .chain(std::iter::repeat(b'0'))
        .take(3)
        .fold(0, |millis, digit| millis * 10 + i64::from(digit - b'0'));
    let days = date_to_day(date);
    Some(
        days * DAY + hour * HOUR + minute * MINUTE + second * SECOND + millis
            - offset_minutes * MINUTE,
    )
}

/// Writes a time as RFC 3339 in UTC with three digits of the second (`2011-12-09T12:50:00.000Z`).
///
/// A time outside the years 0000 to 9999 is written as its number of milliseconds.
pub fn format_rfc3339(time: Millis) -> String {
    match civil(day_of(time)) {
        Some(date) => {
            let of_day = time.rem_euclid(DAY);
            let (hour, minute) = (of_day / HOUR, of_day % HOUR / MINUTE);
            let (second, millis) = (of_day % MINUTE / SECOND, of_day % SECOND);
            format!("{date}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
        }
        None => time.to_string(),
    }
}

/// Reads a calendar date written `YYYY-MM-DD`.
pub fn parse_date(text: &str) -> Option<Day> {
    let bytes = text.as_bytes();
    let shape = bytes.len() == 10
        && bytes.iter().enumerate().all(|(i, b)| match i {
            4 | 7 => *b == b'-',
            _ => b.is_ascii_digit(),
        });
    if !shape {
        return None;
    }
    let date =
        Date::new(text[..4].parse().ok()?, text[5..7].parse().ok()?, text[8..].parse().ok()?)
            .ok()?;
    Some(date_to_day(date))
}

/// Writes a day as `YYYY-MM-DD`, or as its number outside the years 0000 to 9999.
pub fn format_day(day: Day) -> String {
    civil(day).unwrap_or_else(|| day.to_string())
}

/// The date of a day as `YYYY-MM-DD`, for years of four digits.
fn civil(day: Day) -> Option<String> {
    const YEAR_0000: Day = -719_528;
    const YEAR_10000: Day = 2_932_897;
    if !(YEAR_0000..YEAR_10000).contains(&day) {
        return None;
    }
    // Civil from days (Howard Hinnant): the year starts in March, so that a leap day is its last.
    let shifted = day + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_of_year = (5 * day_of_year + 2) / 153;
    let day_of_month = day_of_year - (153 * month_of_year + 2) / 5 + 1;
    let month = if month_of_year < 10 { month_of_year + 3 } else { month_of_year - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    Some(format!("{year:04}-{month:02}-{day_of_month:02}"))
}

fn date_to_day(date: Date) -> Day {
    // Days from civil (Howard Hinnant): exact for every year that `Date` can hold.
    let (year, month, day) =
        (i64::from(date.year()), i64::from(date.month()), i64::from(date.day()));
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_with_their_zone_and_cut_to_the_millisecond() {
        assert_eq!(parse_rfc3339("1970-01-01T00:00:00Z"), Some(0));
        assert_eq!(parse_rfc3339("2011-12-09T12:50:00.1239Z"), Some(1_323_435_000_123));
        assert_eq!(parse_rfc3339("2011-12-09T12:50:00.1+01:00"), Some(1_323_431_400_100));
        assert_eq!(parse_rfc3339("1969-12-31T23:59:59.999Z"), Some(-1));
        assert_eq!(parse_rfc3339("0000-01-01T00:00:00Z"), Some(-62_167_219_200_000));
        for wrong in [
            "2011-12-09",
            "2011-12-09T12:50:00",
            "2011-13-09T12:50:00Z",
            "2011-12-09T24:00:00Z",
            "x",
            "2011-12-09T12:50:00.Z",
            "2011-12-09T12:50:00Z[UTC]",
            "2011-02-29T00:00:00Z",
        ] {
            assert_eq!(parse_rfc3339(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn printing_and_reading_agree() {
        for time in [0, -1, 1_323_435_000_123, -62_167_219_200_000, 253_402_300_799_999] {
            assert_eq!(parse_rfc3339(&format_rfc3339(time)), Some(time), "{time}");
        }
        assert_eq!(format_day(parse_date("2024-02-29").unwrap()), "2024-02-29");
        assert_eq!(parse_date("2023-02-29"), None);
    }

    #[test]
    fn minutes_and_days_round_toward_the_past() {
        assert_eq!(minute_start(-1), -MINUTE);
        assert_eq!(day_of(-1), -1);
        assert_eq!(day_of(DAY - 1), 0);
        assert_eq!(minute_start(i64::MIN), i64::MIN);
    }
}
