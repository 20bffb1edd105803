//! Fingerprints of refresh tokens that were consumed: what is in here is never sent again (rule 3).

use std::path::PathBuf;

use super::layout::Layout;
use crate::credential::secret::Fingerprint;
use crate::sys::durable;
use crate::sys::lockfile::LockFile;

/// The newest fingerprints that are kept; the file may grow to twice as many before it is cut.
const KEPT: usize = 1024;

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
        Ok(self.read()?.iter().any(|line| line == token.as_str()))
    }

    /// Adds a consumed token; durable on return. Adding it twice is harmless.
    pub fn add(&self, token: &Fingerprint) -> std::io::Result<()> {
        let held = LockFile::acquire(&self.lock)?;
        let lines = self.read()?;
        if lines.iter().any(|line| line == token.as_str()) {
            return Ok(());
        }
        if lines.len() >= 2 * KEPT {
            let newest: String = lines.iter().skip(lines.len() - KEPT).map(|line| format!("{line}\n")).collect();
            durable::replace(&self.path, newest.as_bytes())?;
        }
        // A torn last line would swallow the new one.
        let is_torn = durable::read(&self.path)?.is_some_and(|bytes| bytes.last().is_some_and(|last| *last != b'\n'));
        let line = if is_torn { format!("\n{}", token.as_str()) } else { token.as_str().to_owned() };
        durable::append_line(&self.path, &line)?;
        drop(held);
        Ok(())
    }

    /// The whole lines. A torn last one was never acknowledged, so its token's successor was not committed either.
    fn read(&self) -> std::io::Result<Vec<String>> {
        let bytes = durable::read(&self.path)?.unwrap_or_default();
        Ok(String::from_utf8_lossy(&bytes).lines().filter(|l| l.len() == 32).map(str::to_owned).collect())
    }
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
}
