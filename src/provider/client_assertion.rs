//! A client assertion (RFC 7521 §4.2, RFC 7523 §2.2): a JWT that the client signs with a key of its own, for one request.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::error::{KeyRejected, Unspecified};
use ring::rand::SystemRandom;
use ring::rsa;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, RSA_PKCS1_SHA256};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{PrivateKeyDer, alg_id};
use serde_json::json;
use zeroize::Zeroizing;

use crate::clock::Timestamp;

/// The value of `client_assertion_type` (RFC 7523 §2.2).
pub const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// How long an assertion is good: for one request, whose connection need not even stand yet.
const ASSERTION_LIFETIME: Duration = Duration::from_secs(60);
/// The issue time lies this far in the past, so that a server whose clock is behind ours accepts the assertion.
const CLOCK_SKEW: Duration = Duration::from_secs(15);

/// The fewest bits of an RSA key that sign anything here.
const SMALLEST_RSA: usize = 2048;

/// A client's private key: EC on P-256 (ES256), or RSA of 2048 bits and more (RS256).
pub struct ClientKey {
    algorithm: Algorithm,
    /// Wiped when dropped. The cryptographic library keeps its own copy only while it signs.
    der: Zeroizing<PrivateKeyDer<'static>>,
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
pub enum ClientKeyError {
    #[error("it is not a private key in PEM")]
    NotPem,
    #[error("it is encrypted")]
    Encrypted,
    #[error("it is {0}, not PKCS#8")]
    NotPkcs8(&'static str),
    #[error("it is not a private key: it begins with {0:?}")]
    OtherPemLabel(String),
    #[error("it is an RSA key shorter than 2048 bits")]
    TooSmall,
    #[error("it is neither an EC key on P-256 nor an RSA key")]
    UnsupportedAlgorithm,
    #[error("it cannot be used: {0}")]
    Invalid(String),
}

impl ClientKeyError {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::NotPem | Self::OtherPemLabel(_) => {
                "it must contain a section BEGIN PRIVATE KEY; the public key belongs to the server"
            }
            Self::Encrypted => {
                "decrypt it (openssl pkcs8 -in KEY -out NEW), and keep it in the keyring or get it from a command"
            }
            Self::NotPkcs8(_) | Self::Invalid(_) => "convert it: openssl pkcs8 -topk8 -nocrypt -in KEY -out NEW",
            Self::TooSmall | Self::UnsupportedAlgorithm => {
                "create one: openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out KEY, and register it"
            }
        }
    }
}

/// What one assertion says.
pub struct AssertionClaims<'a> {
    pub client_id: &'a str,
    pub audience: &'a str,
    pub now: Timestamp,
    /// Makes each assertion unique, because servers accept one only once.
    pub jti: [u8; 16],
}

impl ClientKey {
    /// Reads the first private key in a PEM text, and makes sure that it can sign.
    pub fn from_pem(pem: &str, id: Option<String>) -> Result<Self, ClientKeyError> {
        let der = PrivateKeyDer::from_pem_slice(pem.as_bytes()).map(Zeroizing::new).map_err(|_| unread(pem))?;
        let algorithm = algorithm(&der)?;
        let key = Self { algorithm, der, id };
        match algorithm {
            Algorithm::Es256 => key.ec_pair().map(drop),
            Algorithm::Rs256 => key.rsa_pair().map(drop),
        }
        .map_err(|rejected| ClientKeyError::Invalid(rejected.to_string()))?;
        Ok(key)
    }

    fn ec_pair(&self) -> Result<EcdsaKeyPair, KeyRejected> {
        EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, self.der.secret_der(), &SystemRandom::new())
    }

    fn rsa_pair(&self) -> Result<rsa::KeyPair, KeyRejected> {
        match &*self.der {
            PrivateKeyDer::Pkcs1(der) => rsa::KeyPair::from_der(der.secret_pkcs1_der()),
            other => rsa::KeyPair::from_pkcs8(other.secret_der()),
        }
    }

    /// A signed assertion. It authenticates the client for `ASSERTION_LIFETIME`, so it is a secret.
    pub fn assertion(&self, claims: &AssertionClaims<'_>) -> Result<Zeroizing<String>, Unspecified> {
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
            "iat": seconds(claims.now.minus(CLOCK_SKEW)),
            "exp": seconds(claims.now.plus(ASSERTION_LIFETIME)),
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
                let pair = self.ec_pair().map_err(|_| Unspecified)?;
                Ok(pair.sign(&random, message)?.as_ref().to_vec())
            }
            Algorithm::Rs256 => {
                let pair = self.rsa_pair().map_err(|_| Unspecified)?;
                let mut signature = vec![0; pair.public().modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature)?;
                Ok(signature)
            }
        }
    }

    /// For a keyed hash of the client's settings, and nothing else.
    pub(super) fn fingerprint_input(&self) -> &[u8] {
        self.der.secret_der()
    }
}

