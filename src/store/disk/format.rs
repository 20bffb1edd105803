//! Recognises files that a later version of keepalive wrote.

/// The format of a file of a later version, which is not understood and not damaged.
pub(in crate::store) fn later_format(bytes: &[u8], known: u32) -> Option<u64> {
    let value = serde_json::from_slice::<serde_json::Value>(bytes).ok()?;
    value.get("format")?.as_u64().filter(|format| *format > u64::from(known))
}
