//! The text of a handle: a mark, 256 random bits and a checksum, so that one that was cut is told apart from one that is not
//! known. (pure)

use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

/// What every handle begins with, for those who search texts for secrets.
pub const HANDLE_MARK: &str = "kah_";
const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
/// 62^43 is a little more than 2^256.
const RANDOM_DIGITS: usize = 43;
const CHECK_DIGITS: usize = 6;
const LENGTH: usize = HANDLE_MARK.len() + RANDOM_DIGITS + CHECK_DIGITS;
/// How much of a hash names a handle.
const ID_DIGITS: usize = 8;

/// A handle: the right to read the access token of one profile, or the metrics. A bearer secret.
pub struct Handle(Zeroizing<String>);

/// SHA-256 of a handle, in hex. With 256 random bits it needs no salt, and it may be known.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct HandleHash(String);

/// Why a text is no handle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HandleTextError {
    /// It has not the form of one.
    NotAHandle,
    /// It begins as one, and is too short or too long, or its checksum is another.
    Damaged,
}

impl fmt::Display for HandleTextError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotAHandle => "this is no handle of keepalive",
            Self::Damaged => "the handle is mistyped or cut",
        })
    }
}

impl Handle {
    /// The handle of these random bits.
    pub fn from_random(bits: [u8; 32]) -> Self {
        let mut text = Zeroizing::new(String::with_capacity(LENGTH));
        text.push_str(HANDLE_MARK);
        push_digits(&mut text, Zeroizing::new(bits.to_vec()), RANDOM_DIGITS);
        let check = checksum(&text);
        text.push_str(&check);
        Self(text)
    }

    /// The secret itself.
    pub fn expose(&self) -> &str {
        &self.0
    }

    pub fn hash(&self) -> HandleHash {
        HandleHash(hex::encode(Sha256::digest(self.0.as_bytes())))
    }

    /// Reads what a caller presents.
    pub fn parse(text: &str) -> Result<Self, HandleTextError> {
        let Some(rest) = text.strip_prefix(HANDLE_MARK) else { return Err(HandleTextError::NotAHandle) };
        let is_whole = text.len() == LENGTH && rest.bytes().all(|b| b.is_ascii_alphanumeric());
        let is_right = is_whole && checksum(&text[..LENGTH - CHECK_DIGITS]) == text[LENGTH - CHECK_DIGITS..];
        if is_right { Ok(Self(Zeroizing::new(text.to_owned()))) } else { Err(HandleTextError::Damaged) }
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Handle(…)")
    }
}

impl HandleHash {
    /// What a person calls the handle.
    pub fn id(&self) -> &str {
        self.0.get(..ID_DIGITS).unwrap_or(&self.0)
    }
}

impl fmt::Debug for HandleHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HandleHash({}…)", self.id())
    }
}

fn checksum(text: &str) -> String {
    let mut digits = String::with_capacity(CHECK_DIGITS);
    push_digits(&mut digits, Zeroizing::new(crc32fast::hash(text.as_bytes()).to_be_bytes().to_vec()), CHECK_DIGITS);
    digits
}

/// Appends a number, most significant byte first, as so many digits.
fn push_digits(text: &mut String, mut number: Zeroizing<Vec<u8>>, count: usize) {
    let mut digits = Zeroizing::new(vec![0_u8; count]);
    for digit in digits.iter_mut().rev() {
        let mut rest = 0_u32;
        for byte in number.iter_mut() {
            let value = rest << 8 | u32::from(*byte);
            *byte = (value / 62) as u8;
            rest = value % 62;
        }
        *digit = ALPHABET[rest as usize];
    }
    text.extend(digits.iter().map(|digit| char::from(*digit)));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handle_has_a_fixed_form_and_no_other_bits() {
        let lowest = Handle::from_random([0; 32]);
        assert_eq!(lowest.expose().len(), 53);
        assert!(lowest.expose().starts_with(&format!("kah_{}", "0".repeat(43))));
        // 2^256 - 1 in base 62.
        let highest = Handle::from_random([255; 32]);
        assert!(
            highest.expose().starts_with("kah_yhjskwdA6OZ1AL1YmHWZWm8LLG7HjnuCA2j5rOw8Xp1"),
            "{}",
            highest.expose()
        );
        assert_eq!(Handle::parse(highest.expose()).unwrap().hash(), highest.hash());
        assert_eq!(highest.hash().id().len(), 8);
        assert!(!format!("{highest:?} {:?}", highest.hash()).contains("kah_"));
    }

    #[test]
    fn damaged_handle_is_told_apart_from_other_texts() {
        let text = Handle::from_random([7; 32]).expose().to_owned();
        let damaged = [
            text[..52].to_owned(),
            format!("{text}0"),
            text.to_lowercase(),
            text.replacen("kah_", "kah_0", 1)[..53].to_owned(),
            "kah_".into(),
            text.replace(&text[50..], "é"),
        ];
        for damaged in damaged {
            assert_eq!(Handle::parse(&damaged).unwrap_err(), HandleTextError::Damaged, "{damaged}");
        }
        for other in ["", "rt.1.abc", "Kah_x", &text[1..]] {
            assert_eq!(Handle::parse(other).unwrap_err(), HandleTextError::NotAHandle, "{other}");
        }
    }
}
