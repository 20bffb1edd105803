//! The file of a mirror: where it really is, whether it may be replaced, and the replacing.

use std::ffi::OsString;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use crate::outcome::{ErrorKind, Failure};
use crate::sys::durable::{self, StagedFile};
use crate::sys::secret_file;

/// Where a path leads: its directories without links, and its last part after one link. Nothing is made.
pub(super) fn locate(path: &Path) -> Result<PathBuf, Failure> {
    let whole = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let real = real_dirs(&whole);
    let Ok(link) = fs::read_link(&real) else { return Ok(real) };
    let target = real_dirs(&real.parent().unwrap_or(Path::new("/")).join(link));
    match (fs::read_link(&target), target.canonicalize()) {
        (Err(_), _) => Ok(target),
        (Ok(_), Ok(file)) => {
            Err(refused(path, "is a link to a link", &format!("name the file itself: {}", file.display())))
        }
        (Ok(_), Err(_)) => Err(refused(path, "is a link that leads to no file", "name the file itself")),
    }
}

/// The path with all links in its directories resolved, as far as these exist.
fn real_dirs(path: &Path) -> PathBuf {
    let Some(name) = path.file_name() else { return path.to_owned() };
    let (mut dir, mut missing): (&Path, Vec<OsString>) = (path.parent().unwrap_or(Path::new("/")), Vec::new());
    loop {
        if let Ok(real) = dir.canonicalize() {
            return missing.iter().rev().fold(real, |path, part| path.join(part)).join(name);
        }
        match (dir.parent(), dir.file_name()) {
            (Some(parent), Some(part)) => {
                missing.push(part.to_owned());
                dir = parent;
            }
            _ => return path.to_owned(),
        }
    }
}

pub(super) fn refused(path: &Path, why: &str, hint: &str) -> Failure {
    Failure::new(ErrorKind::Mirror, format!("{} {why}", path.display())).with_hint(hint)
}

pub(super) fn failed(path: &Path, verb: &str, error: &io::Error) -> Failure {
    let hint = format!("check the owner and the permissions of {}", path.display());
    Failure::new(ErrorKind::Mirror, format!("cannot {verb} {}: {error}", path.display())).with_hint(hint)
}

/// Makes the directory of a file if it is missing, and checks that no other user can exchange what is in it.
pub(super) fn prepare_dir(file: &Path) -> Result<(), Failure> {
    let dir = file.parent().unwrap_or(Path::new("/"));
    durable::create_dir(dir).map_err(|e| failed(dir, "make", &e))?;
    check_dir(dir)
}

fn check_dir(dir: &Path) -> Result<(), Failure> {
    let about = fs::metadata(dir).map_err(|e| failed(dir, "examine", &e))?;
    let (ours, mode) = (rustix::process::geteuid().as_raw(), about.mode());
    if !about.is_dir() {
        return Err(refused(dir, "is not a directory", "name another path for the mirror"));
    }
    if about.uid() != ours {
        return Err(refused(dir, "belongs to another user", "use a directory of your own"));
    }
    match mode & 0o022 {
        0 => Ok(()),
        _ => Err(refused(dir, "can be written by other users", &format!("chmod go-w {}", dir.display()))),
    }
}

/// What is at the place of the file; `None`: nothing.
pub(super) fn examine(file: &Path) -> Result<Option<Metadata>, Failure> {
    let about = match fs::symlink_metadata(file) {
        Ok(about) => about,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(failed(file, "examine", &e)),
    };
    if !about.is_file() {
        return Err(refused(file, "is not a regular file", "move it away, or name another path for the mirror"));
    }
    match about.uid() == rustix::process::geteuid().as_raw() {
        true => Ok(Some(about)),
        false => Err(refused(file, "belongs to another user", "use a file of your own")),
    }
}

/// The content of the file; `None`: there is none.
pub(super) fn read(file: &Path) -> Result<Option<Zeroizing<Vec<u8>>>, Failure> {
    let Some(_) = examine(file)? else { return Ok(None) };
    match durable::read_foreign(file) {
        Ok(bytes) => Ok(Some(Zeroizing::new(bytes))),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(failed(file, "read", &e)),
    }
}

/// Whether the file could be replaced. Makes nothing but, for a moment, a file beside it.
pub(super) fn check_replaceable(file: &Path) -> Result<(), Failure> {
    let dir = file.parent().unwrap_or(Path::new("/"));
    if let Some(above) = dir.ancestors().skip(1).find(|above| above.exists()).filter(|_| !dir.exists()) {
        if !above.is_dir() {
            return Err(refused(above, "is not a directory", "name another path for the mirror"));
        }
        return rustix::fs::access(above, rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK)
            .map_err(|e| failed(dir, "make", &e.into()));
    }
    check_dir(dir)?;
    if examine(file)?.is_some() {
        check_changeable(file)?;
        check_changeable(dir)?;
    }
    // A full disk, one that is mounted read-only, and a quota are seen by this.
    StagedFile::create(file, PROBE_BYTES).map(drop).map_err(|e| failed(file, "write", &e))
}

/// More than a file of any of the programs has.
const PROBE_BYTES: u64 = 16 * 1024;

