//! A client assertion (RFC 7521 §4.2, RFC 7523 §2.2): a JWT that the client signs with a key of its own, for one request.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::error::Unspecified;
use ring::rand::SystemRandom;
use ring::rsa;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, RSA_PKCS1_SHA256};
use serde_json::json;
use zeroize::Zeroizing;

use crate::clock::Timestamp;

/// The value of `client_assertion_type` (RFC 7523 §2.2).
pub const TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// How long an assertion is good: for one request, whose connection need not even stand yet.
const LIFE: Duration = Duration::from_secs(60);
/// A server whose clock is behind ours by this much does not yet take the assertion for one from the future.
const SKEW: Duration = Duration::from_secs(15);

/// A client's private key: EC on P-256 (ES256), or RSA of 2048 bits and more (RS256).
pub struct ClientKey {
    algorithm: Algorithm,
    /// Wiped when dropped. What the cryptographic library makes of it for a signature it keeps no longer than that.
    pkcs8: Zeroizing<Vec<u8>>,
    /// What the server calls the key.
    id: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Algorithm {
    Es256,
    Rs256,
}

/// Why a text is no key that can be used. Nothing of the text is repeated.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadKey {
    #[error("it is not a private key in PEM")]
    NotPem,
    #[error("it is encrypted")]
    Encrypted,
    #[error("it is {0}, not PKCS#8")]
    NotPkcs8(&'static str),
    #[error("it is not a private key: it begins with {0:?}")]
    Other(String),
    #[error("it is an RSA key shorter than 2048 bits")]
    TooSmall,
    #[error("it is neither an EC key on P-256 nor an RSA key")]
    Kind,
    #[error("it cannot be used: {0}")]
    Unusable(String),
}

impl BadKey {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::NotPem | Self::Other(_) => {
                "it must contain a section BEGIN PRIVATE KEY; the public key belongs to the server"
            }
            Self::Encrypted => {
                "decrypt it (openssl pkcs8 -in KEY -out NEW), and keep it in the keyring or get it from a command"
            }
            Self::NotPkcs8(_) | Self::Unusable(_) => "convert it: openssl pkcs8 -topk8 -nocrypt -in KEY -out NEW",
            Self::TooSmall | Self::Kind => {
                "create one: openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out KEY, and register it"
            }
        }
    }
}

/// What one assertion says.
pub struct Claims<'a> {
    pub client_id: &'a str,
    pub audience: &'a str,
    pub now: Timestamp,
    /// Makes the assertion one of its kind: servers remember it.
    pub jti: [u8; 16],
}

impl ClientKey {
    /// Reads the first private key in a PEM text, and makes sure that it can sign.
    pub fn from_pem(pem: &str, id: Option<String>) -> Result<Self, BadKey> {
        let pkcs8 = section(pem)?;
        let rejected = match EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &pkcs8, &SystemRandom::new()) {
            Ok(_) => return Ok(Self { algorithm: Algorithm::Es256, pkcs8, id }),
            Err(rejected) => rejected.to_string(),
        };
        if rejected != WRONG_ALGORITHM {
            return Err(BadKey::Unusable(rejected));
        }
        match rsa::KeyPair::from_pkcs8(&pkcs8).map_err(|rejected| rejected.to_string()) {
            Ok(_) => Ok(Self { algorithm: Algorithm::Rs256, pkcs8, id }),
            Err(rejected) if rejected == WRONG_ALGORITHM => Err(BadKey::Kind),
            Err(rejected) if rejected == TOO_SMALL => Err(BadKey::TooSmall),
            Err(rejected) => Err(BadKey::Unusable(rejected)),
        }
    }

    /// A signed assertion; whoever has it is the client for `LIFE`.
    pub fn assertion(&self, claims: &Claims<'_>) -> Result<Zeroizing<String>, Unspecified> {
        let name = match self.algorithm {
            Algorithm::Es256 => "ES256",
            Algorithm::Rs256 => "RS256",
        };
        let mut header = json!({"alg": name, "typ": "JWT"});
        if let Some(id) = &self.id {
            header["kid"] = id.as_str().into();
        }
        let seconds = |at: Timestamp| at.as_millis().div_euclid(1000);
        let body = json!({
            "iss": claims.client_id,
            "sub": claims.client_id,
            "aud": claims.audience,
            "jti": URL_SAFE_NO_PAD.encode(claims.jti),
            "iat": seconds(claims.now.minus(SKEW)),
            "exp": seconds(claims.now.plus(LIFE)),
        });
        let part = |value: serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let mut jwt = Zeroizing::new(format!("{}.{}", part(header), part(body)));
        let signature = self.sign(jwt.as_bytes())?;
        jwt.push('.');
        URL_SAFE_NO_PAD.encode_string(signature, &mut jwt);
        Ok(jwt)
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Unspecified> {
        let random = SystemRandom::new();
        match self.algorithm {
            Algorithm::Es256 => {
                let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &self.pkcs8, &random)
                    .map_err(|_| Unspecified)?;
                Ok(pair.sign(&random, message)?.as_ref().to_vec())
            }
            Algorithm::Rs256 => {
                let pair = rsa::KeyPair::from_pkcs8(&self.pkcs8).map_err(|_| Unspecified)?;
                let mut signature = vec![0; pair.public().modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature)?;
                Ok(signature)
            }
        }
    }

    /// Goes into a fingerprint, and nowhere else.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.pkcs8
    }
}

impl std::fmt::Debug for ClientKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ClientKey({:?})", self.algorithm)
    }
}

