//! Units of the systemd user manager. Their text is that of contrib/systemd.

use std::io;
use std::path::PathBuf;
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

fn owner(path: &std::path::Path) -> FileOwner {
    match std::fs::read_to_string(path) {
        Ok(text) if text.starts_with(MARK) => FileOwner::Ours,
        Err(e) if e.kind() == io::ErrorKind::NotFound && path.symlink_metadata().is_err() => FileOwner::Absent,
        // A link to nowhere, or to /dev/null, is how units are masked.
        Ok(_) | Err(_) => FileOwner::Foreign,
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
        let file = match owner(&places.unit_dir.join(main_unit(kind))) {
            FileOwner::Absent => "absent",
            FileOwner::Ours => "ours",
            FileOwner::Foreign => "foreign",
        };
        let unknown = || "unknown".to_owned();
        Self { file, enabled: unknown(), active: unknown(), pid: "0".into() }
    }

    pub(super) fn text(&self) -> String {
        let file = match self.file {
            "absent" if self.active != "active" => return "not installed".into(),
            "foreign" => " (not written by keepalive)",
            _ => "",
        };
        let pid = if self.pid.is_empty() || self.pid == "0" { String::new() } else { format!(", pid {}", self.pid) };
        format!("{}{pid}, {}{file}", self.active, self.enabled)
    }
}

/// The user manager of systemd.
pub(super) struct Manager<'a> {
    places: &'a Environment,
}

impl<'a> Manager<'a> {
    pub(super) fn connect(places: &'a Environment) -> Result<Self, Failure> {
        let manager = Self { places };
        let hint = "over su or sudo, log in as that user instead; with cron: `keepalive service install --cron`; with neither, as \
                    in a container, run `keepalive daemon` beside your programs";
        let why = match manager.systemctl(&["show", "--property=Version"]) {
            Ok(run) if run.is_success => return Ok(manager),
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
        let dir = &self.places.unit_dir;
        if let Some((name, _)) = units(kind).iter().find(|(name, _)| owner(&dir.join(name)) == FileOwner::Foreign) {
            let path = dir.join(name);
            let message = format!("{} was not written by keepalive, and is not changed", path.display());
            return Err(failure(message)
                .with_hint(format!("to have it replaced, move it away: mv {0} {0}.old", path.display())));
        }
        let cannot = |path: &std::path::Path, e| failure(format!("cannot write {}: {e}", path.display()));
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
            ..UnitState::without_manager(kind, self.places)
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

/// Stops, disables and removes the units of this kind that are ours.
pub(super) fn uninstall(kind: ServiceKind, places: &Environment) -> Result<Vec<PathBuf>, Failure> {
    let paths: Vec<_> = units(kind).iter().map(|(name, _)| places.unit_dir.join(name)).collect();
    let ours: Vec<_> = paths.into_iter().filter(|path| owner(path) == FileOwner::Ours).collect();
    if ours.is_empty() {
        return Ok(ours);
    }
    let manager = Manager::connect(places)?;
    manager.systemctl_ok(&["disable", "--now", main_unit(kind)])?;
    for path in &ours {
        durable::remove(path).map_err(|e| failure(format!("cannot remove {}: {e}", path.display())))?;
    }
    manager.systemctl_ok(&["daemon-reload"])?;
    Ok(ours)
}
