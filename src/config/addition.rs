//! Adds sections to a configuration file, and changes nothing that is there; and removes a mirror again.

use std::fs::OpenOptions;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::error::{ConfigError, ValueError};
use super::file::{self, ConfigFile};
use super::removal;
use super::values;
use crate::config::Config;
use crate::sys::durable;
use crate::sys::lockfile::{LockError, LockFile, LockWait};

/// How long another process that adds to the same file is waited for: it reads and writes one file.
const LOCK_WAIT: Duration = Duration::from_secs(10);

/// Sections to add, and the file that they are for.
#[derive(Clone, Debug)]
pub struct Addition {
    path: PathBuf,
    home: Option<PathBuf>,
    sections: String,
    /// The profile and the number of a mirror to remove.
    removed: Option<(String, usize)>,
}

impl Addition {
    pub fn new(path: &Path, home: Option<&Path>) -> Self {
        Self { path: path.into(), home: home.map(Path::to_owned), sections: String::new(), removed: None }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The sections, as they will stand in the file.
    pub fn text(&self) -> &str {
        &self.sections
    }

    pub fn is_empty(&self) -> bool {
        self.sections.is_empty()
    }

    /// `[store]` with the keyring.
    pub fn add_keyring_store(&mut self) {
        self.add("[store]", &[("kind", quoted("keyring"))]);
    }

    /// `[store]` with sealed files and the file of their key.
    pub fn add_file_store(&mut self, key: &Path) {
        let key = format!("{{ file = {} }}", quoted(&key.display().to_string()));
        self.add("[store]", &[("kind", quoted("file")), ("key", key)]);
    }

    /// `[provider.NAME]`; what is `None` or empty is left out.
    pub fn add_provider(&mut self, name: &str, issuer: Option<&str>, client_id: &str, scopes: &[String]) {
        let mut keys = Vec::new();
        keys.extend(issuer.map(|issuer| ("issuer", quoted(issuer))));
        keys.push(("client_id", quoted(client_id)));
        keys.extend(scopes_key(scopes));
        self.add(&format!("[provider.{}]", section_key(name)), &keys);
    }

    /// `[profile.NAME]` with its provider; without `scopes`, its logins request those of the provider.
    pub fn add_profile(&mut self, name: &str, provider: &str, scopes: &[String]) {
        let mut keys = vec![("provider", quoted(provider))];
        keys.extend(scopes_key(scopes));
        self.add(&format!("[profile.{}]", section_key(name)), &keys);
    }

    /// `[[profile.NAME.mirror]]` of this kind.
    pub fn add_mirror(&mut self, name: &str, kind: &str, path: Option<&Path>, entry: Option<&str>) {
        let mut keys = vec![("kind", quoted(kind))];
        keys.extend(path.map(|path| ("path", quoted(&path.display().to_string()))));
        keys.extend(entry.map(|entry| ("entry", quoted(entry))));
        self.add(&format!("[[profile.{}.mirror]]", section_key(name)), &keys);
    }

    /// Removes a mirror of a profile, by its number there.
    pub fn remove_mirror(&mut self, name: &str, index: usize) {
        self.removed = Some((name.to_owned(), index));
    }

    fn add(&mut self, header: &str, keys: &[(&str, String)]) {
        if !self.sections.is_empty() {
            self.sections.push('\n');
        }
        self.sections.push_str(&format!("{header}\n"));
        for (key, value) in keys {
            self.sections.push_str(&format!("{key} = {value}\n"));
        }
    }

    /// The configuration with the sections added. Nothing is written.
    ///
    /// # Errors
    /// If the file or the sections have mistakes.
    pub fn preview(&self) -> Result<Config, ConfigError> {
        let there = file::read(&self.path)?.unwrap_or_default();
        self.parse_with(there).map(|(config, _)| config)
    }

    fn parse_with(&self, there: ConfigFile) -> Result<(Config, String), ConfigError> {
        let text = match &self.removed {
            Some((name, index)) => {
                removal::without_mirror(&there.text, name, *index).ok_or_else(|| self.not_removable(name))?
            }
            None => self.applied_to(&there.text),
        };
        let config = Config::parse_file(&text, &self.path, self.home.as_deref(), there.mistakes)?;
        Ok((config, text))
    }

    fn not_removable(&self, name: &str) -> ConfigError {
        let hint =
            format!("remove the mirror yourself; it is not in a section [[profile.{}.mirror]]", section_key(name));
        ConfigError::for_file(&self.path, "has the mirror in a form that cannot be removed", hint)
    }

    fn applied_to(&self, there: &str) -> String {
        match there.trim_end() {
            "" if there.is_empty() => self.sections.clone(),
            _ if there.ends_with('\n') => format!("{there}\n{}", self.sections),
            _ => format!("{there}\n\n{}", self.sections),
        }
    }

    /// Whether the sections can be written, found out before a person does anything for it.
    pub fn check_writable(&self) -> Result<(), ConfigError> {
        self.target().map(drop)
    }

    /// Adds the sections to the file, which is created (0600, in a directory 0700) if there is none. `lock` keeps other
    /// processes from adding at the same time.
    ///
    /// # Errors
    /// If the file was changed so that the sections do not fit any more, or cannot be written.
    pub fn write(&self, lock: &Path) -> Result<(), ConfigError> {
        let cannot = |e: io::Error| self.unwritable_error(&format!("cannot be written: {e}"));
        if let Some(dir) = lock.parent() {
            durable::create_dir(dir).map_err(cannot)?;
        }
        let _held = LockFile::acquire_within(lock, LockWait::at_most(LOCK_WAIT)).map_err(|e| match e {
            LockError::Io(e) => cannot(e),
            LockError::Held(holder) => ConfigError::busy(&self.path, format!("is being changed by {holder}")),
        })?;
        let target = self.target()?;
        let (_, text) = self.parse_with(file::read(&self.path)?.unwrap_or_default())?;
        let dir = target.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
        durable::create_dir(dir).map_err(cannot)?;
        let mode = std::fs::metadata(&target).ok().map(|about| about.permissions());
        durable::replace(&target, text.as_bytes()).map_err(cannot)?;
        match mode {
            // The user has chosen it.
            Some(mode) => std::fs::set_permissions(&target, mode).map_err(cannot),
            None => Ok(()),
        }
    }

    /// The file itself, behind symbolic links, if it may be replaced.
    fn target(&self) -> Result<PathBuf, ConfigError> {
        if std::fs::symlink_metadata(&self.path).is_err() {
            return Ok(self.path.clone());
        }
        let target = std::fs::canonicalize(&self.path)
            .map_err(|e| self.unwritable_error(&format!("is a link that leads nowhere: {e}")))?;
        if !target.is_file() {
            return Err(self.unwritable_error("is not a regular file"));
        }
        let opened = OpenOptions::new().append(true).open(&target);
        opened.map_err(|e| self.unwritable_error(&format!("cannot be written: {e}"))).map(|_| target)
    }

    fn unwritable_error(&self, why: &str) -> ConfigError {
        let lines = self.sections.trim_end();
        ConfigError::for_file(&self.path, why, format!("add these lines yourself:\n{lines}"))
    }
}

/// An issuer as a person types it; the same text comes back. `Err`: what is wrong with it.
pub fn parse_issuer(text: &str) -> Result<String, String> {
    values::issuer(text).map(|_| text.to_owned()).map_err(ValueError::into_text)
}

/// A client identifier as a person types it.
pub fn parse_client_id(text: &str) -> Result<String, String> {
    values::client_id(text).map_err(ValueError::into_text)
}

/// One scope as a person types it.
pub fn parse_scope(text: &str) -> Result<String, String> {
    if text.contains(' ') {
        return Err("has several scopes; write --scope for each".into());
    }
    values::scope(text).map_err(ValueError::into_text)
}

fn scopes_key(scopes: &[String]) -> Option<(&'static str, String)> {
    let list: Vec<_> = scopes.iter().map(|scope| quoted(scope)).collect();
    (!list.is_empty()).then(|| ("scopes", format!("[{}]", list.join(", "))))
}

/// A TOML string.
fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

/// A name in the header of a section.
fn section_key(name: &str) -> String {
    let is_bare = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_');
    if is_bare { name.to_owned() } else { quoted(name) }
}

#[cfg(unix)]
#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    struct Place(tempfile::TempDir);

