//! The unit files of contrib/, run by a real `systemd --user`; and the crontab line, run as cron runs it.

use std::path::Path;
use std::time::Duration;

use super::support::auth_server::AuthServer;
use super::support::root;
use super::support::sandbox::{PROGRAM, Sandbox};
use super::support::token_family::RotationMode;
use super::support::user_manager::UserManager;

/// Installs a unit; its program is found where this build is.
fn install(sandbox: &Sandbox, unit: &str) {
    let text = std::fs::read_to_string(root().join("contrib/systemd").join(unit)).unwrap();
    let text = text.replace("ExecStart=keepalive ", &format!("ExecStart={PROGRAM} "));
    std::fs::write(sandbox.path("config/systemd/user").join(unit), text).unwrap();
}

#[ignore = "needs systemd; contrib/test runs it"]
#[test]
fn the_service_starts_reloads_and_stops_a_daemon() {
    let server = AuthServer::start(RotationMode::Strict);
    server.set_access_life(Duration::from_secs(2));
    let sandbox = Sandbox::signed_in(&server);
    let manager = UserManager::start(&sandbox);
    install(&sandbox, "keepalive.service");
    manager.systemctl(&["daemon-reload"]).exits(0);
    // Type=notify: start returns when the daemon has said that it is ready.
    manager.systemctl(&["start", "keepalive.service"]).exits(0);
    assert_eq!(manager.show("keepalive.service", "SubState"), "running");
    server.wait_for("the daemon refreshes", |c| c.refresh_ok >= 2);
    let pid = manager.show("keepalive.service", "MainPID");
    manager.systemctl(&["reload", "keepalive.service"]).exits(0);
    manager.systemctl(&["stop", "keepalive.service"]).exits(0);
    assert_eq!(manager.show("keepalive.service", "Result"), "success");
    assert!(!Path::new("/proc").join(pid).exists());
    assert_eq!(server.counts().presented_again, 0);
}

#[ignore = "needs systemd; contrib/test runs it"]
#[test]
fn timer_refreshes_due_profiles_and_makes_up_a_missed_run() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = Sandbox::signed_in(&server);
    let manager = UserManager::start(&sandbox);
    install(&sandbox, "keepalive-refresh.service");
    install(&sandbox, "keepalive-refresh.timer");
    // Persistent=true: a stamp from long ago means that a run was missed.
    let stamps = sandbox.path("data/systemd/timers");
    std::fs::create_dir_all(&stamps).unwrap();
    let stamp = std::fs::File::create(stamps.join("stamp-keepalive-refresh.timer")).unwrap();
    stamp.set_modified(std::time::SystemTime::now() - Duration::from_secs(86_400)).unwrap();
    let drop_in = sandbox.path("config/systemd/user/keepalive-refresh.timer.d");
    std::fs::create_dir_all(&drop_in).unwrap();
    std::fs::write(drop_in.join("now.conf"), "[Timer]\nRandomizedDelaySec=0\n").unwrap();
    manager.systemctl(&["daemon-reload"]).exits(0);
    manager.systemctl(&["start", "keepalive-refresh.timer"]).exits(0);
    // The token lives ten minutes and the lookahead is eleven: due.
    server.wait_for("the missed run is made up for", |c| c.refresh_ok == 1);
    super::support::eventually("the run ends well", || {
        (manager.show("keepalive-refresh.service", "ActiveState") == "inactive").then_some(())
    });
    assert_eq!(manager.show("keepalive-refresh.service", "Result"), "success");
}

#[ignore = "needs systemd; contrib/test runs it"]
#[test]
fn systemd_analyze_accepts_every_unit() {
    for unit in ["keepalive.service", "keepalive-refresh.service", "keepalive-refresh.timer"] {
        let sandbox = Sandbox::new();
        std::fs::create_dir_all(sandbox.path("config/systemd/user")).unwrap();
        for each in ["keepalive.service", "keepalive-refresh.service", "keepalive-refresh.timer"] {
            install(&sandbox, each);
        }
        // It exits with 0 on unknown keys; anything it says is a fault.
        let mut command = sandbox.command(Path::new("systemd-analyze"));
        let out = command
            .args(["verify", "--user", "--man=no"])
            .arg(sandbox.path("config/systemd/user").join(unit))
            .output()
            .expect("systemd-analyze is needed: contrib/test installs it");
        let said = String::from_utf8_lossy(&out.stderr);
        let ours: Vec<_> = said.lines().filter(|l| l.contains("keepalive")).collect();
        assert!(out.status.success() && ours.is_empty(), "{said}");
    }
}

#[test]
fn the_crontab_line_works_in_crons_bare_environment() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = Sandbox::new();
    // cron sets HOME and nothing of XDG: configuration and state lie below the home directory.
    let home = sandbox.path("home");
    std::fs::create_dir_all(home.join(".config/keepalive")).unwrap();
    sandbox.file_store(&format!("{}[profile.demo]\nprovider = \"acme\"\n", server.provider("")));
    std::fs::rename(sandbox.path("config/keepalive/config.toml"), home.join(".config/keepalive/config.toml")).unwrap();
    let crontab = std::fs::read_to_string(root().join("contrib/crontab")).unwrap();
    let line = crontab.lines().find(|l| l.starts_with("*/10 ")).unwrap();
    let command = line.split_whitespace().skip(5).collect::<Vec<_>>().join(" ");
    let bin = Path::new(PROGRAM).parent().unwrap().display();
    let as_cron = |command: &str, input: &str| {
        use std::io::Write;
        let mut child = std::process::Command::new("/bin/sh")
            .args(["-c", command])
            .env_clear()
            .envs([("HOME", home.display().to_string()), ("LOGNAME", "u".into()), ("SHELL", "/bin/sh".into())])
            .env("PATH", format!("{bin}:/usr/bin:/bin"))
            .current_dir(&home)
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    };
    assert!(as_cron("keepalive import demo", &server.mint().to_string()).status.success());
    let out = as_cron(&command, "");
    assert!(out.status.success() && out.stdout.is_empty() && out.stderr.is_empty(), "cron mails what is said: {out:?}");
    // The token lives ten minutes, and so does the lookahead.
    assert_eq!(server.counts().refresh_ok, 1);
}
