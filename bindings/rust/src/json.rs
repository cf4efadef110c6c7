// SPDX-License-Identifier: Apache-2.0

//! The strict JSON of spec/sig-section.md, section 6.

use std::collections::BTreeMap;

const MAX_DEPTH: usize = 8;
const MAX_INTEGER: u64 = (1 << 53) - 1;

/// The members of an object, each once.
pub type Members = BTreeMap<String, Value>;

#[derive(Debug, PartialEq)]
pub enum Value {
    Object(Members),
    Array(Vec<Value>),
    Text(String),
    Integer(u64),
    Boolean(bool),
    Null,
}

type Parsed<T> = Result<T, String>;

struct Parser<'a> {
    text: &'a str,
    at: usize,
    depth: usize,
}

/// Return the object in the data, UTF-8 text that holds one JSON object and nothing else. Memory is linear in
/// the size of the data, and the depth of the recursion is bounded.
pub fn parse(data: &[u8]) -> Parsed<Members> {
    let text = std::str::from_utf8(data).map_err(|_| "JSON: not UTF-8".to_string())?;
    let mut parser = Parser { text, at: 0, depth: 0 };
    let value = parser.value()?;
    parser.skip_space();
    if parser.at != text.len() {
        return parser.fault("text after the object");
    }
    match value {
        Value::Object(members) => Ok(members),
        _ => parser.fault("not an object"),
    }
}