    impl Place {
        fn path(&self) -> PathBuf {
            self.0.path().join("new/keepalive/config.toml")
        }

        fn with(text: &str) -> Self {
            let place = Self(tempfile::tempdir().unwrap());
            durable::create_dir(place.path().parent().unwrap()).unwrap();
            durable::replace(&place.path(), text.as_bytes()).unwrap();
            place
        }

        fn addition(&self) -> Addition {
            let mut addition = Addition::new(&self.path(), None);
            addition.add_provider("acme", Some("https://a.example/"), "me", &["openid".into()]);
            addition.add_profile("work:1", "acme", &["api".into()]);
            addition
        }

        fn write(&self) -> Result<(), ConfigError> {
            self.addition().write(&self.0.path().join("state/lock"))
        }

        fn text(&self) -> String {
            std::fs::read_to_string(self.path()).unwrap()
        }
    }

    const ADDED: &str = "[provider.acme]\nissuer = \"https://a.example/\"\nclient_id = \"me\"\nscopes = [\"openid\"]\n\n\
                         [profile.\"work:1\"]\nprovider = \"acme\"\nscopes = [\"api\"]\n";

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn new_configuration_is_private_and_valid() {
        let place = Place(tempfile::tempdir().unwrap());
        place.write().unwrap();
        assert_eq!(place.text(), ADDED);
        assert_eq!((mode(&place.path()), mode(place.path().parent().unwrap())), (0o600, 0o700));
        let config = Config::load(&place.path(), true, None).unwrap();
        let provider = config.profile(&"work:1".parse().unwrap(), None).unwrap().provider;
        assert_eq!((provider.client_id.as_str(), &provider.scopes[..]), ("me", &["api".to_owned()][..]));
        assert_eq!(config.providers["acme"].scopes, ["openid"]);
    }

