//! A real `systemd --user` of its own: private mount namespace, control group and directories. Needs root.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::HelperLog;
use super::sandbox::{Run, Sandbox};

pub struct UserManager {
    manager: Child,
    groups: Vec<PathBuf>,
    environment: Vec<(String, String)>,
    _log: HelperLog,
}

const SYSTEMD: &str = "/lib/systemd/systemd";

impl UserManager {
    pub fn start(sandbox: &Sandbox) -> Self {
        assert!(Path::new(SYSTEMD).exists(), "systemd is needed: contrib/test installs it");
        std::fs::create_dir_all(sandbox.path("config/systemd/user")).unwrap();
        let groups = own_groups();
        assert!(!groups.is_empty(), "a control group cannot be made: root is needed");
        let join: String = groups.iter().map(|g| format!("echo $$ > '{}/cgroup.procs'; ", g.display())).collect();
        // sd_booted() looks for this directory; the rest of /run stays as it is for other processes.
        let script = format!(
            "mkdir -p /run/systemd && mount -t tmpfs tmpfs /run/systemd && mkdir /run/systemd/system && {join} \
             exec {SYSTEMD} --user --log-target=console --log-level=warning"
        );
        let log = HelperLog::new("systemd");
        let manager = Command::new("unshare")
            .args(["--mount", "sh", "-c", &script])
            .env_clear()
            .envs(sandbox.environment())
            .stdin(Stdio::null())
            .stdout(log.stream())
            .stderr(log.stream())
            .spawn()
            .expect("unshare is needed");
        let manager = Self { manager, groups, environment: sandbox.environment(), _log: log };
        super::eventually("the user manager answers", || {
            (manager.systemctl(&["list-units"]).status == 0).then_some(())
        });
        manager
    }

    pub fn systemctl(&self, arguments: &[&str]) -> Run {
        let out = Command::new("nsenter")
            .args(["--mount", "--target", &self.manager.id().to_string(), "systemctl", "--user", "--no-pager"])
            .args(arguments)
            .env_clear()
            .envs(self.environment.iter().cloned())
            .stdin(Stdio::null())
            .output()
            .expect("nsenter is needed");
        Run {
            status: out.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&out.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&out.stderr).into_owned(),
        }
    }

    /// One property of a unit.
    pub fn show(&self, unit: &str, property: &str) -> String {
        self.systemctl(&["show", "--value", "-p", property, unit]).stdout.trim().to_owned()
    }
}

/// A control group of our own in every hierarchy there is.
fn own_groups() -> Vec<PathBuf> {
    let name =
        format!("keepalive-test-{}-{:?}", std::process::id(), std::thread::current().id()).replace(['(', ')'], "");
    ["/sys/fs/cgroup/systemd", "/sys/fs/cgroup/unified", "/sys/fs/cgroup"]
        .iter()
        .filter(|root| **root != "/sys/fs/cgroup" || Path::new("/sys/fs/cgroup/cgroup.controllers").exists())
        .map(|root| Path::new(root).join(&name))
        .filter(|group| std::fs::create_dir(group).is_ok())
        .collect()
}

impl Drop for UserManager {
    fn drop(&mut self) {
        self.systemctl(&["exit"]);
        let _gone = self.manager.kill();
        let _gone = self.manager.wait();
        for group in &self.groups {
            let _best_effort = Command::new("find")
                .arg(group)
                .args(["-depth", "-type", "d", "-exec", "rmdir", "{}", ";"])
                .stderr(Stdio::null())
                .status();
        }
    }
}
