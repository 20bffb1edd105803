//! Reads what `pizauth dump` prints: encrypted with a key from pizauth's source, "not meaningfully encrypted" by its
//! manual. (pure)

use chacha20poly1305::aead::Aead;
use chacha20poly1305::{ChaCha20Poly1305, KeyInit, Nonce};
use zeroize::Zeroizing;

use crate::clock::Timestamp;
use crate::credential::expiry::ExpiryClaims;
use crate::credential::external::ExternalCredential;
use crate::credential::secret::{AccessToken, RefreshToken};
use crate::credential::token_response::TokenResponse;
use crate::import_sources::{ToolAccount, ToolStoreError};

/// The published key of the dump (pizauth 1.1.0).
const KEY: [u8; 32] = [
    0x66, 0xa2, 0x47, 0xa8, 0x5e, 0x48, 0xcf, 0xec, 0xaa, 0xed, 0x9b, 0x36, 0xeb, 0xa9, 0x7d, 0x53, 0x50, 0xd4, 0x28,
    0x63, 0x75, 0x09, 0x7a, 0x44, 0xee, 0xff, 0xb9, 0xc4, 0x54, 0x6b, 0x65, 0xa3,
];
const NONCE: usize = 12;
/// The version of the dump that is known here.
const VERSION: u64 = 1;

/// The accounts of a dump. Only those with a token are of use.
pub(super) fn read(dump: &[u8]) -> Result<Vec<ToolAccount>, ToolStoreError> {
    let plain = decrypt(dump)
        .ok_or_else(|| ToolStoreError::new("it is not a pizauth dump", "pizauth dump | keepalive import …"))?;
    let mut reader = DumpReader { rest: &plain };
    match reader.read_u64() {
        Some(VERSION) => {}
        _ => return Err(ToolStoreError::new("its version is not supported", "sign in again: keepalive login")),
    }
    let entries = reader.accounts().filter(|_| reader.rest.is_empty());
    entries.ok_or_else(|| ToolStoreError::new("its format is not supported", "sign in again: keepalive login"))
}

fn decrypt(dump: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let (nonce, sealed) = dump.split_first_chunk::<NONCE>()?;
    ChaCha20Poly1305::new(&KEY.into()).decrypt(&Nonce::from(*nonce), sealed).ok().map(Zeroizing::new)
}

/// Reads members one after another: little-endian numbers of fixed width, and data after its length.
struct DumpReader<'a> {
    rest: &'a [u8],
}

impl<'a> DumpReader<'a> {
    fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(n)?;
        self.rest = rest;
        Some(taken)
    }

    fn read_u64(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(self.take(8)?.try_into().ok()?))
    }

    fn read_u32(&mut self) -> Option<u32> {
        Some(u32::from_le_bytes(self.take(4)?.try_into().ok()?))
    }

    fn text(&mut self) -> Option<&'a str> {
        let length = usize::try_from(self.read_u64()?).ok()?;
        std::str::from_utf8(self.take(length)?).ok()
    }

    fn optional(&mut self) -> Option<Option<&'a str>> {
        match self.take(1)? {
            [0] => Some(None),
            [1] => self.text().map(Some),
            _ => None,
        }
    }

    fn instant(&mut self) -> Option<Timestamp> {
        let (secs, _nanos) = (self.read_u64()?, self.read_u32()?);
        i64::try_from(secs).ok().map(Timestamp::from_secs)
    }

    fn accounts(&mut self) -> Option<Vec<ToolAccount>> {
        let mut entries = Vec::new();
        for _ in 0..self.read_u64()? {
            let id = self.text()?.to_owned();
            let (client_id, issuer) = self.client()?;
            let content = match self.read_u32()? {
                0 => Err(ToolStoreError::signed_out("pizauth has no token for it", "pizauth refresh, then sign in")),
                1 => self.token(client_id, issuer)?,
                _ => return None,
            };
            entries.push(ToolAccount { id, provider: None, credential: content });
        }
        Some(entries)
    }

    /// The account's configuration: the client, and the server of its tokens.
    fn client(&mut self) -> Option<(String, String)> {
        let _authorization_endpoint = self.text()?;
        for _ in 0..self.read_u64()? {
            let _field = (self.text()?, self.text()?);
        }
        let client_id = self.text()?.to_owned();
        let (_secret, _redirect) = (self.optional()?, self.text()?);
        for _ in 0..self.read_u64()? {
            let _scope = self.text()?;
        }
        Some((client_id, self.text()?.to_owned()))
    }

    fn token(&mut self, client_id: String, issuer: String) -> Option<Result<ExternalCredential, ToolStoreError>> {
        let access = AccessToken::new(self.text()?);
        let (obtained, expires) = (self.instant()?, self.instant()?);
        let refresh = self.optional()?.and_then(RefreshToken::new);
        if refresh.is_none() {
            return Some(Err(ToolStoreError::new(
                "the provider gave pizauth no refresh token",
                "ask for offline access",
            )));
        }
        let expiry = ExpiryClaims::ending_at(Some(expires));
        Some(Ok(ExternalCredential {
            response: TokenResponse { access, refresh, expiry, ..TokenResponse::default() },
            client_id: Some(client_id),
            issuer: Some(issuer),
            written_at: Some(obtained),
            ..ExternalCredential::default()
        }))
    }
}