    #[test]
    fn sections_are_added_behind_what_is_there() {
        for there in ["margin = \"10%\" # mine", "# only a comment\n\n", "[store]\nkind = \"keyring\"\r\n"] {
            let place = Place::with(there);
            std::fs::set_permissions(place.path(), PermissionsExt::from_mode(0o644)).unwrap();
            place.write().unwrap();
            let text = place.text();
            assert!(text.starts_with(there) && text.ends_with(&format!("\n\n{ADDED}")), "{text}");
            assert_eq!(mode(&place.path()), 0o644);
        }
    }

    #[test]
    fn linked_configuration_stays_a_link() {
        let place = Place::with("");
        let real = place.0.path().join("dotfiles.toml");
        std::fs::remove_file(place.path()).unwrap();
        symlink(&real, place.path()).unwrap();
        let error = place.write().unwrap_err();
        assert!(error.to_string().contains("a link that leads nowhere"), "{error}");
        durable::replace(&real, b"# mine\n").unwrap();
        place.write().unwrap();
        assert!(std::fs::symlink_metadata(place.path()).unwrap().is_symlink());
        assert!(std::fs::read_to_string(&real).unwrap().starts_with("# mine\n\n[provider.acme]"));
    }

    #[test]
    fn configuration_that_sections_do_not_fit_is_untouched() {
        for there in
            ["provider = { acme = { issuer = \"https://b.example\", client_id = \"b\" } }\n", "[provider.acme]\n"]
        {
            let place = Place::with(there);
            assert!(place.addition().preview().is_err());
            assert!(place.write().is_err());
            assert_eq!(place.text(), there);
        }
    }
}
