//! Runs a program under ptrace and does one thing to it at one of its system calls, counted over all its threads and
//! children, before the call is made.
//!
//! It is a process of its own (`sweep --trace`), because it waits for whatever child changes its state.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt::Write as _;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::libc::user_regs_struct;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

/// What to do, where, and to which calls.
#[derive(Clone, Debug)]
pub struct TraceOrder {
    /// The call, counted from 1 among those that `calls` selects; 0 for none.
    pub at: u64,
    pub action: Injection,
    pub calls: CallFilter,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Injection {
    /// SIGKILL to everything.
    Kill,
    /// The call is not made and fails with this number.
    Fail(i32),
    /// Fails that call and every later call of that kind on that kind of file: a disk that stays full.
    FailFromHere(i32),
    /// Everything stands still meanwhile, for this many milliseconds; the file [`SIGN`] appears when that begins.
    Pause(u64),
    /// Everything stands still, a copy is made of one file to another, then SIGKILL.
    Cut(PathBuf, PathBuf),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallFilter {
    /// Every system call.
    All,
    /// Those that change something outside of the process, or wait for it.
    Effects,
    /// Those on files that can fail: writing, syncing, creating, renaming, removing, locking.
    Files,
    /// Those on sockets.
    Sockets,
}

/// Beside the report, while the program stands still.
pub const PAUSE_MARKER: &str = "standstill";

/// What happened.
#[derive(Clone, Debug)]
pub struct TraceResult {
    /// How many calls were counted.
    pub counted: u64,
    /// The call that was acted at, as `fsync /path`.
    pub acted: Option<String>,
    /// All that were counted, with milliseconds since the start.
    pub log: Vec<(f64, String)>,
    pub status: i32,
    pub stdout: String,
    pub stderr: String,
}

/// Runs a command under the tracer. `command` must carry the environment of the program.
pub fn trace(mut command: Command, order: &TraceOrder, program: &Path, arguments: &[&str], dir: &Path) -> TraceResult {
    let report = dir.join("trace");
    let _old = std::fs::remove_file(&report);
    command.arg("--trace").arg(order.encode()).arg(&report).arg("--").arg(program).args(arguments);
    let out = command.output().unwrap();
    let text = std::fs::read_to_string(&report).unwrap_or_default();
    let mut lines = text.lines();
    let counted = lines.next().and_then(|l| l.parse().ok()).unwrap_or(0);
    let acted = lines.next().filter(|l| !l.is_empty()).map(str::to_owned);
    let log = lines.filter_map(|l| l.split_once(' ')).map(|(t, c)| (t.parse().unwrap(), c.to_owned())).collect();
    TraceResult {
        counted,
        acted,
        log,
        status: out.status.code().unwrap_or_else(|| -out.status.signal().unwrap_or(0)),
        stdout: String::from_utf8_lossy(&out.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&out.stderr).into_owned(),
    }
}

impl TraceOrder {
    pub fn count(calls: CallFilter) -> Self {
        Self { at: 0, action: Injection::Kill, calls }
    }

    fn encode(&self) -> String {
        let action = match &self.action {
            Injection::Kill => "kill".to_owned(),
            Injection::Fail(n) => format!("fail={n}"),
            Injection::FailFromHere(n) => format!("failing={n}"),
            Injection::Pause(ms) => format!("pause={ms}"),
            Injection::Cut(from, to) => format!("cut={}:{}", from.display(), to.display()),
        };
        format!("{},{:?},{action}", self.at, self.calls)
    }

    fn decode(text: &str) -> Option<Self> {
        let (at, rest) = text.split_once(',')?;
        let (calls, action) = rest.split_once(',')?;
        let calls = match calls {
            "All" => CallFilter::All,
            "Effects" => CallFilter::Effects,
            "Files" => CallFilter::Files,
            "Sockets" => CallFilter::Sockets,
            _ => return None,
        };
        let action = match action.split_once('=').unwrap_or((action, "")) {
            ("kill", _) => Injection::Kill,
            ("fail", n) => Injection::Fail(n.parse().ok()?),
            ("failing", n) => Injection::FailFromHere(n.parse().ok()?),
            ("pause", ms) => Injection::Pause(ms.parse().ok()?),
            ("cut", places) => {
                let (from, to) = places.split_once(':')?;
                Injection::Cut(from.into(), to.into())
            }
            _ => return None,
        };
        Some(Self { at: at.parse().ok()?, action, calls })
    }
}

/// The tracer itself: `ORDER REPORT -- PROGRAM ARGUMENTS`.
pub fn main(arguments: &[String]) -> ExitCode {
    let [order, report, dashes, program, rest @ ..] = arguments else { panic!("{arguments:?}") };
    assert_eq!(dashes, "--");
    let mut command = Command::new(program);
    command.args(rest);
    // SAFETY: between fork and exec only a system call is made.
    #[expect(unsafe_code, reason = "std can trace a child in no other way")]
    unsafe {
        command.pre_exec(|| ptrace::traceme().map_err(std::io::Error::from));
    }
    #[expect(clippy::zombie_processes, reason = "the loop below waits for it")]
    let child = command.spawn().unwrap();
    let sign = Path::new(report).with_file_name(PAUSE_MARKER);
    let mut tracer = Tracer::new(TraceOrder::decode(order).unwrap(), Pid::from_raw(child.id() as i32), sign);
    let status = tracer.run();
    std::fs::write(report, tracer.report()).unwrap();
    ExitCode::from(u8::try_from(status).unwrap_or(137))
}

struct Tracer {
    order: TraceOrder,
    main: Pid,
    sign: PathBuf,
    tasks: HashMap<Pid, TracedTask>,
    counted: u64,
    acted: Option<String>,
    /// For `FailFromHere`: the kind of call that fails by now.
    failing: Option<String>,
    log: String,
    start: Instant,
    is_killed: bool,
}

#[derive(Default)]
struct TracedTask {
    is_inside: bool,
    /// What the call returns instead of what it did.
    result: Option<i64>,
}

impl Tracer {
    fn new(order: TraceOrder, main: Pid, sign: PathBuf) -> Self {
        let start = Instant::now();
        let (tasks, log) = (HashMap::new(), String::new());
        Self { order, main, sign, tasks, counted: 0, acted: None, failing: None, log, start, is_killed: false }
    }

    fn report(&self) -> String {
        format!("{}\n{}\n{}", self.counted, self.acted.as_deref().unwrap_or(""), self.log)
    }

    /// Until nothing is left; gives the exit status of the program.
    fn run(&mut self) -> i32 {
        let mut status = 137;
        loop {
            match waitpid(Pid::from_raw(-1), Some(WaitPidFlag::__WALL)) {
                Err(Errno::ECHILD) => return status,
                Err(e) => panic!("waitpid: {e}"),
                Ok(WaitStatus::Exited(pid, code)) => {
                    self.tasks.remove(&pid);
                    if pid == self.main {
                        status = code;
                    }
                }
                Ok(WaitStatus::Signaled(pid, _, _)) => drop(self.tasks.remove(&pid)),
                Ok(WaitStatus::PtraceSyscall(pid)) => self.at_call(pid),
                Ok(WaitStatus::PtraceEvent(pid, _, _)) => self.resume(pid, None),
                Ok(WaitStatus::Stopped(pid, signal)) => self.at_signal(pid, signal),
                Ok(_) => {}
            }
        }
    }

    fn at_signal(&mut self, pid: Pid, signal: Signal) {
        if let Entry::Vacant(entry) = self.tasks.entry(pid) {
            entry.insert(TracedTask::default());
            if pid == self.main {
                let options = Options::PTRACE_O_TRACESYSGOOD
                    | Options::PTRACE_O_TRACECLONE
                    | Options::PTRACE_O_TRACEFORK
                    | Options::PTRACE_O_TRACEVFORK
                    | Options::PTRACE_O_TRACEEXEC
                    | Options::PTRACE_O_EXITKILL;
                ptrace::setoptions(pid, options).unwrap();
            }
            // The stop with which a traced task begins is the tracer's own business.
            return self.resume(pid, None);
        }
        self.resume(pid, Some(signal));
    }

    fn resume(&self, pid: Pid, signal: Option<Signal>) {
        match ptrace::syscall(pid, signal) {
            // Killed meanwhile.
            Ok(()) | Err(Errno::ESRCH) => {}
            Err(e) => panic!("ptrace: {e}"),
        }
    }

    fn at_call(&mut self, pid: Pid) {
        let Ok(mut regs) = ptrace::getregs(pid) else { return };
        let task = self.tasks.entry(pid).or_default();
        task.is_inside = !task.is_inside;
        if task.is_inside {
            self.enter(pid, &mut regs);
        } else if let Some(result) = task.result.take() {
            regs.rax = result as u64;
            let _gone = ptrace::setregs(pid, regs);
        }
        self.resume(pid, None);
    }

    fn enter(&mut self, pid: Pid, regs: &mut user_regs_struct) {
        if self.is_killed || !self.order.calls.select(pid, regs) {
            return;
        }
        self.counted += 1;
        let call = describe(pid, regs);
        writeln!(self.log, "{:.3} {call}", self.start.elapsed().as_secs_f64() * 1000.0).unwrap();
        if self.failing.as_deref() == Some(kind(&call)) {
            if let Injection::FailFromHere(number) = self.order.action {
                self.fail(pid, regs, number);
            }
            return;
        }
        if self.counted != self.order.at {
            return;
        }
        self.acted = Some(call.clone());
        match self.order.action.clone() {
            Injection::Kill => self.kill_all(),
            Injection::Fail(number) => self.fail(pid, regs, number),
            Injection::FailFromHere(number) => {
                self.failing = Some(kind(&call).to_owned());
                self.fail(pid, regs, number);
            }
            Injection::Pause(ms) => {
                std::fs::write(&self.sign, "").unwrap();
                std::thread::sleep(Duration::from_millis(ms));
            }
            Injection::Cut(from, to) => {
                let copied = Command::new("cp").arg("--sparse=always").args([from, to]).status().unwrap();
                assert!(copied.success());
                self.kill_all();
            }
        }
    }

    fn fail(&mut self, pid: Pid, regs: &mut user_regs_struct, number: i32) {
        // No such call: the kernel does nothing, and the result is replaced when it comes back.
        regs.orig_rax = u64::MAX;
        ptrace::setregs(pid, *regs).unwrap();
        self.tasks.entry(pid).or_default().result = Some(-i64::from(number));
    }

    fn kill_all(&mut self) {
        self.is_killed = true;
        for pid in self.tasks.keys() {
            let _gone = kill(*pid, Signal::SIGKILL);
        }
    }
}

/// What distinguishes a full disk from a broken socket: the call and the sort of file.
fn kind(call: &str) -> &str {
    call.split(' ').next().unwrap_or(call)
}

/// Calls with an effect: number, name, and which argument is a file descriptor or a path.
const EFFECTS: &[(i64, &str, CallArgument)] = &[
    (libc::SYS_write, "write", CallArgument::Fd(0)),
    (libc::SYS_pwrite64, "pwrite64", CallArgument::Fd(0)),
    (libc::SYS_writev, "writev", CallArgument::Fd(0)),
    (libc::SYS_sendto, "sendto", CallArgument::Fd(0)),
    (libc::SYS_sendmsg, "sendmsg", CallArgument::Fd(0)),
    (libc::SYS_recvfrom, "recvfrom", CallArgument::Fd(0)),
    (libc::SYS_recvmsg, "recvmsg", CallArgument::Fd(0)),
    (libc::SYS_read, "read", CallArgument::Fd(0)),
    (libc::SYS_readv, "readv", CallArgument::Fd(0)),
    (libc::SYS_fsync, "fsync", CallArgument::Fd(0)),
    (libc::SYS_fdatasync, "fdatasync", CallArgument::Fd(0)),
    (libc::SYS_ftruncate, "ftruncate", CallArgument::Fd(0)),
    (libc::SYS_fallocate, "fallocate", CallArgument::Fd(0)),
    (libc::SYS_flock, "flock", CallArgument::Fd(0)),
    (libc::SYS_fchmod, "fchmod", CallArgument::Fd(0)),
    (libc::SYS_connect, "connect", CallArgument::Fd(0)),
    (libc::SYS_shutdown, "shutdown", CallArgument::Fd(0)),
    (libc::SYS_close, "close", CallArgument::Fd(0)),
    (libc::SYS_socket, "socket", CallArgument::None),
    (libc::SYS_openat, "openat", CallArgument::Path(1)),
    (libc::SYS_mkdir, "mkdir", CallArgument::Path(0)),
    (libc::SYS_mkdirat, "mkdirat", CallArgument::Path(1)),
    (libc::SYS_rename, "rename", CallArgument::Path(1)),
    (libc::SYS_renameat, "renameat", CallArgument::Path(3)),
    (libc::SYS_renameat2, "renameat2", CallArgument::Path(3)),
    (libc::SYS_unlink, "unlink", CallArgument::Path(0)),
    (libc::SYS_unlinkat, "unlinkat", CallArgument::Path(1)),
    (libc::SYS_exit_group, "exit_group", CallArgument::None),
];

#[derive(Clone, Copy)]
enum CallArgument {
    Fd(usize),
    Path(usize),
    None,
}

impl CallFilter {
    fn select(self, pid: Pid, regs: &user_regs_struct) -> bool {
        if self == Self::All {
            return true;
        }
        let Some((number, name, target)) = EFFECTS.iter().find(|e| e.0 as u64 == regs.orig_rax) else {
            return false;
        };
        // What the kernel makes in memory, like an eventfd, does not fail.
        if matches!(target, CallArgument::Fd(i) if file_of(pid, argument(regs, *i)).starts_with("anon_inode:")) {
            return self == Self::Effects;
        }
        let is_socket =
            matches!(target, CallArgument::Fd(i) if file_of(pid, argument(regs, *i)).starts_with("socket:"));
        let opens_for_writing = *number == libc::SYS_openat
            && argument(regs, 2) & (libc::O_WRONLY | libc::O_RDWR | libc::O_CREAT) as u64 != 0;
        match self {
            Self::Sockets => is_socket && *name != "close",
            _ if *number == libc::SYS_openat => opens_for_writing,
            // Reading and closing a file changes nothing.
            _ if matches!(*name, "read" | "readv" | "close") => self == Self::Effects && is_socket,
            Self::Files => !is_socket && !matches!(*name, "exit_group" | "socket" | "connect"),
            Self::All | Self::Effects => true,
        }
    }
}

fn describe(pid: Pid, regs: &user_regs_struct) -> String {
    match EFFECTS.iter().find(|e| e.0 as u64 == regs.orig_rax) {
        Some((_, name, CallArgument::Fd(i))) => format!("{name} {}", file_of(pid, argument(regs, *i))),
        Some((_, name, CallArgument::Path(i))) => format!("{name} {}", text_at(pid, argument(regs, *i))),
        Some((_, name, CallArgument::None)) => (*name).to_owned(),
        None => format!("call-{}", regs.orig_rax),
    }
}

fn argument(regs: &user_regs_struct, i: usize) -> u64 {
    [regs.rdi, regs.rsi, regs.rdx, regs.r10][i]
}

fn file_of(pid: Pid, fd: u64) -> String {
    let link = std::fs::read_link(format!("/proc/{pid}/fd/{}", fd as i32));
    link.map_or_else(|_| format!("fd {}", fd as i32), |path| path.display().to_string())
}

fn text_at(pid: Pid, address: u64) -> String {
    let mut text = Vec::new();
    let mut at = address;
    while let Ok(word) = ptrace::read(pid, at as ptrace::AddressType) {
        for byte in word.to_ne_bytes() {
            if byte == 0 {
                return String::from_utf8_lossy(&text).into_owned();
            }
            text.push(byte);
        }
        at += 8;
    }
    String::from_utf8_lossy(&text).into_owned()
}
