//! `service`: what it writes, what it runs, and what it leaves alone.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde_json::json;

use super::support::auth_server::AuthServer;
use super::support::sandbox::{PROGRAM, Sandbox};
use super::support::token_family::RotationMode;
use super::support::user_manager::UserManager;

/// Tools in the place of the system's: each notes how it was called, and then runs `script`.
fn with_tools(tools: &[(&str, &str)]) -> Sandbox {
    let mut sandbox = Sandbox::new();
    let bin = sandbox.path("bin");
    std::fs::create_dir_all(&bin).unwrap();
    for (name, script) in tools {
        let file = bin.join(name);
        let log = sandbox.path("calls").display().to_string();
        std::fs::write(&file, format!("#!/bin/sh\necho {name} \"$@\" >>'{log}'\n{script}\n")).unwrap();
        std::fs::set_permissions(&file, PermissionsExt::from_mode(0o755)).unwrap();
    }
    // The tools of the system stay reachable for the scripts, but not for the program's own calls.
    for name in ["sh", "id", "cat", "rm"] {
        std::os::unix::fs::symlink(format!("/bin/{name}"), bin.join(name)).unwrap_or_default();
    }
    if !Path::new("/bin/id").exists() {
        std::os::unix::fs::symlink("/usr/bin/id", bin.join("id")).unwrap_or_default();
    }
    sandbox.set_env("PATH", &bin.display().to_string());
    sandbox.file_store("");
    sandbox
}

const SYSTEMCTL: &str =
    "case \"$*\" in *is-active*) echo active;; *is-enabled*) echo enabled;; *MainPID*) echo 7;; esac";

fn calls(sandbox: &Sandbox) -> String {
    std::fs::read_to_string(sandbox.path("calls")).unwrap_or_default()
}

fn unit(sandbox: &Sandbox, name: &str) -> std::path::PathBuf {
    sandbox.path("config/systemd/user").join(name)
}

#[test]
fn install_writes_enables_and_lingers_and_uninstall_undoes_it() {
    let linger = "case \"$*\" in *enable-linger) : >\"$HOME/linger\";; *) test -e \"$HOME/linger\" && echo yes;; esac";
    let sandbox = with_tools(&[("systemctl", SYSTEMCTL), ("loginctl", linger)]);
    let run = sandbox.keepalive(&["service", "install"]).exits(0).says("wrote /").says("lingering is on");
    assert!(run.stderr.contains("enabled and started keepalive.service"), "{run:#?}");
    let text = std::fs::read_to_string(unit(&sandbox, "keepalive.service")).unwrap();
    assert!(text.contains(&format!("\nExecStart=\"{PROGRAM}\" daemon\n")), "{text}");
    let config = sandbox.path("config/keepalive/config.toml");
    assert!(text.contains(&format!("\nEnvironment=\"KEEPALIVE_CONFIG={}\"\n", config.display())), "{text}");
    let made = calls(&sandbox);
    for call in ["daemon-reload", "enable keepalive.service", "restart keepalive.service", "enable-linger"] {
        assert!(made.contains(call), "{call}: {made}");
    }
    let again = sandbox.keepalive(&["service", "install"]).exits(0);
    assert!(!again.stderr.contains("wrote"), "{again:#?}");
    let status = sandbox.keepalive(&["--json", "service", "status"]).exits(0).json();
    let shown = json!({"file": "ours", "enabled": "enabled", "active": "active"});
    assert_eq!((&status["units"]["keepalive.service"], &status["linger"]), (&shown, &json!(true)));
    sandbox.keepalive(&["service", "uninstall"]).exits(0).says("stopped, disabled and removed");
    assert!(calls(&sandbox).contains("disable --now keepalive.service"));
    assert!(!unit(&sandbox, "keepalive.service").exists());
    sandbox.keepalive(&["service", "uninstall"]).exits(0).says("nothing of ours is installed");
}