impl Parser<'_> {
    fn fault<T>(&self, problem: &str) -> Parsed<T> {
        let before = &self.text.as_bytes()[..self.at.min(self.text.len())];
        let line = 1 + before.iter().filter(|octet| **octet == b'\n').count();
        Err(format!("JSON: line {line}: {problem}"))
    }

    /// Return the next byte, or 0 at the end; a zero byte in the text is no token.
    fn peek(&self) -> u8 {
        self.text.as_bytes().get(self.at).copied().unwrap_or(0)
    }

    fn skip_space(&mut self) {
        while matches!(self.peek(), b' ' | b'\t' | b'\n' | b'\r') {
            self.at += 1;
        }
    }

    /// Consume a byte, with the white space before it, and return whether it was there.
    fn take(&mut self, token: u8) -> bool {
        self.skip_space();
        let found = self.peek() == token;
        self.at += usize::from(found);
        found
    }

    fn value(&mut self) -> Parsed<Value> {
        self.skip_space();
        match self.peek() {
            b'{' => self.nested(Self::object),
            b'[' => self.nested(Self::array),
            b'"' => Ok(Value::Text(self.string()?)),
            b'-' | b'0'..=b'9' => self.integer(),
            _ => self.word(),
        }
    }

    fn word(&mut self) -> Parsed<Value> {
        let rest = &self.text.as_bytes()[self.at..];
        for (word, value) in
            [("true", Value::Boolean(true)), ("false", Value::Boolean(false)), ("null", Value::Null)]
        {
            if rest.starts_with(word.as_bytes()) {
                self.at += word.len();
                return Ok(value);
            }
        }
        self.fault("not a value")
    }

    fn nested(&mut self, parse: fn(&mut Self) -> Parsed<Value>) -> Parsed<Value> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return self.fault(&format!("nested more than {MAX_DEPTH} deep"));
        }
        self.at += 1;
        let value = parse(self)?;
        self.depth -= 1;
        Ok(value)
    }

    fn object(&mut self) -> Parsed<Value> {
        let mut members = Members::new();
        if self.take(b'}') {
            return Ok(Value::Object(members));
        }
        loop {
            self.skip_space();
            if self.peek() != b'"' {
                return self.fault("not a member name");
            }
            let name = self.string()?;
            if members.contains_key(&name) {
                return self.fault("duplicate member");
            }
            if !self.take(b':') {
                return self.fault("no colon after a member name");
            }
            let value = self.value()?;
            members.insert(name, value);
            if self.take(b'}') {
                return Ok(Value::Object(members));
            }
            if !self.take(b',') {
                return self.fault("no comma between members");
            }
        }
    }

    fn array(&mut self) -> Parsed<Value> {
        let mut items = Vec::new();
        if self.take(b']') {
            return Ok(Value::Array(items));
        }
        loop {
            items.push(self.value()?);
            if self.take(b']') {
                return Ok(Value::Array(items));
            }
            if !self.take(b',') {
                return self.fault("no comma between items");
            }
        }
    }

    /// Accept -0, which is 0, and 0 to 2^53 - 1 without fraction and exponent.
    fn integer(&mut self) -> Parsed<Value> {
        let negative = self.peek() == b'-';
        self.at += usize::from(negative);
        let start = self.at;
        while self.peek().is_ascii_digit() {
            self.at += 1;
        }
        let digits = &self.text[start..self.at];
        if digits.is_empty()
            || (digits.starts_with('0') && digits.len() > 1)
            || matches!(self.peek(), b'.' | b'e' | b'E')
        {
            return self.fault("not an integer");
        }
        match digits.parse::<u64>() {
            Ok(value) if value <= MAX_INTEGER && (value == 0 || !negative) => Ok(Value::Integer(value)),
            _ => self.fault("not an integer from 0 to 2^53 - 1"),
        }
    }

    /// Read a string without U+0000 and lone surrogates.
    fn string(&mut self) -> Parsed<String> {
        self.at += 1;
        let mut out = String::new();
        let mut start = self.at;
        loop {
            // Every byte that ends a part is ASCII, so the parts are whole characters.
            match self.peek() {
                b'"' => {
                    out.push_str(&self.text[start..self.at]);
                    self.at += 1;
                    return Ok(out);
                }
                b'\\' => {
                    out.push_str(&self.text[start..self.at]);
                    self.at += 1;
                    match self.escape() {
                        Some(character) => out.push(character),
                        None => return self.fault("an escape that is not allowed"),
                    }
                    start = self.at;
                }
                0..=0x1f => return self.fault("a control character in a string, or no end of it"),
                _ => self.at += 1,
            }
        }
    }

    fn escape(&mut self) -> Option<char> {
        let kind = self.peek();
        let plain = match kind {
            b'"' | b'\\' | b'/' => char::from(kind),
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => return self.unicode(),
            _ => return None,
        };
        self.at += 1;
        Some(plain)
    }

    fn unicode(&mut self) -> Option<char> {
        let first = self.unit()?;
        if !(0xd800..0xe000).contains(&first) {
            return char::from_u32(first).filter(|character| *character != '\0');
        }
        if self.peek() != b'\\' {
            return None;
        }
        self.at += 1;
        let second = self.unit()?;
        if first >= 0xdc00 || !(0xdc00..0xe000).contains(&second) {
            return None;
        }
        char::from_u32(0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00))
    }

    /// Read a `u` and four hexadecimal digits.
    fn unit(&mut self) -> Option<u32> {
        let digits = self.text.as_bytes().get(self.at..self.at + 5)?;
        if digits[0] != b'u' {
            return None;
        }
        let mut value = 0;
        for digit in &digits[1..] {
            value = value << 4 | char::from(*digit).to_digit(16)?;
        }
        self.at += 5;
        Some(value)
    }
}

#[cfg(test)]
mod tests {
    use super::{parse, Value};

    // The vectors have text of the smallest and largest escapes; these are forms that a parser can mistake.
    #[test]
    fn strings() {
        for (text, want) in [
            (r#""\u00e9\uD83D\ude00""#, Some("\u{e9}\u{1f600}")),
            (r#""\"\\\/\b\f\n\r\t""#, Some("\"\\/\u{8}\u{c}\n\r\t")),
            (r#""\uFFFE""#, Some("\u{fffe}")),
            (r#""\u0000""#, None),
            (r#""\ud800""#, None),
            (r#""\ud800\u0041""#, None),
            (r#""\udc00\ud800""#, None),
            (r#""\u00g0""#, None),
            (r#""\u00 0""#, None),
            (r#""\u+001""#, None),
            (r#""\u001""#, None),
            (r#""\x41""#, None),
            ("\"\t\"", None),
            ("\"\0\"", None),
            (r#""\"#, None),
            ("\"", None),
            (r#""\ud800\u"#, None),
            ("\"\\\u{e9}\"", None),
        ] {
            let found = parse(format!("{{\"a\":{text}}}").as_bytes()).ok();
            let wanted = want.map(|text| Value::Text(text.to_string()));
            assert_eq!(found.map(|mut members| members.remove("a").unwrap()), wanted, "{text}");
        }
    }
}
