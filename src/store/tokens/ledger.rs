//! The ledger: what is known of refresh tokens by fingerprint, whatever happens to the journals. A consumed token is
//! never sent again (rule 3), and a doubt stays (rule 17).

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::clock::Timestamp;
use crate::credential::secret::Fingerprint;
use crate::events;
use crate::store::StoreError;
use crate::store::disk::layout::Layout;
use crate::sys::durable;
use crate::sys::file_watch::FileVersion;
use crate::sys::lockfile::{LockError, LockFile, LockWait};

/// The newest lines that are kept; the file may grow to twice as many before it is cut.
const KEPT_LINES: usize = 1024;

/// How long the ledger's lock is waited for. Its holder writes one line, so one that has it longer is stopped; what cannot
/// be written now is kept in the journal and written by a later run.
const LEDGER_LOCK_WAIT: LockWait<'_> = LockWait::at_most(Duration::from_secs(5));

/// The length of a fingerprint.
const TOKEN_LEN: usize = 32;

/// What stands before a fingerprint that is in doubt, and the time after it; before one that is consumed stands nothing.
const IN_DOUBT: &str = "in_doubt";
/// What stands before one that a server rejected, and that was never in doubt.
const REJECTED: &str = "rejected";
/// The mark of a token that is known to be alive after all. It makes the line longer than those of an older version,
/// which therefore goes on refusing the token.
const CLEARED: &str = "-";

/// The ledger of one store. Shared by all profiles; its own lock is the last one taken.
#[derive(Clone, Debug)]
pub struct Ledger {
    path: PathBuf,
    lock: PathBuf,
    /// What was read last, and of which version of the file: it is read again only if that has changed.
    cached: Arc<Mutex<Option<(FileVersion, LedgerSnapshot)>>>,
}

/// What the ledger knows of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LedgerEntry {
    /// It was used up, or may have been and was given up. It is never sent again.
    Consumed,
    /// A server rejected it. It is sent again only if a person insists.
    Rejected,
    /// The token was sent, and at this time the outcome was unknown.
    InDoubt(Timestamp),
}

impl Ledger {
    pub(in crate::store) fn new(layout: &Layout) -> Self {
        Self { path: layout.ledger(), lock: layout.ledger_lock(), cached: Arc::default() }
    }

    /// What is known of a token: the last line about it counts.
    pub fn entry(&self, token: &Fingerprint) -> Result<Option<LedgerEntry>, StoreError> {
        Ok(find_entry(&self.snapshot()?.0, token))
    }

    /// Whether a token is known to be of no use: it is consumed, or rejected.
    pub fn is_consumed(&self, token: &Fingerprint) -> Result<bool, StoreError> {
        Ok(matches!(self.entry(token)?, Some(LedgerEntry::Consumed | LedgerEntry::Rejected)))
    }

    /// Adds a consumed token; durable on return. Adding it twice is harmless.
    pub fn add_consumed(&self, token: &Fingerprint) -> Result<(), StoreError> {
        self.append(token, token.as_str(), |mark| mark != Some(LedgerEntry::Consumed))
    }

    /// Adds a token that a server rejected, unless it is known to be consumed; durable on return.
    pub fn add_rejected(&self, token: &Fingerprint) -> Result<(), StoreError> {
        let is_news = |mark| !matches!(mark, Some(LedgerEntry::Consumed | LedgerEntry::Rejected));
        self.append(token, &format!("{REJECTED} {}", token.as_str()), is_news)
    }

    /// Adds a token in doubt, unless more is known of it; durable on return.
    pub fn add_in_doubt(&self, token: &Fingerprint, at: Timestamp) -> Result<(), StoreError> {
        self.append(token, &format!("{IN_DOUBT} {at} {}", token.as_str()), |mark| mark.is_none())
    }

    /// Takes back a doubt: the token was not used up. Durable on return.
    pub fn clear_in_doubt(&self, token: &Fingerprint) -> Result<(), StoreError> {
        self.clear_if(token, |mark| matches!(mark, Some(LedgerEntry::InDoubt(_))))
    }

