//! Where a mirror is: its file after one link, and the names of its lock and its record.

use std::path::PathBuf;

use crate::credential::external::shell_quoted;
use crate::import_sources;
use crate::import_sources::tools::Tool;
use crate::mirror::target;
use crate::mirror::values::mark;
use crate::outcome::{ErrorKind, Failure};
use crate::profile::Profile;
use crate::profile::consumers::{Consumer, Delivery};
use crate::profile::mirror::{Mirror, MirrorForm};
use crate::sys::paths::ToolDirs;

/// The place of one mirror.
#[derive(Debug)]
pub(super) struct Place<'a> {
    pub(super) form: &'a MirrorForm,
    /// For a person.
    pub(super) name: String,
    /// Of a program: nothing.
    pub(super) path: PathBuf,
    /// It is where the program has its file by itself.
    is_usual: bool,
    /// The sign-in in the store of a program.
    pub(super) entry: String,
    /// Tells this mirror from every other: of one file, several members can be mirrors.
    pub(super) key: String,
    /// Tells the file from every other.
    pub(super) file_key: String,
}

impl<'a> Place<'a> {
    pub(super) fn of(profile: &Profile, mirror: &'a Mirror, dirs: &ToolDirs) -> Result<Self, Failure> {
        let entry = match &mirror.form {
            MirrorForm::Consumer { consumer, entry } => {
                entry.clone().unwrap_or_else(|| consumer.entry_of(&profile.provider.name))
            }
            _ => String::new(),
        };
        if let MirrorForm::Consumer { consumer: Consumer { name, delivery: Delivery::Command { .. }, .. }, .. } =
            &mirror.form
        {
            let name = format!("{name} {entry}");
            let key = mark(name.as_bytes());
            let (path, file_key) = (PathBuf::new(), key.clone());
            return Ok(Self { form: &mirror.form, name, path, is_usual: true, entry, file_key, key });
        }
        let usual = of_program(&mirror.form, dirs);
        let path = mirror.path.clone().or_else(|| usual.clone()).ok_or_else(|| {
            Failure::new(ErrorKind::Mirror, format!("where {} has its file is not known", mirror.form.name()))
                .with_hint(format!("write path = \"...\" in [[profile.{}.mirror]]", profile.name))
        })?;
        let real = target::locate(&path)?;
        let file_key = mark(real.as_os_str().as_encoded_bytes());
        let members = match &mirror.form {
            MirrorForm::Json { set: pairs } | MirrorForm::Directory { files: pairs } => {
                pairs.iter().map(|(name, value)| format!("{name}={}", value.name())).collect::<Vec<_>>().join(" ")
            }
            _ => entry.clone(),
        };
        let key = mark(format!("{file_key} {} {members}", mirror.form.name()).as_bytes());
        let is_usual = usual.is_some_and(|usual| usual == path);
        Ok(Self { form: &mirror.form, name: path.display().to_string(), path: real, is_usual, entry, key, file_key })
    }
}

impl Place<'_> {
    /// Whether a program takes the token, and there is no file.
    pub(super) fn is_of_program(&self) -> bool {
        self.path.as_os_str().is_empty()
    }

    /// The command that feeds this place.
    pub(super) fn feed_command(&self, profile: &str) -> Option<String> {
        let MirrorForm::Consumer { consumer, .. } = self.form else { return None };
        let path = Some(&self.name).filter(|_| !self.is_usual);
        let path = path.map_or(String::new(), |path| format!(" --path {}", shell_quoted(path)));
        let entry = self.configured_entry().map_or(String::new(), |entry| format!(" --entry {}", shell_quoted(entry)));
        Some(format!("keepalive feed {} {profile}{path}{entry}", consumer.name))
    }

    /// The name of the sign-in, if the configuration has one.
    pub(super) fn configured_entry(&self) -> Option<&str> {
        match self.form {
            MirrorForm::Consumer { entry, .. } => entry.as_deref(),
            _ => None,
        }
    }
}

fn of_program(form: &MirrorForm, dirs: &ToolDirs) -> Option<PathBuf> {
    let MirrorForm::Consumer { consumer, .. } = form else { return None };
    usual_path(consumer, dirs)
}

/// Where a program has its file. `None`: that is not known, or it has several.
pub(super) fn usual_path(consumer: &Consumer, dirs: &ToolDirs) -> Option<PathBuf> {
    let tool = consumer.tool.filter(|_| consumer.has_one_file).and_then(Tool::from_name)?;
    import_sources::default_path(tool, dirs)
}
