//! Tells whether a file has changed, when it is polled while other programs may be writing it.

use std::path::Path;
use std::time::{Duration, SystemTime};

/// What changes when a file changes; `None` while the file cannot be read.
pub type FileStamp = Option<(SystemTime, u64)>;

pub fn file_stamp(path: &Path) -> FileStamp {
    let about = std::fs::metadata(path).ok()?;
    Some((about.modified().ok()?, about.len()))
}

/// No file of ours is as long between its last byte and its name.
const LONGEST_WRITE: Duration = Duration::from_secs(60);

/// Tells the contents of one path apart, where a file is only ever appended to or replaced as a whole: an addition changes
/// its length, a replacement its inode and its times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileVersion {
    len: u64,
    modified: SystemTime,
    /// Inode, and when that was changed; zeros where there is none.
    inode: (u64, i64, i64),
    /// When the inode was made. `None` where the filesystem or the kernel does not tell.
    born: Option<SystemTime>,
}

impl FileVersion {
    /// `None`: there is no such file, it cannot be looked at, or it is no regular file.
    pub fn of(path: &Path) -> Option<Self> {
        let about = std::fs::symlink_metadata(path).ok().filter(std::fs::Metadata::is_file)?;
        #[cfg(unix)]
        let inode = {
            use std::os::unix::fs::MetadataExt;
            (about.ino(), about.ctime(), about.ctime_nsec())
        };
        #[cfg(not(unix))]
        let inode = (0, 0, 0);
        Some(Self { len: about.len(), modified: about.modified().ok()?, inode, born: about.created().ok() })
    }

    pub fn byte_count(&self) -> u64 {
        self.len
    }

    /// Whether it was put here with the time of an older file, as programs do that copy or restore files. A file of ours is
    /// written once, and renamed right after.
    pub fn is_restored(&self) -> bool {
        let modified = self.modified.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let changed = Duration::from_secs(u64::try_from(self.inode.1).unwrap_or(0));
        changed > modified + LONGEST_WRITE
    }

    /// A name for it that a copy does not get: a filesystem gives the number of a deleted inode away again, and a copy may
    /// have the time of its original, but it is born later. Where no birth is told, the last change of the inode is in its
    /// place; a rename, `chmod` or a further link is such a change too.
    pub fn mark(&self) -> String {
        let nanos = |at: SystemTime| at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_nanos();
        let (inode, seconds, part) = self.inode;
        let age = self.born.map_or(format!("c{seconds}.{part}"), |born| format!("b{}", nanos(born)));
        format!("{inode}-{}-{}-{age}", self.len, nanos(self.modified))
    }

    /// Whether `mark` is of this file. A birth that was not known then, or is not known now, is not compared.
    pub fn has_mark(&self, mark: &str) -> bool {
        let ours = self.mark();
        let (Some((file, age)), Some((marked_file, marked_age))) = (ours.rsplit_once('-'), mark.rsplit_once('-'))
        else {
            return false;
        };
        file == marked_file && (age == marked_age || age.starts_with('b') != marked_age.starts_with('b'))
    }
}

/// Looks in a row at which a change must be the same: a file that is being written is not whole.
const STABLE_POLLS: u32 = 2;
/// How many polls in a row must miss a file: many editors move it aside and write a new one.
pub const MISSING_POLLS: u32 = 10;

/// The result of a poll.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    None,
    /// It has just gone. It may come back.
    Missing,
    Changed,
}

/// A file that is looked at regularly.
#[derive(Debug)]
pub struct ChangeWatcher {
    reported: FileStamp,
    latest: FileStamp,
    /// How many polls in a row saw the latest stamp.
    polls: u32,
}

impl ChangeWatcher {
    pub fn new(seen: FileStamp) -> Self {
        Self { reported: seen, latest: seen, polls: 0 }
    }

    /// Polls once. `is_told`: the writer says that the file is complete.
    pub fn poll(&mut self, now: FileStamp, is_told: bool) -> Change {
        self.polls = if now == self.latest { self.polls.saturating_add(1) } else { 1 };
        self.latest = now;
        let enough = match now {
            Some(_) if is_told => 0,
            Some(_) => STABLE_POLLS,
            None => MISSING_POLLS,
        };
        let is_news = now != self.reported || is_told;
        match is_news && self.polls >= enough {
            true => {
                self.reported = now;
                Change::Changed
            }
            false if now.is_none() && is_news && self.polls == 1 => Change::Missing,
            false => Change::None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(len: u64) -> FileStamp {
        Some((SystemTime::UNIX_EPOCH, len))
    }

    #[test]
    fn file_change_counts_once_two_checks_agree() {
        let mut file = ChangeWatcher::new(stamp(1));
        assert_eq!(file.poll(stamp(1), false), Change::None);
        assert_eq!(file.poll(stamp(0), false), Change::None, "emptied, to be written");
        assert_eq!(file.poll(stamp(2), false), Change::None);
        assert_eq!(file.poll(stamp(2), false), Change::Changed);
        assert_eq!(file.poll(stamp(2), false), Change::None);
        assert_eq!(file.poll(stamp(2), true), Change::Changed, "told to look");
        assert_eq!(file.poll(stamp(3), true), Change::Changed);
        assert_eq!(file.poll(stamp(3), false), Change::None);
    }

    /// Rule 30.
    #[test]
    fn mark_of_a_file_is_not_that_of_a_copy_with_its_inode() {
        let at = |n| SystemTime::UNIX_EPOCH + Duration::from_nanos(n);
        let changed = |modified, changed, born: Option<u64>| FileVersion {
            len: 7,
            modified: at(modified),
            inode: (5, changed, 0),
            born: born.map(at),
        };
        let file = |modified, born| changed(modified, 0, born);
        for (then, now, is_same) in [
            (file(100, Some(99)), file(100, Some(99)), true),
            (file(100, Some(99)), file(100, Some(300)), false),
            (file(100, Some(99)), file(200, Some(99)), false),
            (file(100, None), file(100, Some(99)), true),
            (file(100, Some(99)), file(100, None), true),
            (file(100, None), file(100, None), true),
            (file(100, None), file(1001, None), false),
            (file(100, None), changed(100, 1, None), false),
            (file(100, Some(99)), changed(100, 1, Some(99)), true),
            (file(100, None), file(1001, Some(99)), false),
        ] {
            assert_eq!(now.has_mark(&then.mark()), is_same, "{} {}", then.mark(), now.mark());
        }
    }

    #[test]
    fn file_missing_for_a_moment_has_not_changed() {
        let mut file = ChangeWatcher::new(stamp(1));
        assert_eq!(file.poll(None, false), Change::Missing);
        assert_eq!(file.poll(None, true), Change::None);
        assert_eq!(file.poll(stamp(1), false), Change::None);
        assert_eq!(file.poll(None, true), Change::Missing);
        let news: Vec<_> = (1..MISSING_POLLS).map(|_| file.poll(None, false)).collect();
        assert_eq!(
            news.iter().position(|news| *news == Change::Changed),
            Some(MISSING_POLLS as usize - 2),
            "gone for good"
        );
        assert_eq!(file.poll(None, false), Change::None);
        assert_eq!(ChangeWatcher::new(None).poll(None, false), Change::None, "there never was one");
    }
}