    /// Takes back whatever is known of a token: its provider has granted it once more. Durable on return.
    pub fn clear(&self, token: &Fingerprint) -> Result<(), StoreError> {
        self.clear_if(token, |mark| mark.is_some())
    }

    fn clear_if(&self, token: &Fingerprint, is_news: fn(Option<LedgerEntry>) -> bool) -> Result<(), StoreError> {
        // Where there is nothing to clear, the lock is not taken.
        match is_news(self.entry(token)?) {
            true => self.append(token, &format!("{CLEARED}{}", token.as_str()), is_news),
            false => Ok(()),
        }
    }

    /// All of it.
    pub fn snapshot(&self) -> Result<LedgerSnapshot, StoreError> {
        let before = FileVersion::of(&self.path);
        let is_missing = before.is_none() && matches!(self.path.try_exists(), Ok(false));
        if let Some((version, snapshot)) = &*self.cached.lock().unwrap_or_else(PoisonError::into_inner)
            && before == Some(*version)
        {
            return Ok(snapshot.clone());
        }
        let bytes = if is_missing { Ok(None) } else { durable::read(&self.path) };
        let bytes = bytes.map_err(|e| StoreError::io("read", &self.path, e))?;
        let snapshot = LedgerSnapshot(Arc::new(bytes.unwrap_or_default()));
        self.remember(before.filter(|_| before == FileVersion::of(&self.path)), &snapshot);
        Ok(snapshot)
    }

    fn remember(&self, version: Option<FileVersion>, snapshot: &LedgerSnapshot) {
        *self.cached.lock().unwrap_or_else(PoisonError::into_inner) =
            version.map(|version| (version, snapshot.clone()));
    }

    fn append(
        &self,
        token: &Fingerprint,
        line: &str,
        is_news: impl FnOnce(Option<LedgerEntry>) -> bool,
    ) -> Result<(), StoreError> {
        let unwritten = |e| StoreError::io("write", &self.path, e);
        let _held = LockFile::acquire_within(&self.lock, LEDGER_LOCK_WAIT).map_err(|e| match e {
            LockError::Io(e) => unwritten(e),
            held @ LockError::Held(_) => StoreError::not_locked(&self.lock, held),
        })?;
        let LedgerSnapshot(bytes) = self.snapshot()?;
        if !is_news(find_entry(&bytes, token)) {
            return Ok(());
        }
        events::ledger_write(token, line.trim_end_matches(token.as_str()));
        // A torn last line would swallow the new one.
        let is_torn = bytes.last().is_some_and(|last| *last != b'\n');
        let is_long = bytes.iter().filter(|byte| **byte == b'\n').count() + 1 >= 2 * KEPT_LINES;
        let whole: Vec<&[u8]> = match is_long {
            true => bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).collect(),
            false => Vec::new(),
        };
        if whole.len() >= 2 * KEPT_LINES {
            let newest = whole.iter().skip(whole.len() - KEPT_LINES).flat_map(|line| [line, b"\n".as_slice()].concat());
            durable::replace(&self.path, &newest.collect::<Vec<u8>>()).map_err(unwritten)?;
            return durable::append_line(&self.path, line).map_err(unwritten);
        }
        let line = if is_torn { format!("\n{line}") } else { line.to_owned() };
        durable::append_line(&self.path, &line).map_err(unwritten)?;
        // No other process writes while the lock is held, so this is what is there now.
        let whole = [bytes.as_slice(), line.as_bytes(), b"\n"].concat();
        let version = FileVersion::of(&self.path).filter(|version| version.byte_count() == whole.len() as u64);
        self.remember(version, &LedgerSnapshot(Arc::new(whole)));
        Ok(())
    }
}

/// What the ledger held at one look.
#[derive(Clone, Debug)]
pub struct LedgerSnapshot(Arc<Vec<u8>>);

impl LedgerSnapshot {
    /// The tokens that it speaks of: one that it once took and that is not there shows that it was damaged, removed, or put
    /// back from a backup. `None`: it is long enough to have been cut since.
    pub fn tokens(&self) -> Option<HashSet<&[u8]>> {
        let lines = || self.0.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        (lines().count() < KEPT_LINES)
            .then(|| lines().map(|line| line.get(line.len().saturating_sub(TOKEN_LEN)..).unwrap_or_default()).collect())
    }
}

