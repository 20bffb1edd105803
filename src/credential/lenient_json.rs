//! Reads JSON that a strict parser refuses: cut, badly escaped, not UTF-8, or surrounded by other text. (pure)
//!
//! A token endpoint cannot be asked for its response again. So where a strict parser finds a fault, this one takes what
//! is complete: a text counts only with its first and its last quote.

use std::iter::Peekable;
use std::str::Chars;

use serde_json::{Map, Value};

/// The deepest level that is kept; what lies deeper is skipped.
const MAX_DEPTH: usize = 64;

/// The objects and arrays in `text`, as far as they can be read; an array of them if there are several. Members that
/// are neither text, number, `true`, `false` nor an object or array of these are `null`.
pub(super) fn parse(text: &str) -> Option<Value> {
    let start = text.find(['{', '['])?;
    // An HTML page that happens to hold a brace is not a response.
    if text[..start].contains('<') {
        return None;
    }
    LenientParser { chars: text[start..].chars().peekable(), open_containers: Vec::new(), finished: Vec::new() }.read()
}

struct LenientParser<'a> {
    chars: Peekable<Chars<'a>>,
    /// The containers that are open, the innermost last.
    open_containers: Vec<Container>,
    /// The containers that were closed at the top level.
    finished: Vec<Value>,
}

enum Container {
    Object {
        members: Map<String, Value>,
        key: Option<String>,
    },
    Array(Vec<Value>),
    /// Too deep to be kept.
    TooDeep,
}

