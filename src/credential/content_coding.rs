//! Undoes the content codings (RFC 9110 §8.4) of a response, although none was requested, within a size limit. (pure)

use std::io::{self, Read};

use zeroize::Zeroizing;

/// The longest response of a token endpoint, both packed and unpacked; the rest is not read.
pub const MAX_BODY_BYTES: usize = 1024 * 1024;
/// More codings than this on one response are an attack.
const MAX_CODINGS: usize = 4;
const GZIP: [u8; 2] = [0x1f, 0x8b];

/// The unpacked response would be larger than the cap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BodyTooLarge;

/// A body, unpacked.
#[derive(Debug)]
pub struct DecodedBody {
    pub bytes: Zeroizing<Vec<u8>>,
    /// Every coding ended as it should; otherwise the rest of the body is lost.
    pub is_complete: bool,
}

/// Unpacks `body` as `named` says (the value of `Content-Encoding`), and gzip also where the header is missing.
///
/// A coding that is unknown, or that does not fit the body, is left alone: proxies unpack a body and forget the header.
/// A body that is damaged or cut gives as much as can be read.
pub fn decode(named: Option<&str>, body: &[u8]) -> Result<DecodedBody, BodyTooLarge> {
    let mut body = DecodedBody { bytes: Zeroizing::new(body.to_vec()), is_complete: true };
    for coding in codings(named).into_iter().take(MAX_CODINGS) {
        body = decode_one(&coding, body)?;
    }
    if body.bytes.starts_with(&GZIP) { decode_one("gzip", body) } else { Ok(body) }
}

/// The codings in the order in which they are to be undone: the last one applied first.
fn codings(named: Option<&str>) -> Vec<String> {
    let names = named.unwrap_or_default().split(',').map(|name| name.trim().to_ascii_lowercase());
    let mut names: Vec<_> = names.filter(|name| !name.is_empty() && name != "identity").collect();
    names.reverse();
    names
}

fn decode_one(coding: &str, body: DecodedBody) -> Result<DecodedBody, BodyTooLarge> {
    let packed = body.bytes.as_slice();
    let (bytes, end) = match coding {
        "gzip" | "x-gzip" => read_limited(flate2::read::MultiGzDecoder::new(packed)),
        "deflate" if is_zlib(packed) => read_limited(flate2::read::ZlibDecoder::new(packed)),
        // What many servers mean by `deflate`: the stream without its wrapper.
        "deflate" => read_limited(flate2::read::DeflateDecoder::new(packed)),
        "br" => read_limited(brotli_decompressor::Decompressor::new(packed, 4096)),
        _ => return Ok(body),
    };
    if bytes.len() > MAX_BODY_BYTES {
        return Err(BodyTooLarge);
    }
    if end.is_err() && bytes.is_empty() {
        return Ok(body);
    }
    Ok(DecodedBody { bytes, is_complete: body.is_complete && end.is_ok() })
}

/// Reads to the end, to the first error, or to one byte beyond the cap.
fn read_limited(from: impl Read) -> (Zeroizing<Vec<u8>>, io::Result<usize>) {
    let mut unpacked = Zeroizing::new(Vec::new());
    let end = from.take(MAX_BODY_BYTES as u64 + 1).read_to_end(&mut unpacked);
    (unpacked, end)
}

/// RFC 1950: the method is deflate, and the first two bytes are a multiple of 31.
fn is_zlib(body: &[u8]) -> bool {
    matches!(body, [cmf, flags, ..] if cmf & 0x0f == 8 && (u16::from(*cmf) << 8 | u16::from(*flags)) % 31 == 0)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};

    use super::*;

    const TEXT: &[u8] = br#"{"access_token":"a","refresh_token":"r"}"#;
    /// `TEXT` as `brotli -q 11` writes it.
    const BROTLI: &[u8] = include_bytes!("../../tests/responses/granted.br");

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn decoded(named: &str, body: &[u8]) -> Vec<u8> {
        decode((!named.is_empty()).then_some(named), body).unwrap().bytes.to_vec()
    }

    #[test]
    fn every_content_encoding_of_a_proxy_is_decoded() {
        let mut zlib = ZlibEncoder::new(Vec::new(), Compression::fast());
        let mut raw = DeflateEncoder::new(Vec::new(), Compression::fast());
        zlib.write_all(TEXT).unwrap();
        raw.write_all(TEXT).unwrap();
        assert_eq!(decoded("gzip", &gzip(TEXT)), TEXT);
        assert_eq!(decoded("X-GZIP", &gzip(TEXT)), TEXT);
        assert_eq!(decoded("deflate", &zlib.finish().unwrap()), TEXT);
        assert_eq!(decoded("deflate", &raw.finish().unwrap()), TEXT);
        assert_eq!(decoded("br", BROTLI), TEXT);
        assert_eq!(decoded("gzip, identity , gzip", &gzip(&gzip(TEXT))), TEXT);
        assert_eq!(decoded("br, gzip", &gzip(BROTLI)), TEXT);
        assert_eq!(decoded("", &gzip(TEXT)), TEXT, "gzip is known by its first bytes");
        assert_eq!(decoded("gzip", &[gzip(&TEXT[..9]), gzip(&TEXT[9..])].concat()), TEXT, "in two members");
    }

    #[test]
    fn unencoded_body_is_left_unchanged() {
        for named in ["", "identity", "gzip", "zstd", "compress", ",,;", "gzip;q=1"] {
            assert_eq!(decoded(named, TEXT), TEXT, "{named}");
        }
        assert_eq!(decoded("gzip", b""), b"");
    }

    #[test]
    fn truncated_body_is_decoded_as_far_as_it_goes() {
        let packed = gzip(&[TEXT, &vec![b' '; 5000]].concat());
        let cut = decode(Some("gzip"), &packed[..packed.len() - 9]).unwrap();
        assert!(cut.bytes.starts_with(TEXT) && !cut.is_complete);
        assert!(decode(Some("gzip"), &packed).unwrap().is_complete);
        assert!(decoded("gzip", &[packed, b"stray".to_vec()].concat()).starts_with(TEXT));
    }

    /// Rule 38.
    #[test]
    fn decompression_bomb_is_refused_at_the_size_limit() {
        let zeros = vec![0; 64 * 1024 * 1024];
        let bomb = gzip(&zeros);
        assert!(bomb.len() < 100_000);
        assert!(decode(Some("gzip"), &bomb).is_err());
        assert!(decode(None, &bomb).is_err());
        assert!(decode(Some("gzip, gzip"), &gzip(&bomb)).is_err());
        assert!(decode(Some("br"), include_bytes!("../../tests/responses/bomb.br")).is_err());
        assert_eq!(decoded("gzip", &gzip(&zeros[..MAX_BODY_BYTES])).len(), MAX_BODY_BYTES);
    }
}
