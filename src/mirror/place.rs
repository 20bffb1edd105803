//! Where a mirror is: its file after one link, and the names of its lock and its record.

use std::path::PathBuf;

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
            return Ok(Self { form: &mirror.form, name, path: PathBuf::new(), entry, file_key: key.clone(), key });
        }
        let path = mirror.path.clone().or_else(|| of_program(&mirror.form, dirs)).ok_or_else(|| {
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
        Ok(Self { form: &mirror.form, name: path.display().to_string(), path: real, entry, key, file_key })
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
