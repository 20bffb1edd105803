//! Runs a user's hook: in a process group of its own, with a time limit, and so that none of its pipes can hold us up.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::{Mutex, PoisonError, mpsc};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, test_kill_process_group, waitid};
use zeroize::Zeroizing;

use super::clock::SystemClock;
use crate::clock::{Clock, Moment};

/// The time between the request to end and the kill.
const GRACE: Duration = Duration::from_secs(5);
/// How long the end of this process waits for hooks, and how long for those that were asked to end.
const LAST_WAIT: Duration = Duration::from_secs(5);
const LAST_GRACE: Duration = Duration::from_secs(2);
/// How often a hook is looked at that says nothing.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);
/// So much of what a hook said last is kept.
const KEPT_BYTES: usize = 16 * 1024;
/// So much is read between two looks, so that one that says much is looked at, too.
const READ_BYTES: usize = 4 * 1024 * 1024;

/// A program, and what it is given. It gets no variable but these.
pub struct HookCommand<'a> {
    pub argv: &'a [String],
    pub environment: &'a [(OsString, OsString)],
    pub input: &'a [u8],
    pub limit: Duration,
}

/// How a hook ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HookExit {
    Status(i32),
    Signal(i32),
    /// It was made to end.
    TimedOut,
}

/// How a hook ended, and the end of what it wrote to standard error.
pub struct HookRun {
    pub exit: HookExit,
    pub said: Zeroizing<Vec<u8>>,
}

/// The hooks of this process, by their process groups.
#[derive(Default)]
pub struct HookGroups(Mutex<RunningHooks>);

#[derive(Default)]
struct RunningHooks {
    groups: BTreeSet<i32>,
    is_over: bool,
}

