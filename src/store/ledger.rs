//! Fingerprints of refresh tokens that were consumed: what is in here is never sent again (rule 3).

use std::path::PathBuf;

use super::layout::Layout;
use crate::credential::secret::Fingerprint;
use crate::sys::durable;
use crate::sys::lockfile::LockFile;

/// The newest fingerprints that are kept; the file may grow to twice as many before it is cut.
const KEPT: usize = 1024;

/// What stands before a fingerprint that is taken back; before one that is consumed stands nothing.
const CLEARED: &str = "cleared ";

/// The ledger of one store. Shared by all profiles; its own lock is the last one taken.
#[derive(Clone, Debug)]
pub struct Ledger {
    path: PathBuf,
    lock: PathBuf,
}

impl Ledger {
    pub fn new(layout: &Layout) -> Self {
        Self { path: layout.ledger(), lock: layout.ledger_lock() }
    }

    /// Whether a token is known to be consumed.
    pub fn contains(&self, token: &Fingerprint) -> std::io::Result<bool> {
        Ok(says(&self.read()?, token))
    }

    /// Adds a consumed token; durable on return. Adding it twice is harmless.
    pub fn add(&self, token: &Fingerprint) -> std::io::Result<()> {
        self.say(token, true)
    }

    /// Takes back whatever is known: the server has just granted this token. Durable on return.
    pub fn clear(&self, token: &Fingerprint) -> std::io::Result<()> {
        self.say(token, false)
    }

    /// Appends what is now to be said of a token, unless it is said already.
    fn say(&self, token: &Fingerprint, is_consumed: bool) -> std::io::Result<()> {
        let held = LockFile::acquire(&self.lock)?;
        let lines = self.read()?;
        if says(&lines, token) == is_consumed {
            return Ok(());
        }
        if lines.len() >= 2 * KEPT {
            let newest: String = lines.iter().skip(lines.len() - KEPT).map(|line| format!("{line}\n")).collect();
            durable::replace(&self.path, newest.as_bytes())?;
        }
        // A torn last line would swallow the new one.
        let is_torn = durable::read(&self.path)?.is_some_and(|bytes| bytes.last().is_some_and(|last| *last != b'\n'));
        let start = if is_torn { "\n" } else { "" };
        let sign = if is_consumed { "" } else { CLEARED };
        durable::append_line(&self.path, &format!("{start}{sign}{}", token.as_str()))?;
        drop(held);
        Ok(())
    }

    /// The whole lines. A torn last one was never acknowledged, so its token's successor was not committed either.
    fn read(&self) -> std::io::Result<Vec<String>> {
        let bytes = durable::read(&self.path)?.unwrap_or_default();
        let is_whole = |line: &&str| line.strip_prefix(CLEARED).unwrap_or(line).len() == 32;
        Ok(String::from_utf8_lossy(&bytes).lines().filter(is_whole).map(str::to_owned).collect())
    }
}

/// Whether a token is consumed by these lines: the last one about it counts.
fn says(lines: &[String], token: &Fingerprint) -> bool {
    let of = |line: &String| line.strip_prefix(CLEARED).unwrap_or(line) == token.as_str();
    lines.iter().rev().find(|line| of(line)).is_some_and(|line| !line.starts_with(CLEARED))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn print(i: usize) -> Fingerprint {
        Fingerprint::from_hex(format!("{i:032x}"))
    }

    #[test]
    fn r03_the_newest_tokens_are_remembered_and_the_file_stays_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let ledger = Ledger::new(&Layout::new(dir.path()));
        assert!(!ledger.contains(&print(0)).unwrap());
        let old: String = (0..2 * KEPT - 1).map(|i| format!("{i:032x}\n")).collect();
        std::fs::write(dir.path().join("ledger"), old).unwrap();
        ledger.add(&print(2 * KEPT - 1)).unwrap();
        assert!(ledger.contains(&print(0)).unwrap(), "it may grow to twice as many");
        ledger.add(&print(5000)).unwrap();
        assert!(ledger.contains(&print(5000)).unwrap());
        assert!(ledger.contains(&print(2 * KEPT - 1)).unwrap() && ledger.contains(&print(KEPT)).unwrap());
        assert!(!ledger.contains(&print(KEPT - 1)).unwrap());
        ledger.add(&print(5000)).unwrap();
        assert_eq!(ledger.read().unwrap().len(), KEPT + 1);
    }

    #[test]
    fn r03_a_token_added_after_a_torn_line_is_still_found() {
        let dir = tempfile::tempdir().unwrap();
        let ledger = Ledger::new(&Layout::new(dir.path()));
        std::fs::write(dir.path().join("ledger"), "0123").unwrap();
        ledger.add(&print(7)).unwrap();
        assert!(ledger.contains(&print(7)).unwrap());
    }

    #[test]
    fn r22_the_last_line_about_a_token_counts() {
        let dir = tempfile::tempdir().unwrap();
        let ledger = Ledger::new(&Layout::new(dir.path()));
        ledger.clear(&print(7)).unwrap();
        assert_eq!(ledger.read().unwrap().len(), 0, "there was nothing to take back");
        for is_consumed in [true, false, true] {
            ledger.say(&print(7), is_consumed).unwrap();
            ledger.say(&print(7), is_consumed).unwrap();
            ledger.add(&print(8)).unwrap();
            assert_eq!(ledger.contains(&print(7)).unwrap(), is_consumed);
        }
        assert!(ledger.contains(&print(8)).unwrap());
        assert_eq!(ledger.read().unwrap().len(), 4, "nothing is said twice");
    }
}
