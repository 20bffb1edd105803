//! Writes files so that they are either complete or absent, and still there after a power cut.
//!
//! "Durable" below means: the file's bytes and its directory entry have been handed to `fsync`, and it returned without
//! an error.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};

/// No file of a person or of another program that is read whole is larger.
const MAX_FOREIGN_BYTES: u64 = 16 * 1024 * 1024;

/// A file of up to so many bytes is read without asking for its length first.
const SMALL_FILE: usize = 8192;

/// Creates a private directory (0700) and its missing parents, durably; an existing one is left as it is.
pub fn create_dir(dir: &Path) -> io::Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    let parent = dir.parent().filter(|p| !p.as_os_str().is_empty());
    if let Some(parent) = parent {
        create_dir(parent)?;
    }
    let mut builder = fs::DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    match builder.create(dir) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists && dir.is_dir() => Ok(()),
        Err(e) => Err(e),
        Ok(()) => parent.map_or(Ok(()), sync_dir),
    }
}

/// Reads a whole file of ours, not following a symlink in its last component. `None` if it is not there.
pub fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    Ok(read_open(path)?.map(|(bytes, _)| bytes))
}

/// As [`read`], with the file that the bytes are from.
pub fn read_open(path: &Path) -> io::Result<Option<(Vec<u8>, File)>> {
    let mut file = match open_regular(path, Links::Refused) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e),
    };
    let mut bytes = Vec::with_capacity(SMALL_FILE);
    (&mut file).take(SMALL_FILE as u64).read_to_end(&mut bytes)?;
    if bytes.len() == SMALL_FILE {
        file.read_to_end(&mut bytes)?;
    }
    Ok(Some((bytes, file)))
}

/// Reads a whole file of a person or of another program.
pub fn read_foreign(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    read_to_limit(&open_foreign(path)?, &mut bytes)?;
    Ok(bytes)
}

/// Reads an open file to its end, which a device in its place may not have.
pub fn read_to_limit(file: &File, bytes: &mut Vec<u8>) -> io::Result<()> {
    file.take(MAX_FOREIGN_BYTES + 1).read_to_end(bytes)?;
    match bytes.len() as u64 > MAX_FOREIGN_BYTES {
        true => Err(io::Error::new(io::ErrorKind::FileTooLarge, "it is larger than 16 MiB")),
        false => Ok(()),
    }
}

/// Opens a file of a person or of another program.
pub fn open_foreign(path: &Path) -> io::Result<File> {
    open_regular(path, Links::Followed)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Links {
    Followed,
    Refused,
}

/// Opens a file, but not a pipe in its place, which would be waited for without an end.
fn open_regular(path: &Path, links: Links) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true);
    #[cfg(unix)]
    {
        use rustix::fs::OFlags;
        let no_follow = if links == Links::Refused { OFlags::NOFOLLOW } else { OFlags::empty() };
        std::os::unix::fs::OpenOptionsExt::custom_flags(&mut options, (OFlags::NONBLOCK | no_follow).bits() as i32);
    }
    let file = options.open(path)?;
    #[cfg(unix)]
    if std::os::unix::fs::FileTypeExt::is_fifo(&file.metadata()?.file_type()) {
        return Err(io::Error::other("it is a pipe, and not a file"));
    }
    Ok(file)
}

/// Replaces `path` by `bytes`: a reader sees the old file or the new one, and the new one is durable on return.
///
/// On an error the old file is still there, unless only the last step, making the new name durable, failed.
pub fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    StagedFile::create(path, 0)?.commit(bytes)
}

/// Replaces a file that may be lost: a reader sees the old one or the new one, but nothing is synced. Two writers at once
/// may leave a part of either, so a reader must be able to tell.
pub fn replace_without_sync(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut staged = StagedFile::create(path, 0)?;
    staged.file.write_all(bytes)?;
    staged.rename()
}

/// Creates a private file that must not exist yet, durably.
pub fn create_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    set_private(&mut options);
    let mut file = options.open(path)?;
    let written = file.write_all(bytes).and_then(|()| file.sync_all());
    if written.is_err() {
        // A part of it would look like a damaged file.
        drop(fs::remove_file(path));
    }
    written.and_then(|()| sync_parent(path))
}

/// Removes a file, durably; no error if it is not there.
pub fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(e),
        Ok(()) => sync_parent(path),
    }
}

/// Appends one line to a file, durably. The caller holds a lock, so lines do not mix.
pub fn append_line(path: &Path, line: &str) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.append(true);
    set_private(&mut options);
    let (mut file, is_new) = match options.open(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => (options.create(true).open(path)?, true),
        opened => (opened?, false),
    };
    file.write_all(format!("{line}\n").as_bytes())?;
    file.sync_all()?;
    if is_new { sync_parent(path) } else { Ok(()) }
}

