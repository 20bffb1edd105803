//! Removes from a server's text what was sent to it: servers quote the request that they refuse. (pure)

use std::collections::HashSet;
use std::ops::Range;

use zeroize::Zeroizing;

use crate::credential::server_text::{printable, printable_lines};

/// Stands for a secret that was taken out.
const REDACTED: &str = "…";
/// So many bytes of a secret in a row are taken out, wherever in the secret they stand: servers cut what they quote.
const SHORTEST_PART: usize = 16;
/// A secret that is shorter is taken out where it stands as a word, since it may be a part of others by chance.
const SHORTEST_ANYWHERE: usize = 8;
/// So much of a text is looked at. Less than a tenth of it is shown.
const MAX_SEARCHED: usize = 4096;

/// The secrets that an exchange sent: tokens, code, verifier, client secret, assertion, credentials in a header.
#[derive(Clone, Default)]
pub struct SentSecrets(Vec<Zeroizing<String>>);

impl std::fmt::Debug for SentSecrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SentSecrets({})", self.0.len())
    }
}

impl SentSecrets {
    pub fn add(&mut self, secret: &str) {
        let secret = secret.trim();
        if !secret.is_empty() && !self.0.iter().any(|known| known.as_str() == secret) {
            self.0.push(Zeroizing::new(secret.to_owned()));
        }
    }

    pub fn extend(&mut self, others: Self) {
        for secret in others.iter() {
            self.add(secret);
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|secret| secret.as_str())
    }

    /// Server text without these secrets, fit for a terminal and a log. Every text of a server goes through here before
    /// it becomes an error.
    pub fn printable(&self, text: &str) -> String {
        printable(&self.redact(text))
    }

    /// The last words of a program of the user, without these secrets: its lines, of at most `longest` bytes in all.
    pub fn last_words(&self, said: &[u8], longest: usize) -> String {
        let said = String::from_utf8_lossy(said);
        let last = said.get(ceil_boundary(&said, said.len().saturating_sub(MAX_SEARCHED))..).unwrap_or_default();
        let mut clean = printable_lines(&self.redact(last));
        let surplus = ceil_boundary(&clean, clean.len().saturating_sub(longest));
        clean.drain(..surplus);
        clean.trim().to_owned()
    }

    /// The text with `…` for each of the secrets, plain or encoded, whole or in part.
    fn redact(&self, text: &str) -> Zeroizing<String> {
        let end = (0..=MAX_SEARCHED.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        let text = &text[..end];
        let views = views(text);
        let mut found: Vec<Range<usize>> = Vec::new();
        for secret in self.iter() {
            found.extend(views.iter().flat_map(|view| view.find(secret.as_bytes())));
        }
        found.sort_by_key(|range| range.start);
        let mut clean = Zeroizing::new(String::with_capacity(text.len()));
        let mut done = 0;
        for range in found {
            let start = floor_boundary(text, range.start);
            if start > done || (start == done && !clean.ends_with(REDACTED)) {
                clean.push_str(text.get(done..start).unwrap_or_default());
                clean.push_str(REDACTED);
            }
            done = done.max(ceil_boundary(text, range.end));
        }
        clean.push_str(text.get(done..).unwrap_or_default());
        clean
    }
}

impl<S: AsRef<str>> FromIterator<S> for SentSecrets {
    fn from_iter<T: IntoIterator<Item = S>>(secrets: T) -> Self {
        let mut all = Self::default();
        for secret in secrets {
            all.add(secret.as_ref());
        }
        all
    }
}

fn floor_boundary(text: &str, at: usize) -> usize {
    (0..=at).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0)
}

fn ceil_boundary(text: &str, at: usize) -> usize {
    (at..text.len()).find(|at| text.is_char_boundary(*at)).unwrap_or(text.len())
}

/// A text as one of its possible encodings reads: its bytes, and the place of each in the text itself.
struct View {
    bytes: Zeroizing<Vec<u8>>,
    places: Vec<Range<usize>>,
}

/// Reads one encoded byte at the start of a text: the bytes it stands for, and how long it is written.
type Decode = fn(&[u8]) -> Option<(Vec<u8>, usize)>;

