//! Finds a member of a response by its name, as servers and tools write it. (pure)

use serde_json::{Map, Value};

/// A member by its name, however its words are joined; one that says something before one that does not.
pub(super) fn member<'a>(m: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    let letters = |text: &'_ str| -> Vec<u8> {
        text.bytes().filter(|b| !b"_-".contains(b)).map(|b| b.to_ascii_lowercase()).collect()
    };
    let says = |value: &&Value| !value.is_null() && value.as_str() != Some("");
    let other = || {
        let wanted = letters(name);
        let mut kin = m.iter().filter(|(key, _)| key.len() <= name.len() && letters(key) == wanted);
        kin.find_map(|(_, value)| Some(value).filter(says))
    };
    m.get(name).filter(says).or_else(other).or_else(|| m.get(name))
}
