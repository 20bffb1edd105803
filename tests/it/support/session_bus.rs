//! A private session bus with a real gnome-keyring on it, in every state that a keyring can be in.

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use zbus::blocking::connection::Builder;
use zbus::blocking::{Connection, MessageIterator};
use zbus::message::Message;
use zbus::zvariant::{ObjectPath, OwnedObjectPath};

use super::Helper;
use super::sandbox::{Run, Sandbox};

/// What answers, or does not, on the bus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyringState {
    Unlocked,
    Locked,
    /// Owns its name and never answers.
    Hanging,
    /// No keyring service is on the bus.
    Missing,
}

/// A bus and its keyring; both end when it is dropped.
pub struct SessionBus {
    address: String,
    keyring: Option<Helper>,
    _daemon: Helper,
    environment: Vec<(String, String)>,
    home: PathBuf,
}

/// A prompt of the keyring that another program asked for.
pub struct UnlockPrompt {
    stopped: Arc<AtomicBool>,
    _other: Connection,
}

impl UnlockPrompt {
    pub fn is_open(&self) -> bool {
        !self.stopped.load(Ordering::SeqCst)
    }
}

const CONFIG: &str = r#"<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig><type>session</type><listen>unix:path=SOCKET</listen><auth>EXTERNAL</auth>
<policy context="default"><allow send_destination="*" eavesdrop="true"/><allow eavesdrop="true"/><allow own="*"/></policy>
</busconfig>"#;

impl SessionBus {
    /// Starts a bus for a sandbox, whose programs find it from then on.
    pub fn start(sandbox: &mut Sandbox, keyring: KeyringState) -> Self {
        let socket = sandbox.path("run/test-bus");
        let config = sandbox.path("home/bus.conf");
        std::fs::write(&config, CONFIG.replace("SOCKET", &socket.display().to_string())).unwrap();
        let mut daemon = Helper::start(
            "dbus-daemon",
            Command::new("dbus-daemon")
                .arg(format!("--config-file={}", config.display()))
                .args(["--nofork", "--nopidfile"])
                .env_clear()
                .stdin(Stdio::null()),
        );
        daemon.wait_until("the bus listens", |_| UnixStream::connect(&socket).ok());
        let address = format!("unix:path={}", socket.display());
        sandbox.set_env("DBUS_SESSION_BUS_ADDRESS", &address);
        let mut bus = Self {
            address,
            keyring: None,
            _daemon: daemon,
            environment: sandbox.environment(),
            home: sandbox.path("home"),
        };
        if keyring != KeyringState::Missing {
            bus.start_keyring();
        }
        match keyring {
            KeyringState::Locked => bus.lock(),
            KeyringState::Hanging => bus.suspend_keyring(),
            KeyringState::Unlocked | KeyringState::Missing => {}
        }
        bus
    }

    pub fn start_keyring(&mut self) {
        // Once in some hundred starts this daemon comes up and never unlocks; the next one does.
        let mut said = String::new();
        for _ in 0..3 {
            let mut keyring = self.spawn_keyring();
            let end = Instant::now() + Duration::from_secs(10);
            while Instant::now() < end && !keyring.has_ended() {
                if self.is_locked() == Some(false) {
                    self.keyring = Some(keyring);
                    return;
                }
                std::thread::sleep(Duration::from_millis(10));
            }
            said = keyring.state();
        }
        panic!("no keyring can be started; {said}");
    }

    fn spawn_keyring(&self) -> Helper {
        let arguments = ["--foreground", "--components=secrets", "--unlock"];
        let mut command = self.command("gnome-keyring-daemon", &arguments);
        let mut keyring = Helper::start("gnome-keyring-daemon", command.stdin(Stdio::piped()));
        keyring.stdin().unwrap().write_all(b"test").unwrap();
        keyring
    }

    /// Ends the keyring as a crash does.
    pub fn kill_keyring(&mut self) {
        self.keyring.take().expect("a keyring runs").kill();
        super::eventually("the name is free", || self.is_locked().is_none().then_some(()));
    }

    pub fn lock(&self) {
        let path = "array:objpath:/org/freedesktop/secrets/collection/login";
        self.call(&["/org/freedesktop/secrets", "org.freedesktop.Secret.Service.Lock", path]).expect("it locks");
        assert_eq!(self.is_locked(), Some(true));
    }