/// The text as it is, and as each encoding reads it, up to two deep: a body in JSON may hold text that is
/// percent-encoded.
fn views(text: &str) -> Vec<View> {
    let plain = View {
        bytes: Zeroizing::new(text.as_bytes().to_vec()),
        places: (0..text.len()).map(|at| at..at + 1).collect(),
    };
    let decoders: [Decode; 4] = [percent, form, escape, entity];
    let mut all = vec![plain];
    let mut layer = 0..1;
    for _ in 0..2 {
        let begin = all.len();
        for at in layer {
            let deeper: Vec<_> = decoders.iter().filter_map(|decode| all[at].decoded(*decode)).collect();
            all.extend(deeper);
        }
        layer = begin..all.len();
    }
    all
}

impl View {
    /// The view with an encoding undone; `None` if nothing in it is so encoded.
    fn decoded(&self, decode: Decode) -> Option<Self> {
        let mut bytes = Zeroizing::new(Vec::with_capacity(self.bytes.len()));
        let mut places = Vec::with_capacity(self.bytes.len());
        let (mut at, mut is_other) = (0, false);
        while at < self.bytes.len() {
            let (read, length) = match decode(&self.bytes[at..]) {
                Some(read) => {
                    is_other = true;
                    read
                }
                None => (vec![self.bytes[at]], 1),
            };
            let place = self.places[at].start..self.places[at + length - 1].end;
            places.extend(read.iter().map(|_| place.clone()));
            bytes.extend(read);
            at += length;
        }
        is_other.then_some(Self { bytes, places })
    }

    /// Where the secret stands in the text, whole or in long parts.
    fn find(&self, secret: &[u8]) -> Vec<Range<usize>> {
        let length = secret.len().min(SHORTEST_PART);
        let parts: HashSet<&[u8]> = secret.windows(length).collect();
        let mut found = Vec::new();
        for (at, window) in self.bytes.windows(length).enumerate() {
            if parts.contains(window) && (length >= SHORTEST_ANYWHERE || self.is_word(at, at + length)) {
                found.push(self.places[at].start..self.places[at + length - 1].end);
            }
        }
        found
    }

    /// Whether no letter or digit stands next to the range.
    fn is_word(&self, from: usize, to: usize) -> bool {
        let is_joined = |byte: Option<&u8>| byte.is_some_and(|b| b.is_ascii_alphanumeric() || *b == b'_');
        let before = from.checked_sub(1).and_then(|before| self.bytes.get(before));
        !is_joined(before) && !is_joined(self.bytes.get(to))
    }
}

/// `%2F`, by either case.
fn percent(text: &[u8]) -> Option<(Vec<u8>, usize)> {
    let [b'%', high, low, ..] = text else { return None };
    let digit = |b: &u8| char::from(*b).to_digit(16);
    let byte = u8::try_from(digit(high)? * 16 + digit(low)?).ok()?;
    Some((vec![byte], 3))
}

/// As [`percent`], and `+` for a blank, as forms are written.
fn form(text: &[u8]) -> Option<(Vec<u8>, usize)> {
    if text.first() == Some(&b'+') { Some((vec![b' '], 1)) } else { percent(text) }
}

/// An escape of JSON and of most programming languages: `\/`, `\"`, `\u002f`, `\x2f`.
fn escape(text: &[u8]) -> Option<(Vec<u8>, usize)> {
    let [b'\\', kind, rest @ ..] = text else { return None };
    let hex = |digits: usize| {
        let digits = std::str::from_utf8(rest.get(..digits)?).ok()?;
        char::from_u32(u32::from_str_radix(digits, 16).ok()?)
    };
    let (c, length) = match kind {
        b'u' => (hex(4)?, 6),
        b'x' => (hex(2)?, 4),
        b'n' => ('\n', 2),
        b't' => ('\t', 2),
        b'r' => ('\r', 2),
        b'b' => ('\u{8}', 2),
        b'f' => ('\u{c}', 2),
        b'/' | b'"' | b'\\' | b'\'' => (char::from(*kind), 2),
        _ => return None,
    };
    Some((c.to_string().into_bytes(), length))
}

