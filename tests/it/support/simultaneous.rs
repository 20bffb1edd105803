//! Many processes at one instant: all are started first, stand before a FIFO, and are released together.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use super::sandbox::{PROGRAM, Process, Run, Sandbox};

/// Runs one process of this program per argument list, all released at the same instant.
pub fn run_at_once(sandbox: &Sandbox, calls: &[Vec<&str>]) -> Vec<Run> {
    let fifo = sandbox.path("starting-gate");
    let _old = std::fs::remove_file(&fifo);
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    // Open at both ends as long as processes may still start, so that none comes too late.
    let mut gate = std::fs::OpenOptions::new().read(true).write(true).open(&fifo).unwrap();
    let ready = sandbox.path("ready");
    let _old = std::fs::remove_dir_all(&ready);
    std::fs::create_dir(&ready).unwrap();
    let runners: Vec<Process> = calls.iter().enumerate().map(|(i, call)| runner(sandbox, i, call)).collect();
    super::eventually("all runners stand at the gate", || {
        (std::fs::read_dir(&ready).unwrap().count() == calls.len()).then_some(())
    });
    // A line for each of them.
    gate.write_all("\n".repeat(calls.len()).as_bytes()).unwrap();
    runners.into_iter().map(Process::finish).collect()
}

fn runner(sandbox: &Sandbox, i: usize, call: &[&str]) -> Process {
    let script = format!(": > \"$READY/{i}\"; read _ < \"$GATE\"; exec \"$@\"");
    let mut command = sandbox.command(Path::new("/bin/sh"));
    command.args(["-c", &script, "sh", PROGRAM]).args(call);
    command.env("READY", sandbox.path("ready")).env("GATE", sandbox.path("starting-gate"));
    Process::new(command.stdin(Stdio::null()).spawn().unwrap())
}