/// What the library calls a key of another kind.
const WRONG_ALGORITHM: &str = "WrongAlgorithm";
/// What it calls an RSA key below 2048 bits.
const TOO_SMALL: &str = "TooSmall";

/// The bytes of the first section that holds a private key (RFC 7468).
fn section(pem: &str) -> Result<Zeroizing<Vec<u8>>, BadKey> {
    let begins = pem.split("-----BEGIN ").skip(1);
    let mut labels = begins.filter_map(|rest| rest.split_once("-----"));
    let (label, rest) = labels.clone().find(|(label, _)| label.contains("PRIVATE KEY")).unwrap_or_else(|| {
        // None of them: the first tells what was taken for a key.
        labels.next().unwrap_or_default()
    });
    match label {
        "PRIVATE KEY" => {}
        "" => return Err(BadKey::NotPem),
        "ENCRYPTED PRIVATE KEY" => return Err(BadKey::Encrypted),
        "EC PRIVATE KEY" => return Err(BadKey::NotPkcs8("SEC 1")),
        "RSA PRIVATE KEY" => return Err(BadKey::NotPkcs8("PKCS#1")),
        other => return Err(BadKey::Other(crate::credential::response::printable(other))),
    }
    let (inside, _) = rest.split_once("-----END").ok_or(BadKey::NotPem)?;
    let mut packed = Zeroizing::new(String::with_capacity(inside.len()));
    packed.extend(inside.chars().filter(|c| !c.is_whitespace()));
    STANDARD.decode(packed.as_bytes()).map(Zeroizing::new).map_err(|_| BadKey::NotPem)
}

#[cfg(test)]
mod tests {
    use ring::signature::{ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED_SIGNING, KeyPair, UnparsedPublicKey};
    use serde_json::Value;

    use super::*;

    fn pem(der: &[u8]) -> String {
        format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", STANDARD.encode(der))
    }

    fn key(pem: &str) -> Result<ClientKey, BadKey> {
        ClientKey::from_pem(pem, Some("k1".into()))
    }

    fn fresh() -> (Vec<u8>, EcdsaKeyPair) {
        let random = SystemRandom::new();
        let der = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap().as_ref().to_vec();
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &der, &random).unwrap();
        (der, pair)
    }

    const CLAIMS: Claims<'_> = Claims {
        client_id: "me",
        audience: "https://login.example",
        now: Timestamp::from_secs(1_790_000_000),
        jti: [7; 16],
    };

    #[test]
    fn an_assertion_says_who_to_whom_and_for_how_long_and_is_signed() {
        let (der, pair) = fresh();
        // Whatever stands around the key is not its business.
        let text =
            format!("Bag Attributes\n-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n{}", pem(&der));
        let jwt = key(&text).unwrap().assertion(&CLAIMS).unwrap();
        let parts: Vec<&str> = jwt.split('.').collect();
        let json = |part: &str| serde_json::from_slice::<Value>(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap();
        assert_eq!(json(parts[0]), json!({"alg": "ES256", "typ": "JWT", "kid": "k1"}));
        assert_eq!(
            json(parts[1]),
            json!({"iss": "me", "sub": "me", "aud": "https://login.example", "jti": "BwcHBwcHBwcHBwcHBwcHBw",
                   "iat": 1_789_999_985, "exp": 1_790_000_060})
        );
        let signature = URL_SAFE_NO_PAD.decode(parts[2]).unwrap();
        let public = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, pair.public_key());
        public.verify(format!("{}.{}", parts[0], parts[1]).as_bytes(), &signature).unwrap();
    }

    #[test]
    fn a_key_without_a_name_is_not_named() {
        let jwt = ClientKey::from_pem(&pem(&fresh().0), None).unwrap().assertion(&CLAIMS).unwrap();
        let header = URL_SAFE_NO_PAD.decode(jwt.split('.').next().unwrap()).unwrap();
        assert_eq!(serde_json::from_slice::<Value>(&header).unwrap(), json!({"alg": "ES256", "typ": "JWT"}));
    }

    #[test]
    fn what_is_no_key_is_told_with_a_remedy_and_not_repeated() {
        let other = EcdsaKeyPair::generate_pkcs8(&ECDSA_P384_SHA384_FIXED_SIGNING, &SystemRandom::new()).unwrap();
        let section = |label: &str| format!("-----BEGIN {label}-----\naHVudGVyMg==\n-----END {label}-----\n");
        for (text, bad) in [
            ("hunter2".to_owned(), BadKey::NotPem),
            ("-----BEGIN PRIVATE KEY-----\nhunter2".into(), BadKey::NotPem),
            ("-----BEGIN PRIVATE KEY-----\nhunter2*\n-----END PRIVATE KEY-----".into(), BadKey::NotPem),
            (section("ENCRYPTED PRIVATE KEY"), BadKey::Encrypted),
            (section("EC PRIVATE KEY"), BadKey::NotPkcs8("SEC 1")),
            (section("RSA PRIVATE KEY"), BadKey::NotPkcs8("PKCS#1")),
            (section("PUBLIC KEY"), BadKey::Other("PUBLIC KEY".into())),
            (section("OPENSSH PRIVATE KEY"), BadKey::Other("OPENSSH PRIVATE KEY".into())),
            (section("PRIVATE KEY"), BadKey::Unusable("InvalidEncoding".into())),
            (pem(other.as_ref()), BadKey::Kind),
        ] {
            let found = key(&text).unwrap_err();
            assert_eq!(found, bad, "{text}");
            let told = format!("{found} {found:?} {}", found.hint());
            assert!(!told.contains("hunter2") && !told.contains("aHVudGVyMg"), "{told}");
            assert!(!found.hint().is_empty());
        }
    }
}
