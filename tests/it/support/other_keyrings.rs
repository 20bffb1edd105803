//! KWallet and KeePassXC on a session bus, set up without a window. Their packages bring a desktop's libraries, so only the
//! long run needs them: Debian's `libkf5wallet-bin libqca-qt5-2-plugins keepassxc`.

use std::io::Write;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use base64::Engine as _;
use hmac::{Hmac, KeyInit, Mac};
use rustix::io::FdFlags;

use super::sandbox::Sandbox;
use super::{Helper, eventually};

const PASSWORD: &str = "test";
const GET: &str = "org.freedesktop.DBus.Properties.Get";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OtherKeyring {
    KWallet,
    KeePassXc,
}

impl OtherKeyring {
    /// What a refused run says of the question that a person would be asked.
    pub fn words_when_it_asks(self) -> &'static str {
        match self {
            Self::KWallet => "KWallet asks a person on the screen",
            Self::KeePassXc => "let clients read without confirmation",
        }
    }
}

/// A keyring program; it ends when it is dropped.
pub struct RunningKeyring {
    environment: Vec<(String, String)>,
    _program: Helper,
}

impl RunningKeyring {
    /// Starts the program on the bus of the sandbox; what it keeps is in the sandbox, and serves the next start.
    pub fn start(sandbox: &Sandbox, program: OtherKeyring) -> Self {
        Self::start_set(sandbox, program, false)
    }

    /// As `start`, and a person is asked before a client reads a secret.
    pub fn start_asking(sandbox: &Sandbox, program: OtherKeyring) -> Self {
        Self::start_set(sandbox, program, true)
    }

    fn start_set(sandbox: &Sandbox, program: OtherKeyring, asks: bool) -> Self {
        match program {
            OtherKeyring::KWallet => {
                // A wallet that is made in a first start has no collection until the next one.
                let wallet = sandbox.path("data/kwalletd/kdewallet.kwl");
                if !wallet.exists() {
                    let _first = start_kwallet(sandbox, asks);
                    eventually("the wallet is made", || wallet.metadata().is_ok_and(|m| m.len() > 0).then_some(()));
                }
                start_kwallet(sandbox, asks)
            }
            OtherKeyring::KeePassXc => start_keepassxc(sandbox, asks),
        }
    }

    /// Locks what is open, as its user would.
    pub fn lock(&self, program: OtherKeyring) {
        let arguments = match program {
            OtherKeyring::KWallet => {
                ["--dest=org.kde.kwalletd5", "/modules/kwalletd5", "org.kde.KWallet.closeAllWallets"]
            }
            OtherKeyring::KeePassXc => [
                "--dest=org.keepassxc.KeePassXC.MainWindow",
                "/keepassxc",
                "org.keepassxc.KeePassXC.MainWindow.lockAllDatabases",
            ],
        };
        let mut command = Command::new("dbus-send");
        command.args(["--session", "--print-reply"]).args(arguments).stdout(Stdio::null());
        assert!(command.env_clear().envs(self.environment.iter().cloned()).status().unwrap().success());
    }

    fn spawn(sandbox: &Sandbox, name: &'static str, command: &mut Command, more: Option<(&str, String)>) -> Self {
        let mut environment = sandbox.environment();
        environment.push(("QT_QPA_PLATFORM".to_owned(), "offscreen".to_owned()));
        environment.extend(more.map(|(name, value)| (name.to_owned(), value)));
        command.env_clear().envs(environment.iter().cloned());
        let running = Self { environment, _program: Helper::start(name, command) };
        eventually("the keyring has its name", || running.is_there().then_some(()));
        running
    }

    fn is_there(&self) -> bool {
        let name = "string:org.freedesktop.secrets";
        self.ask(&["--dest=org.freedesktop.DBus", "/", "org.freedesktop.DBus.NameHasOwner", name])
            .contains("boolean true")
    }

    fn ask(&self, arguments: &[&str]) -> String {
        let mut command = Command::new("dbus-send");
        command.args(["--session", "--print-reply"]).args(arguments);
        let out = command.env_clear().envs(self.environment.iter().cloned()).output().unwrap();
        String::from_utf8_lossy(&out.stdout).into_owned()
    }
}

/// Starts kwalletd5 as `pam_kwallet5` does: the key of the wallet comes through a pipe, so no dialog appears.
fn start_kwallet(sandbox: &Sandbox, asks: bool) -> RunningKeyring {
    let dir = sandbox.path("data/kwalletd");
    std::fs::create_dir_all(&dir).unwrap();
    let salt = dir.join("kdewallet.salt");
    if !salt.exists() {
        std::fs::write(&salt, [7; 56]).unwrap();
    }
    let config = format!(
        "[Wallet]\nEnabled=true\nFirst Use=false\nDefault Wallet=kdewallet\nPrompt on Open={asks}\nLeave Open=true\n\
         Close When Idle=false\nLaunch Manager=false\n[org.freedesktop.secrets]\napiEnabled=true\n"
    );
    std::fs::create_dir_all(sandbox.path("config")).unwrap();
    std::fs::write(sandbox.path("config/kwalletrc"), config).unwrap();
    let path = sandbox.path("run/kwallet5.socket");
    let _none = std::fs::remove_file(&path);
    let socket = UnixListener::bind(&path).unwrap();
    let (reader, mut writer) = std::io::pipe().unwrap();
    for kept in [reader.as_fd(), socket.as_fd()] {
        rustix::io::fcntl_setfd(kept, FdFlags::empty()).unwrap();
    }
    writer.write_all(&pbkdf2(&std::fs::read(&salt).unwrap())).unwrap();
    drop(writer);
    let mut login = UnixStream::connect(&path).unwrap();
    for (name, value) in sandbox.environment() {
        login.write_all(format!("{name}={value}\n").as_bytes()).unwrap();
    }
    login.write_all(b"QT_QPA_PLATFORM=offscreen\n").unwrap();
    drop(login);
    let mut command = Command::new("kwalletd5");
    command.arg("--pam-login").args([reader.as_raw_fd(), socket.as_raw_fd()].map(|fd| fd.to_string()));
    command.stdin(Stdio::null());
    let login = ("PAM_KWALLET5_LOGIN", path.display().to_string());
    RunningKeyring::spawn(sandbox, "kwalletd5", &mut command, Some(login))
}

