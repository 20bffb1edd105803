//! Tokens as types that do not print, are not copied by accident, and are wiped from memory when dropped.

use std::fmt;

use zeroize::Zeroizing;

/// An access token: a bearer secret with a short life. Meant to be handed out, so it can be cloned.
#[derive(Clone, PartialEq, Eq)]
pub struct AccessToken(Zeroizing<String>);

impl AccessToken {
    /// Takes a token as received. `None` if it could not stand in an HTTP header: RFC 6750 allows visible ASCII, and a
    /// line break or control character would let the server write headers of its own.
    pub fn new(text: impl Into<String>) -> Option<Self> {
        let text = Zeroizing::new(text.into());
        let usable = !text.is_empty() && text.bytes().all(|b| (0x21..=0x7e).contains(&b));
        usable.then_some(Self(text))
    }

    /// The secret itself.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for AccessToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AccessToken(…)")
    }
}

/// A refresh token: opaque, possibly single-use. Neither `Clone` nor `Display` nor `Serialize`: to send it a function
/// must own it, and it is owned by one credential at a time.
#[derive(PartialEq, Eq)]
pub struct RefreshToken(Zeroizing<String>);

impl RefreshToken {
    /// Takes a token as received: any non-empty text (RFC 6749 leaves its form to the server).
    pub fn new(text: impl Into<String>) -> Option<Self> {
        let text = Zeroizing::new(text.into());
        (!text.is_empty()).then_some(Self(text))
    }

    /// The secret itself. Called only where it is sealed, published or put into a request body; `tidy` checks that.
    pub(crate) fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for RefreshToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RefreshToken(…)")
    }
}

/// A secret of one sign-in: authorization code, PKCE verifier, device code. It is worthless once the sign-in is over.
pub struct OneTimeSecret(Zeroizing<String>);

impl OneTimeSecret {
    /// Takes what can stand for a code: visible ASCII (RFC 6749 appendix A.11) and not empty.
    pub fn new(text: impl Into<String>) -> Option<Self> {
        let text = Zeroizing::new(text.into());
        let usable = !text.is_empty() && text.bytes().all(|b| (0x20..=0x7e).contains(&b));
        usable.then_some(Self(text))
    }

    /// The secret itself.
    pub(crate) fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for OneTimeSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OneTime(…)")
    }
}

/// Identifies a refresh token without revealing it: 128 bits of HMAC-SHA-256 under a key of this store, in hex.
#[derive(Clone, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct Fingerprint(String);

impl Fingerprint {
    pub(crate) fn from_hex(hex: String) -> Self {
        Self(hex)
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}…", self.0.get(..6).unwrap_or(&self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_access_token_that_would_break_a_header_is_refused() {
        for bad in ["", "a b", "a\r\nX: y", "a\u{7f}", "tökén"] {
            assert!(AccessToken::new(bad).is_none(), "{bad:?}");
        }
        assert_eq!(AccessToken::new("a.b-c_d~+/=").unwrap().expose(), "a.b-c_d~+/=");
    }

    #[test]
    fn debug_output_hides_secrets() {
        let at = AccessToken::new("canary-at").unwrap();
        let rt = RefreshToken::new("canary-rt").unwrap();
        let code = OneTimeSecret::new("canary-code").unwrap();
        assert!(!format!("{at:?} {rt:?} {code:?}").contains("canary"));
    }
}
