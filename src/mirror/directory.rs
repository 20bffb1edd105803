//! A directory of values that changes at once, as Kubernetes changes its volumes: each name is a link into `..data`, and
//! `..data` is a link that is exchanged. A reader that opened the directory behind it sees values of one credential.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use crate::mirror::target::{failed, refused};
use crate::outcome::Failure;
use crate::sys::durable;

/// The link that is exchanged.
const DATA: &str = "..data";
/// Its new form, before it gets its name.
const DATA_NEW: &str = "..data_new";
/// How the directories behind it are called, before their number.
const PREFIX: &str = "..keepalive_";

/// What a name of the directory has; `None`: there is nothing of it.
pub(super) fn read(dir: &Path, name: &str) -> Result<Option<Vec<u8>>, Failure> {
    let path = dir.join(name);
    match fs::symlink_metadata(&path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(failed(&path, "examine", &e)),
        Ok(about) if !about.is_symlink() => {
            return Err(refused(&path, "is not a link into ..data", "move it away, or name another directory"));
        }
        Ok(_) => {}
    }
    match durable::read_foreign(&path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(failed(&path, "read", &e)),
    }
}

/// Writes all values, then exchanges the link.
pub(super) fn replace(dir: &Path, files: &[(String, String)], number: u64) -> Result<(), Failure> {
    let write = || {
        let name = unused_name(dir, number);
        let new = dir.join(&name);
        durable::create_dir(&new)?;
        for (file, text) in files {
            durable::create_new(&new.join(file), text.as_bytes())?;
        }
        let link = dir.join(DATA_NEW);
        durable::remove(&link)?;
        symlink(&name, &link)?;
        #[expect(clippy::disallowed_methods, reason = "a link cannot be staged; the directory is synced below")]
        fs::rename(&link, dir.join(DATA))?;
        durable::sync_dir(dir)?;
        for (file, _) in files {
            add_link(dir, file)?;
        }
        remove_others(dir, &name)
    };
    write().map_err(|e: io::Error| failed(dir, "write", &e))
}

/// Removes what is ours: the links of these names, and what is behind them.
pub(super) fn remove(dir: &Path, names: &[String]) -> io::Result<()> {
    for name in names.iter().map(String::as_str).chain([DATA, DATA_NEW]) {
        let path = dir.join(name);
        if fs::symlink_metadata(&path).is_ok_and(|about| about.is_symlink()) {
            durable::remove(&path)?;
        }
    }
    remove_others(dir, "")
}

/// A killed run may have left one of the number.
fn unused_name(dir: &Path, number: u64) -> String {
    let names = (0_u32..).map(|n| format!("{PREFIX}{number}_{n}"));
    names.into_iter().find(|name| fs::symlink_metadata(dir.join(name)).is_err()).unwrap_or_default()
}

fn add_link(dir: &Path, name: &str) -> io::Result<()> {
    let (path, target) = (dir.join(name), PathBuf::from(DATA).join(name));
    match fs::read_link(&path) {
        Ok(there) if there == target => Ok(()),
        Ok(_) => Err(io::Error::other(format!("{name} is a link to another place"))),
        Err(_) => symlink(target, &path).and_then(|()| durable::sync_dir(dir)),
    }
}

fn remove_others(dir: &Path, current: &str) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name();
        let is_old = name.to_str().is_some_and(|name| name.starts_with(PREFIX) && name != current);
        if is_old {
            fs::remove_dir_all(dir.join(&name))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(token: &str) -> Vec<(String, String)> {
        vec![("token".to_owned(), token.to_owned()), ("expires".to_owned(), format!("of {token}"))]
    }

    #[test]
    fn all_values_change_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let read = |name: &str| read(dir.path(), name).unwrap().map(|bytes| String::from_utf8(bytes).unwrap());
        assert_eq!(read("token"), None);
        replace(dir.path(), &values("one"), 1).unwrap();
        let behind = fs::canonicalize(dir.path().join(DATA)).unwrap();
        replace(dir.path(), &values("two"), 2).unwrap();
        replace(dir.path(), &values("three"), 2).unwrap();
        assert_eq!((read("token"), read("expires")), (Some("three".into()), Some("of three".into())));
        assert!(!behind.exists());
        remove(dir.path(), &["token".into(), "expires".into()]).unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn foreign_file_of_the_name_is_not_touched() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("token"), "theirs").unwrap();
        assert!(read(dir.path(), "token").is_err());
        fs::write(dir.path().join("..data"), "theirs").unwrap();
        fs::remove_file(dir.path().join("token")).unwrap();
        symlink("elsewhere", dir.path().join("expires")).unwrap();
        assert!(replace(dir.path(), &values("one"), 1).is_err());
        assert_eq!(fs::read_link(dir.path().join("expires")).unwrap(), Path::new("elsewhere"));
    }
}
