//! `keepalive doctor`: looks at everything a refresh depends on, and says what to do about each finding.

use std::path::Path;

use clap::Args;
use serde_json::json;

use super::Global;
use super::adoption::{self, Copy};
use super::compose::Setup;
use super::output::{BAD, DIM, GOOD, Output, Status, WARN};
use crate::outcome::{Failure, Outcome};
use crate::profile::ProfileName;
use crate::store::{Store, StoreError, Taken};
use crate::sys::lockfile::LockFile;
use crate::sys::{durable, machine};

/// Check configuration, store, locks and clocks, and say what to do about each finding
///
/// Asks the keyring, but never for a prompt, and spends no token. With --take-over this machine and this state directory
/// become the home of the credentials: do that only when the former home is out of use.
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// Make this machine and state directory the home of the credentials
    #[arg(long)]
    take_over: bool,
}

/// One thing looked at.
struct Finding {
    what: &'static str,
    level: Level,
    text: String,
    hint: Option<String>,
    status: Status,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Level {
    Good,
    Warning,
    Bad,
}

impl Finding {
    fn good(what: &'static str, text: impl Into<String>) -> Self {
        Self { what, level: Level::Good, text: text.into(), hint: None, status: Status::Ok }
    }

    fn warning(what: &'static str, text: impl Into<String>, hint: &str) -> Self {
        Self { what, level: Level::Warning, text: text.into(), hint: Some(hint.into()), status: Status::Ok }
    }

    fn bad(what: &'static str, failure: Failure, status: Status) -> Self {
        Self { what, level: Level::Bad, text: failure.message, hint: failure.hint, status }
    }