/// A temporary file beside its final name, with its space already reserved, so that a full disk is noticed before
/// anything depends on the write.
#[derive(Debug)]
pub struct StagedFile {
    file: File,
    temporary: PathBuf,
    path: PathBuf,
    is_reserved: bool,
    is_committed: bool,
}

impl StagedFile {
    /// Creates the temporary file and durably reserves `reserve` bytes for it (0: none).
    pub fn create(path: &Path, reserve: u64) -> io::Result<Self> {
        let temporary = temporary_name(path);
        let mut options = OpenOptions::new();
        options.write(true).create_new(true);
        set_private(&mut options);
        let file = match options.open(&temporary) {
            // A killed run left it.
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                remove_leftover(&temporary)?;
                options.open(&temporary)?
            }
            opened => opened?,
        };
        let staged = Self { file, temporary, path: path.to_owned(), is_reserved: reserve > 0, is_committed: false };
        if reserve > 0 {
            allocate(&staged.file, reserve)?;
            staged.file.sync_all()?;
        }
        Ok(staged)
    }

    /// The temporary file. It keeps its inode under its final name.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Fills the file and gives it its name; durable on return. If the directory was replaced meanwhile, another file may
    /// have got that name: that is an error.
    pub fn commit(mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)?;
        if self.is_reserved {
            self.file.set_len(bytes.len() as u64)?;
        }
        self.file.sync_all()?;
        self.rename()?;
        sync_parent(&self.path)
    }

    fn rename(&mut self) -> io::Result<()> {
        #[expect(clippy::disallowed_methods, reason = "the callers say whether it is synced")]
        fs::rename(&self.temporary, &self.path)?;
        self.is_committed = true;
        match is_file_at(&self.file, &self.path)? {
            true => Ok(()),
            false => Err(io::Error::other("another file has its name: the directory was replaced meanwhile")),
        }
    }
}

impl Drop for StagedFile {
    fn drop(&mut self) {
        if !self.is_committed {
            // A leftover is harmless: the next attempt under the same lock replaces it.
            drop(fs::remove_file(&self.temporary));
        }
    }
}

/// The one temporary name of a file. Fixed, so that a killed run leaves at most one; every writer holds the lock.
pub fn temporary_name(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.new"))
}

fn remove_leftover(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

fn sync_parent(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(dir) => sync_dir(dir),
        None => Ok(()),
    }
}

/// Makes the names in a directory durable. Windows has no such call; NTFS journals them.
pub fn sync_dir(dir: &Path) -> io::Result<()> {
    #[cfg(unix)]
    File::open(dir)?.sync_all()?;
    #[cfg(not(unix))]
    drop(dir);
    Ok(())
}

/// Whether the name leads to this open file.
#[cfg(unix)]
fn is_file_at(file: &File, path: &Path) -> io::Result<bool> {
    use std::os::unix::fs::MetadataExt;
    let (ours, there) = (file.metadata()?, fs::symlink_metadata(path)?);
    Ok((ours.dev(), ours.ino()) == (there.dev(), there.ino()))
}

/// Windows moves no directory with an open file in it.
#[cfg(not(unix))]
fn is_file_at(_file: &File, _path: &Path) -> io::Result<bool> {
    Ok(true)
}

/// Takes space for the file. Where the filesystem cannot promise space, it is taken by writing.
#[cfg(target_os = "linux")]
fn allocate(file: &File, bytes: u64) -> io::Result<()> {
    use rustix::fs::{FallocateFlags, fallocate};
    use rustix::io::Errno;
    match rustix::io::retry_on_intr(|| fallocate(file, FallocateFlags::empty(), 0, bytes)) {
        Ok(()) => Ok(()),
        // These are the answer. With any other error the filesystem, or a sandbox, says that it does not do this.
        Err(e @ (Errno::NOSPC | Errno::DQUOT | Errno::FBIG | Errno::IO | Errno::ROFS)) => Err(e.into()),
        Err(_) => write_zeros(file, bytes),
    }
}

#[cfg(not(target_os = "linux"))]
fn allocate(file: &File, bytes: u64) -> io::Result<()> {
    write_zeros(file, bytes)
}

/// Takes space by using it.
fn write_zeros(mut file: &File, bytes: u64) -> io::Result<()> {
    io::copy(&mut io::repeat(0).take(bytes), &mut io::BufWriter::with_capacity(ZEROS_AT_ONCE, &mut file))?;
    file.rewind()
}

/// How much is written in one call.
const ZEROS_AT_ONCE: usize = 1 << 18;

fn set_private(options: &mut OpenOptions) {
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(options, 0o600);
    set_no_follow(options);
}

