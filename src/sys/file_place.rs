//! What tells a file from a copy of it.
//!
//! An inode number and the time of the inode's birth: both stay through a rename of the file or of a folder above it and
//! through a restart of the machine, and no program can give them to a copy. A device number would not do, because many
//! filesystems get another one at each mount.

use std::fs::File;
use std::io;

use serde::{Deserialize, Serialize};

/// Which file it is, among all of this machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FilePlace {
    inode: u64,
    /// Nanoseconds since 1970; `None` where the filesystem or the kernel does not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    born: Option<String>,
    /// The subvolume or dataset, on filesystems whose snapshots keep the other two; on overlayfs the directory with the
    /// changes, because all containers of an image have its files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    volume: Option<String>,
}

impl FilePlace {
    /// `None` on filesystems that number their inodes anew at each mount, as FAT, or may do so, as those of user space.
    pub fn of(file: &File) -> io::Result<Option<Self>> {
        #[cfg(target_os = "linux")]
        return linux::place_of(file);
        #[cfg(not(target_os = "linux"))]
        {
            drop(file);
            Ok(None)
        }
    }

    /// Whether it is the same file. A birth that only one of the two knows is not compared.
    pub fn is_same(&self, other: &Self) -> bool {
        let agree = |a: &Option<String>, b: &Option<String>| a.is_none() || b.is_none() || a == b;
        self.inode == other.inode && agree(&self.born, &other.born) && self.is_in_volume_of(other)
    }

    /// As [`FilePlace::is_same`], where an inode number alone is no proof: it is given away again.
    pub fn is_surely_same(&self, other: &Self) -> bool {
        self.born.is_some() && other.born.is_some() && self.is_same(other)
    }

    pub fn is_in_volume_of(&self, other: &Self) -> bool {
        self.volume == other.volume
    }
}

#[cfg(target_os = "linux")]
mod linux {
    use std::fs::File;
    use std::io;
    use std::os::unix::fs::MetadataExt;

    use rustix::fs::{AtFlags, StatxFlags};

    use super::FilePlace;

    const BTRFS: u64 = 0x9123_683e;
    const ZFS: u64 = 0x2fc1_2fc1;
    const OVERLAY: u64 = 0x794c_7630;
    /// Filesystems that keep an inode number for the life of the file: ext2 to ext4, xfs, btrfs, tmpfs, overlayfs, zfs,
    /// f2fs, bcachefs, ecryptfs.
    const STABLE: [u64; 9] = [0xef53, 0x5846_5342, BTRFS, 0x0102_1994, OVERLAY, ZFS, 0xf2f5_2010, 0xca45_1a4e, 0xf15f];

    pub(super) fn place_of(file: &File) -> io::Result<Option<FilePlace>> {
        let kind = u64::try_from(rustix::fs::fstatfs(file)?.f_type).unwrap_or(0) & 0xffff_ffff;
        if !STABLE.contains(&kind) {
            return Ok(None);
        }
        // A kernel or a sandbox without statx(2) tells no birth.
        let about = rustix::fs::statx(file, "", AtFlags::EMPTY_PATH, StatxFlags::BTIME | StatxFlags::MNT_ID).ok();
        let mount = about.filter(|about| about.stx_mask & StatxFlags::MNT_ID.bits() != 0).map(|about| about.stx_mnt_id);
        let birth = about.filter(|about| about.stx_mask & StatxFlags::BTIME.bits() != 0).map(|about| about.stx_btime);
        let volume = match kind {
            BTRFS | ZFS => Some(format!("{:x}", rustix::fs::fstatvfs(file)?.f_fsid)),
            OVERLAY => {
                let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
                let Some(upper) = upper_dir(&mounts, mount, file.metadata()?.dev()) else { return Ok(None) };
                Some(upper.to_owned())
            }
            _ => None,
        };
        Ok(Some(FilePlace {
            inode: file.metadata()?.ino(),
            born: birth.map(|at| (i128::from(at.tv_sec) * 1_000_000_000 + i128::from(at.tv_nsec)).to_string()),
            volume,
        }))
    }

    /// The directory that takes the changes of the overlay with this mount id, by proc_pid_mountinfo(5). A kernel before
    /// 5.8 tells no id: then by the device number, which a file of an overlay over several filesystems does not have. (pure)
    pub(super) fn upper_dir(mounts: &str, mount: Option<u64>, device: u64) -> Option<&str> {
        let number = format!("{}:{}", rustix::fs::major(device), rustix::fs::minor(device));
        let options = mounts.lines().find_map(|line| {
            let (about, kind) = line.split_once(" - ")?;
            let mut fields = about.split(' ');
            let is_it = match mount {
                Some(id) => fields.next() == Some(&id.to_string()),
                None => fields.nth(2) == Some(&number),
            };
            kind.rsplit(' ').next().filter(|_| is_it && kind.starts_with("overlay "))
        })?;
        options.split(',').find_map(|option| option.strip_prefix("upperdir="))
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    /// Rule 30.
    #[test]
    fn file_is_the_same_after_a_rename_and_a_copy_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let [a, b, c] = ["a", "b", "c"].map(|name| dir.path().join(name));
        let place = |path| FilePlace::of(&File::open(path).unwrap()).unwrap();
        std::fs::write(&a, "x").unwrap();
        let Some(made) = place(&a) else { return };
        #[expect(clippy::disallowed_methods, reason = "what a person does")]
        std::fs::rename(&a, &b).unwrap();
        std::fs::copy(&b, &c).unwrap();
        assert!(place(&b).unwrap().is_same(&made) && !place(&c).unwrap().is_same(&made));
    }

    #[test]
    fn upper_directory_tells_the_containers_of_an_image_apart() {
        let line =
            "36 35 0:61 / / rw,relatime shared:1 - overlay overlay rw,lowerdir=/l/a:/l/b,upperdir=/u/x/diff,workdir=/w";
        let mounts = format!("35 1 254:0 / /mnt rw - ext4 /dev/vda rw\n{}\n", line);
        assert_eq!(linux::upper_dir(&mounts, None, 61), Some("/u/x/diff"));
        assert_eq!(linux::upper_dir(&mounts, Some(36), 5), Some("/u/x/diff"), "its files have another device");
        assert_eq!(linux::upper_dir(&mounts, None, 62), None);
        assert_eq!(linux::upper_dir(&mounts, Some(35), 61), None);
        assert_eq!(linux::upper_dir(&mounts.replace("upperdir=", "upper="), None, 61), None, "read-only");
    }

    #[test]
    fn unknown_birth_is_not_compared() {
        let place = |born: Option<&str>, volume: Option<&str>| FilePlace {
            inode: 1,
            born: born.map(str::to_owned),
            volume: volume.map(str::to_owned),
        };
        assert!(place(Some("1"), None).is_same(&place(None, None)));
        assert!(!place(Some("1"), None).is_surely_same(&place(None, None)));
        assert!(!place(None, None).is_same(&place(None, Some("v"))), "an overlay over the directory");
        assert!(!place(Some("1"), None).is_same(&place(Some("2"), None)));
        assert!(!place(None, Some("v")).is_same(&place(None, Some("w"))));
    }
}