    fn of_store(what: &'static str, error: &StoreError) -> Self {
        let outcome = error.outcome();
        let status = Status::of_outcome(&outcome);
        let Outcome { error: failure, .. } = outcome;
        Self::bad(what, failure.unwrap_or_else(|| Failure::new("store", error.to_string())), status)
    }
}

pub fn run(args: &DoctorArgs, global: &Global, out: &Output) -> Status {
    let setup = match Setup::new(global) {
        Ok(setup) => setup,
        Err(failure) => return show(&[Finding::bad("configuration", failure, Status::Config)], out),
    };
    let mut findings = vec![configuration(&setup)];
    findings.extend(configuration_warnings(&setup));
    if args.take_over {
        findings.extend(take_over(&setup));
    }
    findings.push(directory(&setup.store));
    findings.push(filesystem(&setup.store));
    findings.push(lock(&setup.store));
    findings.extend(keyring(&setup.store));
    findings.push(key(&setup.store));
    findings.push(clock(&setup));
    findings.push(daemon(&setup));
    findings.extend(profiles(&setup));
    show(&findings, out)
}

fn configuration(setup: &Setup) -> Finding {
    let text = match &setup.config.path {
        Some(path) => format!("{}, {} profiles", path.display(), setup.config.profile_names().count()),
        None => format!("none at {}: the defaults hold", setup.places.config.display()),
    };
    Finding::good("configuration", text)
}

fn configuration_warnings(setup: &Setup) -> impl Iterator<Item = Finding> {
    let told = |w: &crate::config::error::Finding| {
        Finding::warning("configuration", w.to_string(), w.hint.as_deref().unwrap_or("see keepalive.toml(5)"))
    };
    setup.config.warnings.iter().map(told)
}

fn directory(store: &Store) -> Finding {
    let dir = store.layout().dir();
    if !dir.exists() {
        return Finding::good(
            "store directory",
            format!("{} will be made by the first login or import", dir.display()),
        );
    }
    if let Some(mode) = others_access(dir) {
        let failure =
            Failure::new("permissions", format!("{} has mode {mode:o}: others can look into it", dir.display()))
                .hint(format!("chmod 700 {}", dir.display()));
        return Finding::bad("store directory", failure, Status::StoreUnavailable);
    }
    let probe = dir.join("probe");
    match durable::replace(&probe, b"x").and_then(|()| durable::remove(&probe)) {
        Ok(()) => Finding::good("store directory", format!("{} is private and can be written", dir.display())),
        Err(e) => {
            let failure = Failure::new("io", format!("{} cannot be written: {e}", dir.display()))
                .hint("check its owner and the space left");
            Finding::bad("store directory", failure, Status::StoreUnavailable)
        }
    }
}

#[cfg(unix)]
fn others_access(dir: &Path) -> Option<u32> {
    use std::os::unix::fs::PermissionsExt;
    let mode = std::fs::metadata(dir).ok()?.permissions().mode() & 0o777;
    (mode & 0o077 != 0).then_some(mode)
}

#[cfg(not(unix))]
fn others_access(_dir: &Path) -> Option<u32> {
    None
}

/// The nearest directory that is there already.
fn existing(dir: &Path) -> &Path {
    dir.ancestors().find(|a| a.exists()).unwrap_or(dir)
}

fn filesystem(store: &Store) -> Finding {
    let dir = existing(store.layout().dir());
    match machine::filesystem(dir) {
        Err(e) => Finding::warning("filesystem", format!("cannot be examined: {e}"), "check the path of the store"),
        Ok(f) if f.is_network => match store.check_filesystem() {
            Err(e) => Finding::of_store("filesystem", &e),
            Ok(()) => Finding::warning(
                "filesystem",
                format!("{} is a network filesystem, as allowed", f.name),
                "no other machine may use this store",
            ),
        },
        Ok(f) => Finding::good("filesystem", format!("{} (local)", f.name)),
    }
}

/// Two descriptors of one process must exclude each other, or no two processes do.
fn lock(store: &Store) -> Finding {
    let dir = store.layout().dir();
    if !dir.exists() {
        return Finding::good("locks", "nothing to try yet");
    }
    let path = dir.join("doctor.lock");
    let tried = LockFile::acquire(&path).and_then(|held| Ok((LockFile::try_acquire(&path)?.is_none(), held)));
    match tried {
        Ok((true, _)) => Finding::good("locks", "flock excludes"),
        Ok((false, _)) => {
            let failure = Failure::new("lock", "flock does not exclude on this filesystem")
                .hint("set [store] path to a local filesystem");
            Finding::bad("locks", failure, Status::StoreUnavailable)
        }
        Err(e) => Finding::bad("locks", Failure::new("lock", format!("flock fails: {e}")), Status::StoreUnavailable),
    }
}

fn keyring(store: &Store) -> Option<Finding> {
    let (keyring, service) = store.keyring()?;
    Some(match keyring.check() {
        Ok(()) => Finding::good("keyring", format!("reachable and unlocked (service {service})")),
        Err(e) => Finding::of_store("keyring", &e.into()),
    })
}

fn key(store: &Store) -> Finding {
    match store.key("") {
        Ok(key) => Finding::good("sealing key", format!("{} ({} store)", key.id(), store.kind())),
        Err(StoreError::Empty) => Finding::good("sealing key", "will be made with the first credential"),
        Err(e) => Finding::of_store("sealing key", &e),
    }
}

/// 2026-01-01: this program is younger than that.
const NEWEST_PAST: i64 = 1_767_225_600;

fn clock(setup: &Setup) -> Finding {
    let now = setup.clock.now();
    if now.wall.as_millis() < NEWEST_PAST * 1000 {
        let failure =
            Failure::new("clock", format!("the clock says {}", now.wall)).hint("set it: timedatectl set-ntp true");
        return Finding::bad("clock", failure, Status::Failed);
    }
    if now.boot_id.is_empty() {
        return Finding::warning(
            "clock",
            "this system does not name its boots",
            "grace periods of providers are not used",
        );
    }
    Finding::good("clock", now.wall.to_string())
}

fn daemon(setup: &Setup) -> Finding {
    let path = setup.store.layout().daemon_lock();
    let is_running = path.exists() && matches!(LockFile::try_acquire(&path), Ok(None));
    if is_running {
        let pid = std::fs::read_to_string(&path).unwrap_or_default();
        return Finding::good("daemon", format!("runs (pid {}), socket {}", pid.trim(), setup.places.socket.display()));
    }
    Finding::warning(
        "daemon",
        "does not run",
        "keepalive daemon, or a timer that runs keepalive refresh --lookahead PERIOD",
    )
}

fn profiles(setup: &Setup) -> Vec<Finding> {
    let names = match setup.all_profiles() {
        Ok(names) => names,
        Err(e) => return vec![Finding::of_store("profiles", &e)],
    };
    names.iter().flat_map(|name| profile(setup, name).into_iter().chain(copy(setup, name))).collect()
}

/// Whether the tool that a credential came from still has it.
fn copy(setup: &Setup, name: &ProfileName) -> Option<Finding> {
    let (record, profile) = (setup.store.peek(name).ok().flatten()?, setup.profile(name).ok()?);
    Some(match adoption::copy(setup, &record, &profile)? {
        Copy::Gone(text) | Copy::Followed(text) => Finding::good("copy", text),
        Copy::Held(text, hint) | Copy::Unknown(text, hint) => Finding::warning("copy", text, &hint),
    })
}

fn profile(setup: &Setup, name: &ProfileName) -> Option<Finding> {
    if let Err(failure) = setup.profile(name) {
        return Some(Finding::bad("profile", failure, Status::Config));
    }
    match setup.store.peek(name) {
        Err(e) => Some(Finding::of_store("profile", &e)),
        Ok(record) => match setup.store.examine(name) {
            Ok(_) | Err(StoreError::Empty) if record.is_none() => Some(Finding::warning(
                "profile",
                format!("{name} has no credential"),
                "keepalive login, or keepalive import",
            )),
            Ok(warnings) if warnings.is_empty() => Some(Finding::good("profile", format!("{name} is at home here"))),
            Ok(warnings) => Some(Finding::warning("profile", format!("{name}: {}", warnings.join("; ")), "see above")),
            // Told once already, for the store as a whole.
            Err(StoreError::Keyring(_) | StoreError::KeyMissing { .. } | StoreError::Key(_)) => None,
            Err(e) => Some(Finding::of_store("profile", &e)),
        },
    }
}

fn take_over(setup: &Setup) -> Vec<Finding> {
    let names = match setup.all_profiles() {
        Ok(names) => names,
        Err(e) => return vec![Finding::of_store("take-over", &e)],
    };
    match setup.store.take_over(&names) {
        Err(e) => vec![Finding::of_store("take-over", &e)],
        Ok(taken) if taken.is_empty() => {
            vec![Finding::good("take-over", "this machine and directory are the home now")]
        }
        Ok(taken) => taken.iter().map(|(name, taken)| told(name, taken)).collect(),
    }
}

fn told(name: &ProfileName, taken: &Taken) -> Finding {
    match taken {
        Taken::AtHome => Finding::good("take-over", format!("{name} is at home here")),
        Taken::Adopted(g) => {
            Finding::good("take-over", format!("{name}: the keyring's copy was adopted as generation {g}"))
        }
        Taken::Republished(g) => {
            Finding::good("take-over", format!("{name}: the copy here was published as generation {g}"))
        }
        Taken::Unproven { claimed } => {
            let text = format!(
                "{name}: the keyring's copy (generation {claimed}) cannot be proved genuine, and was left alone"
            );
            let failure = Failure::new("unproven", text).hint(format!("sign in again: keepalive login {name}"));
            Finding::bad("take-over", failure, Status::Config)
        }
    }
}

fn show(findings: &[Finding], out: &Output) -> Status {
    if out.is_json {
        let level = |l: Level| match l {
            Level::Good => "good",
            Level::Warning => "warning",
            Level::Bad => "bad",
        };
        let rows: Vec<_> = findings
            .iter()
            .map(|f| json!({"what": f.what, "level": level(f.level), "message": f.text, "hint": f.hint}))
            .collect();
        out.json(&json!({ "findings": rows }));
    } else {
        for finding in findings {
            let (style, mark) = match finding.level {
                Level::Good => (GOOD, "good"),
                Level::Warning => (WARN, "warn"),
                Level::Bad => (BAD, "BAD"),
            };
            out.line(&format!("{style}{mark:>4}{style:#}  {}: {}", finding.what, finding.text));
            if let Some(hint) = &finding.hint {
                out.line(&format!("      {DIM}{hint}{DIM:#}"));
            }
        }
    }
    findings.iter().map(|f| f.status).max().unwrap_or(Status::Ok)
}