impl LenientParser<'_> {
    fn read(mut self) -> Option<Value> {
        while let Some(c) = self.chars.next() {
            match c {
                '{' => self.enter(Container::Object { members: Map::new(), key: None }),
                '[' => self.enter(Container::Array(Vec::new())),
                '}' | ']' => self.leave(),
                ',' => self.forget_key(),
                '"' | '\'' => match self.quoted(c) {
                    Some(text) => self.take_text(text),
                    None => self.forget_key(),
                },
                c if c.is_alphanumeric() || "-+._$".contains(c) => self.bare_word(c),
                _ => {}
            }
        }
        // The text has ended, so every open container ends here.
        while !self.open_containers.is_empty() {
            self.leave();
        }
        if self.finished.len() > 1 { Some(Value::Array(self.finished)) } else { self.finished.pop() }
    }

    fn enter(&mut self, level: Container) {
        self.open_containers.push(if self.open_containers.len() < MAX_DEPTH { level } else { Container::TooDeep });
    }

    /// Closes the innermost level.
    fn leave(&mut self) {
        let value = match self.open_containers.pop() {
            Some(Container::Object { members, .. }) => Value::Object(members),
            Some(Container::Array(items)) => Value::Array(items),
            Some(Container::TooDeep) => Value::Null,
            None => return,
        };
        match self.open_containers.is_empty() {
            true => self.finished.push(value),
            false => self.add_value(value),
        }
    }

    fn add_value(&mut self, value: Value) {
        match self.open_containers.last_mut() {
            Some(Container::Object { members, key }) => {
                if let Some(key) = key.take() {
                    members.insert(key, value);
                }
            }
            Some(Container::Array(items)) => items.push(value),
            Some(Container::TooDeep) | None => {}
        }
    }

    fn forget_key(&mut self) {
        if let Some(Container::Object { key, .. }) = self.open_containers.last_mut() {
            *key = None;
        }
    }

    /// A text is a key if a colon follows it where a key may stand, else a value.
    fn take_text(&mut self, text: String) {
        while self.chars.next_if(|c| c.is_whitespace()).is_some() {}
        let is_key = self.chars.peek() == Some(&':');
        match self.open_containers.last_mut() {
            Some(Container::Object { key, .. }) if is_key => *key = Some(text),
            _ => self.add_value(Value::String(text)),
        }
    }

    /// A text up to its closing quote; `None` if the response ends before that.
    fn quoted(&mut self, quote: char) -> Option<String> {
        let mut text = String::new();
        loop {
            match self.chars.next() {
                Some('\\') => text.push(self.escaped()?),
                Some(c) if c == quote => return Some(text),
                Some(c) => text.push(c),
                None => return None,
            }
        }
    }

    fn escaped(&mut self) -> Option<char> {
        Some(match self.chars.next()? {
            'b' => '\u{8}',
            'f' => '\u{c}',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'u' => self.code_point(),
            c => c,
        })
    }

    /// The character of `\uXXXX`, or of two of them that are surrogates of one; else U+FFFD.
    fn code_point(&mut self) -> char {
        let high = self.hex4();
        if !(0xd800..0xdc00).contains(&high) {
            return char::from_u32(high).unwrap_or(char::REPLACEMENT_CHARACTER);
        }
        let mut ahead = self.chars.clone();
        if (ahead.next(), ahead.next()) != (Some('\\'), Some('u')) {
            return char::REPLACEMENT_CHARACTER;
        }
        let mut other = LenientParser { chars: ahead, open_containers: Vec::new(), finished: Vec::new() };
        let low = other.hex4();
        if !(0xdc00..0xe000).contains(&low) {
            return char::REPLACEMENT_CHARACTER;
        }
        self.chars.next();
        self.chars.next();
        self.hex4();
        char::from_u32(0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00)).unwrap_or(char::REPLACEMENT_CHARACTER)
    }

    fn hex4(&mut self) -> u32 {
        let mut n = 0;
        for _ in 0..4 {
            match self.chars.next_if(char::is_ascii_hexdigit).and_then(|c| c.to_digit(16)) {
                Some(digit) => n = n * 16 + digit,
                None => return u32::from(char::REPLACEMENT_CHARACTER),
            }
        }
        n
    }

    /// A word without quotes: a key, a number, a truth value, or nothing.
    fn bare_word(&mut self, first: char) {
        let mut word = String::from(first);
        while let Some(c) = self.chars.next_if(|c| c.is_alphanumeric() || "-+._$".contains(*c)) {
            word.push(c);
        }
        // A number that the end of the response may have cut does not count.
        let is_whole = self.chars.peek().is_some();
        while self.chars.next_if(|c| c.is_whitespace()).is_some() {}
        if self.chars.peek() == Some(&':') {
            self.take_text(word);
        } else {
            self.add_value(serde_json::from_str(&word).ok().filter(|_| is_whole).unwrap_or(Value::Null));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn lenient_parser_reads_valid_json_as_a_strict_one_does() {
        for text in [
            r#"{"a":"b","n":-1.5e3,"t":true,"f":false,"z":null,"l":[1,"x",{"y":[]}],"o":{"p":{}}}"#,
            r#"{"esc":"\"\\\/\b\f\n\r\t\u00e9\ud83d\ude00"}"#,
            "[]",
            "{}",
        ] {
            assert_eq!(parse(text), serde_json::from_str(text).ok(), "{text}");
        }
    }

    #[test]
    fn lenient_parser_skips_stray_text_and_syntax_errors() {
        for text in [
            r#"{"a":"b","c":1}garbage"#,
            r#")]}',{"a":"b","c":1}"#,
            r#"{"a":"b","c":1,}"#,
            r#"{'a':'b','c':1}"#,
            r#"{a:"b",c:1}"#,
            "{\"a\":\"b\" \"c\":1\n",
        ] {
            assert_eq!(parse(text), Some(json!({"a": "b", "c": 1})), "{text}");
        }
        assert_eq!(parse(r#"{"n":1e999,"x":NaN,"y":None,"a":"b"}"#), Some(json!({"n":null,"x":null,"y":null,"a":"b"})));
        assert_eq!(parse("{\"a\":\"b\nc\",\"d\":\"\\ud800e\"}"), Some(json!({"a": "b\nc", "d": "\u{fffd}e"})));
    }

    #[test]
    fn truncated_json_gives_only_complete_members() {
        let text = r#"{"access_token":"abc","expires_in":3600,"refresh_token":"def","scope":"x"}"#;
        for end in 0..text.len() {
            let value = parse(&text[..end]).unwrap_or_default();
            for (key, whole) in
                [("access_token", json!("abc")), ("expires_in", json!(3600)), ("refresh_token", json!("def"))]
            {
                let found = value.get(key);
                assert!(found.is_none() || found == Some(&whole) || found == Some(&Value::Null), "{end}: {value}");
            }
        }
    }

    #[test]
    fn lenient_parser_reads_deep_nesting_and_refuses_html() {
        let deep = format!("{}\"x\":{}", "{\"a\":[".repeat(200_000), "]}".repeat(200_000));
        assert!(parse(&deep).is_some());
        assert_eq!(parse("<script>var x = {\"refresh_token\":\"r\"}</script>"), None);
        assert_eq!(parse("no braces"), None);
        assert_eq!(parse("}"), None);
    }

    #[test]
    fn json_values_side_by_side_are_all_read() {
        assert_eq!(parse("[INFO] {\"a\":1} x {\"b\""), Some(json!([[null], {"a": 1}, {}])));
    }
}