impl HookGroups {
    /// Runs a hook to its end. What it leaves in its process group ends with it.
    pub fn run(&self, hook: &HookCommand<'_>) -> io::Result<HookRun> {
        let [program, arguments @ ..] = hook.argv else { return Err(io::ErrorKind::InvalidInput.into()) };
        let mut command = Command::new(program);
        command.args(arguments).env_clear().current_dir("/");
        command.envs(hook.environment.iter().map(|(name, value)| (name, value)));
        command.stdin(input(hook.input)?).stdout(Stdio::null()).stderr(Stdio::piped());
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let mut child = self.spawn(&mut command)?;
        let group = i32::try_from(child.id()).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::InvalidData)?;
        let mut said = LastWords::of(child.stderr.take())?;
        let ended = supervise(&mut child, group, &mut said, hook.limit);
        self.lock().groups.remove(&group.as_raw_nonzero().get());
        Ok(HookRun { exit: ended?, said: said.kept })
    }

    /// Lets nothing more begin: this process ends. What runs is waited for a moment, then asked to end, then killed.
    pub fn end_all(&self) {
        self.lock().is_over = true;
        self.wait_for_all(LAST_WAIT);
        self.signal_all(Signal::TERM);
        self.wait_for_all(LAST_GRACE);
        self.signal_all(Signal::KILL);
    }

    fn signal_all(&self, signal: Signal) {
        for group in self.lock().groups.iter().filter_map(|group| Pid::from_raw(*group)) {
            let _ended = kill_process_group(group, signal);
        }
    }

    fn wait_for_all(&self, limit: Duration) {
        let begun = SystemClock.now();
        while !self.lock().groups.is_empty() && SystemClock.now().time_since(&begun) < limit {
            pause(LOOK_INTERVAL);
        }
    }

    /// Under the lock, so that [`HookGroups::end_all`] misses none.
    fn spawn(&self, command: &mut Command) -> io::Result<Child> {
        let mut running = self.lock();
        if running.is_over {
            return Err(io::Error::new(io::ErrorKind::Interrupted, "keepalive is stopping"));
        }
        let child = command.spawn()?;
        running.groups.extend(i32::try_from(child.id()));
        Ok(child)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, RunningHooks> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Waits for the end of the program, makes it end at the limit, and ends what it leaves in its group.
fn supervise(child: &mut Child, group: Pid, said: &mut LastWords, limit: Duration) -> io::Result<HookExit> {
    let begun = SystemClock.now();
    let exit = wait(group, said, &begun, limit)?;
    // Of one that has ended, what it left is asked to end. Its own pid names the group until it is reaped.
    let asked = SystemClock.now();
    let _asked = kill_process_group(group, Signal::TERM);
    let late = match exit {
        Some(_) => None,
        None => wait(group, said, &asked, GRACE)?,
    };
    if exit.is_none() && late.is_none() {
        let _killed = kill_process_group(group, Signal::KILL);
        wait(group, said, &SystemClock.now(), GRACE)?;
    }
    said.read();
    if child.try_wait()?.is_some() {
        end_group(group, &asked);
    }
    Ok(exit.unwrap_or(HookExit::TimedOut))
}

/// Waits until no process of the group is left, and kills it after the grace.
fn end_group(group: Pid, asked: &Moment) {
    while test_kill_process_group(group).is_ok() {
        if SystemClock.now().time_since(asked) >= GRACE {
            let _killed = kill_process_group(group, Signal::KILL);
            return;
        }
        pause(LOOK_INTERVAL);
    }
}

/// Reads what the program says until it has ended, or until `limit` after `since`: then `None`. It is not reaped.
fn wait(pid: Pid, said: &mut LastWords, since: &Moment, limit: Duration) -> io::Result<Option<HookExit>> {
    loop {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
        match waitid(WaitId::Pid(pid), options) {
            Ok(Some(status)) => {
                let killed = status.terminating_signal().map(HookExit::Signal);
                return Ok(Some(status.exit_status().map(HookExit::Status).or(killed).unwrap_or(HookExit::Status(1))));
            }
            Ok(None) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let left = limit.saturating_sub(SystemClock.now().time_since(since));
        if left.is_zero() {
            return Ok(None);
        }
        said.wait(left.min(LOOK_INTERVAL));
        said.read();
    }
}

/// Standard input that holds all of it before the program begins: one that never reads it holds up nothing.
fn input(bytes: &[u8]) -> io::Result<Stdio> {
    #[cfg(target_os = "linux")]
    {
        use rustix::fs::{MemfdFlags, memfd_create};
        let mut file = File::from(memfd_create("keepalive-hook", MemfdFlags::CLOEXEC)?);
        file.write_all(bytes)?;
        file.rewind()?;
        Ok(file.into())
    }
    #[cfg(not(target_os = "linux"))]
    {
        // What does not fit into the pipe is an error, and no wait.
        let (reader, mut writer) = io::pipe()?;
        rustix::io::ioctl_fionbio(&writer, true)?;
        writer.write_all(bytes)?;
        Ok(reader.into())
    }
}

/// What a program said last. Its pipe is read without waiting, and left behind if another process keeps it open.
struct LastWords {
    pipe: Option<ChildStderr>,
    kept: Zeroizing<Vec<u8>>,
}

impl LastWords {
    fn of(pipe: Option<ChildStderr>) -> io::Result<Self> {
        if let Some(pipe) = &pipe {
            rustix::io::ioctl_fionbio(pipe, true)?;
        }
        Ok(Self { pipe, kept: Zeroizing::default() })
    }

    /// Waits for more of it, for at most `limit`.
    fn wait(&self, limit: Duration) {
        let Some(pipe) = &self.pipe else { return pause(limit) };
        let timeout = Timespec { tv_sec: 0, tv_nsec: limit.subsec_nanos().into() };
        // A signal ends the wait early, which does no harm.
        let _ready = poll(&mut [PollFd::new(pipe, PollFlags::IN)], Some(&timeout));
    }

    fn read(&mut self) {
        let Some(pipe) = &mut self.pipe else { return };
        let mut part = Zeroizing::new([0; 32 * 1024]);
        let mut read = 0;
        while read < READ_BYTES {
            match pipe.read(&mut *part) {
                Ok(0) => break,
                Ok(n) => {
                    read += n;
                    self.kept.extend_from_slice(part.get(..n).unwrap_or_default());
                    let surplus = self.kept.len().saturating_sub(KEPT_BYTES);
                    self.kept.drain(..surplus);
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => break,
            }
        }
        if read < READ_BYTES {
            self.pipe = None;
        }
    }
}

fn pause(time: Duration) {
    let (_open, never) = mpsc::channel::<()>();
    let _nothing = never.recv_timeout(time);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str, input: &[u8], limit: Duration) -> HookRun {
        let argv: Vec<String> = ["/bin/sh", "-c", script].map(str::to_owned).into();
        let environment = [("PATH".into(), "/usr/bin:/bin".into()), ("NAMED".into(), "yes".into())];
        HookGroups::default().run(&HookCommand { argv: &argv, environment: &environment, input, limit }).unwrap()
    }

    const LONG: Duration = Duration::from_secs(60);
    const SHORT: Duration = Duration::from_millis(200);

    fn said(run: &HookRun) -> &str {
        std::str::from_utf8(&run.said).unwrap().trim_end()
    }

    #[test]
    fn hook_gets_its_input_and_no_other_variable() {
        let run = sh("cat >&2; pwd >&2; echo $NAMED$HOME$CARGO >&2; exit 3", b"a line\n", LONG);
        assert_eq!((run.exit, said(&run)), (HookExit::Status(3), "a line\n/\nyes"));
        assert_eq!(sh("kill -9 $$", b"", LONG).exit, HookExit::Signal(9));
    }

    #[test]
    fn input_that_is_never_read_blocks_nothing() {
        assert_eq!(sh("exit 0", &vec![b'x'; 1 << 20], LONG).exit, HookExit::Status(0));
    }

    #[test]
    fn only_the_last_words_are_kept() {
        let run = sh("head -c 20000000 /dev/zero >&2; echo the end >&2", b"", LONG);
        assert!(run.exit == HookExit::Status(0) && run.said.len() == KEPT_BYTES);
        assert!(run.said.ends_with(b"the end\n"));
    }

    #[test]
    fn hook_that_hangs_is_asked_to_end() {
        let run = sh("trap 'echo asked >&2; exit 0' TERM; while :; do sleep 0.05; done", b"", SHORT);
        // A shell may add that its `sleep` was ended.
        assert!(run.exit == HookExit::TimedOut && said(&run).ends_with("asked"), "{}", said(&run));
    }

    #[test]
    fn hook_that_refuses_to_end_is_killed_with_its_group() {
        let run = sh("trap '' TERM; sleep 600 & echo $! >&2; while :; do sleep 1; done", b"", SHORT);
        assert_eq!(run.exit, HookExit::TimedOut);
        assert!(is_gone(said(&run)));
    }

    #[test]
    fn what_a_hook_leaves_behind_ends_with_it() {
        let run = sh("sleep 600 & echo $! >&2", b"", LONG);
        assert!(run.exit == HookExit::Status(0) && is_gone(said(&run)));
    }

    /// Ended, whether its parent has seen that or not.
    fn is_gone(pid: &str) -> bool {
        let gone = || match std::fs::read_to_string(format!("/proc/{pid}/stat")) {
            Ok(stat) => stat.rsplit(") ").next().is_some_and(|state| state.starts_with(['Z', 'X'])),
            Err(_) => true,
        };
        // A signal is delivered soon, and not at once.
        (0..100).any(|_| {
            gone() || {
                pause(LOOK_INTERVAL);
                false
            }
        })
    }

    #[test]
    fn nothing_begins_once_the_process_ends() {
        let groups = HookGroups::default();
        groups.end_all();
        let argv = ["true".to_owned()];
        assert!(groups.run(&HookCommand { argv: &argv, environment: &[], input: b"", limit: LONG }).is_err());
    }
}
