//! TLS of the clients: trust as the platform has it, and refusals that say who issued the certificate that was shown.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::ring;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, OtherError, SignatureScheme};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use rustls_platform_verifier::Verifier;

use crate::clock::Timestamp;
use crate::credential::server_text::printable;

/// The configuration of a client that trusts the roots of the platform and those in `authorities` (PEM).
pub(super) fn client_config(authorities: Option<&[u8]>) -> Result<ClientConfig, String> {
    // Not the process's own, which belongs to the program around this library.
    let provider = Arc::new(ring::default_provider());
    let verifier = match authorities {
        None => Verifier::new(Arc::clone(&provider)),
        Some(pem) => Verifier::new_with_extra_roots(certificates(pem)?, Arc::clone(&provider)),
    };
    let verifier = NamingVerifier(verifier.map_err(|e| in_words(&e.to_string()))?);
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| e.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

/// The certificates of a file in PEM, of which there must be one.
pub(super) fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match certificates.map_err(|_| "it is no PEM that can be read".to_owned())? {
        none if none.is_empty() => Err("it contains no certificate".to_owned()),
        certificates => Ok(certificates),
    }
}

/// A certificate that was refused.
#[derive(Debug, thiserror::Error)]
#[error("the certificate of the server, issued by {issuer}, is refused: {why}{remedy}")]
struct RefusedCertificate {
    issuer: String,
    why: String,
    remedy: &'static str,
}

/// The platform's verifier, which decides alone; its refusals are put into words.
#[derive(Debug)]
struct NamingVerifier(Verifier);

impl ServerCertVerifier for NamingVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verified = self.0.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        verified.map_err(|error| match error {
            Error::InvalidCertificate(why) => {
                let issuer = issuer_name(end_entity).unwrap_or_else(|| "an unnamed issuer".to_owned());
                let refused = RefusedCertificate { issuer, why: reason(&why), remedy: remedy(&why) };
                Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(refused))))
            }
            other => other,
        })
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

/// The text of a refusal in a chain of causes.
pub(super) fn refusal_text(cause: &(dyn std::error::Error + 'static)) -> Option<String> {
    let mut cause = cause;
    while let Some(inner) = cause.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref) {
        cause = inner;
    }
    Some(match cause.downcast_ref::<Error>()? {
        Error::InvalidCertificate(CertificateError::Other(OtherError(refused))) => refused.to_string(),
        Error::InvalidCertificate(why) => format!("the certificate of the server is refused: {}", reason(why)),
        Error::InvalidMessage(_) => "the server does not speak TLS at this port".to_owned(),
        other => in_words(&other.to_string()),
    })
}

/// Why a certificate is refused.
fn reason(why: &CertificateError) -> String {
    let at = |time: &UnixTime| {
        Timestamp::from_secs(i64::try_from(time.as_secs()).unwrap_or(i64::MAX / 1000)).to_the_second()
    };
    match why {
        CertificateError::UnknownIssuer => {
            "UnknownIssuer, an authority that this machine does not trust, or a chain that the server sends in part"
                .into()
        }
        CertificateError::Expired => "it has expired".into(),
        CertificateError::ExpiredContext { time, not_after } => {
            format!("it expired at {}, and the clock of this machine says {}", at(not_after), at(time))
        }
        CertificateError::NotValidYet => "it is not valid yet".into(),
        CertificateError::NotValidYetContext { time, not_before } => {
            format!("it is valid from {}, and the clock of this machine says {}", at(not_before), at(time))
        }
        CertificateError::NotValidForNameContext { expected, presented } => {
            let names: Vec<String> = presented.iter().map(|name| printable(&presented_name(name))).collect();
            let names = if names.is_empty() { "no name".to_owned() } else { names.join(", ") };
            format!("it is made out to {names}, not to {}", expected.to_str())
        }
        CertificateError::NotValidForName => "it is made out to another name".into(),
        CertificateError::Revoked => "it was revoked".into(),
        CertificateError::BadEncoding => "it cannot be read".into(),
        CertificateError::BadSignature => "its signature does not fit".into(),
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            "it is not made out for a server".into()
        }
        CertificateError::Other(OtherError(inner)) if is_authority(inner) => "it is that of an authority".into(),
        CertificateError::Other(OtherError(inner)) => in_words(&inner.to_string()),
        other => in_words(&other.to_string()),
    }
}

/// The server shows the certificate of an authority as its own.
fn is_authority(why: &dyn std::fmt::Display) -> bool {
    why.to_string().contains("CaUsedAsEndEntity")
}

/// A name of a certificate without the type that the library writes around it: `DnsName("a.example")`.
fn presented_name(name: &str) -> String {
    match (name.find('"'), name.rfind('"')) {
        (Some(from), Some(to)) if from < to => name[from + 1..to].to_owned(),
        _ => name.to_owned(),
    }
}