/// The last line about a token, without its fingerprint. That ends the line, so that a torn one, which was never
/// acknowledged, speaks of none.
fn find_line<'a>(bytes: &'a [u8], token: &[u8]) -> Option<&'a [u8]> {
    let mut rest = bytes;
    loop {
        if rest.last() == token.last()
            && let Some(before) = rest.strip_suffix(token)
        {
            let start = before.iter().rposition(|byte| *byte == b'\n').map_or(0, |newline| newline + 1);
            return before.get(start..);
        }
        // Most lines are a fingerprint alone. If one ended further back than the line before, it would be too short.
        let usual = rest.len().checked_sub(token.len() + 1).filter(|at| rest.get(*at) == Some(&b'\n'));
        let end = usual.or_else(|| rest.iter().rposition(|byte| *byte == b'\n'))?;
        rest = rest.get(..end)?;
    }
}

fn find_entry(bytes: &[u8], token: &Fingerprint) -> Option<LedgerEntry> {
    let before = find_line(bytes, token.as_str().as_bytes())?;
    let mut words = std::str::from_utf8(before).unwrap_or_default().split_whitespace();
    match (words.next(), words.next().and_then(Timestamp::parse_rfc3339)) {
        (Some(IN_DOUBT), Some(at)) => Some(LedgerEntry::InDoubt(at)),
        (Some(CLEARED), None) => None,
        (Some(REJECTED), None) => Some(LedgerEntry::Rejected),
        // What a later version says of a token is not known to be good.
        (Some(_) | None, _) => Some(LedgerEntry::Consumed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn print(i: usize) -> Fingerprint {
        Fingerprint::from_hex(format!("{i:032x}"))
    }

    fn ledger(text: &str) -> (tempfile::TempDir, Ledger) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("ledger"), text).unwrap();
        let ledger = Ledger::new(&Layout::new(dir.path()));
        (dir, ledger)
    }

    fn lines(dir: &tempfile::TempDir) -> usize {
        std::fs::read_to_string(dir.path().join("ledger")).unwrap().lines().count()
    }

    const THEN: Timestamp = Timestamp::from_secs(1_790_000_000);

    /// Rule 3.
    #[test]
    fn ledger_keeps_the_newest_tokens_and_stays_bounded() {
        let old: String = (0..2 * KEPT_LINES - 1).map(|i| format!("{i:032x}\n")).collect();
        let (dir, ledger) = ledger(&old);
        assert!(!ledger.is_consumed(&print(2 * KEPT_LINES - 1)).unwrap());
        ledger.add_consumed(&print(2 * KEPT_LINES - 1)).unwrap();
        assert!(ledger.is_consumed(&print(0)).unwrap(), "it may grow to twice as many");
        ledger.add_consumed(&print(5000)).unwrap();
        assert!(ledger.is_consumed(&print(5000)).unwrap());
        assert!(
            ledger.is_consumed(&print(2 * KEPT_LINES - 1)).unwrap() && ledger.is_consumed(&print(KEPT_LINES)).unwrap()
        );
        assert!(!ledger.is_consumed(&print(KEPT_LINES - 1)).unwrap());
        ledger.add_consumed(&print(5000)).unwrap();
        assert_eq!(lines(&dir), KEPT_LINES + 1);
    }

    /// Rule 3.
    #[test]
    fn token_added_after_a_torn_ledger_line_is_found() {
        let (_dir, ledger) = ledger("0123");
        ledger.add_consumed(&print(7)).unwrap();
        assert!(ledger.is_consumed(&print(7)).unwrap());
    }

    /// Rule 17.
    #[test]
    fn ledger_keeps_a_doubt_until_the_token_is_consumed() {
        let (dir, ledger) = ledger("");
        ledger.add_in_doubt(&print(1), THEN).unwrap();
        ledger.add_in_doubt(&print(1), THEN.plus(std::time::Duration::from_secs(9))).unwrap();
        assert_eq!(ledger.entry(&print(1)).unwrap(), Some(LedgerEntry::InDoubt(THEN)));
        assert!(!ledger.is_consumed(&print(1)).unwrap());
        ledger.add_consumed(&print(1)).unwrap();
        ledger.add_in_doubt(&print(1), THEN).unwrap();
        ledger.clear_in_doubt(&print(1)).unwrap();
        assert_eq!(ledger.entry(&print(1)).unwrap(), Some(LedgerEntry::Consumed), "no doubt makes it better");
        assert_eq!((ledger.entry(&print(2)).unwrap(), lines(&dir)), (None, 2));
    }

    /// Rule 22.
    #[test]
    fn reissued_token_is_neither_consumed_nor_in_doubt() {
        let (dir, ledger) = ledger("");
        ledger.clear(&print(1)).unwrap();
        assert_eq!(lines(&dir), 0, "nothing was known of it");
        ledger.add_consumed(&print(1)).unwrap();
        ledger.add_in_doubt(&print(2), THEN).unwrap();
        ledger.add_in_doubt(&print(3), THEN).unwrap();
        ledger.clear(&print(1)).unwrap();
        ledger.clear(&print(2)).unwrap();
        ledger.clear_in_doubt(&print(3)).unwrap();
        assert_eq!([1, 2, 3].map(|i| ledger.entry(&print(i)).unwrap()), [None; 3]);
        ledger.add_consumed(&print(1)).unwrap();
        ledger.add_in_doubt(&print(2), THEN).unwrap();
        assert!(ledger.is_consumed(&print(1)).unwrap(), "it was consumed once more");
        assert_eq!(ledger.entry(&print(2)).unwrap(), Some(LedgerEntry::InDoubt(THEN)));
    }

    /// Rule 22.
    #[test]
    fn rejected_token_may_become_consumed_but_not_the_reverse() {
        let (_dir, ledger) = ledger("");
        let said = |i| (ledger.entry(&print(i)).unwrap(), ledger.is_consumed(&print(i)).unwrap());
        ledger.add_rejected(&print(1)).unwrap();
        ledger.add_in_doubt(&print(1), THEN).unwrap();
        assert_eq!(said(1), (Some(LedgerEntry::Rejected), true));
        ledger.add_consumed(&print(1)).unwrap();
        ledger.add_rejected(&print(1)).unwrap();
        assert_eq!(said(1), (Some(LedgerEntry::Consumed), true));
        ledger.add_in_doubt(&print(2), THEN).unwrap();
        ledger.add_rejected(&print(2)).unwrap();
        assert_eq!(said(2), (Some(LedgerEntry::Rejected), true));
        ledger.clear(&print(2)).unwrap();
        assert_eq!(said(2), (None, false));
    }

    #[test]
    fn last_line_about_a_token_is_found_among_odd_lines() {
        let (one, two) = (print(1), print(2));
        let (one, two) = (one.as_str(), two.as_str());
        let found = |text: &str| find_line(text.as_bytes(), one.as_bytes()).map(<[u8]>::to_vec);
        assert_eq!(found(""), None);
        assert_eq!(found(&format!("{two}\n")), None);
        assert_eq!(found(one), Some(Vec::new()));
        for after in ["", "x", "x\n\n", "\n", &format!("-{two}\n"), &format!("{two}\n{two}\n"), &two[1..]] {
            for before in ["", "\n", "torn\n", &format!("{one}\n"), &format!("-{two}\n")] {
                let text = format!("{before}mark {one}\n{after}");
                assert_eq!(found(&text), Some(b"mark ".to_vec()), "{text:?}");
            }
        }
    }

    /// Rule 17.
    #[test]
    fn torn_ledger_line_is_ignored_and_unknown_mark_is_consumed() {
        let whole = format!("{IN_DOUBT} {THEN} {}", print(1).as_str());
        for length in 0..whole.len() {
            let (_dir, ledger) = ledger(&whole[..length]);
            assert_eq!(ledger.entry(&print(1)).unwrap(), None, "{length}");
            ledger.add_consumed(&print(2)).unwrap();
            assert_eq!([1, 2].map(|i| ledger.is_consumed(&print(i)).unwrap()), [false, true], "{length}");
        }
        let (_dir, ledger) = ledger(&format!("suspended {}\n", print(1).as_str()));
        assert!(ledger.is_consumed(&print(1)).unwrap());
    }
}
