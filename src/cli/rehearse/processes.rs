//! The processes of a rehearsal. None outlives it: it could write again what is removed.

use std::fs::File;
use std::io::{self, Read};
use std::process::{Child, ExitStatus, Stdio};
use std::thread;
use std::time::Duration;

use crate::cli::rehearse::environment::RehearsalEnvironment;
use crate::sys::process::{self, Termination};

/// The time limit of one process; the whole stays below a minute.
const PROCESS_TIMEOUT: Duration = Duration::from_secs(15);
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// Waits, unless a stop signal comes.
pub(super) fn pause(stage: &RehearsalEnvironment, time: Duration) -> Result<(), String> {
    for _ in 0..time.as_millis() / POLL_INTERVAL.as_millis() {
        if stage.is_stopped() {
            return Err("interrupted".into());
        }
        #[expect(clippy::disallowed_methods, reason = "the rehearsal shows what the daemon does as time passes")]
        thread::sleep(POLL_INTERVAL);
    }
    Ok(())
}

pub(super) struct FinishedProcess {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

/// Waits for a child process, for a bounded time; kills it after that.
pub(super) fn wait_for_output(stage: &RehearsalEnvironment, mut child: Child) -> io::Result<FinishedProcess> {
    let drain = |pipe: Option<Box<dyn Read + Send>>| {
        thread::Builder::new().spawn(move || {
            let mut text = String::new();
            // A broken pipe delivers nothing more.
            let _broken = pipe.map(|mut p| p.read_to_string(&mut text));
            text
        })
    };
    let stdout = drain(child.stdout.take().map(|p| Box::new(p) as _))?;
    let stderr = drain(child.stderr.take().map(|p| Box::new(p) as _))?;
    let status = wait(stage, &mut child)?;
    Ok(FinishedProcess { status, stdout: stdout.join().unwrap_or_default(), stderr: stderr.join().unwrap_or_default() })
}

pub(super) fn wait(stage: &RehearsalEnvironment, child: &mut Child) -> io::Result<ExitStatus> {
    for _ in 0..PROCESS_TIMEOUT.as_millis() / POLL_INTERVAL.as_millis() {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        if stage.is_stopped() {
            break;
        }
        #[expect(clippy::disallowed_methods, reason = "std has no wait for a child with an end")]
        thread::sleep(POLL_INTERVAL);
    }
    child.kill()?;
    child.wait()?;
    if stage.is_stopped() {
        return Err(io::Error::from(io::ErrorKind::Interrupted));
    }
    Err(io::Error::new(
        io::ErrorKind::TimedOut,
        format!("a process did not exit within {} s", PROCESS_TIMEOUT.as_secs()),
    ))
}

/// The daemon process, killed if the rehearsal ends early.
pub(super) struct Daemon(Option<Child>);

impl Daemon {
    pub(super) fn id(&self) -> u32 {
        self.0.as_ref().map_or(0, Child::id)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            let _gone = child.kill();
            let _gone = child.wait();
        }
    }
}

pub(super) fn start_daemon(stage: &RehearsalEnvironment) -> Result<Daemon, String> {
    let cannot_start = |e: io::Error| format!("cannot start the daemon: {e}");
    #[expect(clippy::disallowed_methods, reason = "it is removed with the rehearsal and need not be synced")]
    let errors = File::create(stage.daemon_errors()).map_err(cannot_start)?;
    let mut command = stage.command(&["--quiet", "daemon"]);
    command.stdout(Stdio::null()).stderr(errors);
    let mut daemon = Daemon(Some(command.spawn().map_err(cannot_start)?));
    for _ in 0..PROCESS_TIMEOUT.as_millis() / POLL_INTERVAL.as_millis() {
        if stage.socket().exists() {
            return Ok(daemon);
        }
        if stage.is_stopped() {
            return Err("interrupted".into());
        }
        if let Some(Ok(Some(status))) = daemon.0.as_mut().map(Child::try_wait) {
            return Err(with_daemon_errors(stage, &format!("the daemon exited at once with {status}")));
        }
        #[expect(clippy::disallowed_methods, reason = "no event tells that a process of another session listens")]
        thread::sleep(POLL_INTERVAL);
    }
    Err(with_daemon_errors(stage, "the daemon does not listen on its socket"))
}

/// Adds what the daemon wrote to stderr, if it wrote anything.
fn with_daemon_errors(stage: &RehearsalEnvironment, message: &str) -> String {
    let written = std::fs::read_to_string(stage.daemon_errors()).unwrap_or_default();
    match written.trim() {
        "" => message.into(),
        errors => format!("{message}: {}", errors.trim_start_matches("error: ")),
    }
}

pub(super) fn stop_daemon(stage: &RehearsalEnvironment, mut daemon: Daemon) -> Result<(), String> {
    let Some(mut child) = daemon.0.take() else {
        return Ok(());
    };
    process::terminate(child.id(), Termination::Graceful).map_err(|e| format!("cannot stop the daemon: {e}"))?;
    let status =
        wait(stage, &mut child).map_err(|e| with_daemon_errors(stage, &format!("the daemon does not stop: {e}")))?;
    if status.success() { Ok(()) } else { Err(with_daemon_errors(stage, &format!("the daemon exited with {status}"))) }
}

/// The processes of a round that are not waited for yet. None may outlive the rehearsal: it could write again what is removed.
pub(super) struct Callers(pub Vec<(bool, Child)>);

impl Drop for Callers {
    fn drop(&mut self) {
        for (_, child) in &mut self.0 {
            let _gone = child.kill();
            let _gone = child.wait();
        }
    }
}
