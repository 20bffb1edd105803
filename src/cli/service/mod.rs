//! `keepalive service`: installs, removes and shows what refreshes while no person does: a daemon, a timer, or cron.

mod cron;
mod program;
mod systemd;

use clap::{Args, ValueEnum};
use serde_json::json;

use super::GlobalArgs;
use super::output::{CommandStatus, Output};
use super::refresher;
use super::refresher::Refresher;
use crate::access::setup::Setup;
use crate::cli::service::program::Program;
use crate::cli::service::systemd::{Manager, UnitState};
use crate::outcome::{ErrorKind, Failure};
use crate::sys::paths::Environment;

/// Install, remove or show the service that refreshes your profiles
///
/// By default the service is the daemon, as a unit of your systemd user manager; with --timer a run every ten minutes by a
/// timer of systemd, with --cron one by cron. The unit starts this program where it is now, and lingering is switched on, so
/// that it goes on after you log out. Files that keepalive did not write are never changed.
#[derive(Debug, Args)]
pub struct ServiceArgs {
    /// What to do
    #[arg(value_enum, value_name = "ACTION")]
    action: Action,
    /// A systemd timer instead of the daemon
    #[arg(long, conflicts_with = "cron")]
    timer: bool,
    /// A line of your crontab instead of the daemon
    #[arg(long)]
    cron: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Action {
    /// Install and start it
    Install,
    /// Show whether it runs
    Status,
    /// Stop and remove what `install` made
    Uninstall,
}

/// The three kinds of service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ServiceKind {
    Daemon,
    Timer,
    Cron,
}

impl ServiceKind {
    const ALL: [Self; 3] = [Self::Daemon, Self::Timer, Self::Cron];

    fn word(self) -> &'static str {
        match self {
            Self::Daemon => "daemon",
            Self::Timer => "timer",
            Self::Cron => "cron",
        }
    }
}

pub(super) fn failure(message: impl Into<String>) -> Failure {
    Failure::new(ErrorKind::Service, message)
}

type ServiceFailure = (CommandStatus, Failure);

fn failed(failure: Failure) -> ServiceFailure {
    (CommandStatus::Failed, failure)
}

pub(super) fn run(args: &ServiceArgs, global: &GlobalArgs, out: &Output) -> CommandStatus {
    let done = check_platform().map_err(failed).and_then(|()| {
        if args.action == Action::Uninstall {
            return uninstall(args.kind(), global, out).map_err(failed);
        }
        let setup = Setup::new(global.places()).map_err(|f| (CommandStatus::Config, f))?;
        match args.action {
            Action::Install => install(args.kind().unwrap_or(ServiceKind::Daemon), &setup, out).map_err(failed),
            Action::Uninstall | Action::Status => Ok(status(&setup, out)),
        }
    });
    done.unwrap_or_else(|(status, failure)| {
        out.fail(&failure);
        status
    })
}

impl ServiceArgs {
    fn kind(&self) -> Option<ServiceKind> {
        match (self.timer, self.cron) {
            (true, _) => Some(ServiceKind::Timer),
            (_, true) => Some(ServiceKind::Cron),
            (false, false) => None,
        }
    }
}

/// The one place that knows where services can be installed.
fn check_platform() -> Result<(), Failure> {
    if cfg!(target_os = "linux") {
        return Ok(());
    }
    let hint = "run `keepalive daemon` when you log in, or `keepalive refresh` every ten minutes";
    Err(failure("services of this system are not supported yet").with_hint(hint))
}

fn install(kind: ServiceKind, setup: &Setup, out: &Output) -> Result<CommandStatus, Failure> {
    let program = Program::find(&setup.environment)?;
    if let Some(place) = program.temporary_place() {
        out.warn(&format!("the service will run {place}, a build directory; `cargo install` makes a place that stays"));
    }
    if kind == ServiceKind::Cron {
        let is_new = cron::install(&program)?;
        out.info(match is_new {
            true => "added a line to your crontab: a run every ten minutes",
            false => "the line is in your crontab already; nothing to do",
        });
        if is_new {
            refresher::record_timer(setup, true);
        }
        report(kind, None, out);
        return Ok(CommandStatus::Ok);
    }
    let manager = Manager::connect(&setup.environment)?;
    if let (ServiceKind::Daemon, Refresher::Daemon { holder }) = (kind, Refresher::of(setup))
        && manager.state(ServiceKind::Daemon).active != "active"
    {
        return Err(failure(format!("a daemon that is no service is running already ({holder})")).with_hint(
            match holder.pid {
                Some(pid) => format!("stop it first: kill {pid}"),
                None => "stop it first".to_owned(),
            },
        ));
    }
    for path in manager.write_units(kind, &program)? {
        out.info(&format!("wrote {}", path.display()));
    }
    let unit = systemd::main_unit(kind);
    manager.start(kind)?;
    if kind == ServiceKind::Timer {
        refresher::record_timer(setup, true);
    }
    out.info(&format!("enabled and started {unit}"));
    let linger = manager.enable_linger();
    match &linger {
        Ok(()) => out.info("lingering is on: it starts with this machine, and goes on after you log out"),
        Err(why) => out.warn(&format!(
            "it ends when you log out, because lingering cannot be switched on ({why}); have root do it: `loginctl \
             enable-linger {}`",
            manager.user_name()
        )),
    }
    report(kind, Some(linger.is_ok()), out);
    Ok(CommandStatus::Ok)
}

