//! This process and its children: no core dumps, private files, and commands with a time limit.

use std::io::{self, Read, Write};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, mpsc};
use std::time::Duration;

use zeroize::Zeroizing;

use super::{paths, threads};

/// What [`harden`] changed, as it was before.
#[cfg(unix)]
struct Softness {
    umask: rustix::fs::Mode,
    #[cfg(target_os = "linux")]
    core: rustix::process::Rlimit,
    #[cfg(target_os = "linux")]
    dumpable: Option<rustix::process::DumpableBehavior>,
}

#[cfg(unix)]
static BEFORE: OnceLock<Softness> = OnceLock::new();

/// Keeps secrets inside this process: no core dump, no debugger of the same user, and files that only this user can
/// read, whatever the umask was. The hard limit of core dumps stays, since only root could put it back.
pub fn harden() {
    #[cfg(target_os = "linux")]
    let (core, dumpable) = {
        use rustix::process::{DumpableBehavior, Resource, Rlimit};
        use rustix::process::{dumpable_behavior, getrlimit, set_dumpable_behavior, setrlimit};
        let before = (getrlimit(Resource::Core), dumpable_behavior().ok());
        // Best effort: a sandbox that forbids these calls forbids dumps as well.
        let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
        let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: before.0.maximum });
        before
    };
    #[cfg(unix)]
    {
        let umask = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
        let _first = BEFORE.set(Softness {
            umask,
            #[cfg(target_os = "linux")]
            core,
            #[cfg(target_os = "linux")]
            dumpable,
        });
    }
}

/// Puts back what [`harden`] changed, for a program of the user that takes the place of this process or is started by it.
pub fn soften() {
    #[cfg(unix)]
    if let Some(before) = BEFORE.get() {
        rustix::process::umask(before.umask);
        #[cfg(target_os = "linux")]
        {
            let _ = rustix::process::setrlimit(rustix::process::Resource::Core, before.core);
            if let Some(dumpable) = before.dumpable {
                let _ = rustix::process::set_dumpable_behavior(dumpable);
            }
        }
    }
}

/// Raises the limit of open files to `wanted` if it is lower, as far as the system allows. Best effort: with fewer, fewer
/// connections can be served at once.
pub fn raise_open_file_limit(wanted: u64) {
    #[cfg(unix)]
    {
        use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
        let limit = getrlimit(Resource::Nofile);
        let reachable = limit.maximum.map_or(wanted, |most| most.min(wanted));
        if limit.current.is_some_and(|current| current < reachable) {
            let _as_before = setrlimit(Resource::Nofile, Rlimit { current: Some(reachable), ..limit });
        }
    }
    #[cfg(not(unix))]
    let _nothing = wanted;
}

/// Makes a write beyond the limit of file sizes (`ulimit -f`) an error. Without a handler its signal ends the process.
pub fn outlive_file_size_limit() {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        // Best effort: it needs a descriptor. The handler stays when the runtime has gone.
        if let Ok(runtime) = threads::build_runtime(&mut tokio::runtime::Builder::new_current_thread()) {
            let _inside = runtime.enter();
            let _stays =
                threads::without_panic(|| signal(SignalKind::from_raw(rustix::process::Signal::XFSZ.as_raw())));
        }
    }
}

/// Makes this process end when `parent` ends. Only on Linux; elsewhere nothing happens.
pub fn exit_with_parent(parent: u32) {
    #[cfg(target_os = "linux")]
    {
        use rustix::process::{Signal, getppid, set_parent_process_death_signal};
        // Best effort: without it an orphan may be left, which must be ended by hand.
        let _ = set_parent_process_death_signal(Some(Signal::KILL));
        // The parent may have ended before that was set.
        let is_orphan = getppid().is_none_or(|pid| u32::try_from(pid.as_raw_nonzero().get()) != Ok(parent));
        if is_orphan {
            // In an inherited environment it would end every command without a word.
            let told = "error: KEEPALIVE_PARENT names a process that is not the parent of this one\n  hint: unset it";
            drop(writeln!(io::stderr(), "{told}"));
            #[expect(
                clippy::disallowed_methods,
                reason = "at the start of a child of a rehearsal, whose parent is gone"
            )]
            std::process::exit(1);
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _nothing = parent;
}

/// Whether this process was started with a signal ignored, as `nohup` does. Only known on Linux; elsewhere no.
pub fn ignores_signal(signal: i32) -> bool {
    let status = if cfg!(target_os = "linux") { std::fs::read_to_string("/proc/self/status") } else { return false };
    status.is_ok_and(|status| is_ignored(&status, signal))
}

