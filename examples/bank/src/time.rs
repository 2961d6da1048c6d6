//! Times on the command line and in queries: RFC 3339, or a date.

use chrono::{DateTime, Days, NaiveDate, NaiveDateTime, NaiveTime, SecondsFormat, TimeDelta, Utc};

/// The first moment of what `text` names.
pub(crate) fn start_of(text: &str) -> Result<DateTime<Utc>, String> {
    parse(text).map(|named| match named {
        Named::Moment(time) => time,
        Named::Day(day) => midnight(day),
    })
}

/// The first moment after what `text` names: a date is meant to its end, a time is included itself.
pub(crate) fn end_of(text: &str) -> Result<DateTime<Utc>, String> {
    let after = parse(text).map(|named| match named {
        // Times are kept to the microsecond.
        Named::Moment(time) => time.checked_add_signed(TimeDelta::microseconds(1)),
        Named::Day(day) => day.checked_add_days(Days::new(1)).map(midnight),
    });
    let after = after?.ok_or_else(|| format!("{text:?} is out of range"))?;
    Ok(after.min(last_stored()))
}

/// The last moment that a database stores: who writes 9999-12-31 means for ever, and must not be told of a year 10000.
fn last_stored() -> DateTime<Utc> {
    let day = NaiveDate::from_ymd_opt(9999, 12, 31).expect("a day");
    midnight(day) + TimeDelta::days(1) - TimeDelta::microseconds(1)
}

/// The last moment of what `text` names: a date is meant to its end.
pub(crate) fn last_of(text: &str) -> Result<DateTime<Utc>, String> {
    end_of(text).map(|end| end - TimeDelta::microseconds(1))
}

/// A time as it is printed.
pub(crate) fn shown(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::AutoSi, true)
}

/// The begin of a day in UTC.
pub(crate) fn midnight(day: NaiveDate) -> DateTime<Utc> {
    day.and_time(NaiveTime::MIN).and_utc()
}

/// Six digits, `YYMMDD`: the dates of the PKDD'99 files, which are of 1993 to 1998. Two digits say no century, so years are
/// read from 1990 to 1999 alone, and 24 is neither 1924 nor 2024.
pub(crate) fn yymmdd(text: &str) -> Result<NaiveDate, String> {
    if text.len() != 6 || !text.bytes().all(|digit| digit.is_ascii_digit()) {
        return Err(format!("{text:?} is not a date of the form YYMMDD"));
    }
    if !text.starts_with('9') {
        return Err(format!("{text:?} is not of 1990 to 1999: other years can't be told from two digits"));
    }
    NaiveDate::parse_from_str(&format!("19{text}"), "%Y%m%d")
        .map_err(|_| format!("{text:?} is not a date: there is no such day"))
}

/// Times without a zone, which is nobody's to guess.
const NAIVE: [&str; 4] = ["%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%dT%H:%M", "%Y-%m-%d %H:%M"];

enum Named {
    Moment(DateTime<Utc>),
    Day(NaiveDate),
}

fn parse(text: &str) -> Result<Named, String> {
    if let Ok(time) = DateTime::parse_from_rfc3339(text) {
        return Ok(Named::Moment(time.with_timezone(&Utc)));
    }
    if let Ok(day) = NaiveDate::parse_from_str(text, "%Y-%m-%d") {
        return Ok(Named::Day(day));
    }
    let naive = NAIVE.iter().find_map(|format| NaiveDateTime::parse_from_str(text, format).ok());
    if let Some(time) = naive.map(|time| time.format("%Y-%m-%dT%H:%M:%S%.f")) {
        let offset = "+01:00 with its offset (%2B01:00 in a URL)";
        return Err(format!("{text:?} has no time zone: write {time}Z for UTC, or {time}{offset}"));
    }
    if let Some((time, offset)) = text.rsplit_once(' ')
        && DateTime::parse_from_rfc3339(&format!("{time}+{offset}")).is_ok()
    {
        return Err(format!("{text:?} has a space where its offset begins: in a URL write {time}%2B{offset}"));
    }
    if let Some(day) = text.get(..10).filter(|day| has_form(day, "0000-00-00")) {
        return Err(match NaiveDate::parse_from_str(day, "%Y-%m-%d") {
            Err(_) => format!("{text:?} is not a date: there is no day {day}"),
            Ok(_) => format!("{text:?} is not a time: behind the day it goes on as in {day}T12:00:00Z"),
        });
    }
    Err(format!("{text:?} is neither a date as 1993-12-31 nor a time as 1993-12-31T12:00:00Z"))
}

