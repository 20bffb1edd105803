//! `contrib/test` on a machine that lacks something: what is missing is named with the remedy, and it asks once.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use super::support::root;

/// A machine of which the script sees only this folder of programs: none of them installs or builds anything.
struct BareMachine(tempfile::TempDir);

/// What every Debian has.
const ESSENTIAL: [&str; 22] = [
    "bash", "cat", "cut", "df", "dirname", "du", "env", "find", "getent", "grep", "head", "id", "ls", "mktemp",
    "printf", "readlink", "rm", "script", "sed", "sh", "sort", "tail",
];

impl BareMachine {
    fn new() -> Self {
        let machine = Self(tempfile::tempdir().unwrap());
        let path = std::env::var_os("PATH").unwrap();
        for program in ESSENTIAL.into_iter().chain(["tr"]) {
            let found = std::env::split_paths(&path).map(|dir| dir.join(program)).find(|file| file.exists());
            symlink(found.unwrap_or_else(|| panic!("{program} is needed")), machine.0.path().join(program)).unwrap();
        }
        machine.program("cargo", "exit 0");
        machine.program("rustc", "echo rustc 1.99.0");
        machine
    }

    /// A program, and a record of how it was called.
    fn program(&self, name: &str, script: &str) {
        let (file, calls) = (self.0.path().join(name), self.calls());
        std::fs::write(&file, format!("#!/bin/sh\necho {name} \"$@\" >>'{}'\n{script}\n", calls.display())).unwrap();
        std::fs::set_permissions(&file, PermissionsExt::from_mode(0o755)).unwrap();
    }

    fn calls(&self) -> PathBuf {
        self.0.path().join("calls")
    }

    fn called(&self, words: &str) -> bool {
        std::fs::read_to_string(self.calls()).unwrap_or_default().contains(words)
    }

    /// Runs a command there; what it prints. It always fails, for nothing is ever there in the end.
    #[track_caller]
    fn run(&self, command: &[&str], input: Stdio) -> String {
        let out = Command::new(self.0.path().join(command[0]))
            .args(&command[1..])
            .env_clear()
            .env("PATH", self.0.path())
            .stdin(input)
            .output()
            .unwrap();
        let said = [out.stdout, out.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
        assert_eq!(out.status.code(), Some(1), "{said}");
        said
    }

    /// Runs `contrib/test` with no terminal.
    #[track_caller]
    fn test(&self) -> String {
        self.run(&["bash", &script()], Stdio::null())
    }
}

fn script() -> String {
    root().join("contrib/test").display().to_string()
}

#[track_caller]
fn assert_says(said: &str, wanted: &[&str]) {
    for words in wanted {
        assert!(said.contains(words), "no {words:?} in {said}");
    }
}

#[ignore = "needs bash; contrib/test runs it"]
#[test]
fn contrib_test_names_the_rust_that_it_needs() {
    let machine = BareMachine::new();
    machine.program("rustc", "echo rustc 1.63.0");
    assert_says(&machine.test(), &["Rust 1.89 or newer is needed, and this is 1.63.0", "remedy: https://rustup.rs"]);
    std::fs::remove_file(machine.0.path().join("cargo")).unwrap();
    assert_says(&machine.test(), &["there is no cargo in PATH", "remedy: https://rustup.rs"]);
    assert!(!machine.called("apt-get"));
}

#[ignore = "needs bash; contrib/test runs it"]
#[test]
fn contrib_test_names_packages_where_there_is_no_apt() {
    let said = BareMachine::new().test();
    assert_says(&said, &["missing, as Debian calls it: gcc libc6-dev ", " nodejs npm", "remedy: this is no Debian"]);
}

#[ignore = "needs bash; contrib/test runs it"]
#[test]
fn contrib_test_tells_the_remedy_when_apt_fails() {
    for (words, remedy) in [
        ("E: Could not get lock /var/lib/dpkg/lock-frontend.", "another program installs packages"),
        ("E: Failed to fetch http://mirror.example/x.deb", "check the network and the mirrors"),
        ("E: Unable to locate package mandoc", "Debian 12 or newer"),
        ("E: You don't have enough free space in /var/cache/apt/archives/.", "free some disk space"),
        ("E: dpkg was interrupted, you must manually run 'dpkg --configure -a'", "dpkg --configure -a, as root"),
        ("E: something new", "mend it by hand: apt-get install gcc libc6-dev"),
    ] {
        let machine = BareMachine::new();
        machine.program("sudo", "exec \"$@\"");
        machine.program("apt-get", &format!("echo \"{words}\"; exit 100"));
        assert_says(&machine.test(), &[words, "apt-get install failed", remedy]);
        assert!(machine.called("-y --no-install-recommends install gcc"), "no terminal, so it does not ask");
    }
}

#[ignore = "needs bash; contrib/test runs it"]
#[test]
fn contrib_test_asks_once_and_installs_nothing_after_a_no() {
    use std::io::{Seek, Write};
    for (answer, is_installed) in [("n\n", false), ("y\n", true)] {
        let machine = BareMachine::new();
        machine.program("sudo", "exec \"$@\"");
        machine.program(
            "apt-get",
            "case \"$*\" in *assume-no*) echo 3 upgraded, 540 newly installed; echo Need to get 156 MB of archives.; exit 1 ;; esac\n\
             echo pmstatus:libgcc-s1.1:12.5000:Unpacking libgcc",
        );
        let mut typed = tempfile::tempfile().unwrap();
        typed.write_all(answer.as_bytes()).unwrap();
        typed.rewind().unwrap();
        let said = machine.run(&["script", "-qec", &script(), "/dev/null"], typed.into());
        assert_says(&said, &["3 upgraded, 540 newly installed", "Need to get 156 MB", "Install them? [Y/n]"]);
        assert_eq!(said.matches("[Y/n]").count(), 1);
        assert_eq!(machine.called("-y --no-install-recommends install"), is_installed, "{said}");
        let outcome: &[&str] = if is_installed {
            &["unpacking: 10 %", "still missing after the installation: gcc"]
        } else {
            &["nothing was installed"]
        };
        assert_says(&said, outcome);
    }
}
