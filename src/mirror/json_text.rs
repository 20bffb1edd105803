//! Changes members of a JSON text and leaves all else of it as it is, byte for byte. (pure)
//!
//! A parsed and rewritten document would lose what a parser does not keep: the order of members, large numbers, the form.

use std::ops::Range;

use serde_json::Value;
use zeroize::Zeroizing;

/// A valid JSON text whose root is an object.
pub(super) struct JsonText {
    text: Zeroizing<String>,
    /// The indentation of the first level; `None` where the text is on one line.
    indent: Option<String>,
}

/// Why a text is left alone. The words go on after the name of the file.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum JsonFault {
    #[error("is not JSON: {0}")]
    Syntax(String),
    #[error("is not a JSON object")]
    NoObject,
    #[error("has {0} twice")]
    Twice(String),
    #[error("has no object at {0}")]
    NoMember(String),
}

/// A member of an object, or an item of an array.
struct Child {
    name: String,
    start: usize,
    value: Range<usize>,
}

impl JsonText {
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, JsonFault> {
        let syntax = |e: &dyn std::fmt::Display| JsonFault::Syntax(e.to_string());
        let text = std::str::from_utf8(bytes).map_err(|e| syntax(&e))?;
        // The parser's own words can repeat what it found; a token is not among them, as it is in a string.
        let _valid: serde::de::IgnoredAny = serde_json::from_str(text).map_err(|e| syntax(&position(&e)))?;
        let root = skip_space(text.as_bytes(), 0);
        if text.as_bytes().get(root) != Some(&b'{') {
            return Err(JsonFault::NoObject);
        }
        let first = skip_space(text.as_bytes(), root + 1);
        let gap = &text[root + 1..first];
        let indent = gap.rsplit_once('\n').map(|(_, indent)| indent.to_owned());
        Ok(Self { text: Zeroizing::new(text.to_owned()), indent })
    }

    /// An object without members, which will have one on each line.
    pub(super) fn empty() -> Self {
        Self { text: Zeroizing::new("{}\n".to_owned()), indent: Some("  ".to_owned()) }
    }

    pub(super) fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether the root has no member left.
    pub(super) fn is_empty(&self) -> bool {
        self.children(self.root()).is_empty()
    }

    fn root(&self) -> usize {
        skip_space(self.text.as_bytes(), 0)
    }

    /// The value at a pointer.
    pub(super) fn get(&self, pointer: &str) -> Result<Option<Value>, JsonFault> {
        let mut range = self.root()..self.text.len();
        for name in segments(pointer) {
            match self.child(range.start, &name)? {
                Some(child) => range = child.value,
                None => return Ok(None),
            }
        }
        Ok(serde_json::from_str(&self.text[range]).ok())
    }

    /// The text at a pointer; `None` where there is none, or something else.
    pub(super) fn text_at(&self, pointer: &str) -> Result<Option<String>, JsonFault> {
        Ok(self.get(pointer)?.and_then(|value| value.as_str().map(str::to_owned)))
    }

    /// Sets the value at a pointer. Objects on the way there that are absent, or null, are made.
    pub(super) fn set(&mut self, pointer: &str, value: &Value) -> Result<(), JsonFault> {
        if self.get(pointer)?.as_ref() == Some(value) {
            return Ok(());
        }
        let names = segments(pointer);
        let mut at = self.root();
        for (depth, name) in names.iter().enumerate() {
            let below = &names[depth + 1..];
            match self.child(at, name)? {
                Some(child) if below.is_empty() || &self.text[child.value.clone()] == "null" => {
                    let json = self.nested(below, depth + 1, value);
                    self.text.replace_range(child.value, &json);
                    return Ok(());
                }
                Some(child) => at = child.value.start,
                None if self.text.as_bytes()[at] == b'{' => {
                    let json = self.nested(below, depth + 1, value);
                    self.insert(at, depth, name, &json);
                    return Ok(());
                }
                None => return Err(JsonFault::NoMember(pointer.to_owned())),
            }
        }
        Err(JsonFault::NoMember(pointer.to_owned()))
    }

