//! What the last scan of a store read of its journals, so that the next one reads only those that have changed since.
//!
//! It is a cache and no more: each entry names the version of the two files that it was made from (inode, length and
//! times), and is of no use once either has another. A file that is lost, cut short, torn or of another version of
//! keepalive costs a scan its time and nothing else. It is written without a sync, and has no secrets.

use std::collections::HashMap;
use std::collections::hash_map::DefaultHasher;
use std::hash::Hasher;
use std::path::{Path, PathBuf};

use crate::clock::{Clock, Timestamp};
use crate::credential::Generation;
use crate::credential::secret::Fingerprint;
use crate::profile::ProfileName;
use crate::store::disk::layout::{self, Layout};
use crate::store::tokens::journal_facts::JournalFacts;
use crate::sys::clock::SystemClock;
use crate::sys::file_watch::FileVersion;
use crate::sys::{durable, machine};

const FIRST_LINE: &str = "keepalive-scan 1";
/// Stands for a value that is not there.
const NONE: &str = "-";
/// The file is written again when it lacks so many profiles, and one in so many: not at each import.
const MIN_MISSING: usize = 8;
const MISSING_SHARE: usize = 16;

/// The entries of the last scan, by the name of the folder.
pub(in crate::store) struct ScanCache {
    /// Where it is kept; `None`: it is not used.
    path: Option<PathBuf>,
    lines: HashMap<String, String>,
    /// When this scan began.
    started: Timestamp,
}

/// What is kept of one profile whose journal was written for its sealed file.
#[derive(Debug, PartialEq)]
pub(in crate::store) struct ScanCacheEntry {
    folder: String,
    pub journal: FileVersion,
    pub sealed: FileVersion,
    pub facts: JournalFacts,
}

impl ScanCache {
    /// Reads what is there. Another machine's clock may set the times of a network filesystem, so it is not used on one.
    pub fn open(layout: &Layout) -> Self {
        if machine::filesystem(layout.dir()).map_or(true, |filesystem| filesystem.is_network) {
            return Self::none();
        }
        let path = layout.scan_cache();
        let text = durable::read(&path).ok().flatten().and_then(|bytes| String::from_utf8(bytes).ok());
        let mut lines = text.as_deref().unwrap_or_default().lines();
        let is_ours = lines.next() == Some(FIRST_LINE);
        let entries = lines.filter(|_| is_ours).filter_map(|line| {
            let (folder, _) = line.split_once(' ')?;
            Some((folder.to_owned(), line.to_owned()))
        });
        Self { path: Some(path), lines: entries.collect(), started: SystemClock.now().wall }
    }

    /// One that has nothing and keeps nothing.
    pub fn none() -> Self {
        Self { path: None, lines: HashMap::new(), started: Timestamp::from_millis(0) }
    }

    pub fn is_in_use(&self) -> bool {
        self.path.is_some()
    }

    /// What was read of the journal of this version.
    pub fn find(&self, folder: &Path, journal: FileVersion) -> Option<ScanCacheEntry> {
        let line = self.lines.get(folder.file_name()?.to_str()?)?;
        ScanCacheEntry::parse(line).filter(|entry| entry.journal == journal)
    }

    /// Writes the file again if enough was missing in it. A failure costs the next scan its time. `is_there` says whether
    /// the scan found a profile; what is kept of others goes.
    pub fn update(&self, read: &[ScanCacheEntry], is_there: impl Fn(&ProfileName) -> bool) {
        let Some(path) = &self.path else { return };
        // A file that was written this moment may be written again without another time.
        let is_settled = |version: &FileVersion| version.is_settled_at(self.started);
        let settled: Vec<_> = read.iter().filter(|e| is_settled(&e.journal) && is_settled(&e.sealed)).collect();
        if settled.len() < MIN_MISSING.max(self.lines.len() / MISSING_SHARE) {
            return;
        }
        let new: HashMap<&str, String> = settled.iter().map(|entry| (entry.folder.as_str(), entry.to_line())).collect();
        let is_kept = |folder: &str| {
            !new.contains_key(folder) && layout::profile_name(folder).is_some_and(|name| is_there(&name))
        };
        let kept = self.lines.iter().filter(|(folder, _)| is_kept(folder)).map(|(_, line)| line);
        let mut text = format!("{FIRST_LINE}\n");
        for line in kept.chain(new.values()) {
            text.push_str(line);
            text.push('\n');
        }
        let _is_a_cache = durable::replace_without_sync(path, text.as_bytes());
    }
}