/// A character reference of HTML and XML: `&amp;`, `&#47;`, `&#x2f;`.
fn entity(text: &[u8]) -> Option<(Vec<u8>, usize)> {
    let length = text.iter().take(10).position(|b| *b == b';')? + 1;
    let name = std::str::from_utf8(text.get(1..length - 1).filter(|_| text[0] == b'&')?).ok()?;
    let number = |digits: &str, radix| u32::from_str_radix(digits, radix).ok().and_then(char::from_u32);
    let c = match name {
        "amp" => '&',
        "lt" => '<',
        "gt" => '>',
        "quot" => '"',
        "apos" => '\'',
        "sol" => '/',
        "plus" => '+',
        "equals" => '=',
        _ => match name.strip_prefix('#')? {
            hex if hex.starts_with(['x', 'X']) => number(&hex[1..], 16)?,
            decimal => number(decimal, 10)?,
        },
    };
    Some((c.to_string().into_bytes(), length))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "rt/0+A=\"b\\ c~d&e'f<g>h%2Fi-longer-than-that";

    fn redacted(secret: &str, text: &str) -> String {
        [secret].into_iter().collect::<SentSecrets>().printable(text)
    }

    #[test]
    fn last_words_of_a_program_are_short_and_without_secrets() {
        let secrets: SentSecrets = [SECRET].into_iter().collect();
        let said = format!("{}\nfirst {SECRET}\nlast\u{1b}[1m {}\n", "x".repeat(9000), &SECRET[4..30]);
        assert_eq!(secrets.last_words(said.as_bytes(), 24), format!("first {REDACTED}\nlast [1m {REDACTED}"));
        let cut = [SECRET.as_bytes(), &b"y".repeat(4090)].concat();
        assert_eq!(secrets.last_words(&cut, 1024), "y".repeat(1024));
        assert_eq!(secrets.last_words(&[0xff; 9000], 6), "\u{fffd}\u{fffd}");
    }

    fn percent_encoded(text: &str, is_plain: fn(u8) -> bool, upper: bool) -> String {
        let byte = |b: u8| match (is_plain(b), upper) {
            (true, _) => char::from(b).to_string(),
            (false, true) => format!("%{b:02X}"),
            (false, false) => format!("%{b:02x}"),
        };
        text.bytes().map(byte).collect()
    }

    /// Rule 37.
    #[test]
    fn sent_secret_is_redacted_in_every_encoding() {
        let unreserved = |b: u8| b.is_ascii_alphanumeric() || b"-._~".contains(&b);
        let form = url::form_urlencoded::byte_serialize(SECRET.as_bytes()).collect::<String>();
        let json = serde_json::to_string(SECRET).unwrap();
        let json = json.trim_matches('"').to_owned();
        let html = SECRET.replace('&', "&amp;").replace('<', "&lt;").replace('"', "&quot;").replace('\'', "&#39;");
        for written in [
            SECRET.to_owned(),
            form.clone(),
            percent_encoded(SECRET, unreserved, true),
            percent_encoded(SECRET, unreserved, false),
            percent_encoded(SECRET, |_| false, true),
            percent_encoded(&form, unreserved, true),
            json.replace('/', "\\/"),
            json.replace('/', "\\u002f"),
            percent_encoded(&json, unreserved, true),
            html,
        ] {
            assert_eq!(redacted(SECRET, &format!("cannot use {written} now")), "cannot use … now", "{written}");
            assert_eq!(redacted(SECRET, &format!("<{written}{written}>")), "<…>", "{written}");
        }
    }

    /// Rule 37.
    #[test]
    fn long_part_of_a_secret_is_redacted() {
        let secret = "0123456789abcdefghijklmnopqrstuvwxyz";
        for part in [&secret[..16], &secret[..20], &secret[3..19], &secret[20..], secret] {
            assert_eq!(redacted(secret, &format!("token {part}... is bad")), "token …... is bad", "{part}");
        }
        assert_eq!(redacted(secret, &secret[..15]), &secret[..15]);
    }

    #[test]
    fn short_secret_is_redacted_only_as_a_word() {
        assert_eq!(redacted("rt0", "rt0 start rt01 (rt0) \"rt0\""), "… start rt01 (…) \"…\"");
        assert_eq!(redacted("", "nothing"), "nothing");
        assert_eq!(redacted("12345678", "x12345678y"), "x…y");
    }

    #[test]
    fn redacted_text_stays_whole_characters() {
        assert_eq!(redacted("größe-ist-alles-und-mehr", "é größe-ist-alles-und-mehr é"), "é … é");
        assert_eq!(redacted("secretsecret", &format!("{}é", "x".repeat(4095))).len(), 200);
    }

    proptest::proptest! {
        #[test]
        fn secret_of_any_form_never_survives(secret in "[!-~]{8,40}", before in "[ -~]{0,20}", after in "[ -~]{0,20}") {
            let text = redacted(&secret, &format!("{before} {secret} {after}"));
            proptest::prop_assert!(!text.contains(&secret));
        }
    }
}