    /// Removes the member at a pointer, and the objects around it that have nothing else.
    pub(super) fn remove(&mut self, pointer: &str) -> Result<(), JsonFault> {
        let names = segments(pointer);
        let Some((last, above)) = names.split_last() else { return Ok(()) };
        let mut at = self.root();
        for name in above {
            match self.child(at, name)? {
                Some(child) => at = child.value.start,
                None => return Ok(()),
            }
        }
        let Some(child) = self.child(at, last)? else { return Ok(()) };
        let siblings = self.children(at);
        let index = siblings.iter().position(|other| other.start == child.start).unwrap_or(0);
        let range = match (index.checked_sub(1), siblings.get(index + 1)) {
            (Some(before), _) => siblings[before].value.end..child.value.end,
            (None, Some(next)) => child.start..next.start,
            (None, None) => at + 1..skip_value(self.text.as_bytes(), at) - 1,
        };
        self.text.replace_range(range, "");
        Ok(())
    }

    /// A value in objects of these names, which stands in an object of this depth.
    fn nested(&self, names: &[String], depth: usize, value: &Value) -> String {
        let Some((name, below)) = names.split_first() else { return value.to_string() };
        let inner = self.nested(below, depth + 1, value);
        let (gap, end, colon) = (self.line(depth + 1), self.line(depth), self.colon());
        format!("{{{gap}{}{colon}{inner}{end}}}", Value::from(name.as_str()))
    }

    fn insert(&mut self, object: usize, depth: usize, name: &str, json: &str) {
        let member = format!("{}{}{json}", Value::from(name), self.colon());
        match self.children(object).last() {
            Some(last) => {
                let text = format!(",{}{member}", self.line(depth + 1));
                self.text.insert_str(last.value.end, &text);
            }
            None => {
                let end = skip_value(self.text.as_bytes(), object) - 1;
                let text = format!("{}{member}{}", self.line(depth + 1), self.line(depth));
                self.text.replace_range(object + 1..end, &text);
            }
        }
    }

    /// A new line at this depth, if the text has lines.
    fn line(&self, depth: usize) -> String {
        self.indent.as_ref().map_or(String::new(), |indent| format!("\n{}", indent.repeat(depth)))
    }

    fn colon(&self) -> &'static str {
        if self.indent.is_some() { ": " } else { ":" }
    }

    /// The child of this name. One that is there twice means different things to different readers.
    fn child(&self, at: usize, name: &str) -> Result<Option<Child>, JsonFault> {
        let mut found = self.children(at).into_iter().filter(|child| child.name == name);
        let first = found.next();
        match found.next() {
            Some(_) => Err(JsonFault::Twice(name.to_owned())),
            None => Ok(first),
        }
    }

    fn children(&self, at: usize) -> Vec<Child> {
        let bytes = self.text.as_bytes();
        let is_object = match bytes.get(at) {
            Some(b'{') => true,
            Some(b'[') => false,
            _ => return Vec::new(),
        };
        let mut children = Vec::new();
        let mut next = skip_space(bytes, at + 1);
        while !matches!(bytes.get(next), Some(b'}' | b']') | None) {
            let start = next;
            let mut name = children.len().to_string();
            if is_object {
                let end = skip_value(bytes, start);
                name = serde_json::from_str(&self.text[start..end]).unwrap_or_default();
                // Behind the colon.
                next = skip_space(bytes, skip_space(bytes, end) + 1);
            }
            let end = skip_value(bytes, next);
            children.push(Child { name, start, value: next..end });
            next = skip_space(bytes, end);
            if bytes.get(next) == Some(&b',') {
                next = skip_space(bytes, next + 1);
            }
        }
        children
    }
}

/// Where the parser stopped, without its words.
fn position(error: &serde_json::Error) -> String {
    format!("see line {}, column {}", error.line(), error.column())
}

/// The names in a pointer.
fn segments(pointer: &str) -> Vec<String> {
    pointer.split('/').skip(1).map(|name| name.replace("~1", "/").replace("~0", "~")).collect()
}

fn skip_space(bytes: &[u8], mut at: usize) -> usize {
    while matches!(bytes.get(at), Some(b' ' | b'\t' | b'\n' | b'\r')) {
        at += 1;
    }
    at
}

