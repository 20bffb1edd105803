//! Units of the systemd user manager. Their text is that of contrib/systemd.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::cli::service::program::{MARK, Program};
use crate::cli::service::{ServiceKind, failure};
use crate::outcome::Failure;
use crate::sys::durable;
use crate::sys::paths::Environment;
use crate::sys::tool_process::{self, ToolOutput};

const DAEMON: (&str, &str) = ("keepalive.service", include_str!("../../../contrib/systemd/keepalive.service"));
const REFRESH: (&str, &str) =
    ("keepalive-refresh.service", include_str!("../../../contrib/systemd/keepalive-refresh.service"));
const TIMER: (&str, &str) =
    ("keepalive-refresh.timer", include_str!("../../../contrib/systemd/keepalive-refresh.timer"));

/// A daemon may finish refreshes for 45 s before it is started again.
const SYSTEMCTL_TIMEOUT: Duration = Duration::from_secs(90);

/// The units of a kind; the first is the one that is enabled.
fn units(kind: ServiceKind) -> &'static [(&'static str, &'static str)] {
    match kind {
        ServiceKind::Daemon => &[DAEMON],
        ServiceKind::Timer => &[TIMER, REFRESH],
        ServiceKind::Cron => &[],
    }
}

pub(super) fn main_unit(kind: ServiceKind) -> &'static str {
    units(kind).first().map_or("", |(name, _)| name)
}

/// Whose a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FileOwner {
    Absent,
    Ours,
    Foreign,
}

fn owner(path: &Path) -> FileOwner {
    match std::fs::read_to_string(path) {
        Ok(text) if text.starts_with(MARK) => FileOwner::Ours,
        Err(e) if e.kind() == io::ErrorKind::NotFound && path.symlink_metadata().is_err() => FileOwner::Absent,
        // A link to nowhere, or to /dev/null, is how units are masked.
        Ok(_) | Err(_) => FileOwner::Foreign,
    }
}

fn file_word(path: &Path) -> &'static str {
    match owner(path) {
        FileOwner::Absent => "absent",
        FileOwner::Ours => "ours",
        FileOwner::Foreign => "foreign",
    }
}

/// What is known of a unit.
pub(super) struct UnitState {
    /// `absent`, `ours` or `foreign`.
    pub file: &'static str,
    /// As `systemctl is-enabled` says.
    pub enabled: String,
    /// As `systemctl is-active` says.
    pub active: String,
    pid: String,
}

impl UnitState {
    pub(super) fn without_manager(kind: ServiceKind, places: &Environment) -> Self {
        let file = file_word(&places.unit_dir.join(main_unit(kind)));
        let unknown = || "unknown".to_owned();
        Self { file, enabled: unknown(), active: unknown(), pid: "0".into() }
    }

    pub(super) fn text(&self) -> String {
        let file = match self.file {
            "absent" if !["active", "activating", "failed"].contains(&self.active.as_str()) => {
                return "not installed".into();
            }
            "foreign" => " (not written by keepalive)",
            _ => "",
        };
        let active = if self.active.is_empty() { "not known to the manager" } else { &self.active };
        let enabled = if self.enabled.is_empty() { "not enabled" } else { &self.enabled };
        let pid = if self.pid.is_empty() || self.pid == "0" { String::new() } else { format!(", pid {}", self.pid) };
        format!("{active}{pid}, {enabled}{file}")
    }
}

/// The user manager of systemd.
pub(super) struct Manager<'a> {
    places: &'a Environment,
    /// Where it reads the units of this user. Its `XDG_CONFIG_HOME` may be another than that of this run.
    unit_dir: PathBuf,
}

impl<'a> Manager<'a> {
    pub(super) fn connect(places: &'a Environment) -> Result<Self, Failure> {
        let mut manager = Self { places, unit_dir: places.unit_dir.clone() };
        let hint = "over su or sudo, log in as that user instead; with cron: `keepalive service install --cron`; with neither, as \
                    in a container, run `keepalive daemon` beside your programs";
        let why = match manager.systemctl(&["show", "--property=Version", "--property=UnitPath"]) {
            Ok(run) if run.is_success => {
                if let Some(dir) = unit_dir_of_manager(&run.stdout, &places.unit_dir) {
                    manager.unit_dir = dir;
                }
                return Ok(manager);
            }
            Ok(run) => run.stderr.lines().next().unwrap_or("no reason given").to_owned(),
            Err(e) if e.kind() == io::ErrorKind::NotFound => "systemctl is not installed".into(),
            Err(e) => e.to_string(),
        };
        Err(failure(format!("there is no systemd user manager here: {why}")).with_hint(hint))
    }

