//! Which machine this is, and whether a directory lies on a filesystem whose locks reach only this far.

use std::io;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::sys::file_watch::FileVersion;

/// Where the machine id is.
const MACHINE_ID_FILES: [&str; 2] = ["/etc/machine-id", "/var/lib/dbus/machine-id"];

/// A name for this machine that is of no use elsewhere: an HMAC of the machine id, as machine-id(5) asks for. `None`
/// where the system has no machine id. The file is read again only if it has changed: a copy of a running machine may be
/// given another id.
pub fn machine_id() -> Option<String> {
    static KNOWN: Mutex<Option<(FileVersion, String)>> = Mutex::new(None);
    let version = FileVersion::of(Path::new(MACHINE_ID_FILES[0]));
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((of, id)) = &*known
        && version == Some(*of)
    {
        return Some(id.clone());
    }
    let id = read_machine_id();
    *known = version.zip(id.clone());
    id
}

fn read_machine_id() -> Option<String> {
    let raw = MACHINE_ID_FILES
        .iter()
        .find_map(|path| std::fs::read_to_string(path).ok())
        .map(|id| id.trim().to_owned())
        .filter(|id| !id.is_empty() && id != "uninitialized")?;
    let mut mac = Hmac::<Sha256>::new_from_slice(raw.as_bytes()).ok()?;
    mac.update(b"keepalive");
    Some(hex::encode(&mac.finalize().into_bytes()[..16]))
}

/// The name of this machine on its network.
pub fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// What kind of filesystem holds a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filesystem {
    /// Its usual name, or its magic number.
    pub name: String,
    /// Other machines may write to it; `flock` may then exclude only processes of this one.
    pub is_network: bool,
}

/// Filesystems that other machines can write to, by the magic numbers of statfs(2). FUSE is here because sshfs,
/// virtiofs and most remote filesystems of user space share its number.
const NETWORK: [(u64, &str); 11] = [
    (0x6969, "nfs"),
    (0xff53_4d42, "cifs"),
    (0xfe53_4d42, "smb2"),
    (0x517b, "smb"),
    (0x0102_1997, "9p"),
    (0x6573_5546, "fuse"),
    (0x5346_414f, "afs"),
    (0x6b41_4653, "kafs"),
    (0x00c3_6400, "ceph"),
    (0x7375_7245, "coda"),
    (0x0bd0_0bd0, "lustre"),
];

const LOCAL: [(u64, &str); 8] = [
    (0xef53, "ext4"),
    (0x5846_5342, "xfs"),
    (0x9123_683e, "btrfs"),
    (0x0102_1994, "tmpfs"),
    (0x794c_7630, "overlayfs"),
    (0x2fc1_2fc1, "zfs"),
    (0xf2f5_2010, "f2fs"),
    (0xca45_1a4e, "bcachefs"),
];

/// Asks what filesystem a directory lies on.
#[cfg(target_os = "linux")]
pub fn filesystem(dir: &Path) -> io::Result<Filesystem> {
    let magic = u64::try_from(rustix::fs::statfs(dir)?.f_type).unwrap_or(0) & 0xffff_ffff;
    Ok(by_magic(magic))
}

#[cfg(not(target_os = "linux"))]
pub fn filesystem(_dir: &Path) -> io::Result<Filesystem> {
    Ok(Filesystem { name: "unknown".into(), is_network: false })
}

fn by_magic(magic: u64) -> Filesystem {
    let find = |table: &[(u64, &str)]| table.iter().find(|(m, _)| *m == magic).map(|(_, name)| (*name).to_owned());
    match find(&NETWORK) {
        Some(name) => Filesystem { name, is_network: true },
        None => Filesystem { name: find(&LOCAL).unwrap_or_else(|| format!("{magic:#x}")), is_network: false },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rule 30.
    #[test]
    fn network_filesystems_are_known_by_their_magic_number() {
        assert_eq!(by_magic(0x6969), Filesystem { name: "nfs".into(), is_network: true });
        assert!(by_magic(0xfe53_4d42).is_network && by_magic(0x6573_5546).is_network);
        assert_eq!(by_magic(0xef53), Filesystem { name: "ext4".into(), is_network: false });
        assert_eq!(by_magic(0x1234), Filesystem { name: "0x1234".into(), is_network: false });
    }

    #[test]
    fn derived_machine_id_differs_from_the_real_one() {
        if let (Some(ours), Ok(raw)) = (machine_id(), std::fs::read_to_string("/etc/machine-id")) {
            assert_eq!(ours.len(), 32);
            assert_ne!(ours, raw.trim());
        }
    }
}