impl std::fmt::Debug for ClientKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ClientKey({:?})", self.algorithm)
    }
}

/// What a key signs with, by the object identifier that it carries.
fn algorithm(der: &PrivateKeyDer<'_>) -> Result<Algorithm, ClientKeyError> {
    let broken = || ClientKeyError::Invalid("its encoding is broken".into());
    let rsa = match der {
        PrivateKeyDer::Pkcs1(der) => der.secret_pkcs1_der(),
        PrivateKeyDer::Pkcs8(der) => {
            let (algorithm, key) = pkcs8_parts(der.secret_pkcs8_der()).ok_or_else(broken)?;
            if algorithm == alg_id::ECDSA_P256.as_ref() {
                return Ok(Algorithm::Es256);
            }
            if algorithm != alg_id::RSA_ENCRYPTION.as_ref() {
                return Err(ClientKeyError::UnsupportedAlgorithm);
            }
            key
        }
        PrivateKeyDer::Sec1(_) => return Err(ClientKeyError::NotPkcs8("SEC 1")),
        _ => return Err(ClientKeyError::UnsupportedAlgorithm),
    };
    match modulus_bits(rsa).ok_or_else(broken)? {
        0..SMALLEST_RSA => Err(ClientKeyError::TooSmall),
        _ => Ok(Algorithm::Rs256),
    }
}

/// Why a PEM text in which no private key was found, or none that could be decoded, is of no use: by its label (RFC 7468),
/// that of a private key if there is one.
fn unread(pem: &str) -> ClientKeyError {
    let begins = pem.split("-----BEGIN ").skip(1);
    let mut labels = begins.filter_map(|rest| rest.split_once("-----")).map(|(label, _)| label);
    let label = labels.clone().find(|label| label.contains("PRIVATE KEY")).or_else(|| labels.next());
    match label {
        None | Some("PRIVATE KEY" | "RSA PRIVATE KEY") => ClientKeyError::NotPem,
        Some("ENCRYPTED PRIVATE KEY") => ClientKeyError::Encrypted,
        Some("EC PRIVATE KEY") => ClientKeyError::NotPkcs8("SEC 1"),
        Some(other) => ClientKeyError::OtherPemLabel(crate::credential::server_text::printable(other)),
    }
}

const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 0x02;
const OCTET_STRING: u8 = 0x04;

/// The first element of `der`, which must be of the type `tag`: its content, and what follows it (DER, X.690).
fn element(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let ([_, length], rest) = der.split_first_chunk::<2>().filter(|([first, _], _)| *first == tag)?;
    let length = *length;
    match length {
        0..=0x7f => rest.split_at_checked(length.into()),
        0x81..=0x84 => {
            let (length, rest) = rest.split_at_checked(usize::from(length & 0x7f))?;
            rest.split_at_checked(length.iter().fold(0, |n, byte| n << 8 | usize::from(*byte)))
        }
        _ => None,
    }
}

/// What a PKCS#8 text tells before it is used (RFC 5958 §2): the algorithm's identifier, and the key of that algorithm.
fn pkcs8_parts(der: &[u8]) -> Option<(&[u8], &[u8])> {
    let (inside, _) = element(der, SEQUENCE)?;
    let (_version, rest) = element(inside, INTEGER)?;
    let (algorithm, rest) = element(rest, SEQUENCE)?;
    let (key, _) = element(rest, OCTET_STRING)?;
    Some((algorithm, key))
}

/// The bits of the modulus of an RSA key (RFC 8017 §A.1.2).
fn modulus_bits(der: &[u8]) -> Option<usize> {
    let (inside, _) = element(der, SEQUENCE)?;
    let (_version, rest) = element(inside, INTEGER)?;
    let (modulus, _) = element(rest, INTEGER)?;
    let leading = modulus.iter().take_while(|byte| **byte == 0).count();
    let top = modulus.get(leading)?;
    Some((modulus.len() - leading) * 8 - top.leading_zeros() as usize)
}

#[cfg(test)]
mod tests {
    use base64::engine::general_purpose::STANDARD;
    use ring::signature::{ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED_SIGNING, KeyPair, UnparsedPublicKey};
    use serde_json::Value;

    use super::*;

    fn pem(der: &[u8]) -> String {
        format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", STANDARD.encode(der))
    }