    fn systemctl(&self, arguments: &[&str]) -> io::Result<ToolOutput> {
        self.tool(&[&["systemctl", "--user", "--no-pager", "--no-ask-password"], arguments].concat())
    }

    fn tool(&self, argv: &[&str]) -> io::Result<ToolOutput> {
        let runtime = self.places.runtime_dir.as_deref();
        tool_process::run_tool(argv, "", runtime.map(|dir| ("XDG_RUNTIME_DIR", dir)), SYSTEMCTL_TIMEOUT)
    }

    fn systemctl_ok(&self, arguments: &[&str]) -> Result<(), Failure> {
        let what = format!("systemctl --user {}", arguments.join(" "));
        match self.systemctl(arguments) {
            Ok(run) if run.is_success => Ok(()),
            Ok(run) => Err(failure(format!("`{what}` failed: {}", run.stderr.trim()))),
            Err(e) => Err(failure(format!("`{what}` failed: {e}"))),
        }
    }

    /// Writes the units of this kind that are not there or are ours, and gives back which it wrote. A file of someone else
    /// stops it before anything is written.
    pub(super) fn write_units(&self, kind: ServiceKind, program: &Program) -> Result<Vec<PathBuf>, Failure> {
        let dir = &self.unit_dir;
        if let Some((name, _)) = units(kind).iter().find(|(name, _)| owner(&dir.join(name)) == FileOwner::Foreign) {
            let path = dir.join(name);
            let message = format!("{} was not written by keepalive, and is not changed", path.display());
            return Err(failure(message)
                .with_hint(format!("to have it replaced, move it away: mv {0} {0}.old", path.display())));
        }
        let cannot = |path: &Path, e| failure(format!("cannot write {}: {e}", path.display()));
        durable::create_dir(dir).map_err(|e| cannot(dir, e))?;
        let mut written = Vec::new();
        for (name, template) in units(kind) {
            let (path, text) = (dir.join(name), program.unit(template));
            if std::fs::read_to_string(&path).is_ok_and(|there| there == text) {
                continue;
            }
            durable::replace(&path, text.as_bytes()).map_err(|e| cannot(&path, e))?;
            written.push(path);
        }
        Ok(written)
    }

    /// Enables and starts what was written; what runs already is started anew, for its file may have changed.
    pub(super) fn start(&self, kind: ServiceKind) -> Result<(), Failure> {
        let unit = main_unit(kind);
        self.systemctl_ok(&["daemon-reload"])?;
        self.systemctl_ok(&["enable", unit])?;
        self.systemctl_ok(&["restart", unit]).map_err(|f| f.with_hint(format!("journalctl --user -u {unit} says why")))
    }

    pub(super) fn state(&self, kind: ServiceKind) -> UnitState {
        let unit = main_unit(kind);
        let ask =
            |arguments: &[&str]| self.systemctl(arguments).map_or(String::new(), |run| run.stdout.trim().to_owned());
        UnitState {
            enabled: ask(&["is-enabled", unit]),
            active: ask(&["is-active", unit]),
            pid: ask(&["show", "--value", "--property=MainPID", unit]),
            file: file_word(&self.unit_dir.join(unit)),
        }
    }

    /// Lets the units of this user run without a login. `Err`: why not.
    pub(super) fn enable_linger(&self) -> Result<(), String> {
        if self.has_linger() {
            return Ok(());
        }
        match self.tool(&["loginctl", "--no-ask-password", "enable-linger"]) {
            Ok(run) if run.is_success => Ok(()),
            Ok(run) => Err(run.stderr.lines().next().unwrap_or("refused").to_owned()),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Err("loginctl is not installed".into()),
            Err(e) => Err(e.to_string()),
        }
    }

    pub(super) fn has_linger(&self) -> bool {
        let asked = self.tool(&["loginctl", "show-user", "--value", "--property=Linger", &self.user_name()]);
        asked.is_ok_and(|run| run.is_success && run.stdout.trim() == "yes")
    }

    pub(super) fn user_name(&self) -> String {
        let name = self.tool(&["id", "-un"]).map_or(String::new(), |run| run.stdout.trim().to_owned());
        if name.is_empty() { "USER".into() } else { name }
    }
}