/// The end of the value that begins here, in a valid text.
fn skip_value(bytes: &[u8], start: usize) -> usize {
    let (mut at, mut depth, mut in_string) = (start, 0_usize, false);
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'\\' if in_string => at += 1,
            b'"' => {
                in_string = !in_string;
                if !in_string && depth == 0 {
                    return at + 1;
                }
            }
            _ if in_string => {}
            b'{' | b'[' => depth += 1,
            b'}' | b']' if depth == 0 => return at,
            b'}' | b']' => {
                depth -= 1;
                if depth == 0 {
                    return at + 1;
                }
            }
            b',' | b' ' | b'\t' | b'\n' | b'\r' | b':' if depth == 0 => return at,
            _ => {}
        }
        at += 1;
    }
    at
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn set(text: &str, pairs: &[(&str, Value)]) -> String {
        let mut json = JsonText::parse(text.as_bytes()).unwrap();
        for (pointer, value) in pairs {
            json.set(pointer, value).unwrap();
        }
        let text = json.as_str().to_owned();
        serde_json::from_str::<Value>(&text).unwrap();
        text
    }

    fn removed(text: &str, pointer: &str) -> String {
        let mut json = JsonText::parse(text.as_bytes()).unwrap();
        json.remove(pointer).unwrap();
        let text = json.as_str().to_owned();
        serde_json::from_str::<Value>(&text).unwrap();
        text
    }

    #[test]
    fn all_else_stays_byte_for_byte() {
        let text = "{ \"z\" : 1.50e3,\n\t\"a\":{\"t\" :\"old, \\\"}\", \"n\":12345678901234567890123},\"e\":[ ] }\r\n";
        let changed = set(text, &[("/a/t", json!("new"))]);
        assert_eq!(changed, text.replace("\"old, \\\"}\"", "\"new\""));
        assert_eq!(set(text, &[("/a/t", json!("old, \"}"))]), text);
    }

    #[test]
    fn member_is_added_in_the_form_of_the_document() {
        let pretty = "{\n    \"a\": 1,\n    \"o\": {}\n}\n";
        assert_eq!(
            set(pretty, &[("/o/x", json!("y")), ("/n/m", json!(2))]),
            "{\n    \"a\": 1,\n    \"o\": {\n        \"x\": \"y\"\n    },\n    \"n\": {\n        \"m\": 2\n    }\n}\n"
        );
        assert_eq!(set("{\"a\":1}", &[("/b/c/d", json!(true))]), "{\"a\":1,\"b\":{\"c\":{\"d\":true}}}");
        assert_eq!(set("{}", &[("/a~1b/m~0n", json!(1))]), "{\"a/b\":{\"m~n\":1}}");
        assert_eq!(
            set("{\"t\":null,\"l\":[1,2]}", &[("/t/x", json!(1)), ("/l/1", json!(3))]),
            "{\"t\":{\"x\":1},\"l\":[1,3]}"
        );
        let mut new = JsonText::empty();
        new.set("/t/a", &json!("b")).unwrap();
        assert_eq!(new.as_str(), "{\n  \"t\": {\n    \"a\": \"b\"\n  }\n}\n");
    }

    #[test]
    fn member_is_removed_with_its_comma() {
        let text = "{\"a\": 1, \"b\": {\"c\": 2}, \"d\": 3}";
        assert_eq!(removed(text, "/a"), "{\"b\": {\"c\": 2}, \"d\": 3}");
        assert_eq!(removed(text, "/b"), "{\"a\": 1, \"d\": 3}");
        assert_eq!(removed(text, "/d"), "{\"a\": 1, \"b\": {\"c\": 2}}");
        assert_eq!(removed(text, "/b/c"), "{\"a\": 1, \"b\": {}, \"d\": 3}");
        assert_eq!(removed(text, "/x/y"), text);
    }

    #[test]
    fn doubtful_text_is_not_touched() {
        for text in ["", "{\"a\": 1,}", "{\"a\": 1} // x", "{'a': 1}", "{\"a\": 1", "\u{feff}{}"] {
            assert!(matches!(JsonText::parse(text.as_bytes()), Err(JsonFault::Syntax(_))), "{text}");
        }
        assert_eq!(JsonText::parse(b"[1]").err(), Some(JsonFault::NoObject));
        let mut twice = JsonText::parse(b"{\"a\":1,\"\\u0061\":2}").unwrap();
        assert_eq!(twice.set("/a", &json!(3)), Err(JsonFault::Twice("a".into())));
        let mut text = JsonText::parse(b"{\"a\":\"x\"}").unwrap();
        assert_eq!(text.set("/a/b", &json!(3)), Err(JsonFault::NoMember("/a/b".into())));
    }
}