/// (pure)
fn is_ignored(status: &str, signal: i32) -> bool {
    let mask = status.lines().find_map(|line| u64::from_str_radix(line.strip_prefix("SigIgn:")?.trim(), 16).ok());
    let bit = u32::try_from(signal - 1).ok().and_then(|n| 1_u64.checked_shl(n));
    mask.zip(bit).is_some_and(|(mask, bit)| mask & bit != 0)
}

/// How long a user's command may take to print a secret.
pub const COMMAND_TIMEOUT: Duration = Duration::from_secs(10);
/// How often a command is looked at.
pub(super) const POLL_INTERVAL: Duration = Duration::from_millis(20);
/// How long a pipe is read that a finished command has left open.
pub(super) const PIPE_GRACE: Duration = Duration::from_millis(200);
/// The longest secret or key that is accepted.
const MAX_OUTPUT_BYTES: u64 = 64 * 1024;

/// How a command is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaitPolicy {
    /// The command runs alone, and only its output is read; it ends after [`COMMAND_TIMEOUT`].
    Silent { longest: u64 },
    /// The command runs alone, and its errors are shown.
    Unattended { longest: u64 },
    /// The command may ask the person at the terminal, so it has no time limit.
    Interactive { longest: u64 },
}

/// Why a user's command returned no secret.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    #[error("the command is empty")]
    Empty,
    #[error("cannot run `{0}`: {1}")]
    Start(String, io::Error),
    #[error("`{0}` did not finish within {timeout} s", timeout = COMMAND_TIMEOUT.as_secs())]
    TimedOut(String),
    #[error("`{0}` failed with {1}")]
    Failed(String, std::process::ExitStatus),
    #[error("cannot read the output of `{0}`: {1}")]
    Output(String, io::Error),
}

/// Runs a user's command and gives back what it printed.
///
/// It runs in its own process group, without standard input, with `KEEPALIVE_WITHIN` naming the profile it is run for,
/// and is killed after [`COMMAND_TIMEOUT`].
pub fn capture_output(argv: &[String], within: &str) -> Result<Zeroizing<Vec<u8>>, CommandError> {
    run_command(argv, within, WaitPolicy::Unattended { longest: MAX_OUTPUT_BYTES })
}

/// Runs a command and gives back what it printed. With a person it shares the terminal; else it is as in [`capture_output`].
pub fn run_command(argv: &[String], within: &str, patience: WaitPolicy) -> Result<Zeroizing<Vec<u8>>, CommandError> {
    let [program, arguments @ ..] = argv else {
        return Err(CommandError::Empty);
    };
    let mut command = Command::new(program);
    // The command must not end with this process's parent.
    command.args(arguments).env(paths::ACTIVE_PROFILES, within).env_remove(paths::PARENT).stdout(Stdio::piped());
    let (longest, limit) = match patience {
        WaitPolicy::Silent { longest } | WaitPolicy::Unattended { longest } => {
            command.stdin(Stdio::null());
            #[cfg(unix)]
            std::os::unix::process::CommandExt::process_group(&mut command, 0);
            (longest, COMMAND_TIMEOUT)
        }
        WaitPolicy::Interactive { longest } => (longest, Duration::MAX),
    };
    if matches!(patience, WaitPolicy::Silent { .. }) {
        command.stderr(Stdio::null());
    }
    let mut child = command.spawn().map_err(|e| CommandError::Start(program.clone(), e))?;
    let Some(stdout) = child.stdout.take() else {
        return Err(CommandError::Output(program.clone(), io::Error::other("no pipe")));
    };
    let ended = PipeReader::start(stdout.take(longest)).and_then(|reader| wait_for_end(&mut child, &reader, limit));
    match ended {
        Ok(Some((status, bytes))) if status.success() => Ok(bytes),
        Ok(Some((status, _))) => Err(CommandError::Failed(program.clone(), status)),
        Ok(None) => {
            kill_group(&mut child);
            Err(CommandError::TimedOut(program.clone()))
        }
        Err(error) => {
            kill_group(&mut child);
            Err(CommandError::Output(program.clone(), error))
        }
    }
}

/// Waits for the command and for what it prints. `None`: it took too long.
///
/// The pipe may be held open by a process that the command has left behind, and a command may go on after it has closed
/// its output. So both are looked at; once the command is done, what it has printed is there.
fn wait_for_end(
    child: &mut Child,
    reader: &PipeReader,
    limit: Duration,
) -> io::Result<Option<(ExitStatus, Zeroizing<Vec<u8>>)>> {
    let (mut waited, mut status) = (Duration::ZERO, None);
    while waited < limit {
        let is_read = reader.is_done_within(if status.is_some() { PIPE_GRACE } else { POLL_INTERVAL });
        if let Some(status) = status {
            return reader.take().map(|bytes| Some((status, bytes)));
        }
        status = child.try_wait()?;
        if is_read && status.is_none() {
            pause(POLL_INTERVAL);
        }
        waited += POLL_INTERVAL;
    }
    Ok(None)
}

