//! The account of Claude Code's sign-in: it is in another file than the tokens.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::credential::external::{AccountFile, AccountIdentity};
use crate::import_sources::files::from_file;
use crate::import_sources::json;

/// A sign-in writes both files, one soon after the other.
const WRITTEN_WITHIN: Duration = Duration::from_secs(30);

/// The account that Claude Code is signed in to: it is in `.claude.json`, in the same directory if that was configured,
/// else beside it. Where both exist and differ, nothing is known.
pub(super) fn account(store: &Path) -> (AccountIdentity, AccountFile) {
    let dirs =
        store.parent().into_iter().flat_map(|dir| [Some(dir), dir.parent().filter(|_| dir.ends_with(".claude"))]);
    let files: Vec<PathBuf> = dirs.flatten().map(|dir| dir.join(".claude.json")).collect();
    // The times are read first: a file that is replaced after that counts as older than it is.
    let times: Vec<Option<SystemTime>> = files.iter().map(|file| written(file)).collect();
    let read = |file: &PathBuf| json::claude_account(&from_file(file).ok()??);
    let named: Vec<_> = files.iter().map(read).zip(times).filter_map(|(who, at)| Some((who?, at?))).collect();
    let account = match named.as_slice() {
        [(one, _)] => one.clone(),
        [(within, _), (beside, _)] if within == beside => within.clone(),
        _ => AccountIdentity::default(),
    };
    let Some((named, tokens)) = named.iter().map(|(_, at)| *at).max().zip(written(store)) else {
        return (account, AccountFile::Settled);
    };
    let file = match named.max(tokens).elapsed() {
        Ok(age) if age >= WRITTEN_WITHIN => AccountFile::Settled,
        _ if named < tokens => AccountFile::TokensNewer,
        _ => AccountFile::AccountNewer,
    };
    (account, file)
}

fn written(file: &Path) -> Option<SystemTime> {
    std::fs::metadata(file).and_then(|about| about.modified()).ok()
}
