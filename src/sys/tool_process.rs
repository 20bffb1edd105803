//! Programs that keepalive runs without a person: tools of the system, and itself. Each has an end.

use std::ffi::{OsStr, OsString};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::paths;
use super::process::{PIPE_GRACE, POLL_INTERVAL, PipeReader, kill_group, pause};

/// So much of what a tool says is kept.
const KEPT_OUTPUT: usize = 16 * 1024 * 1024;

/// How a tool of the system ended, and what it printed.
#[derive(Debug)]
pub struct ToolOutput {
    pub is_success: bool,
    pub stdout: String,
    pub stderr: String,
}

/// Runs a tool of the system with `input`, and kills it and its children after `limit`. It speaks English, so that its words
/// can be read.
pub fn run_tool(
    argv: &[&str],
    input: &str,
    variable: Option<(&str, &Path)>,
    limit: Duration,
) -> io::Result<ToolOutput> {
    let [program, arguments @ ..] = argv else { return Err(io::ErrorKind::InvalidInput.into()) };
    let mut command = Command::new(program);
    command.args(arguments).env("LC_ALL", "C").envs(variable).env_remove(paths::PARENT);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    in_own_group(&mut command);
    let mut child = command.spawn()?;
    let ended = output_of(&mut child, input, limit);
    if !matches!(ended, Ok(Some(_))) {
        kill_group(&mut child);
    }
    ended?.ok_or_else(|| {
        let message = format!("`{program}` did not finish within {} s", limit.as_secs());
        io::Error::new(io::ErrorKind::TimedOut, message)
    })
}

/// `None`: it took too long. A process that it has left behind may keep its pipes open; those are not waited for.
fn output_of(child: &mut Child, input: &str, limit: Duration) -> io::Result<Option<ToolOutput>> {
    let no_pipe = || io::Error::other("no pipe");
    let stdout = PipeReader::start_keeping(KEPT_OUTPUT, child.stdout.take().ok_or_else(no_pipe)?)?;
    let stderr = PipeReader::start_keeping(KEPT_OUTPUT, child.stderr.take().ok_or_else(no_pipe)?)?;
    let (mut stdin, input) = (child.stdin.take().ok_or_else(no_pipe)?, zeroize::Zeroizing::new(input.to_owned()));
    // A tool that does not read its input says so by its exit status.
    let write = move || drop(stdin.write_all(input.as_bytes()));
    std::thread::Builder::new().name("command".into()).spawn(write)?;
    let text = |reader: &PipeReader| {
        let _rest = reader.is_done_within(PIPE_GRACE);
        reader.take().map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
    };
    let mut waited = Duration::ZERO;
    while waited < limit {
        // Most tools close their output as they end.
        let is_read = stdout.is_done_within(POLL_INTERVAL);
        if let Some(status) = child.try_wait()? {
            let output = ToolOutput { is_success: status.success(), stdout: text(&stdout)?, stderr: text(&stderr)? };
            return Ok(Some(output));
        }
        if is_read {
            pause(POLL_INTERVAL);
        }
        waited += POLL_INTERVAL;
    }
    Ok(None)
}

/// How this program is started once more, to do what this run does not wait for.
#[derive(Clone, Debug)]
pub struct CompanionProgram {
    pub program: PathBuf,
    /// The configuration, if it was named.
    pub config: Option<PathBuf>,
}

/// A process that may outlive this one.
#[derive(Debug)]
pub struct Companion(Child);

/// The first word of a run that only starts another one. Then that is a child of no process of ours.
const LEAVE_BEHIND: &str = "--leave-behind";
/// How long such a run is waited for.
const LEAVING_LIMIT: Duration = Duration::from_secs(1);

impl CompanionProgram {
    /// Starts it with these words, as a child of this process.
    pub fn start(&self, words: &[&str]) -> io::Result<Companion> {
        Companion::start(&self.program, &self.arguments(words))
    }

