// SPDX-License-Identifier: Apache-2.0

//! What the loading machine may set (spec/sig-section.md, section 6, Settable).

use crate::json::Value;
use crate::members::{array, integer, object_name, text, Fields};
use crate::statement::Map;

const MAX_ITEMS: usize = 128;
const MAX_VALUES: usize = 64;
const MAX_BYTES: u64 = 4096;
const MAX_ENTRIES: u64 = (1 << 32) - 1;
const MAX_SETTING_BYTES: usize = 24;
const LOWEST: i128 = -(1 << 63);
const HIGHEST: i128 = (1 << 64) - 1;
/// libbpf's name of the map inside a map of maps.
const INNER_SUFFIX: &str = ".inner";

/// What the machine that loads an object may set, and within which bounds.
#[derive(Clone, Debug, Default)]
pub struct Settable {
    /// Constants (`const volatile`), in the order of their names.
    pub variables: Vec<SettableVariable>,
    /// Maps, in the order of their names.
    pub maps: Vec<SettableMap>,
}

/// A constant that may be set.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct SettableVariable {
    pub name: String,
    pub bounds: Bounds,
}

/// The values that a constant may have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Bounds {
    /// `true` or `false`.
    Boolean,
    /// The integers from the first to the second.
    Range(i128, i128),
    /// These integers, ascending.
    Values(Vec<i128>),
    /// Printable ASCII of at most so many bytes.
    Text(u64),
}

/// A map with a number of entries that may be set.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct SettableMap {
    pub name: String,
    pub min_entries: u64,
    pub max_entries: u64,
}

impl Bounds {
    /// Return whether the bounds allow a value: `true` or `false`, an integer (decimal, or hexadecimal after
    /// `0x`), or a string of printable ASCII.
    pub fn allow(&self, value: &str) -> bool {
        match self {
            Bounds::Boolean => matches!(value, "true" | "false"),
            Bounds::Range(low, high) => read_setting(value).is_some_and(|found| (*low..=*high).contains(&found)),
            Bounds::Values(values) => read_setting(value).is_some_and(|found| values.contains(&found)),
            Bounds::Text(limit) => {
                value.len() as u64 <= *limit && value.bytes().all(|octet| (b' '..=b'~').contains(&octet))
            }
        }
    }
}

impl Settable {
    /// Return whether the signers let the variable have the value, as [`Bounds::allow`] says.
    pub fn allows_value(&self, variable: &str, value: &str) -> bool {
        self.variables.iter().any(|item| item.name == variable && item.bounds.allow(value))
    }

    /// Return whether the signers let the map have so many entries. The name of the map inside a map of maps is
    /// that of the outer map, and `.inner`.
    pub fn allows_entries(&self, map: &str, entries: u32) -> bool {
        let entries = u64::from(entries);
        self.maps.iter().any(|item| item.name == map && (item.min_entries..=item.max_entries).contains(&entries))
    }

    /// Read the member of a statement with these maps.
    pub(crate) fn parse(value: Value, maps: &[Map]) -> Result<Self, String> {
        let mut fields = Fields::new("settable", value)?;
        let variables = fields.optional("variables", array)?;
        let sizes = fields.optional("maps", array)?;
        fields.finish()?;
        if variables.is_none() && sizes.is_none() {
            return Err("settable: empty".to_string());
        }
        let settable = Settable {
            variables: read_items(variables, read_variable, |item| &item.name)?,
            maps: read_items(sizes, read_map, |item| &item.name)?,
        };
        match settable.maps.iter().find(|item| !has_map(maps, &item.name)) {
            Some(_) => Err("settable map: not among the maps".to_string()),
            None => Ok(settable),
        }
    }
}

/// Read an array of 1 to 128 items in ascending order of their names, if it is there.
fn read_items<T>(
    items: Option<Vec<Value>>,
    read: fn(Value) -> Result<T, String>,
    name: fn(&T) -> &String,
) -> Result<Vec<T>, String> {
    let Some(items) = items else { return Ok(Vec::new()) };
    if items.is_empty() || items.len() > MAX_ITEMS {
        return Err(format!("settable: not 1 to {MAX_ITEMS} items"));
    }
    let found = items.into_iter().map(read).collect::<Result<Vec<T>, String>>()?;
    if found.windows(2).any(|pair| name(&pair[0]) >= name(&pair[1])) {
        return Err("settable: the names do not ascend".to_string());
    }
    Ok(found)
}