    fn key(pem: &str) -> Result<ClientKey, ClientKeyError> {
        ClientKey::from_pem(pem, Some("k1".into()))
    }

    fn fresh() -> (Vec<u8>, EcdsaKeyPair) {
        let random = SystemRandom::new();
        let der = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap().as_ref().to_vec();
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &der, &random).unwrap();
        (der, pair)
    }

    const CLAIMS: AssertionClaims<'_> = AssertionClaims {
        client_id: "me",
        audience: "https://login.example",
        now: Timestamp::from_secs(1_790_000_000),
        jti: [7; 16],
    };

    #[test]
    fn assertion_is_signed_with_the_expected_header_and_claims() {
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
    fn assertion_has_no_kid_if_the_key_has_no_id() {
        let jwt = ClientKey::from_pem(&pem(&fresh().0), None).unwrap().assertion(&CLAIMS).unwrap();
        let header = URL_SAFE_NO_PAD.decode(jwt.split('.').next().unwrap()).unwrap();
        assert_eq!(serde_json::from_slice::<Value>(&header).unwrap(), json!({"alg": "ES256", "typ": "JWT"}));
    }

    #[test]
    fn unusable_key_is_reported_with_a_hint_and_not_shown() {
        let other = EcdsaKeyPair::generate_pkcs8(&ECDSA_P384_SHA384_FIXED_SIGNING, &SystemRandom::new()).unwrap();
        let section = |label: &str| format!("-----BEGIN {label}-----\naHVudGVyMg==\n-----END {label}-----\n");
        for (text, bad) in [
            ("hunter2".to_owned(), ClientKeyError::NotPem),
            ("-----BEGIN PRIVATE KEY-----\nhunter2".into(), ClientKeyError::NotPem),
            ("-----BEGIN PRIVATE KEY-----\nhunter2*\n-----END PRIVATE KEY-----".into(), ClientKeyError::NotPem),
            (section("ENCRYPTED PRIVATE KEY"), ClientKeyError::Encrypted),
            (section("EC PRIVATE KEY"), ClientKeyError::NotPkcs8("SEC 1")),
            (section("RSA PRIVATE KEY"), ClientKeyError::Invalid("its encoding is broken".into())),
            (section("PUBLIC KEY"), ClientKeyError::OtherPemLabel("PUBLIC KEY".into())),
            (section("OPENSSH PRIVATE KEY"), ClientKeyError::OtherPemLabel("OPENSSH PRIVATE KEY".into())),
            (section("PRIVATE KEY"), ClientKeyError::Invalid("its encoding is broken".into())),
            (pem(other.as_ref()), ClientKeyError::UnsupportedAlgorithm),
        ] {
            let found = key(&text).unwrap_err();
            assert_eq!(found, bad, "{text}");
            let told = format!("{found} {found:?} {}", found.hint());
            assert!(!told.contains("hunter2") && !told.contains("aHVudGVyMg"), "{told}");
            assert!(!found.hint().is_empty());
        }
    }

    /// An element of DER, up to 65535 bytes long.
    fn tlv(tag: u8, content: &[u8]) -> Vec<u8> {
        let length = u16::try_from(content.len()).unwrap().to_be_bytes();
        [&[tag, 0x82], length.as_slice(), content].concat()
    }

    #[test]
    fn an_rsa_key_is_measured_by_its_modulus() {
        let rsa = |modulus: &[u8]| tlv(SEQUENCE, &[tlv(INTEGER, &[0]), tlv(INTEGER, modulus)].concat());
        let large = [&[0][..], &[0x80; 256]].concat();
        assert_eq!(modulus_bits(&rsa(&large)), Some(2048));
        assert_eq!(modulus_bits(&rsa(&[0x7f; 256])), Some(2047));
        assert_eq!(modulus_bits(&rsa(&[0])), None);
        assert_eq!(modulus_bits(&rsa(&large)[..100]), None);
        let small = rsa(&[0x7f; 256]);
        let pkcs1 =
            format!("-----BEGIN RSA PRIVATE KEY-----\n{}\n-----END RSA PRIVATE KEY-----\n", STANDARD.encode(&small));
        assert_eq!(key(&pkcs1).unwrap_err(), ClientKeyError::TooSmall);
        let algorithm = tlv(SEQUENCE, alg_id::RSA_ENCRYPTION.as_ref());
        let pkcs8 = tlv(SEQUENCE, &[tlv(INTEGER, &[0]), algorithm, tlv(OCTET_STRING, &small)].concat());
        assert_eq!(key(&pem(&pkcs8)).unwrap_err(), ClientKeyError::TooSmall);
    }
}
