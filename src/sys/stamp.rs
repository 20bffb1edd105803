//! Whether a file has changed, to be asked again and again while others may be writing it.

use std::path::Path;
use std::time::SystemTime;

/// What changes when a file does; `None` while it cannot be looked at.
pub type Stamp = Option<(SystemTime, u64)>;

pub fn modified(path: &Path) -> Stamp {
    let about = std::fs::metadata(path).ok()?;
    Some((about.modified().ok()?, about.len()))
}

/// Looks in a row at which a change must be the same: a file that is being written is not whole.
const SETTLED: u32 = 2;
/// Looks in a row at which a file must be away: many editors move it aside and write a new one.
pub const AWAY: u32 = 10;

/// What a look tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News {
    None,
    /// It has just gone. It may come back.
    Away,
    Changed,
}

/// A file that is looked at regularly.
#[derive(Debug)]
pub struct Watched {
    seen: Stamp,
    latest: Stamp,
    /// Looks in a row that found the latest.
    looks: u32,
}

impl Watched {
    pub fn new(seen: Stamp) -> Self {
        Self { seen, latest: seen, looks: 0 }
    }

    /// One more look. `is_told`: the file is said to be as it should be.
    pub fn look(&mut self, now: Stamp, is_told: bool) -> News {
        self.looks = if now == self.latest { self.looks.saturating_add(1) } else { 1 };
        self.latest = now;
        let enough = match now {
            Some(_) if is_told => 0,
            Some(_) => SETTLED,
            None => AWAY,
        };
        let is_news = now != self.seen || is_told;
        match is_news && self.looks >= enough {
            true => {
                self.seen = now;
                News::Changed
            }
            false if now.is_none() && is_news && self.looks == 1 => News::Away,
            false => News::None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(len: u64) -> Stamp {
        Some((SystemTime::UNIX_EPOCH, len))
    }

    #[test]
    fn a_change_is_one_when_it_is_the_same_at_two_looks() {
        let mut file = Watched::new(stamp(1));
        assert_eq!(file.look(stamp(1), false), News::None);
        assert_eq!(file.look(stamp(0), false), News::None, "emptied, to be written");
        assert_eq!(file.look(stamp(2), false), News::None);
        assert_eq!(file.look(stamp(2), false), News::Changed);
        assert_eq!(file.look(stamp(2), false), News::None);
        assert_eq!(file.look(stamp(2), true), News::Changed, "told to look");
        assert_eq!(file.look(stamp(3), true), News::Changed);
        assert_eq!(file.look(stamp(3), false), News::None);
    }

    #[test]
    fn a_file_that_is_away_for_a_moment_has_not_changed() {
        let mut file = Watched::new(stamp(1));
        assert_eq!(file.look(None, false), News::Away);
        assert_eq!(file.look(None, true), News::None);
        assert_eq!(file.look(stamp(1), false), News::None);
        assert_eq!(file.look(None, true), News::Away);
        let news: Vec<_> = (1..AWAY).map(|_| file.look(None, false)).collect();
        assert_eq!(news.iter().position(|news| *news == News::Changed), Some(AWAY as usize - 2), "gone for good");
        assert_eq!(file.look(None, false), News::None);
        assert_eq!(Watched::new(None).look(None, false), News::None, "there never was one");
    }
}