impl ScanCacheEntry {
    /// `None`: it has a value that a line cannot take.
    pub fn new(folder: &Path, journal: FileVersion, sealed: FileVersion, facts: &JournalFacts) -> Option<Self> {
        let folder = folder.file_name()?.to_str()?.to_owned();
        let is_hex =
            |token: &Fingerprint| token.as_str().len() == 32 && token.as_str().chars().all(|c| c.is_ascii_hexdigit());
        let tokens = facts.fingerprint.iter().chain(&facts.last_ledgered).chain(&facts.unusable_tokens);
        let is_plain = |text: &str| text != NONE && !text.contains(char::is_whitespace);
        let is_fit = tokens.into_iter().all(is_hex) && facts.store_uuid.as_deref().is_none_or(is_plain);
        is_fit.then(|| Self { folder, journal, sealed, facts: facts.clone() })
    }

    fn to_line(&self) -> String {
        let facts = &self.facts;
        let token = |token: &Option<Fingerprint>| token.as_ref().map_or(NONE.to_owned(), |t| t.as_str().to_owned());
        let unusable: Vec<&str> = facts.unusable_tokens.iter().map(Fingerprint::as_str).collect();
        let line = format!(
            "{} {} {} {} {} {} {} {} {} {}",
            self.folder,
            self.journal.to_text(),
            self.sealed.to_text(),
            facts.generation.get(),
            u8::from(facts.is_tombstone),
            u8::from(facts.is_rejected),
            facts.store_uuid.as_deref().unwrap_or(NONE),
            token(&facts.fingerprint),
            token(&facts.last_ledgered),
            if unusable.is_empty() { NONE.to_owned() } else { unusable.join(",") },
        );
        let sum = checksum(&line);
        format!("{line} {sum:016x}")
    }

    /// `None`: it is not a whole line of ours.
    fn parse(line: &str) -> Option<Self> {
        let (line, sum) = line.rsplit_once(' ')?;
        if u64::from_str_radix(sum, 16) != Ok(checksum(line)) {
            return None;
        }
        let mut fields = line.split(' ');
        let mut next = || fields.next();
        let flag = |text: &str| text.parse::<u8>().ok().map(|flag| flag == 1);
        let entry = Self {
            folder: next()?.to_owned(),
            journal: FileVersion::from_text(next()?)?,
            sealed: FileVersion::from_text(next()?)?,
            facts: JournalFacts {
                generation: Generation::new(next()?.parse().ok()?),
                is_tombstone: flag(next()?)?,
                is_rejected: flag(next()?)?,
                store_uuid: Some(next()?).filter(|text| *text != NONE).map(str::to_owned),
                fingerprint: token(next()?),
                last_ledgered: token(next()?),
                unusable_tokens: next()?.split(',').filter_map(token).collect(),
            },
        };
        fields.next().is_none().then_some(entry)
    }
}

fn token(text: &str) -> Option<Fingerprint> {
    (text != NONE).then(|| Fingerprint::from_hex(text.to_owned()))
}

/// Of this build of keepalive: the line of another may have another sum, and is not used then.
fn checksum(line: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(line.as_bytes());
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(length: u64) -> FileVersion {
        FileVersion::from_text(&format!("7-{length}-1790000000000000123-1790000000-123")).unwrap()
    }

    fn entry(unusable: usize) -> ScanCacheEntry {
        let print = |i: usize| Fingerprint::from_hex(format!("{i:032x}"));
        let facts = JournalFacts {
            generation: Generation::new(7),
            is_rejected: true,
            store_uuid: Some("8d3f".into()),
            fingerprint: Some(print(100)),
            unusable_tokens: (0..unusable).map(print).collect(),
            ..JournalFacts::default()
        };
        ScanCacheEntry::new(Path::new("profiles/work"), version(3), version(4), &facts).unwrap()
    }

    #[test]
    fn entry_reads_back_as_it_was_written() {
        for unusable in 0..3 {
            assert_eq!(ScanCacheEntry::parse(&entry(unusable).to_line()), Some(entry(unusable)));
        }
    }

    #[test]
    fn entry_is_not_used_when_it_was_cut_or_changed() {
        let line = entry(2).to_line();
        for length in 0..line.len() {
            assert_eq!(ScanCacheEntry::parse(&line[..length]), None, "{length}");
        }
        assert_eq!(ScanCacheEntry::parse(&line.replacen(" 7 ", " 8 ", 1)), None);
        assert_eq!(ScanCacheEntry::parse(&line.replacen(" 7 ", " \0 ", 1)), None);
    }

    #[test]
    fn value_that_a_line_cannot_take_is_not_cached() {
        let is_cached = |facts: JournalFacts| {
            ScanCacheEntry::new(Path::new("profiles/work"), version(3), version(4), &facts).is_some()
        };
        for uuid in ["a b", "a\nb", NONE] {
            assert!(!is_cached(JournalFacts { store_uuid: Some(uuid.into()), ..JournalFacts::default() }), "{uuid}");
        }
        for odd in ["", "0,1", &"g".repeat(32)] {
            let unusable_tokens = vec![Fingerprint::from_hex(odd.into())];
            assert!(!is_cached(JournalFacts { unusable_tokens, ..JournalFacts::default() }), "{odd}");
        }
        assert!(is_cached(JournalFacts::default()));
    }
}