fn report(kind: ServiceKind, linger: Option<bool>, out: &Output) {
    if out.is_json {
        out.json(&json!({ "installed": kind.word(), "linger": linger }));
    }
}

/// Needs no configuration: a broken one must not keep a service.
fn uninstall(wanted: Option<ServiceKind>, global: &GlobalArgs, out: &Output) -> Result<CommandStatus, Failure> {
    let environment = Environment::from_env(global.config.as_deref());
    let mut removed = Vec::new();
    for kind in ServiceKind::ALL.into_iter().filter(|kind| wanted.is_none_or(|wanted| wanted == *kind)) {
        let has_removed = match kind {
            ServiceKind::Cron => {
                let has_removed = cron::uninstall(wanted.is_some())?;
                if has_removed {
                    out.info("removed the line from your crontab");
                }
                has_removed
            }
            ServiceKind::Daemon | ServiceKind::Timer => {
                let done = systemd::uninstall(kind, &environment)?;
                let what = if done.troubles.is_empty() { "stopped, disabled and removed" } else { "removed" };
                for path in &done.files {
                    out.info(&format!("{what} {}", path.display()));
                }
                done.troubles.iter().for_each(|trouble| out.warn(trouble));
                !done.files.is_empty()
            }
        };
        removed.extend(has_removed.then(|| kind.word()));
    }
    if removed.is_empty() {
        out.info("nothing of ours is installed");
    }
    if removed.iter().any(|word| *word != ServiceKind::Cron.word()) {
        out.info("lingering is left as it is; your other services may need it");
    }
    if removed.iter().any(|word| *word != ServiceKind::Daemon.word()) {
        // Advice: a store that cannot be told has no note to remove.
        if let Ok(setup) = Setup::new(global.places()) {
            refresher::record_timer(&setup, false);
        }
    }
    if out.is_json {
        out.json(&json!({ "removed": removed }));
    }
    Ok(CommandStatus::Ok)
}

fn status(setup: &Setup, out: &Output) -> CommandStatus {
    let manager = Manager::connect(&setup.environment);
    let units = [ServiceKind::Daemon, ServiceKind::Timer].map(|kind| match &manager {
        Ok(manager) => (kind, manager.state(kind)),
        Err(_) => (kind, UnitState::without_manager(kind, &setup.environment)),
    });
    let has_cron = cron::is_installed();
    let linger = manager.as_ref().ok().map(Manager::has_linger);
    let refresher = Refresher::of(setup);
    let is_served =
        refresher != Refresher::Nobody || has_cron || units.iter().any(|(_, state)| state.active == "active");
    if out.is_json {
        let unit = |(kind, state): &(ServiceKind, UnitState)| {
            (
                systemd::main_unit(*kind).to_owned(),
                json!({"file": state.file, "enabled": state.enabled, "active": state.active}),
            )
        };
        out.json(&json!({
            "refreshed": is_served,
            "units": units.iter().map(unit).collect::<serde_json::Map<_, _>>(),
            "cron": has_cron,
            "linger": linger,
            "daemon_pid": match &refresher { Refresher::Daemon { holder } => holder.pid, Refresher::Runs { .. } | Refresher::Nobody => None },
        }));
    } else {
        print_status(&units, has_cron, linger, &refresher, out);
    }
    if let Err(why) = &manager {
        out.info(&why.message);
    }
    if is_served {
        return CommandStatus::Ok;
    }
    out.error(&failure("nothing refreshes your profiles").with_hint(refresher::REMEDY));
    CommandStatus::Failed
}

fn print_status(
    units: &[(ServiceKind, UnitState)],
    has_cron: bool,
    linger: Option<bool>,
    refresher: &Refresher,
    out: &Output,
) {
    for (kind, state) in units {
        out.line(&format!("{}: {}", systemd::main_unit(*kind), state.text()));
    }
    out.line(if has_cron { "crontab: a run every ten minutes" } else { "crontab: not installed" });
    match linger {
        Some(true) => out.line("lingering: on"),
        Some(false) => out.line("lingering: off; units end when you log out"),
        None => {}
    }
    match refresher {
        Refresher::Daemon { holder } => out.line(&format!("daemon: running ({holder})")),
        Refresher::Runs { last: Some(last) } => out.line(&format!("last unattended run: {}", last.to_the_second())),
        Refresher::Runs { last: None } => out.line("last unattended run: none yet; the first comes within ten minutes"),
        Refresher::Nobody => {}
    }
}