/// The shell has an `XDG_CONFIG_HOME` that the manager has not.
#[test]
fn install_writes_where_the_manager_reads() {
    let paths = "UnitPath=$HOME/.config/systemd/user.control $HOME/.config/systemd/user /etc/systemd/user";
    let script = format!("case \"$*\" in *UnitPath*) echo \"{paths}\";; *is-active*) echo active;; esac");
    let sandbox = with_tools(&[("systemctl", &script), ("loginctl", "exit 1")]);
    let usual = sandbox.path("home/.config/systemd/user/keepalive.service");
    sandbox.keepalive(&["service", "install"]).exits(0).says(&format!("wrote {}", usual.display()));
    assert!(usual.exists() && !unit(&sandbox, "keepalive.service").exists());
    let status = sandbox.keepalive(&["--json", "service", "status"]).exits(0).json();
    assert_eq!(status["units"]["keepalive.service"]["file"], "ours");
    sandbox.keepalive(&["service", "uninstall"]).exits(0).says("stopped, disabled and removed");
    assert!(!usual.exists());
}

#[test]
fn uninstall_removes_its_unit_whatever_it_finds() {
    let unknown = "case \"$*\" in *disable*) echo 'Unit file keepalive.service does not exist.' >&2; exit 1;; \
                   *is-active*) echo inactive;; esac";
    for (tools, words) in [
        (&[("systemctl", unknown)][..], "Unit file keepalive.service does not exist."),
        (&[("systemctl", "echo 'No medium found' >&2; exit 1")], "keepalive.service was not stopped"),
        (&[], "systemctl is not installed"),
    ] {
        let sandbox = with_tools(tools);
        let (file, wants) = (unit(&sandbox, "keepalive.service"), unit(&sandbox, "default.target.wants"));
        std::fs::create_dir_all(&wants).unwrap();
        std::fs::write(&file, "# Written by keepalive service install; keepalive service uninstall removes it.\n")
            .unwrap();
        std::os::unix::fs::symlink(&file, wants.join("keepalive.service")).unwrap();
        // Of a configuration it needs nothing.
        sandbox.config("[store\n");
        sandbox.keepalive(&["service", "uninstall"]).exits(0).says(words).says(&format!("removed {}", file.display()));
        assert!(!file.exists() && wants.join("keepalive.service").symlink_metadata().is_err());
        sandbox.keepalive(&["service", "uninstall"]).exits(0).says("nothing of ours");
    }
}

#[test]
fn unit_of_someone_else_is_never_changed() {
    let sandbox = with_tools(&[("systemctl", SYSTEMCTL), ("loginctl", "exit 1")]);
    std::fs::create_dir_all(unit(&sandbox, "")).unwrap();
    let theirs = "[Service]\nExecStart=keepalive daemon\n";
    std::fs::write(unit(&sandbox, "keepalive.service"), theirs).unwrap();
    std::os::unix::fs::symlink("/dev/null", unit(&sandbox, "keepalive-refresh.timer")).unwrap();
    sandbox.keepalive(&["service", "install"]).exits(1).says("was not written by keepalive, and is not changed");
    sandbox.keepalive(&["service", "install", "--timer"]).exits(1).says("keepalive-refresh.timer was not written");
    sandbox.keepalive(&["service", "uninstall"]).exits(0).says("nothing of ours");
    assert_eq!(std::fs::read_to_string(unit(&sandbox, "keepalive.service")).unwrap(), theirs);
    assert!(!unit(&sandbox, "keepalive-refresh.service").exists());
    assert!(!calls(&sandbox).contains("disable"), "{}", calls(&sandbox));
}

