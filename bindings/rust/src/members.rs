// SPDX-License-Identifier: Apache-2.0

//! Checks of JSON values: the types in the tables of spec/sig-section.md, section 6, and spec/trust-policy.md.

use crate::json::{Members, Value};

const MAX_NAME_BYTES: usize = 128;

type Checked<T> = Result<T, String>;

/// An object whose members are taken one by one. `finish` refuses those that were not taken.
pub struct Fields {
    place: &'static str,
    members: Members,
}

impl Fields {
    pub fn new(place: &'static str, value: Value) -> Checked<Self> {
        match value {
            Value::Object(members) => Ok(Fields { place, members }),
            _ => Err(format!("{place}: not an object")),
        }
    }

    pub fn of(place: &'static str, members: Members) -> Self {
        Fields { place, members }
    }

    /// Take a member that may be absent. The check returns None for another kind of value.
    pub fn optional<T>(&mut self, name: &str, check: fn(Value) -> Option<T>) -> Checked<Option<T>> {
        match self.members.remove(name) {
            None => Ok(None),
            Some(value) => match check(value) {
                None => Err(format!("{}: {name} is wrong", self.place)),
                found => Ok(found),
            },
        }
    }

    /// Take a member that must be there.
    pub fn required<T>(&mut self, name: &str, check: fn(Value) -> Option<T>) -> Checked<T> {
        self.optional(name, check)?.ok_or_else(|| format!("{}: {name} is missing", self.place))
    }

    pub fn finish(self) -> Checked<()> {
        if self.members.is_empty() {
            Ok(())
        } else {
            Err(format!("{}: unknown member", self.place))
        }
    }
}

pub fn any(value: Value) -> Option<Value> {
    Some(value)
}

pub fn text(value: Value) -> Option<String> {
    match value {
        Value::Text(text) => Some(text),
        _ => None,
    }
}

pub fn array(value: Value) -> Option<Vec<Value>> {
    match value {
        Value::Array(items) => Some(items),
        _ => None,
    }
}

pub fn object(value: Value) -> Option<Members> {
    match value {
        Value::Object(members) => Some(members),
        _ => None,
    }
}

pub fn boolean(value: Value) -> Option<bool> {
    match value {
        Value::Boolean(found) => Some(found),
        _ => None,
    }
}

/// The parser accepts no integer outside 0 to 2^53 - 1.
pub fn integer(value: Value) -> Option<u64> {
    match value {
        Value::Integer(number) => Some(number),
        _ => None,
    }
}

pub fn texts(value: Value) -> Option<Vec<String>> {
    array(value)?.into_iter().map(text).collect()
}

/// Strings that strictly ascend as UTF-8 bytes, which is the order of Rust's strings.
pub fn text_set(value: Value) -> Option<Vec<String>> {
    texts(value).filter(|items| ascends(items))
}

pub fn integer_set(value: Value) -> Option<Vec<u64>> {
    let items: Option<Vec<u64>> = array(value)?.into_iter().map(integer).collect();
    items.filter(|items| ascends(items))
}

fn ascends<T: PartialOrd>(items: &[T]) -> bool {
    items.windows(2).all(|pair| pair[0] < pair[1])
}

fn is_name(text: &str, others: &[u8]) -> bool {
    (1..=MAX_NAME_BYTES).contains(&text.len())
        && text.bytes().all(|octet| octet.is_ascii_alphanumeric() || others.contains(&octet))
}

pub fn is_object_name(text: &str) -> bool {
    is_name(text, b"._-") && !text.starts_with(['.', '-'])
}

pub fn object_name(value: Value) -> Option<String> {
    text(value).filter(|text| is_object_name(text))
}

pub fn project(value: Value) -> Option<String> {
    text(value).filter(|text| is_name(text, b"._-/"))
}

/// 64 lower-case hexadecimal digits.
pub fn sha256(value: Value) -> Option<String> {
    text(value).filter(|text| text.len() == 64 && text.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f')))
}

/// Return the seconds since 1970 of YYYY-MM-DDTHH:MM:SSZ, from 1970 on.
pub fn time(value: Value) -> Option<i64> {
    let text = text(value)?;
    let octets = text.as_bytes();
    let fits = |(octet, form): (&u8, &u8)| if *form == b'0' { octet.is_ascii_digit() } else { octet == form };
    let form = b"0000-00-00T00:00:00Z";
    if octets.len() != form.len() || !octets.iter().zip(form).all(fits) {
        return None;
    }
    let part =
        |from: usize, to: usize| octets[from..to].iter().fold(0, |value, c| value * 10 + i64::from(c - b'0'));
    let (year, month, day) = (part(0, 4), part(5, 7), part(8, 10));
    let (hour, minute, second) = (part(11, 13), part(14, 16), part(17, 19));
    let leap = i64::from((year % 4 == 0 && year % 100 != 0) || year % 400 == 0);
    let lengths = [31, 28 + leap, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    if year < 1970 || !(1..=12).contains(&month) || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let past = month as usize - 1;
    if day < 1 || day > lengths[past] {
        return None;
    }
    // 477 leap days lie between the years 1 and 1970.
    let years = year - 1;
    let days = (year - 1970) * 365 + (years / 4 - years / 100 + years / 400) - 477;
    let days = days + lengths[..past].iter().sum::<i64>() + day - 1;
    Some(((days * 24 + hour) * 60 + minute) * 60 + second)
}

#[cfg(test)]
mod tests {
    use super::{time, Value};

    #[test]
    fn times() {
        for (text, want) in [
            ("1970-01-01T00:00:00Z", Some(0)),
            ("2026-06-01T00:00:00Z", Some(1_780_272_000)),
            ("2024-02-29T23:59:59Z", Some(1_709_251_199)),
            ("9999-12-31T23:59:59Z", Some(253_402_300_799)),
            ("2026-02-29T00:00:00Z", None),
            ("2100-02-29T00:00:00Z", None),
            ("1969-12-31T23:59:59Z", None),
            ("2026-06-01T24:00:00Z", None),
            ("2026-06-01T00:00:60Z", None),
            ("2026-00-01T00:00:00Z", None),
            ("2026-13-01T00:00:00Z", None),
            ("2026-06-00T00:00:00Z", None),
            ("2026-06-01t00:00:00Z", None),
            ("2026-06-01T00:00:00", None),
        ] {
            assert_eq!(time(Value::Text(text.to_string())), want, "{text}");
        }
    }
}
