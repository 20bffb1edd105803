//! Whether files could be written, asked without writing: the kernel is asked for types, rights and free space.

use std::fs::{self, Metadata};
use std::io;
use std::path::Path;

/// Why a place cannot be written. The text goes on after the path.
#[derive(Debug, thiserror::Error)]
pub enum Obstacle {
    #[error("is {found}, and not {wanted}")]
    WrongType { found: &'static str, wanted: &'static str },
    #[error("belongs to another user")]
    OtherOwner,
    /// chattr(1): not even root may write it.
    #[error("is set immutable or append-only")]
    Immutable,
    #[error("is on a file system that is mounted read-only")]
    ReadOnly,
    #[error("does not let this user {access} it")]
    Denied { access: &'static str, mode: &'static str },
    #[error("has {} of free space, and a refresh needs {}", size_text(*free, Rounding::Down), size_text(*needed, Rounding::Up))]
    NoSpace { free: u64, needed: u64 },
    #[error("is on a file system with {free} free inodes, and a refresh needs {needed}")]
    NoInodes { free: u64, needed: u64 },
    /// setrlimit(2): RLIMIT_FSIZE.
    #[error("cannot take a file of {}: this process may write files of {} at most", size_text(*needed, Rounding::Up), size_text(*limit, Rounding::Down))]
    FileSizeLimit { limit: u64, needed: u64 },
    #[error("cannot be examined: {0}")]
    Unknown(io::Error),
}

impl Obstacle {
    /// What to do about it.
    pub fn hint(&self, path: &Path) -> String {
        let path = path.display();
        match self {
            Self::WrongType { .. } => format!("move {path} away: keepalive makes a new one"),
            Self::OtherOwner => format!("give it to the user of keepalive: chown USER {path}"),
            Self::Immutable => format!("chattr -i -a {path}"),
            Self::ReadOnly => format!("mount the file system of {path} read-write"),
            Self::Denied { mode, .. } => format!("chmod {mode} {path}"),
            Self::NoSpace { free, needed } => {
                let missing = size_text(needed.saturating_sub(*free), Rounding::Up);
                let needed = size_text(*needed, Rounding::Up);
                format!("free at least {missing} on the file system of {path}: a refresh needs {needed}")
            }
            Self::NoInodes { free, needed } => {
                format!("remove at least {} files from the file system of {path}", needed.saturating_sub(*free))
            }
            Self::FileSizeLimit { .. } => "raise the limit: ulimit -f unlimited, or LimitFSIZE= of the unit".into(),
            Self::Unknown(_) => format!("check the permissions of {path} and of the directories above it"),
        }
    }

    fn of_errno(error: rustix::io::Errno, access: &'static str, mode: &'static str) -> Self {
        use rustix::io::Errno;
        match error {
            Errno::ROFS => Self::ReadOnly,
            Errno::PERM => Self::Immutable,
            Errno::ACCESS => Self::Denied { access, mode },
            other => Self::Unknown(other.into()),
        }
    }
}

#[derive(Clone, Copy)]
enum Rounding {
    Down,
    Up,
}

/// A size in a unit in which a person can read it, with one decimal place: rounded so that it promises no more than there is.
fn size_text(bytes: u64, rounding: Rounding) -> String {
    const UNITS: [(u64, &str); 3] = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    let Some((unit, name)) = UNITS.into_iter().find(|(unit, _)| bytes >= *unit) else {
        return format!("{bytes} bytes");
    };
    let whole = bytes.saturating_mul(10);
    let tenths = match rounding {
        Rounding::Down => whole / unit,
        Rounding::Up => whole.div_ceil(unit),
    };
    format!("{}.{} {name}", tenths / 10, tenths % 10)
}

/// What is at a path; `None` if there is nothing.
fn look(path: &Path) -> Result<Option<Metadata>, Obstacle> {
    match fs::symlink_metadata(path) {
        Ok(about) => Ok(Some(about)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Obstacle::Unknown(e)),
    }
}

fn type_word(about: &Metadata) -> &'static str {
    let kind = about.file_type();
    if kind.is_dir() {
        return "a directory";
    }
    if kind.is_symlink() {
        return "a symbolic link";
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::FileTypeExt;
        if kind.is_fifo() {
            return "a pipe";
        }
        if kind.is_socket() {
            return "a socket";
        }
    }
    if kind.is_file() { "a file" } else { "a device" }
}