#[test]
fn refused_lingering_and_a_missing_manager_are_told() {
    let refused = "test \"$2\" = enable-linger || exit 0; echo 'Access denied' >&2; exit 1";
    let sandbox = with_tools(&[("systemctl", SYSTEMCTL), ("loginctl", refused)]);
    let run = sandbox.keepalive(&["service", "install", "--timer"]).exits(0).says("Access denied");
    let run = run.says("`loginctl enable-linger ").says("enabled and started keepalive-refresh.timer");
    assert_eq!(run.stderr.matches("wrote /").count(), 2, "{run:#?}");
    let sandbox = with_tools(&[("systemctl", "echo 'Failed to connect to bus: No medium found' >&2; exit 1")]);
    let run = sandbox.keepalive(&["service", "install"]).exits(1).says("Failed to connect to bus");
    run.says("keepalive service install --cron").says("run `keepalive daemon`");
    assert!(!unit(&sandbox, "keepalive.service").exists());
    sandbox.keepalive(&["service", "status"]).exits(1).says("nothing refreshes your profiles");
    let sandbox = with_tools(&[]);
    sandbox.keepalive(&["service", "install"]).exits(1).says("systemctl is not installed");
    sandbox
        .keepalive(&["service", "install", "--cron"])
        .exits(1)
        .says("crontab is not installed")
        .says("`keepalive daemon`");
}

#[test]
fn daemon_in_a_terminal_is_not_joined_by_a_service() {
    let server = AuthServer::start(RotationMode::Strict);
    let inactive = "case \"$*\" in *is-active*) echo inactive; exit 3;; esac";
    let sandbox = with_tools(&[("systemctl", inactive), ("loginctl", "exit 1")]);
    sandbox.file_store(&format!("{}[profile.demo]\nprovider = \"acme\"\n", server.provider("")));
    let daemon = sandbox.daemon();
    let words = format!("is running already (pid {})", daemon.id());
    sandbox.keepalive(&["service", "install"]).exits(1).says(&words);
    assert!(!unit(&sandbox, "keepalive.service").exists());
}

#[test]
fn cron_line_is_added_once_and_taken_out_again() {
    let crontab = "f=\"$HOME/crontab\"; case \"$1\" in -l) test -e \"$f\" || { echo 'no crontab for you' >&2; exit 1; }; \
                   cat \"$f\";; -) cat >\"$f\";; esac";
    let sandbox = with_tools(&[("crontab", crontab)]);
    let file = sandbox.path("home/crontab");
    let theirs = "0 1 * * * backup";
    std::fs::write(&file, theirs).unwrap();
    sandbox.keepalive(&["service", "install", "--cron"]).exits(0).says("added a line to your crontab");
    let text = std::fs::read_to_string(&file).unwrap();
    let line = text.lines().last().unwrap();
    assert!(text.starts_with("0 1 * * * backup\n# Written by keepalive service install"), "{text}");
    assert!(line.starts_with("*/10 * * * * KEEPALIVE_CONFIG=/"), "{line}");
    assert!(line.ends_with(&format!(" {PROGRAM} --quiet refresh --lookahead 10m")), "{line}");
    sandbox.keepalive(&["service", "install", "--cron"]).exits(0).says("nothing to do");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), text);
    sandbox.keepalive(&["service", "status"]).exits(0).says("crontab: a run every ten minutes");
    sandbox.keepalive(&["service", "uninstall", "--cron"]).exits(0);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), format!("{theirs}\n"));
}

#[ignore = "needs systemd; contrib/test runs it"]
#[test]
fn installed_service_runs_the_daemon_under_systemd() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = Sandbox::signed_in(&server);
    let manager = UserManager::start(&sandbox);
    manager.run(&[PROGRAM, "service", "install"]).exits(0).says("enabled and started keepalive.service");
    assert_eq!(manager.show("keepalive.service", "SubState"), "running");
    let status = sandbox.keepalive(&["status"]).exits(0);
    assert!(!status.stderr.contains("no daemon"), "{status:#?}");
    manager.run(&[PROGRAM, "service", "status"]).exits(0).says("keepalive.service: active, pid ");
    manager.run(&[PROGRAM, "service", "uninstall"]).exits(0);
    assert!(manager.show("keepalive.service", "LoadState") == "not-found");
    manager.run(&[PROGRAM, "service", "install", "--timer"]).exits(0);
    assert_eq!(manager.show("keepalive-refresh.timer", "ActiveState"), "active");
    manager.run(&[PROGRAM, "service", "uninstall"]).exits(0);
    assert_ne!(manager.show("keepalive-refresh.timer", "ActiveState"), "active");
}
