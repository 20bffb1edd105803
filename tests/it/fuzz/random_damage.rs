//! Random damage to bytes, to texts and to JSON.

use serde_json::{Value, json};

/// Xorshift64*: small, fast, the same everywhere.
pub struct Rng(u64);

impl Rng {
    pub fn new(seed: u64) -> Self {
        // SplitMix64 once, so that neighbouring seeds have nothing in common and none is zero.
        let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        Self((z ^ (z >> 31)) | 1)
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// One of 0..n; 0 of none.
    pub fn below(&mut self, n: usize) -> usize {
        ((self.next() >> 32) as usize).checked_rem(n).unwrap_or(0)
    }

    pub fn pick<'a, T: ?Sized>(&mut self, from: &'a [&'a T]) -> &'a T {
        from[self.below(from.len())]
    }

    /// True once in `n` times.
    pub fn once_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
}

/// Damages bytes in one to four places, at least one of which is a change of something if there is anything.
pub fn bytes(rng: &mut Rng, bytes: &mut Vec<u8>, words: &[&[u8]]) {
    for _ in 0..=rng.below(4) {
        let at = rng.below(bytes.len() + 1);
        let most = if rng.once_in(8) { bytes.len() + 1 } else { 8 };
        let length = 1 + rng.below(most);
        let end = (at + length).min(bytes.len());
        match rng.below(8) {
            0 if at < bytes.len() => bytes[at] ^= 1 << rng.below(8),
            1 if at < bytes.len() => bytes[at] = rng.next() as u8,
            2 => drop(bytes.drain(at..end)),
            3 => bytes.truncate(at),
            4 => {
                let again = bytes[at..end].to_vec();
                bytes.splice(at..at, again);
            }
            5 | 6 => {
                let word = rng.pick(words).to_vec();
                bytes.splice(at..if rng.once_in(2) { at } else { end }, word);
            }
            _ => {
                let noise: Vec<u8> = (0..length.min(16)).map(|_| rng.next() as u8).collect();
                bytes.splice(at..at, noise);
            }
        }
    }
}

/// Damages a text in the same ways, by characters.
pub fn text(rng: &mut Rng, text: &str, words: &[&[u8]]) -> String {
    let mut damaged = text.as_bytes().to_vec();
    bytes(rng, &mut damaged, words);
    String::from_utf8_lossy(&damaged).into_owned()
}

/// Changes one to three members, wherever they are.
pub fn members(rng: &mut Rng, value: &mut Value, names: &[&str]) {
    for _ in 0..=rng.below(3) {
        member(rng, value, names);
    }
}

fn member(rng: &mut Rng, node: &mut Value, names: &[&str]) {
    let goes_on = !rng.once_in(3);
    match node {
        Value::Object(map) if goes_on && !map.is_empty() => {
            let n = rng.below(map.len());
            if let Some(within) = map.values_mut().nth(n) {
                member(rng, within, names);
            }
        }
        Value::Array(items) if goes_on && !items.is_empty() => {
            let n = rng.below(items.len());
            member(rng, &mut items[n], names);
        }
        Value::Object(map) => {
            let name = rng.pick(names).to_owned();
            match rng.below(3) {
                0 => drop(map.remove(&name)),
                1 => drop(map.insert(name, scalar(rng))),
                _ => {
                    let within = std::mem::take(map);
                    map.insert(name, Value::Object(within));
                }
            }
        }
        other => *other = scalar(rng),
    }
}

/// A value that no reader expects.
pub fn scalar(rng: &mut Rng) -> Value {
    let texts = [
        "",
        " ",
        "Bearer",
        "0",
        "-1",
        "1e400",
        "3600",
        "\u{0}",
        "a\r\nb",
        "\u{1b}[2J",
        "\u{202e}",
        "\u{fffd}",
        "new-token",
        "invalid_grant",
        "2026-11-24T12:00:00Z",
        "9999-99-99T99:99:99Z",
        "e30.eyJleHAiOjF9.x",
    ];
    match rng.below(10) {
        0 => Value::Null,
        1 => Value::Bool(rng.once_in(2)),
        2 => json!(rng.next() as i64),
        3 => json!(rng.next() % 4_000_000_000),
        4 => json!(f64::from_bits(rng.next())),
        5 => json!([rng.pick(&texts)]),
        6 => json!({ "code": rng.pick(&texts) }),
        7 => json!(format!("{}{}", rng.pick(&texts), "x".repeat(rng.below(300)))),
        _ => json!(rng.pick(&texts)),
    }
}
