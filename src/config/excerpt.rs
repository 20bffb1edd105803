//! The line of a mistake, as it may be shown: a configuration holds secrets where they do not belong, too. (pure)

use super::error::nearest;
use super::keys;
use crate::outcome::Excerpt;

/// Keys whose values are secrets, or hold them, or may be a secret that was written in the wrong place.
const SECRET: [&str; 6] = ["client_secret", "client_key", "key", "headers", "parameters", "store"];

/// Longer lines are cut: what is meant stands near the beginning.
const MAX_CHARS: usize = 72;

/// The line with what is meant in it: `length` characters after `indent` others. Comments are left out, and so is every
/// value that may be a secret; what follows `=` is then an ellipsis. `key`: the dotted key of the mistake, if it has one.
pub(super) fn of_line(line: &str, key: &str, indent: usize, length: usize) -> Option<Excerpt> {
    let shown = match line.split_once('=') {
        _ if line.trim_start().starts_with('[') => header(line).to_owned(),
        Some((_, value)) if value.contains('{') => cut(line),
        Some((name, value)) if is_plain(name, without_comment(value)) => without_comment(line).to_owned(),
        Some(_) => cut(line),
        // The equals sign is missing, if it is no part of a list.
        None if is_part_of_list(key, line) => without_comment(line).to_owned(),
        None if is_plain(line.split_whitespace().next()?, line) => without_comment(line).to_owned(),
        None => return None,
    };
    let plain: String =
        shown.trim_end().chars().take(MAX_CHARS).map(|c| if c.is_control() { ' ' } else { c }).collect();
    let count = plain.chars().count();
    let indent = indent.min(count.saturating_sub(1));
    (count > 0).then(|| Excerpt { indent, length: length.clamp(1, count - indent), text: plain })
}

/// Whether the line stands in a list of this key that may be shown.
fn is_part_of_list(key: &str, line: &str) -> bool {
    let name = key.rsplit('.').next().unwrap_or_default();
    keys::names().any(|known| known == name) && is_plain(name, line)
}

fn cut(line: &str) -> String {
    format!("{}= \u{2026}", line.split('=').next().unwrap_or_default())
}

/// The header of a section, as far as it is one.
fn header(line: &str) -> &str {
    match line.find(']') {
        Some(end) => &line[..end + line[end..].chars().take_while(|c| *c == ']').count()],
        None => line.split(['#', '=']).next().unwrap_or_default(),
    }
}

/// Whether a value is no secret, also of a name that is misspelt. An address is none unless it may hold a password or a key.
fn is_plain(name: &str, value: &str) -> bool {
    let is_url = |meant: &str| meant == "issuer" || meant == "redirect_uri" || meant.ends_with("_endpoint");
    match nearest(name.trim(), keys::names()) {
        None => false,
        // `pat` is an access token, and no path.
        Some("path") => name.trim() == "path",
        Some(meant) if is_url(meant) => !value.contains(['@', '?', '{']),
        Some(meant) => !SECRET.contains(&meant),
    }
}

/// The line up to a `#` that stands in no string.
fn without_comment(line: &str) -> &str {
    let mut quote = None;
    for (at, c) in line.char_indices() {
        match (quote, c) {
            (None, '#') => return &line[..at],
            (None, '"' | '\'') => quote = Some(c),
            (Some(open), c) if open == c => quote = None,
            _ => {}
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(line: &str, key: &str, indent: usize, length: usize) -> Option<String> {
        of_line(line, key, indent, length)
            .map(|e| format!("{}\n{}{}", e.text, " ".repeat(e.indent), "^".repeat(e.length)))
    }

    #[test]
    fn excerpt_marks_a_key_and_a_value() {
        let marked = |line, indent, length| shown(line, "k", indent, length).unwrap();
        assert_eq!(marked("margin = \"0%\" # why", 9, 4), "margin = \"0%\"\n         ^^^^");
        assert_eq!(marked("[profile.x.y] # z", 11, 1), "[profile.x.y]\n           ^");
        assert_eq!(marked("clint_id = \"me\"", 0, 8), "clint_id = \"me\"\n^^^^^^^^");
        assert_eq!(marked("clint_secret = \"me\"", 0, 12), "clint_secret = \u{2026}\n^^^^^^^^^^^^");
        assert_eq!(marked("max_lifetime = \"60\"", 15, 4), "max_lifetime = \"60\"\n               ^^^^");
        assert_eq!(marked("ca_file = 5", 10, 1), "ca_file = 5\n          ^");
        assert_eq!(marked("margin \"2h\"", 7, 4), "margin \"2h\"\n       ^^^^");
        assert_eq!(marked("[profile.x", 9, 1), "[profile.x\n         ^");
        assert_eq!(marked("[[profile]] # z", 2, 7), "[[profile]]\n  ^^^^^^^");
        assert_eq!(marked("isuer = \"http://x\"", 0, 5), "isuer = \"http://x\"\n^^^^^");
        assert_eq!(
            shown("  \"openid mail\",", "provider.acme.scopes", 2, 13).unwrap(),
            "  \"openid mail\",\n  ^^^^^^^^^^^^^"
        );
    }

    #[test]
    fn excerpt_shows_no_value_that_may_be_a_secret() {
        for line in [
            "client_secret = \"hunter2\"",
            "client_secret \"hunter2\"",
            "client_key = \"hunter2\"",
            "key = \"hunter2\"",
            "parameter = \"hunter2\"",
            "pat = \"hunter2\"",
            "headers = \"hunter2\"",
            "[store # hunter2",
            "[store key = hunter2",
            "clent_secret = hunter2",
            "acme = { client_secret = \"hunter2\", margn = 1 }",
            "token_endpoint = \"https://me:hunter2@acme.example\"",
            "issuer = \"https://acme.example?key=hunter2\"",
            "password = \"hunter2\"",
            "provider = { acme = { client_secret = \"hunter2\" } }",
            "margin = \"#\" # hunter2",
            "[store] # hunter2",
            "hunter2",
        ] {
            let text = shown(line, "provider.acme.margn", line.len(), 9).unwrap_or_default();
            assert!(!text.contains("hunter2"), "{text}");
        }
    }
}