    /// Whether the login collection is locked; `None` if no service answers.
    fn is_locked(&self) -> Option<bool> {
        let answer = self.call(&[
            "/org/freedesktop/secrets/collection/login",
            "org.freedesktop.DBus.Properties.Get",
            "string:org.freedesktop.Secret.Collection",
            "string:Locked",
        ])?;
        Some(answer.contains("boolean true"))
    }

    fn call(&self, arguments: &[&str]) -> Option<String> {
        let fixed = ["--session", "--print-reply", "--reply-timeout=2000", "--dest=org.freedesktop.secrets"];
        let out = self.command("dbus-send", &fixed).args(arguments).output().expect("dbus-send is needed");
        out.status.success().then(|| String::from_utf8_lossy(&out.stdout).into_owned())
    }

    pub fn suspend_keyring(&self) {
        self.signal(rustix::process::Signal::STOP);
    }

    pub fn resume_keyring(&self) {
        self.signal(rustix::process::Signal::CONT);
    }

    fn signal(&self, signal: rustix::process::Signal) {
        let pid = self.keyring.as_ref().expect("a keyring runs").id();
        rustix::process::kill_process(rustix::process::Pid::from_raw(pid as i32).unwrap(), signal).unwrap();
    }

    pub fn keyring_lives(&mut self) -> bool {
        !self.keyring.as_mut().expect("a keyring runs").has_ended()
    }

    /// Runs what a hint says to type.
    pub fn run_in_shell(&self, line: &str) {
        let mut command = self.command("sh", &["-c", line]);
        let status = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap();
        assert!(status.success(), "{line}");
    }

    /// Has the keyring show the prompt for the login collection, as another program that wants it does, to a person who
    /// does not look.
    pub fn show_unlock_prompt(&self) -> UnlockPrompt {
        let connect = || Builder::address(self.address.as_str()).unwrap();
        let prompter = connect().name("org.gnome.keyring.SystemPrompter").unwrap().build().unwrap();
        let mut calls = MessageIterator::from(&prompter);
        let other = connect().build().unwrap();
        let call = |path: &str, interface: &str, member: &str, unlocks: bool| {
            let (to, interface) = (Some("org.freedesktop.secrets"), Some(interface));
            let collections = vec![ObjectPath::try_from("/org/freedesktop/secrets/collection/login").unwrap()];
            match unlocks {
                true => other.call_method(to, path, interface, member, &(collections,)),
                false => other.call_method(to, path, interface, member, &("",)),
            }
        };
        let service = "org.freedesktop.Secret.Service";
        let reply = call("/org/freedesktop/secrets", service, "Unlock", true).unwrap();
        let (_, prompt): (Vec<OwnedObjectPath>, OwnedObjectPath) = reply.body().deserialize().unwrap();
        call(prompt.as_str(), "org.freedesktop.Secret.Prompt", "Prompt", false).unwrap();
        let is_shown = |message: &Message| message.header().member().is_some_and(|m| m.as_str() == "BeginPrompting");
        let begun = calls.find(|message| message.as_ref().is_ok_and(is_shown)).unwrap().unwrap();
        prompter.reply(&begun.header(), &()).unwrap();
        let stopped = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&stopped);
        // It ends with the bus.
        std::thread::spawn(move || {
            for message in calls.flatten() {
                if message.header().member().is_some_and(|m| m.as_str() == "StopPrompting") {
                    flag.store(true, Ordering::SeqCst);
                }
            }
        });
        UnlockPrompt { stopped, _other: other }
    }

    /// `secret-tool`, as other programs use it.
    pub fn secret_tool(&self, arguments: &[&str], input: &str) -> Run {
        let mut child = self
            .command("secret-tool", arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("libsecret-tools is needed: contrib/test installs it");
        let _unread = child.stdin.take().unwrap().write_all(input.as_bytes());
        let out = child.wait_with_output().unwrap();
        Run {
            status: out.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&out.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&out.stderr).into_owned(),
        }
    }

    fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.args(arguments).env_clear().envs(self.environment.iter().cloned()).current_dir(&self.home);
        command.env("DBUS_SESSION_BUS_ADDRESS", &self.address);
        command
    }
}