/// Not blocking: a pipe in the place of a file is an error, and not waited for.
fn set_no_follow(options: &mut OpenOptions) {
    #[cfg(unix)]
    {
        use rustix::fs::OFlags;
        let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
        std::os::unix::fs::OpenOptionsExt::custom_flags(options, flags.bits() as i32);
    }
    #[cfg(not(unix))]
    drop(options);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn replaced_file_is_private_and_leaves_no_temporary_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b/record");
        create_dir(path.parent().unwrap()).unwrap();
        replace(&path, b"one").unwrap();
        replace(&path, b"two").unwrap();
        assert_eq!(read(&path).unwrap().unwrap(), b"two");
        assert_eq!(names(path.parent().unwrap()), ["record"]);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = |p: &Path| fs::metadata(p).unwrap().permissions().mode() & 0o777;
            assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
        }
    }

    #[test]
    fn an_uncommitted_file_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("recv");
        replace(&path, b"old").unwrap();
        let staged = StagedFile::create(&path, 4096).unwrap();
        assert_eq!(names(dir.path()), [".recv.new", "recv"]);
        drop(staged);
        assert_eq!(names(dir.path()), ["recv"]);
        assert_eq!(read(&path).unwrap().unwrap(), b"old");
    }

    #[test]
    fn reserved_file_is_cut_to_the_bytes_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("recv");
        StagedFile::create(&path, 1 << 16).unwrap().commit(b"short").unwrap();
        assert_eq!(read(&path).unwrap().unwrap(), b"short");
    }

    /// Rule 8.
    #[test]
    fn space_is_taken_by_writing_without_fallocate() {
        let dir = tempfile::tempdir().unwrap();
        let file = File::create(dir.path().join("recv")).unwrap();
        write_zeros(&file, 4 << 20).unwrap();
        file.sync_all().unwrap();
        let about = file.metadata().unwrap();
        assert_eq!(about.len(), 4 << 20);
        #[cfg(unix)]
        assert!(std::os::unix::fs::MetadataExt::blocks(&about) * 512 >= 4 << 20, "it is no hole");
    }

    /// Rule 9. The state directory was moved away during a flight, and a copy put in its place.
    #[cfg(unix)]
    #[test]
    fn file_of_a_copied_directory_is_not_taken_for_the_written_one() {
        let dir = tempfile::tempdir().unwrap();
        let [live, aside] = ["live", "aside"].map(|name| dir.path().join(name));
        create_dir(&live).unwrap();
        let staged = StagedFile::create(&live.join("recv"), 4096).unwrap();
        #[expect(clippy::disallowed_methods, reason = "what a person does")]
        fs::rename(&live, &aside).unwrap();
        create_dir(&live).unwrap();
        fs::copy(aside.join(".recv.new"), live.join(".recv.new")).unwrap();
        let error = staged.commit(b"tokens").unwrap_err();
        assert!(error.to_string().contains("directory was replaced"), "{error}");
        StagedFile::create(&live.join("recv"), 4096).unwrap().commit(b"tokens").unwrap();
        assert_eq!(read(&live.join("recv")).unwrap().unwrap(), b"tokens");
    }

    #[test]
    fn file_is_read_whole_whatever_its_length() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        for length in [0, 1, SMALL_FILE - 1, SMALL_FILE, SMALL_FILE + 1, 3 * SMALL_FILE] {
            let bytes: Vec<u8> = (0..length).map(|i| i as u8).collect();
            replace_without_sync(&path, &bytes).unwrap();
            assert_eq!(read(&path).unwrap().unwrap(), bytes, "{length}");
        }
    }

    #[test]
    fn a_leftover_of_a_killed_run_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("record");
        fs::write(dir.path().join(".record.new"), b"half").unwrap();
        replace(&path, b"whole").unwrap();
        assert_eq!(names(dir.path()), ["record"]);
        assert_eq!(fs::read(&path).unwrap(), b"whole");
    }

    #[cfg(unix)]
    #[test]
    fn a_symlink_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("target"), b"secret").unwrap();
        let link = dir.path().join("link");
        std::os::unix::fs::symlink("target", &link).unwrap();
        for error in [read(&link).unwrap_err(), append_line(&link, "x").unwrap_err()] {
            assert_eq!(error.raw_os_error(), Some(rustix::io::Errno::LOOP.raw_os_error()), "{error}");
        }
        assert_eq!(fs::read(dir.path().join("target")).unwrap(), b"secret");
    }

    #[cfg(unix)]
    #[test]
    fn pipe_in_the_place_of_a_file_is_not_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("record.json");
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU, 0).unwrap();
        for error in [read(&path).unwrap_err(), read_foreign(&path).unwrap_err(), append_line(&path, "x").unwrap_err()]
        {
            assert!(!error.to_string().is_empty());
        }
    }

    #[test]
    fn removing_a_missing_file_is_not_an_error() {
        let dir = tempfile::tempdir().unwrap();
        remove(&dir.path().join("none")).unwrap();
        assert!(read(&dir.path().join("none")).unwrap().is_none());
    }

    #[test]
    fn lines_are_appended() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ledger");
        append_line(&path, "a").unwrap();
        append_line(&path, "b").unwrap();
        assert_eq!(read(&path).unwrap().unwrap(), b"a\nb\n");
    }
}
