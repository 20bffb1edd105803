//! Reads a file with a secret, if no other user may read it.

use std::fs::File;
use std::io;
use std::path::Path;

use zeroize::Zeroizing;

use crate::sys::durable;

/// Why the file gives no secret.
#[derive(Debug)]
pub enum SecretFileError {
    Missing,
    /// `is_ours`: the owner of the file is this user, who can change its mode.
    Unreadable {
        error: io::Error,
        is_ours: bool,
    },
    /// `is_ours`: as above, and the filesystem is writable. `access`: who else may do what.
    OpenToOthers {
        mode: u32,
        access: String,
        is_ours: bool,
    },
}

/// Reads the file. Its permissions are asked of the open file, so that it cannot be exchanged in between.
pub fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, SecretFileError> {
    let unreadable = |error| SecretFileError::Unreadable { error, is_ours: is_owned(path) };
    let file = match durable::open_foreign(path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Err(SecretFileError::Missing),
        Err(e) => return Err(unreadable(e)),
    };
    #[cfg(unix)]
    {
        let access = FileAccess::of(&file).map_err(unreadable)?;
        let wrong = access.wrong_bits();
        if wrong != 0 {
            let FileAccess { mode, is_ours, .. } = access;
            return Err(SecretFileError::OpenToOthers { mode, access: access_text(wrong), is_ours });
        }
    }
    let mut bytes = Zeroizing::new(Vec::new());
    durable::read_to_limit(&file, &mut bytes).map_err(unreadable)?;
    Ok(bytes)
}

/// Who else may do what to a file, by these bits of its mode: `its group may read and write, others may read`.
#[cfg(unix)]
pub(crate) fn access_text(bits: u32) -> String {
    let verbs = |bits: u32| {
        let all = [(0o4, "read"), (0o2, "write"), (0o1, "execute")];
        let verbs: Vec<&str> = all.into_iter().filter(|(bit, _)| bits & bit != 0).map(|(_, verb)| verb).collect();
        match verbs.as_slice() {
            [] => None,
            [only] => Some((*only).to_owned()),
            [first @ .., last] => Some(format!("{} and {last}", first.join(", "))),
        }
    };
    match (verbs(bits >> 3 & 7), verbs(bits & 7)) {
        (Some(group), Some(others)) if group == others => format!("its group and others may {group}"),
        (Some(group), Some(others)) => format!("its group may {group}, others may {others}"),
        (Some(group), None) => format!("its group may {group}"),
        (None, Some(others)) => format!("others may {others}"),
        (None, None) => "no other user may use it".to_owned(),
    }
}

/// Whether a file or directory belongs to this user.
#[cfg(unix)]
pub(crate) fn is_owned(path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata(path).is_ok_and(|about| about.uid() == rustix::process::geteuid().as_raw())
}

#[cfg(not(unix))]
pub(crate) fn is_owned(_path: &Path) -> bool {
    true
}

/// Who may read an open file.
#[cfg(unix)]
#[derive(Clone, Copy, Debug)]
struct FileAccess {
    mode: u32,
    /// It is this user's, and the filesystem is writable: its mode is this user's decision.
    is_ours: bool,
    /// It is root's, or its group is one of this process.
    is_trusted_group: bool,
}

#[cfg(unix)]
impl FileAccess {
    fn of(file: &File) -> io::Result<Self> {
        use std::os::unix::fs::MetadataExt;
        let about = file.metadata()?;
        let is_read_only =
            rustix::fs::fstatvfs(file).is_ok_and(|fs| fs.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY));
        let is_in_group = rustix::process::getegid().as_raw() == about.gid()
            || rustix::process::getgroups().is_ok_and(|groups| groups.iter().any(|g| g.as_raw() == about.gid()));
        Ok(Self {
            mode: about.mode() & 0o777,
            is_ours: about.uid() == rustix::process::geteuid().as_raw() && !is_read_only,
            is_trusted_group: about.uid() == 0 || is_in_group,
        })
    }

    /// The bits that must not be set. A file of this user must be closed to all others. One that another user provides may be readable for a group, as
    /// PostgreSQL allows it for a key: a Kubernetes volume with `fsGroup` has no other mode, and the access list of a
    /// systemd credential shows as one.
    fn wrong_bits(self) -> u32 {
        let allowed = if !self.is_ours && self.is_trusted_group { 0o740 } else { 0o700 };
        self.mode & !allowed
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn access_text_names_each_bit_that_is_set() {
        for (bits, text) in [
            (0o040, "its group may read"),
            (0o060, "its group may read and write"),
            (0o020, "its group may write"),
            (0o004, "others may read"),
            (0o044, "its group and others may read"),
            (0o064, "its group may read and write, others may read"),
            (0o077, "its group and others may read, write and execute"),
        ] {
            assert_eq!(access_text(bits), text, "{bits:o}");
        }
    }

    #[test]
    fn group_may_read_only_a_file_that_another_provides() {
        let wrong_bits = |mode, is_ours, is_trusted_group| FileAccess { mode, is_ours, is_trusted_group }.wrong_bits();
        let is_private = |mode, is_ours, is_trusted_group| wrong_bits(mode, is_ours, is_trusted_group) == 0;
        assert_eq!((wrong_bits(0o460, false, true), wrong_bits(0o460, true, true)), (0o020, 0o060));
        for mode in [0o400, 0o600, 0o700] {
            assert!(is_private(mode, true, false) && is_private(mode, false, false), "{mode:o}");
        }
        for mode in [0o440, 0o640] {
            assert!(is_private(mode, false, true), "{mode:o}");
            assert!(!is_private(mode, true, true) && !is_private(mode, false, false), "{mode:o}");
        }
        for mode in [0o444, 0o460, 0o660, 0o644, 0o604, 0o602, 0o450] {
            assert!(!is_private(mode, false, true), "{mode:o}");
        }
    }
}