/// Whether another file could take the place of a file of ours: it is a regular file that may be removed, or not there.
pub fn check_replaceable(path: &Path) -> Result<(), Obstacle> {
    match look(path)? {
        Some(about) if !about.is_file() => Err(Obstacle::WrongType { found: type_word(&about), wanted: "a file" }),
        Some(_) => check_flags(path),
        None => Ok(()),
    }
}

/// Whether a file of ours could be read: it is a regular file of which that is allowed, or not there.
pub fn check_readable(path: &Path) -> Result<(), Obstacle> {
    match look(path)? {
        Some(about) if !about.is_file() => Err(Obstacle::WrongType { found: type_word(&about), wanted: "a file" }),
        Some(_) => check_access(path, Access::Read),
        None => Ok(()),
    }
}

/// Whether a temporary file could be put in the place of whatever a killed run left there.
pub fn check_removable(path: &Path) -> Result<(), Obstacle> {
    match look(path)? {
        Some(about) if about.is_dir() => Err(Obstacle::WrongType { found: type_word(&about), wanted: "a file" }),
        Some(_) => check_flags(path),
        None => Ok(()),
    }
}

/// Whether a lock file could be opened, as [`crate::sys::lockfile`] asks for it.
pub fn check_lockable(path: &Path) -> Result<(), Obstacle> {
    let Some(about) = look(path)? else { return Ok(()) };
    if !about.is_file() {
        return Err(Obstacle::WrongType { found: type_word(&about), wanted: "a file" });
    }
    #[cfg(unix)]
    if std::os::unix::fs::MetadataExt::uid(&about) != rustix::process::geteuid().as_raw() {
        return Err(Obstacle::OtherOwner);
    }
    check_flags(path)?;
    check_access(path, Access::ReadWrite)
}

/// Whether files could be made, replaced and removed in a directory that is there, and made durable.
pub fn check_directory(dir: &Path) -> Result<(), Obstacle> {
    check_entries(dir)?;
    check_flags(dir)
}

/// Whether lock files could be made in a directory; where it is missing, whether it could be made.
pub fn check_lock_directory(dir: &Path) -> Result<(), Obstacle> {
    match look(dir)? {
        Some(_) => check_entries(dir),
        None => dir.parent().map_or(Ok(()), check_entries),
    }
}

fn check_entries(dir: &Path) -> Result<(), Obstacle> {
    match fs::metadata(dir) {
        Ok(about) if about.is_dir() => check_access(dir, Access::Directory),
        Ok(about) => Err(Obstacle::WrongType { found: type_word(&about), wanted: "a directory" }),
        Err(e) => match look(dir)? {
            Some(about) if about.is_symlink() => {
                Err(Obstacle::WrongType { found: "a symbolic link that leads nowhere", wanted: "a directory" })
            }
            Some(_) | None => Err(Obstacle::Unknown(e)),
        },
    }
}

#[derive(Clone, Copy)]
enum Access {
    Read,
    ReadWrite,
    Directory,
}

#[cfg(unix)]
fn check_access(path: &Path, wanted: Access) -> Result<(), Obstacle> {
    use rustix::fs::Access as Mode;
    let (mode, access, chmod) = match wanted {
        Access::Read => (Mode::READ_OK, "read", "u+r"),
        Access::ReadWrite => (Mode::READ_OK | Mode::WRITE_OK, "read and write", "u+rw"),
        Access::Directory => (Mode::READ_OK | Mode::WRITE_OK | Mode::EXEC_OK, "read, write and search", "u+rwx"),
    };
    // access(2) asks for the real user, who is another one in a program that was started with the rights of its owner.
    if rustix::process::getuid() != rustix::process::geteuid() {
        return Ok(());
    }
    rustix::fs::access(path, mode).map_err(|e| Obstacle::of_errno(e, access, chmod))
}

#[cfg(not(unix))]
fn check_access(_path: &Path, _wanted: Access) -> Result<(), Obstacle> {
    Ok(())
}

/// What chattr(1) sets, where the file system tells it. access(2) knows of the one only, and for a file not of its removal.
#[cfg(target_os = "linux")]
fn check_flags(path: &Path) -> Result<(), Obstacle> {
    use rustix::fs::{AtFlags, CWD, StatxAttributes, StatxFlags, statx};
    let Ok(about) = statx(CWD, path, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::TYPE) else { return Ok(()) };
    match about.stx_attributes.intersects(StatxAttributes::IMMUTABLE | StatxAttributes::APPEND) {
        true => Err(Obstacle::Immutable),
        false => Ok(()),
    }
}

