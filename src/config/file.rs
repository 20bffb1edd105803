//! Reads the configuration file: opened once, and trusted only if no other user can have written it.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use super::error::{ConfigError, Diagnostic};
use super::excerpt;
use crate::outcome::Position;
use crate::sys::durable;
#[cfg(unix)]
use crate::sys::secret_file::access_text;

/// The size limit, far above ten thousand profiles; a larger file is not a configuration.
const MAX_FILE_BYTES: u64 = 16 * 1024 * 1024;

/// With more lines in another encoding, it is another kind of file.
const MAX_WRONG_LINES: usize = 20;

/// What is in the file.
#[derive(Default)]
pub(super) struct ConfigFile {
    pub text: String,
    /// Why it cannot be used, whatever the text says.
    pub mistakes: Vec<Diagnostic>,
}

/// Reads the file; `None` if it is absent. One that may not be used is read all the same, so that all its mistakes are told
/// together.
pub(super) fn read(path: &Path) -> Result<Option<ConfigFile>, ConfigError> {
    let file = match durable::open_foreign(path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(unreadable_error(path, &e)),
    };
    let mut mistakes = check_trust(path, &file).err().map_or(Vec::new(), ConfigError::into_mistakes);
    let mut bytes = Vec::new();
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(|e| unreadable_error(path, &e))?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        let message = "is larger than 16 MiB, so it cannot be a configuration";
        return Err(ConfigError::for_file(path, message, "name another file with --config"));
    }
    let wrong: Vec<Diagnostic> = lines_in_other_encodings(&bytes, path).collect();
    if wrong.len() > MAX_WRONG_LINES {
        return Err(ConfigError::for_file(path, "is not a text in UTF-8", "save the file as UTF-8"));
    }
    mistakes.extend(wrong);
    Ok(Some(ConfigFile { text: String::from_utf8_lossy(&bytes).into_owned(), mistakes }))
}

/// Each line that is not UTF-8.
fn lines_in_other_encodings(bytes: &[u8], path: &Path) -> impl Iterator<Item = Diagnostic> {
    bytes.split(|byte| *byte == b'\n').enumerate().filter_map(|(at, line)| {
        let valid = std::str::from_utf8(line).err()?.valid_up_to();
        let before = String::from_utf8_lossy(&line[..valid]).chars().count();
        Some(Diagnostic {
            file: Some(path.into()),
            position: Some(Position { line: at + 1, column: before + 1 }),
            key: String::new(),
            message: "the line is not UTF-8".into(),
            hint: Some("save the file as UTF-8".into()),
            excerpt: excerpt::of_line(String::from_utf8_lossy(line).trim_end(), "", before, 1),
        })
    })
}

pub(super) fn missing_error(path: &Path) -> ConfigError {
    ConfigError::for_file(path, "does not exist", "create it, or leave out --config and KEEPALIVE_CONFIG")
}

fn unreadable_error(path: &Path, error: &io::Error) -> ConfigError {
    let hint = match error.kind() {
        io::ErrorKind::IsADirectory => "name a file in it",
        _ => "make it readable for the user that runs keepalive",
    };
    ConfigError::for_file(path, format!("cannot be read: {error}"), hint)
}

/// A configuration names programs to run and places to send secrets to, so it is code: it must be ours or root's, and
/// no one else's to write. Asked of the open file, not of the path, so that it cannot be exchanged in between.
#[cfg(unix)]
fn check_trust(path: &Path, file: &File) -> Result<(), ConfigError> {
    use std::os::unix::fs::{FileTypeExt, MetadataExt};

    let metadata = file.metadata().map_err(|e| unreadable_error(path, &e))?;
    check_owner(path, metadata.uid(), rustix::process::geteuid().as_raw())?;
    // `/dev/null` is writable for all, and empty for all.
    if metadata.file_type().is_char_device() { Ok(()) } else { check_mode(path, metadata.mode() & 0o7777) }
}

#[cfg(unix)]
fn check_owner(path: &Path, owner: u32, me: u32) -> Result<(), ConfigError> {
    if owner == me || owner == 0 {
        return Ok(());
    }
    let message = format!("belongs to user {owner}; refusing a configuration that is not owned by user {me} or root");
    Err(ConfigError::for_file(path, message, format!("chown {me} {}", path.display())))
}

#[cfg(unix)]
fn check_mode(path: &Path, mode: u32) -> Result<(), ConfigError> {
    if mode & 0o022 == 0 {
        return Ok(());
    }
    let access = access_text(mode & 0o022);
    let message = format!("has mode {mode:04o}: {access}; refusing it, because it names commands that keepalive runs");
    Err(ConfigError::for_file(path, message, format!("chmod go-w {}", path.display())))
}

#[cfg(not(unix))]
fn check_trust(_path: &Path, _file: &File) -> Result<(), ConfigError> {
    // A user's own profile directory is private by its access list on Windows; there is no mode to ask.
    Ok(())
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn config_file_of_another_user_is_refused() {
        let path = Path::new("config.toml");
        let error = check_owner(path, 1001, 1000).unwrap_err();
        assert_eq!(
            error.to_string(),
            "config.toml: belongs to user 1001; refusing a configuration that is not owned by user 1000 or root"
        );
        assert_eq!(error.hint(), Some("chown 1000 config.toml"));
        // Root does not run what a user wrote.
        assert_eq!(check_owner(path, 1000, 0).unwrap_err().hint(), Some("chown 0 config.toml"));
        assert!(check_owner(path, 1000, 1000).is_ok() && check_owner(path, 0, 1000).is_ok());
    }
}