/// Whether a text has a digit where the form has one, and else is the same.
fn has_form(text: &str, form: &str) -> bool {
    let fits = |(byte, form): (u8, u8)| if form == b'0' { byte.is_ascii_digit() } else { byte == form };
    text.len() == form.len() && text.bytes().zip(form.bytes()).all(fits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_is_meant_from_its_begin_to_its_end() {
        assert_eq!(start_of("1993-12-31").unwrap().to_rfc3339(), "1993-12-31T00:00:00+00:00");
        assert_eq!(end_of("1993-12-31").unwrap().to_rfc3339(), "1994-01-01T00:00:00+00:00");
        let noon = "1993-12-31T12:00:00+02:00";
        assert_eq!(start_of(noon).unwrap().to_rfc3339(), "1993-12-31T10:00:00+00:00");
        assert_eq!(end_of(noon).unwrap() - start_of(noon).unwrap(), TimeDelta::microseconds(1));
        for wrong in ["", "yesterday", "1993-02-30", "1993-12-31T12:00", "931231"] {
            assert!(start_of(wrong).is_err() && end_of(wrong).is_err(), "{wrong}");
        }
        assert_eq!(last_of("1993-12-31").unwrap().to_rfc3339(), "1993-12-31T23:59:59.999999+00:00");
        assert_eq!(last_of(noon), start_of(noon));
        assert_eq!(end_of("9999-12-31").unwrap().to_rfc3339(), "9999-12-31T23:59:59.999999+00:00");
    }

    #[test]
    fn a_time_without_a_zone_is_refused_with_the_remedy() {
        for (text, remedy) in [
            ("1993-12-31T12:00:00", "1993-12-31T12:00:00Z"),
            ("1993-12-31 12:00:00.5", "1993-12-31T12:00:00.500Z"),
            ("1993-12-31T12:00", "1993-12-31T12:00:00Z"),
        ] {
            let error = last_of(text).unwrap_err();
            assert!(error.contains("has no time zone") && error.contains(&format!("write {remedy} ")), "{error}");
            assert!(last_of(remedy).is_ok());
        }
        assert!(last_of("31.12.1993").unwrap_err().contains("is neither a date as"));
    }

    #[test]
    fn what_is_wrong_with_a_time_is_told() {
        for (text, told) in [
            ("2026-11-31", "there is no day 2026-11-31"),
            ("2026-02-29", "there is no day 2026-02-29"),
            ("2026-13-01", "there is no day 2026-13-01"),
            ("2026-11-31T12:00:00Z", "there is no day 2026-11-31"),
            ("2026-11-31T12:00:00+01:00", "there is no day 2026-11-31"),
            ("2026-11-30T25:00:00Z", "it goes on as in 2026-11-30T12:00:00Z"),
            ("2026-11-30 noon", "it goes on as in 2026-11-30T12:00:00Z"),
            // A + in a query is a space to whoever reads it.
            ("2026-11-30T12:00:00 01:00", "in a URL write 2026-11-30T12:00:00%2B01:00"),
            ("ž026-11-30", "is neither a date as"),
        ] {
            for read in [start_of, end_of, last_of] {
                let error = read(text).unwrap_err();
                assert!(error.contains(told), "{text}: {error}");
            }
        }
    }

    #[test]
    fn six_digits_are_a_date_of_the_nineties_alone() {
        assert_eq!(yymmdd("930101"), Ok(NaiveDate::from_ymd_opt(1993, 1, 1).unwrap()));
        assert_eq!(yymmdd("991231"), Ok(NaiveDate::from_ymd_opt(1999, 12, 31).unwrap()));
        for wrong in ["", "930230", "93011", "9301011", "93-1-1", "+30101"] {
            assert!(yymmdd(wrong).is_err(), "{wrong}");
        }
        for other in ["000101", "240101", "891231", "260228"] {
            let error = yymmdd(other).unwrap_err();
            assert!(error.contains("is not of 1990 to 1999"), "{error}");
        }
    }
}
