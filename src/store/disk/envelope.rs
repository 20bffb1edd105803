//! Sealed bytes on disk: a header anyone may read, and a content that only the sealing key opens.
//!
//! ```text
//! keepalive-sealed 1\n
//! {"profile":…,"generation":…,"attempt":…,"key_id":…}\n     authenticated, not secret
//! 24-byte nonce, ciphertext and tag                           XChaCha20-Poly1305
//! ```
//!
//! The two lines are the associated data, so a file cannot be moved to another profile or passed off as another
//! generation.

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::credential::Generation;
use crate::profile::ProfileName;
use crate::store::keys::sealing_key::SealingKey;

const MAGIC: &str = "keepalive-sealed 1\n";
/// What the first line begins with in every version.
const MAGIC_PREFIX: &[u8] = b"keepalive-sealed ";
const FORMAT: u64 = 1;
/// A header is a short line; anything longer is damage.
pub(in crate::store) const MAX_HEADER_LEN: u64 = 4096;

/// What can be known of a sealed file without its key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealedHeader {
    pub profile: ProfileName,
    pub generation: Generation,
    /// The attempt that brought it; `None` for a login or an import.
    pub attempt_id: Option<String>,
    pub key_id: String,
}

/// Why sealed bytes cannot be opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnsealError {
    #[error("it is not a sealed file of this version of keepalive")]
    NotSealed,
    #[error("it was sealed by a later version of keepalive (format {0})")]
    LaterVersion(u64),
    #[error("its header is damaged")]
    HeaderDamaged,
    #[error("it belongs to profile {0}")]
    OtherProfile(ProfileName),
    #[error("it is sealed with key {0}, not with the current key")]
    OtherKey(String),
    #[error("it was modified or truncated")]
    Altered,
    #[error("its content cannot be parsed: {0}")]
    ContentUnreadable(String),
}

/// Seals `content`.
pub fn seal<T: Serialize>(header: &SealedHeader, content: &T, key: &SealingKey) -> Result<Vec<u8>, UnsealError> {
    let mut bytes = MAGIC.as_bytes().to_vec();
    serde_json::to_writer(&mut bytes, header).map_err(|e| UnsealError::ContentUnreadable(e.to_string()))?;
    bytes.push(b'\n');
    let plain = Zeroizing::new(serde_json::to_vec(content).map_err(|e| UnsealError::ContentUnreadable(e.to_string()))?);
    let sealed = key.encrypt(&plain, &bytes);
    bytes.extend_from_slice(&sealed);
    Ok(bytes)
}

/// Reads the header alone.
pub fn header(bytes: &[u8]) -> Result<SealedHeader, UnsealError> {
    split(bytes).map(|(_, header, _)| header)
}

/// Opens what [`seal`] made for this profile.
pub fn open<T: for<'de> Deserialize<'de>>(
    bytes: &[u8],
    profile: &ProfileName,
    key: &SealingKey,
) -> Result<(SealedHeader, T), UnsealError> {
    let (aad, header, sealed) = split(bytes)?;
    if header.profile != *profile {
        return Err(UnsealError::OtherProfile(header.profile));
    }
    if header.key_id != key.id() {
        return Err(UnsealError::OtherKey(header.key_id));
    }
    let plain = key.decrypt(sealed, aad).ok_or(UnsealError::Altered)?;
    let content = serde_json::from_slice(&plain).map_err(|e| UnsealError::ContentUnreadable(e.to_string()))?;
    Ok((header, content))
}

fn split(bytes: &[u8]) -> Result<(&[u8], SealedHeader, &[u8]), UnsealError> {
    let rest = bytes
        .strip_prefix(MAGIC.as_bytes())
        .ok_or_else(|| later_version(bytes).map_or(UnsealError::NotSealed, UnsealError::LaterVersion))?;
    let end = rest.iter().zip(0..MAX_HEADER_LEN).position(|(b, _)| *b == b'\n').ok_or(UnsealError::HeaderDamaged)?;
    let (line, sealed) = rest.split_at(end);
    let header = serde_json::from_slice(line).map_err(|_| UnsealError::HeaderDamaged)?;
    let (aad, _) = bytes.split_at(MAGIC.len() + end + 1);
    Ok((aad, header, sealed.get(1..).unwrap_or_default()))
}

/// The version of a later keepalive.
fn later_version(bytes: &[u8]) -> Option<u64> {
    let digits = bytes.strip_prefix(MAGIC_PREFIX)?.split(|b| *b == b'\n').next()?;
    std::str::from_utf8(digits).ok()?.parse().ok().filter(|format| *format > FORMAT)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> ProfileName {
        text.parse().unwrap()
    }

    fn sealed(key: &SealingKey) -> Vec<u8> {
        let header = SealedHeader {
            profile: name("p"),
            generation: Generation::new(7),
            attempt_id: None,
            key_id: key.id().into(),
        };
        seal(&header, &"secret", key).unwrap()
    }

    #[test]
    fn sealed_credential_opens_again_and_hides_its_content() {
        let key = SealingKey::generate();
        let bytes = sealed(&key);
        let (header, content) = open::<String>(&bytes, &name("p"), &key).unwrap();
        assert_eq!((header.generation.get(), content.as_str()), (7, "secret"));
        assert!(!String::from_utf8_lossy(&bytes).contains("secret"));
    }

    #[test]
    fn every_flipped_bit_or_truncation_is_detected() {
        let key = SealingKey::generate();
        let bytes = sealed(&key);
        for i in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[i] ^= 1;
            assert!(open::<String>(&bad, &name("p"), &key).is_err(), "bit flipped in byte {i}");
            assert!(open::<String>(&bytes[..i], &name("p"), &key).is_err(), "cut at {i}");
        }
    }

    #[test]
    fn sealed_credential_of_another_profile_is_refused() {
        let key = SealingKey::generate();
        assert_eq!(open::<String>(&sealed(&key), &name("q"), &key).unwrap_err(), UnsealError::OtherProfile(name("p")));
    }

    /// Rule 13.
    #[test]
    fn later_sealed_format_is_distinguished_from_damage() {
        let told = |text: &str| header(text.as_bytes()).unwrap_err();
        assert_eq!(
            ["keepalive-sealed 2\n{}\n", "keepalive-sealed 12\nx"].map(told),
            [UnsealError::LaterVersion(2), UnsealError::LaterVersion(12)]
        );
        for dust in [
            "dust",
            "keepalive-sealed 0\n{}\n",
            "keepalive-sealed 01\n{}\n",
            "keepalive-sealed x\n{}\n",
            "keepalive-sealed",
        ] {
            assert_eq!(told(dust), UnsealError::NotSealed, "{dust}");
        }
    }

    #[test]
    fn wrong_key_error_names_the_needed_key() {
        let key = SealingKey::generate();
        let error = open::<String>(&sealed(&key), &name("p"), &SealingKey::generate()).unwrap_err();
        assert_eq!(error, UnsealError::OtherKey(key.id().into()));
    }
}