fn remedy(why: &CertificateError) -> &'static str {
    match why {
        CertificateError::UnknownIssuer => {
            "; if that issuer is right, name its certificate: ca_file in the provider's section, or SSL_CERT_FILE"
        }
        CertificateError::Expired
        | CertificateError::ExpiredContext { .. }
        | CertificateError::NotValidYet
        | CertificateError::NotValidYetContext { .. } => {
            "; if the clock of this machine is right, the server's operator must renew it; otherwise set the clock: timedatectl set-ntp true"
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "; check the host name of the endpoint"
        }
        CertificateError::Other(OtherError(inner)) if is_authority(inner) => {
            "; the server's operator must give it one that is made out for a server"
        }
        _ => "; the server's operator must replace it",
    }
}

/// The words of a name in a program: `CaUsedAsEndEntity` is `ca used as end entity`.
fn in_words(text: &str) -> String {
    let mut words = String::new();
    let mut before = ' ';
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        let begins_word = c.is_uppercase() && rest.peek().is_some_and(|next| next.is_lowercase());
        match c {
            '(' | ')' | '{' | '}' | '"' => {}
            _ if begins_word && before.is_lowercase() => {
                words.push(' ');
                words.extend(c.to_lowercase());
            }
            _ if begins_word && !before.is_alphanumeric() => words.extend(c.to_lowercase()),
            _ => words.push(c),
        }
        before = c;
    }
    words
}

/// `organizationName` and `commonName` (X.520).
const NAMES: [&[u8]; 2] = [&[0x55, 4, 10], &[0x55, 4, 3]];
const SEQUENCE: u8 = 0x30;
const OBJECT_IDENTIFIER: u8 = 0x06;

/// The issuer of a certificate (RFC 5280 §4.1): its organization and common name.
fn issuer_name(certificate: &[u8]) -> Option<String> {
    let (SEQUENCE, whole, _) = element(certificate)? else { return None };
    let (SEQUENCE, mut fields, _) = element(whole)? else { return None };
    let (tag, _, rest) = element(fields)?;
    // The version is left out of certificates of version 1.
    if tag == 0xa0 {
        fields = rest;
    }
    let (_serial, _, rest) = element(fields)?;
    let (_algorithm, _, rest) = element(rest)?;
    let (SEQUENCE, mut issuer, _) = element(rest)? else { return None };
    let mut found = [None, None];
    while let Some((_set, attributes, rest)) = element(issuer) {
        issuer = rest;
        let Some((SEQUENCE, attribute, _)) = element(attributes) else { continue };
        let Some((OBJECT_IDENTIFIER, kind, value)) = element(attribute) else { continue };
        if let (Some(at), Some((_, text, _))) = (NAMES.iter().position(|name| *name == kind), element(value)) {
            found[at] = Some(printable(&String::from_utf8_lossy(text)));
        }
    }
    let names: Vec<String> = found.into_iter().flatten().collect();
    (!names.is_empty()).then(|| format!("{:?}", names.join(", ")))
}

/// The first element of DER: its tag, its content, and what follows.
fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&[tag, first], rest) = der.split_first_chunk::<2>()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81..=0x84 => {
            let (bytes, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            (bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)), rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refused_certificate_is_told_in_words_with_dates() {
        let at = |secs| UnixTime::since_unix_epoch(std::time::Duration::from_secs(secs));
        let expired = CertificateError::ExpiredContext { time: at(1_790_000_000), not_after: at(1_780_000_000) };
        assert_eq!(
            reason(&expired),
            "it expired at 2026-05-28T20:26:40Z, and the clock of this machine says 2026-09-21T14:13:20Z"
        );
        assert!(remedy(&expired).contains("set the clock"));
        let early = CertificateError::NotValidYetContext { time: at(1_780_000_000), not_before: at(1_790_000_000) };
        assert!(reason(&early).starts_with("it is valid from 2026-09-21T14:13:20Z"), "{}", reason(&early));
        let name = CertificateError::NotValidForNameContext {
            expected: ServerName::try_from("b.example").unwrap(),
            presented: vec!["DnsName(\"a.example\")".to_owned()],
        };
        assert_eq!(reason(&name), "it is made out to a.example, not to b.example");
        assert_eq!(in_words("CaUsedAsEndEntity"), "ca used as end entity");
        assert_eq!(in_words("received fatal alert: HandshakeFailure"), "received fatal alert: handshake failure");
    }

    #[test]
    fn cut_or_foreign_certificates_have_no_issuer() {
        let name = [0x30, 0x0f, 0x31, 0x0d, 0x30, 0x0b, 6, 3, 0x55, 4, 3, 12, 4, b'C', b'o', b'r', b'p'];
        let fields = [&[2, 1, 1, 0x30, 0][..], &name].concat();
        let body = [&[0x30, fields.len() as u8][..], &fields].concat();
        let certificate = [&[0x30, body.len() as u8][..], &body].concat();
        assert_eq!(issuer_name(&certificate).as_deref(), Some("\"Corp\""));
        for end in 0..certificate.len() {
            assert_eq!(issuer_name(&certificate[..end]), None);
        }
        assert_eq!(issuer_name(&[0x30, 0x84, 0xff, 0xff, 0xff, 0xff]), None);
    }
}