    /// Starts it with these words, and leaves it: it is no child of what this process may become.
    pub fn leave_behind(&self, words: &[&str]) -> io::Result<()> {
        let mut arguments = vec![LEAVE_BEHIND.into()];
        arguments.extend(self.arguments(words));
        Companion::start(&self.program, &arguments).map(|mut between| {
            // A machine that is that slow starts it all the same.
            let _started = between.has_ended_within(LEAVING_LIMIT);
        })
    }

    fn arguments(&self, words: &[&str]) -> Vec<OsString> {
        let mut arguments: Vec<OsString> = vec!["--quiet".into()];
        arguments.extend(self.config.iter().flat_map(|config| ["--config".into(), config.clone().into()]));
        arguments.extend(words.iter().map(OsString::from));
        arguments
    }
}

/// Starts what a run of [`CompanionProgram::leave_behind`] is for. `None`: the words are those of another run.
pub fn start_left_behind(words: &[OsString]) -> Option<io::Result<()>> {
    let [_, first, arguments @ ..] = words else { return None };
    (first == LEAVE_BEHIND).then(|| Companion::start(&std::env::current_exe()?, arguments).map(drop))
}

impl Companion {
    /// Starts a program that reads and says nothing. What ends this process by its group does not end that one.
    fn start(program: &Path, arguments: &[impl AsRef<OsStr>]) -> io::Result<Self> {
        let mut command = Command::new(program);
        command.args(arguments).env_remove(paths::PARENT);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        in_own_group(&mut command);
        command.spawn().map(Self)
    }

    /// Whether it has ended, waiting for that.
    pub fn has_ended_within(&mut self, limit: Duration) -> bool {
        let mut waited = Duration::ZERO;
        loop {
            if self.0.try_wait().is_ok_and(|status| status.is_some()) {
                return true;
            }
            if waited >= limit {
                return false;
            }
            pause(POLL_INTERVAL);
            waited += POLL_INTERVAL;
        }
    }
}

fn in_own_group(command: &mut Command) {
    #[cfg(unix)]
    std::os::unix::process::CommandExt::process_group(command, 0);
    #[cfg(not(unix))]
    let _there_is_none = command;
}

#[cfg(unix)]
#[cfg(test)]
mod tests {
    use super::*;

    fn run(script: &str, limit: Duration) -> io::Result<ToolOutput> {
        run_tool(&["sh", "-c", script], "secret", None, limit)
    }

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn tool_gets_its_input_and_tells_how_it_ended() {
        let output = run("cat; echo no >&2; exit 3", LONG).unwrap();
        assert_eq!((output.is_success, output.stdout.as_str(), output.stderr.as_str()), (false, "secret", "no\n"));
        assert!(run_tool(&["/nowhere/at/all"], "", None, LONG).is_err());
    }

    /// What was lost: the memory of a machine, to what a program said.
    #[test]
    fn long_output_is_read_and_not_kept() {
        let output = run("head -c 20000000 /dev/zero", LONG).unwrap();
        assert!(output.is_success && output.stdout.len() == KEPT_OUTPUT);
    }

    /// What was lost: a minute of each run, to a process that a program had left behind.
    #[test]
    fn process_left_behind_is_not_waited_for() {
        let output = run("sleep 600 & echo $!", LONG).unwrap();
        let pid: u32 = output.stdout.trim().parse().unwrap();
        super::super::process::terminate(pid, super::super::process::Termination::Kill).unwrap();
    }

    /// What was lost: the child of a killed program, which went on with the token.
    #[test]
    fn hanging_tool_is_killed_with_its_children() {
        let dir = tempfile::tempdir().unwrap();
        let pid = dir.path().join("pid");
        let script = format!("sleep 600 & echo $! > {}; wait", pid.display());
        let error = run(&script, Duration::from_millis(500)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        let pid: i32 = std::fs::read_to_string(&pid).unwrap().trim().parse().unwrap();
        let pid = rustix::process::Pid::from_raw(pid).unwrap();
        let is_gone = || {
            let status = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero()));
            rustix::process::test_kill_process(pid).is_err() || status.is_ok_and(|text| text.contains(") Z "))
        };
        assert!((0..250).any(|_| is_gone() || {
            pause(POLL_INTERVAL);
            false
        }));
    }
}