/// Whether a file is one that even its owner cannot change (chattr).
fn check_changeable(path: &Path) -> Result<(), Failure> {
    #[cfg(target_os = "linux")]
    {
        use rustix::fs::{AtFlags, CWD, StatxAttributes, StatxFlags, statx};
        let fixed = StatxAttributes::IMMUTABLE | StatxAttributes::APPEND;
        let about = statx(CWD, path, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::TYPE);
        // A system that does not know such files has none.
        if about.is_ok_and(|about| (about.stx_attributes & fixed).bits() != 0) {
            return Err(refused(
                path,
                "is set so that it cannot be changed",
                &format!("chattr -ia {}", path.display()),
            ));
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _every_file = path;
    Ok(())
}

/// Replaces the file durably: its readers see the old one or the new one. Mode and group stay; a new one is private.
pub(super) fn replace(file: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let old = examine(file)?;
    let write = || {
        let staged = StagedFile::create(file, 0)?;
        if let Some(old) = &old {
            let gid = rustix::process::Gid::from_raw(old.gid());
            let is_kept = staged.file().metadata()?.gid() == old.gid()
                || rustix::fs::fchown(staged.file(), None, Some(gid)).is_ok();
            staged.file().set_permissions(fs::Permissions::from_mode(kept_mode(old.mode(), is_kept)))?;
        }
        staged.commit(bytes)
    };
    write().map_err(|e: io::Error| failed(file, "write", &e))
}

/// The mode of a file that takes the place of one with this mode. Without the right to give it the group, what that group
/// could do is for no other. (pure)
fn kept_mode(old: u32, is_group_kept: bool) -> u32 {
    old & if is_group_kept { 0o777 } else { 0o707 }
}

/// What others may do to the file, if its mode lets them do anything.
pub(super) fn loose_access(file: &Path) -> Option<String> {
    let bits = fs::metadata(file).ok()?.mode() & 0o077;
    (bits != 0).then(|| secret_file::access_text(bits))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn private_dir() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o700)).unwrap();
        dir
    }

    #[test]
    fn link_is_resolved_once_and_stays() {
        let dir = private_dir();
        let root = dir.path().canonicalize().unwrap();
        fs::write(root.join("real"), "old").unwrap();
        symlink("real", root.join("link")).unwrap();
        symlink("link", root.join("twice")).unwrap();
        symlink("new", root.join("dangling")).unwrap();
        assert_eq!(locate(&root.join("link")), Ok(root.join("real")));
        assert_eq!(locate(&root.join("dangling")), Ok(root.join("new")));
        assert!(locate(&root.join("twice")).is_err());
        replace(&locate(&root.join("link")).unwrap(), b"new").unwrap();
        assert!(fs::symlink_metadata(root.join("link")).unwrap().is_symlink());
        assert_eq!(fs::read(root.join("real")).unwrap(), b"new");
        let missing = root.join("a/b/file");
        assert_eq!(locate(&missing), Ok(missing));
    }

    #[test]
    fn file_keeps_its_mode_and_a_new_one_is_private() {
        let dir = private_dir();
        let at = |name: &str| dir.path().join(name);
        fs::write(at("old"), "x").unwrap();
        fs::set_permissions(at("old"), fs::Permissions::from_mode(0o640)).unwrap();
        prepare_dir(&at("sub/new")).unwrap();
        for (name, mode) in [("old", 0o640), ("sub/new", 0o600)] {
            replace(&at(name), b"y").unwrap();
            assert_eq!(fs::metadata(at(name)).unwrap().mode() & 0o777, mode, "{name}");
        }
        assert_eq!(fs::metadata(at("sub")).unwrap().mode() & 0o777, 0o700);
        assert_eq!(loose_access(&at("old")).as_deref(), Some("its group may read"));
        assert_eq!(loose_access(&at("sub/new")), None);
    }

    /// What was lost: the access token, to a group that could not read the file before.
    #[test]
    fn group_that_cannot_be_kept_gets_no_access() {
        assert_eq!(
            [(0o640, true), (0o640, false), (0o664, false)].map(|(m, k)| kept_mode(m, k)),
            [0o640, 0o600, 0o604]
        );
    }

    /// What was lost: the memory of a machine, to a device that has no end.
    #[test]
    fn device_is_not_read() {
        assert!(read(Path::new("/dev/zero")).unwrap_err().message.contains("is not a regular file"));
        let dir = private_dir();
        let large = fs::File::create(dir.path().join("large")).unwrap();
        large.set_len(17 * 1024 * 1024).unwrap();
        assert!(read(&dir.path().join("large")).unwrap_err().message.contains("larger than 16 MiB"));
    }

    #[test]
    fn what_cannot_be_replaced_is_known_before() {
        let dir = private_dir();
        let at = |name: &str| dir.path().join(name);
        check_replaceable(&at("new")).unwrap();
        check_replaceable(&at("a/b/new")).unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "nothing was made");
        fs::write(at("file"), "x").unwrap();
        assert!(check_replaceable(&at("file/below")).unwrap_err().message.contains("is not a directory"));
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o775)).unwrap();
        assert!(check_replaceable(&at("file")).unwrap_err().message.contains("can be written by other users"));
    }

    #[test]
    fn place_that_is_not_ours_alone_is_refused() {
        let dir = private_dir();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir(at("open")).unwrap();
        fs::set_permissions(at("open"), fs::Permissions::from_mode(0o777)).unwrap();
        assert!(prepare_dir(&at("open/file")).unwrap_err().message.contains("can be written by other users"));
        assert!(examine(&at("open")).unwrap_err().message.contains("is not a regular file"));
        assert!(examine(&at("none")).unwrap().is_none());
    }
}