/// The directory where a manager reads the units of its user, by its `UnitPath`: `ours`, if that is among them.
fn unit_dir_of_manager(shown: &str, ours: &Path) -> Option<PathBuf> {
    let paths = shown.lines().find_map(|line| line.strip_prefix("UnitPath="))?;
    let paths: Vec<&Path> = paths.split_whitespace().map(Path::new).collect();
    if paths.contains(&ours) {
        return Some(ours.to_owned());
    }
    // `$XDG_CONFIG_HOME/systemd/user` comes before those of all users (systemd.unit(5)).
    let is_shared = |path: &Path| ["/etc", "/run", "/usr", "/lib"].iter().any(|root| path.starts_with(root));
    paths.into_iter().find(|path| path.ends_with("systemd/user") && !is_shared(path)).map(Path::to_owned)
}

/// What an uninstall did.
#[derive(Default)]
pub(super) struct Uninstalled {
    pub files: Vec<PathBuf>,
    /// What could not be done beside that.
    pub troubles: Vec<String>,
}

/// Stops, disables and removes the units of this kind that are ours, wherever they were installed. A manager that cannot be
/// had, or does not know the unit, keeps no file.
pub(super) fn uninstall(kind: ServiceKind, places: &Environment) -> Result<Uninstalled, Failure> {
    let manager = Manager::connect(places);
    let mut done = Uninstalled::default();
    let dirs = unit_dirs(manager.as_ref().ok(), places);
    let files = |dir: &PathBuf| units(kind).iter().map(|(name, _)| dir.join(name)).collect::<Vec<_>>();
    let ours: Vec<_> = dirs.iter().flat_map(files).filter(|path| owner(path) == FileOwner::Ours).collect();
    if ours.is_empty() {
        return Ok(done);
    }
    let unit = main_unit(kind);
    match &manager {
        Ok(manager) => {
            if let Err(failure) = manager.systemctl_ok(&["disable", "--now", unit]) {
                done.troubles.push(failure.message);
                // One that runs from a file that the manager no longer finds.
                let _stopped = manager.systemctl(&["stop", unit]);
            }
        }
        Err(failure) => done.troubles.push(format!("{unit} was not stopped: {}", failure.message)),
    }
    for path in ours {
        durable::remove(&path).map_err(|e| failure(format!("cannot remove {}: {e}", path.display())))?;
        remove_links(&path);
        done.files.push(path);
    }
    if let Ok(manager) = &manager {
        done.troubles.extend(manager.systemctl_ok(&["daemon-reload"]).err().map(|failure| failure.message));
        if manager.state(kind).active == "active" && done.troubles.iter().any(|trouble| trouble.contains("disable")) {
            done.troubles.push(format!("{unit} still runs; stop it: systemctl --user stop {unit}"));
        }
    }
    Ok(done)
}

/// Every directory where an install may have written: that of the manager, that of this run, and that of a run without
/// `XDG_CONFIG_HOME`.
fn unit_dirs(manager: Option<&Manager<'_>>, places: &Environment) -> Vec<PathBuf> {
    let usual = places.home.as_ref().map(|home| home.join(".config/systemd/user"));
    let all = [manager.map(|manager| manager.unit_dir.clone()), Some(places.unit_dir.clone()), usual];
    let mut dirs: Vec<PathBuf> = Vec::new();
    for dir in all.into_iter().flatten() {
        if !dirs.contains(&dir) {
            dirs.push(dir);
        }
    }
    dirs
}

/// Removes the links by which a removed unit was enabled, if no manager did. They are advice: they lead nowhere.
fn remove_links(unit: &Path) {
    let (Some(dir), Some(name)) = (unit.parent(), unit.file_name()) else { return };
    for wants in std::fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path()) {
        let link = wants.join(name);
        let is_ours = wants.extension().is_some_and(|kind| kind == "wants")
            && std::fs::read_link(&link).is_ok_and(|to| to == unit || to == Path::new("..").join(name));
        if is_ours {
            let _left = durable::remove(&link);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_go_where_the_manager_reads_them() {
        let shown = "Version=252\nUnitPath=/home/a/.config/systemd/user.control /run/user/7/systemd/user /home/a/.config/systemd/user \
                     /etc/systemd/user /usr/lib/systemd/user\n";
        let found = |ours: &str| unit_dir_of_manager(shown, Path::new(ours)).unwrap();
        assert_eq!(found("/home/a/.config/systemd/user"), Path::new("/home/a/.config/systemd/user"));
        assert_eq!(found("/home/a/c/systemd/user"), Path::new("/home/a/.config/systemd/user"));
        assert_eq!(unit_dir_of_manager("", Path::new("/x")), None);
        assert_eq!(unit_dir_of_manager("UnitPath=/etc/systemd/user\n", Path::new("/x")), None);
    }
}