#[cfg(not(target_os = "linux"))]
fn check_flags(_path: &Path) -> Result<(), Obstacle> {
    Ok(())
}

/// Whether a file of `needed` bytes, and `files` files in all, could be made in a directory. `leftover`: a file there that is
/// removed first. A quota of this user is not seen.
#[cfg(unix)]
pub fn check_space(dir: &Path, needed: u64, files: u64, leftover: &Path) -> Result<(), Obstacle> {
    use rustix::process::{Resource, geteuid, getrlimit};
    if let Some(limit) = getrlimit(Resource::Fsize).current.filter(|limit| *limit < needed) {
        return Err(Obstacle::FileSizeLimit { limit, needed });
    }
    let about = rustix::fs::statvfs(dir).map_err(|e| Obstacle::Unknown(e.into()))?;
    // What a file system reserves is for root.
    let blocks = if geteuid().is_root() { about.f_bfree } else { about.f_bavail };
    let back = fs::symlink_metadata(leftover).map_or(0, |left| std::os::unix::fs::MetadataExt::blocks(&left) * 512);
    let free = blocks.saturating_mul(about.f_frsize).saturating_add(back);
    if free < needed {
        return Err(Obstacle::NoSpace { free, needed });
    }
    // A file system that has no table of inodes tells 0 of all.
    match about.f_files > 0 && about.f_favail < files {
        true => Err(Obstacle::NoInodes { free: about.f_favail, needed: files }),
        false => Ok(()),
    }
}

#[cfg(not(unix))]
pub fn check_space(_dir: &Path, _needed: u64, _files: u64, _leftover: &Path) -> Result<(), Obstacle> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_promise_no_more_than_there_is() {
        for (bytes, down, up) in [
            (0, "0 bytes", "0 bytes"),
            (1023, "1023 bytes", "1023 bytes"),
            (1024, "1.0 KiB", "1.0 KiB"),
            (4 << 20, "4.0 MiB", "4.0 MiB"),
            ((4 << 20) + 1, "4.0 MiB", "4.1 MiB"),
            (u64::MAX, "1717986918.3 GiB", "1717986918.4 GiB"),
        ] {
            assert_eq!([size_text(bytes, Rounding::Down), size_text(bytes, Rounding::Up)], [down, up]);
        }
    }

    #[cfg(unix)]
    #[test]
    fn wrong_types_are_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::write(at("file"), "x").unwrap();
        fs::create_dir(at("folder")).unwrap();
        std::os::unix::fs::symlink("none", at("link")).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, at("pipe"), rustix::fs::Mode::RWXU).unwrap();
        for (name, why) in [
            ("none", None),
            ("file", None),
            ("folder", Some("is a directory, and not a file")),
            ("link", Some("is a symbolic link, and not a file")),
            ("pipe", Some("is a pipe, and not a file")),
        ] {
            for check in [check_replaceable, check_readable, check_lockable] {
                assert_eq!(check(&at(name)).err().map(|e| e.to_string()).as_deref(), why, "{name}");
            }
            assert_eq!(check_removable(&at(name)).is_err(), name == "folder", "{name}");
        }
        check_directory(&at("folder")).unwrap();
        check_lock_directory(&at("none")).unwrap();
        assert_eq!(check_lock_directory(&at("file")).unwrap_err().to_string(), "is a file, and not a directory");
        assert!(check_lock_directory(&at("link")).is_err() && check_lock_directory(&at("file/below")).is_err());
    }

    #[cfg(unix)]
    #[test]
    fn space_that_is_too_small_is_told_with_what_is_missing() {
        let dir = tempfile::tempdir().unwrap();
        let none = dir.path().join("none");
        check_space(dir.path(), 1, 1, &none).unwrap();
        let told = check_space(dir.path(), 1 << 60, 1, &none).unwrap_err();
        assert!(matches!(told, Obstacle::NoSpace { .. }), "{told}");
        let known = Obstacle::NoSpace { free: 3 << 20, needed: (4 << 20) + (64 << 10) };
        assert_eq!(known.to_string(), "has 3.0 MiB of free space, and a refresh needs 4.1 MiB");
        assert_eq!(
            known.hint(Path::new("/s")),
            "free at least 1.1 MiB on the file system of /s: a refresh needs 4.1 MiB"
        );
    }
}