/// What has been read, and how reading ended if it has.
type ReadSoFar = (Zeroizing<Vec<u8>>, io::Result<()>);

/// Reads a pipe on a thread, which is left behind if the pipe stays open.
pub(super) struct PipeReader {
    read: Arc<Mutex<ReadSoFar>>,
    done: mpsc::Receiver<()>,
}

impl PipeReader {
    pub(super) fn start(pipe: impl Read + Send + 'static) -> io::Result<Self> {
        Self::start_keeping(usize::MAX, pipe)
    }

    /// Reads all, and keeps no more than the first `most` bytes.
    pub(super) fn start_keeping(most: usize, mut pipe: impl Read + Send + 'static) -> io::Result<Self> {
        let read = Arc::new(Mutex::new((Zeroizing::new(Vec::new()), Ok(()))));
        let (tell, done) = mpsc::channel::<()>();
        let into = Arc::clone(&read);
        let work = move || {
            let _tells_by_its_end = tell;
            let mut part = Zeroizing::new([0; 4096]);
            loop {
                let n = pipe.read(&mut *part);
                let mut into = into.lock().unwrap_or_else(PoisonError::into_inner);
                match n {
                    Ok(0) => return,
                    Ok(n) => {
                        let kept = n.min(most.saturating_sub(into.0.len()));
                        into.0.extend_from_slice(part.get(..kept).unwrap_or_default());
                    }
                    Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                    Err(e) => {
                        into.1 = Err(e);
                        return;
                    }
                }
            }
        };
        drop(std::thread::Builder::new().name("command".into()).spawn(work)?);
        Ok(Self { read, done })
    }

    /// Whether all was read, waiting for that.
    pub(super) fn is_done_within(&self, limit: Duration) -> bool {
        !matches!(self.done.recv_timeout(limit), Err(mpsc::RecvTimeoutError::Timeout))
    }

    pub(super) fn take(&self) -> io::Result<Zeroizing<Vec<u8>>> {
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut read.1, Ok(()))?;
        Ok(std::mem::take(&mut read.0))
    }
}

pub(super) fn pause(time: Duration) {
    let (_open, never) = mpsc::channel::<()>();
    let _nothing = never.recv_timeout(time);
}

/// How a process is made to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Termination {
    /// The process is asked to end, as by SIGTERM.
    Graceful,
    /// The process is killed.
    Kill,
}

/// Makes a process of this user end. Where there are no signals, nothing happens.
pub fn terminate(pid: u32, force: Termination) -> io::Result<()> {
    #[cfg(unix)]
    if let Some(pid) = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw) {
        let signal = match force {
            Termination::Graceful => rustix::process::Signal::TERM,
            Termination::Kill => rustix::process::Signal::KILL,
        };
        rustix::process::kill_process(pid, signal)?;
    }
    Ok(())
}

pub(super) fn kill_group(child: &mut Child) {
    #[cfg(unix)]
    if let Some(group) = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw) {
        let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
    }
    drop(child.kill());
    drop(child.wait());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(script: &str) -> Result<Zeroizing<Vec<u8>>, CommandError> {
        capture_output(&["sh".into(), "-c".into(), script.into()], "work,home")
    }

    #[test]
    fn command_output_is_returned_and_it_is_told_its_profiles() {
        assert_eq!(run("printf %s \"$KEEPALIVE_WITHIN\"").unwrap().as_slice(), b"work,home");
    }

    #[test]
    fn ignored_signals_are_read_from_the_process_status() {
        let status = "SigBlk:\t0000000000000000\nSigIgn:\t0000000000001001\nSigCgt:\t0000000000000002\n";
        assert!(is_ignored(status, 1) && is_ignored(status, 13));
        assert!(!is_ignored(status, 2) && !is_ignored("", 1) && !is_ignored(status, 0) && !is_ignored(status, 99));
    }

    #[test]
    fn command_that_leaves_a_child_with_the_pipe_is_done() {
        let begun = std::time::Instant::now();
        assert_eq!(run("sleep 60 & printf key").unwrap().as_slice(), b"key");
        assert!(begun.elapsed() < COMMAND_TIMEOUT / 2);
    }

    #[test]
    fn command_that_closes_its_output_and_stays_is_ended() {
        assert!(matches!(run("exec >&-; sleep 600"), Err(CommandError::TimedOut(_))));
    }

    #[test]
    fn failing_command_is_an_error_whatever_it_printed() {
        let error = run("echo half; exit 3").unwrap_err();
        assert_eq!(error.to_string(), "`sh` failed with exit status: 3");
        assert!(matches!(capture_output(&[], ""), Err(CommandError::Empty)));
        assert!(matches!(capture_output(&["/nonexistent/x".into()], ""), Err(CommandError::Start(..))));
    }
}