/// PBKDF2 with HMAC-SHA-512 and 50,000 rounds; its one block is long enough for the 56 bytes.
fn pbkdf2(salt: &[u8]) -> Vec<u8> {
    let hmac = |message: &[u8]| -> Vec<u8> {
        let mut mac = <Hmac<sha2::Sha512> as KeyInit>::new_from_slice(PASSWORD.as_bytes()).unwrap();
        mac.update(message);
        mac.finalize().into_bytes().to_vec()
    };
    let mut round = hmac(&[salt, &[0, 0, 0, 1]].concat());
    let mut key = round.clone();
    for _ in 1..50_000 {
        round = hmac(&round);
        key.iter_mut().zip(&round).for_each(|(k, r)| *k ^= r);
    }
    key.truncate(56);
    key
}

fn start_keepassxc(sandbox: &Sandbox, asks: bool) -> RunningKeyring {
    let database = sandbox.path("data/test.kdbx");
    if !database.exists() {
        make_database(sandbox, &database);
    }
    let settings = sandbox.path("config/keepassxc.ini");
    let text = format!(
        "[General]\nConfigVersion=2\nAutoSaveAfterEveryChange=true\nUpdateCheckMessageShown=true\n\
                [GUI]\nCheckForUpdates=false\n[Security]\nLockDatabaseIdle=false\nLockDatabaseScreenLock=false\n\
                [FdoSecrets]\nEnabled=true\nConfirmAccessItem={asks}\nConfirmDeleteItem=false\nShowNotification=false\n"
    );
    std::fs::create_dir_all(sandbox.path("config")).unwrap();
    std::fs::write(&settings, text).unwrap();
    let mut command = Command::new("keepassxc");
    command.arg("--config").arg(&settings).arg("--localconfig").arg(sandbox.path("config/local.ini"));
    command.arg("--pw-stdin").arg(&database).stdin(typed(PASSWORD));
    let running = RunningKeyring::spawn(sandbox, "keepassxc", &mut command, None);
    let locked = ["string:org.freedesktop.Secret.Collection", "string:Locked"];
    let ask = [&["--dest=org.freedesktop.secrets", "/org/freedesktop/secrets/collection/test"][..], &[GET], &locked];
    eventually("the database is open", || running.ask(&ask.concat()).contains("boolean false").then_some(()));
    running
}

/// What a person types, as the standard input of a program.
fn typed(lines: &str) -> Stdio {
    let (reader, mut writer) = std::io::pipe().unwrap();
    writer.write_all(format!("{lines}\n").as_bytes()).unwrap();
    reader.into()
}

/// A database whose root group is exposed to the Secret Service, which only its window can set: written through its XML.
fn make_database(sandbox: &Sandbox, database: &Path) {
    let (empty, text): (PathBuf, PathBuf) = (sandbox.path("data/empty.kdbx"), sandbox.path("data/database.xml"));
    std::fs::create_dir_all(sandbox.path("data")).unwrap();
    let run = |arguments: &[&str], paths: &[&Path], input: &str| {
        let mut command = Command::new("keepassxc-cli");
        command.args(arguments).args(paths).env_clear().envs(sandbox.environment()).env("QT_QPA_PLATFORM", "offscreen");
        let out = command.stdin(typed(input)).output().expect("keepassxc is needed");
        assert!(out.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8(out.stdout).unwrap()
    };
    let twice = format!("{PASSWORD}\n{PASSWORD}");
    run(&["db-create", "-q", "-t", "100", "-p"], &[&empty], &twice);
    let xml = run(&["export", "-q", "-f", "xml"], &[&empty], PASSWORD);
    let xml = &xml[xml.find("<?xml").unwrap()..];
    let root = &xml[xml.find("<Root>").unwrap()..];
    let encoded = root.split("<UUID>").nth(1).unwrap().split('<').next().unwrap();
    let bytes = base64::engine::general_purpose::STANDARD.decode(encoded).unwrap();
    let uuid = uuid::Uuid::from_slice(&bytes).unwrap();
    let item = format!("<Item><Key>FDO_SECRETS_EXPOSED_GROUP</Key><Value>{{{uuid}}}</Value></Item>");
    let edited = if xml.contains("<CustomData>") {
        xml.replacen("<CustomData>", &format!("<CustomData>{item}"), 1)
    } else {
        let whole = format!("<CustomData>{item}</CustomData>");
        match xml.contains("<CustomData/>") {
            true => xml.replacen("<CustomData/>", &whole, 1),
            false => xml.replacen("</Meta>", &format!("{whole}</Meta>"), 1),
        }
    };
    std::fs::write(&text, edited).unwrap();
    run(&["import", "-q", "-t", "100", "-p"], &[&text, database], &twice);
}
