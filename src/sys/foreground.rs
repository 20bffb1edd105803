//! A child that stands in for this process at its terminal: it has the same process group, is sent the same signals, and
//! stops this process when it is stopped itself.

use std::io;
use std::process::{Child, Command};
use std::sync::{Mutex, PoisonError};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, getpid, kill_process, waitid};

use super::process;

/// It is not reaped before the end of its last wait, so that its pid is that of no other process meanwhile.
pub struct ForegroundChild {
    pid: Pid,
    /// `None` once it has ended.
    running: Mutex<Option<Child>>,
}

impl ForegroundChild {
    /// Starts a command as if a shell had started it: nothing of what protects this process is inherited.
    pub fn spawn(command: &mut Command) -> io::Result<Self> {
        process::soften();
        let spawned = command.spawn();
        process::harden();
        let child = spawned?;
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::InvalidData)?;
        Ok(Self { pid, running: Mutex::new(Some(child)) })
    }

    /// Sends it a signal, if it has not ended.
    pub fn signal(&self, signal: i32) {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if let (true, Some(signal)) = (running.is_some(), Signal::from_named_raw(signal)) {
            // It may have ended just now.
            let _ended = kill_process(self.pid, signal);
        }
    }

    /// Waits for its end, and returns what a shell would call its exit status: 128 and the number of a signal that ended it.
    pub fn wait(&self) -> io::Result<u8> {
        loop {
            let changed =
                waitid(WaitId::Pid(self.pid), WaitIdOptions::EXITED | WaitIdOptions::STOPPED | WaitIdOptions::NOWAIT);
            let status = match changed {
                Ok(Some(status)) => status,
                Ok(None) | Err(rustix::io::Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            };
            if status.stopped() {
                self.stop_with_it()?;
                continue;
            }
            let signal = status.terminating_signal().map(|signal| 128 + signal);
            let status = status.exit_status().or(signal).unwrap_or(1);
            let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(mut child) = running.take() {
                child.wait()?;
            }
            return Ok(u8::try_from(status & 0xff).unwrap_or(u8::MAX));
        }
    }

    /// Stops this process, so that a shell sees the job stopped. It goes on when the shell continues the job.
    fn stop_with_it(&self) -> io::Result<()> {
        waitid(WaitId::Pid(self.pid), WaitIdOptions::STOPPED | WaitIdOptions::NOHANG)?;
        kill_process(getpid(), Signal::STOP)?;
        Ok(())
    }
}