/// Read an integer as people write it: decimal, or hexadecimal after 0x.
fn read_setting(text: &str) -> Option<i128> {
    if text.len() > MAX_SETTING_BYTES {
        return None;
    }
    let (negative, rest) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
    let hexadecimal = rest.strip_prefix("0x").or_else(|| rest.strip_prefix("0X"));
    let (digits, base) = hexadecimal.map_or((rest, 10), |digits| (digits, 16));
    // from_str_radix accepts a sign.
    if !digits.bytes().all(|octet| octet.is_ascii_hexdigit()) {
        return None;
    }
    let number = i128::from_str_radix(digits, base).ok()?;
    Some(if negative { -number } else { number }).filter(|number| (LOWEST..=HIGHEST).contains(number))
}

/// Read the one text of an integer from -2^63 to 2^64 - 1.
fn read_integer(text: &str) -> Option<i128> {
    let number: i128 = text.parse().ok()?;
    (number.to_string() == text && (LOWEST..=HIGHEST).contains(&number)).then_some(number)
}

fn integer_text(value: Value) -> Option<i128> {
    read_integer(&text(value)?)
}

fn value_list(value: Value) -> Option<Vec<i128>> {
    let items: Vec<i128> = array(value)?.into_iter().map(integer_text).collect::<Option<_>>()?;
    let ascends = items.windows(2).all(|pair| pair[0] < pair[1]);
    (ascends && (1..=MAX_VALUES).contains(&items.len())).then_some(items)
}

fn text_size(value: Value) -> Option<u64> {
    integer(value).filter(|size| (1..=MAX_BYTES).contains(size))
}

fn entries(value: Value) -> Option<u64> {
    integer(value).filter(|count| (1..=MAX_ENTRIES).contains(count))
}

fn read_variable(value: Value) -> Result<SettableVariable, String> {
    let mut fields = Fields::new("settable variable", value)?;
    let name = fields.required("name", object_name)?;
    let bounds = match fields.required("type", text)?.as_str() {
        "boolean" => Bounds::Boolean,
        "string" => Bounds::Text(fields.required("maxBytes", text_size)?),
        "integer" => match fields.optional("values", value_list)? {
            Some(values) => Bounds::Values(values),
            None => Bounds::Range(fields.required("min", integer_text)?, fields.required("max", integer_text)?),
        },
        _ => return Err("settable variable: type is wrong".to_string()),
    };
    fields.finish()?;
    match bounds {
        Bounds::Range(low, high) if low > high => Err("settable variable: min is above max".to_string()),
        bounds => Ok(SettableVariable { name, bounds }),
    }
}

fn read_map(value: Value) -> Result<SettableMap, String> {
    let mut fields = Fields::new("settable map", value)?;
    let map = SettableMap {
        name: fields.required("name", object_name)?,
        min_entries: fields.required("minEntries", entries)?,
        max_entries: fields.required("maxEntries", entries)?,
    };
    fields.finish()?;
    if map.min_entries > map.max_entries {
        return Err("settable map: minEntries is above maxEntries".to_string());
    }
    Ok(map)
}

/// Return whether the object has the map, or the map of maps that it is inside of.
fn has_map(maps: &[Map], name: &str) -> bool {
    let outer = name.strip_suffix(INNER_SUFFIX);
    maps.iter().any(|map| {
        map.name == name
            || (outer == Some(map.name.as_str()) && matches!(map.kind.as_str(), "array_of_maps" | "hash_of_maps"))
    })
}

#[cfg(test)]
mod tests {
    use super::Bounds;

    #[test]
    fn bounds() {
        for (bounds, value, want) in [
            (Bounds::Boolean, "true", true),
            (Bounds::Boolean, "1", false),
            (Bounds::Range(-2, 10), "-2", true),
            (Bounds::Range(-2, 10), "10", true),
            (Bounds::Range(-2, 10), "-3", false),
            (Bounds::Range(-2, 10), "11", false),
            (Bounds::Range(-2, 10), "01", true),
            (Bounds::Range(-2, 10), "0xA", true),
            (Bounds::Range(-2, 10), "0xB", false),
            (Bounds::Range(-2, 10), "-0X2", true),
            (Bounds::Range(-2, 10), "0x", false),
            (Bounds::Range(-2, 10), "+1", false),
            (Bounds::Range(-2, 10), "--1", false),
            (Bounds::Range(-2, 10), "", false),
            (Bounds::Range(0, u64::MAX as i128), "18446744073709551615", true),
            (Bounds::Values(vec![1, 5]), "5", true),
            (Bounds::Values(vec![1, 5]), "2", false),
            (Bounds::Text(3), "a ~", true),
            (Bounds::Text(3), "abcd", false),
            (Bounds::Text(3), "\u{e9}", false),
            (Bounds::Text(3), "a\n", false),
        ] {
            assert_eq!(bounds.allow(value), want, "{bounds:?} {value:?}");
        }
    }
}
