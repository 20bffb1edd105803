//! A real `systemd --user` of its own: private mount namespace, control group and directories. Needs root.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::Helper;
use super::sandbox::{Run, Sandbox};

pub struct UserManager {
    helper: Helper,
    groups: Vec<PathBuf>,
    environment: Vec<(String, String)>,
}

const SYSTEMD: &str = "/lib/systemd/systemd";

impl UserManager {
    pub fn start(sandbox: &Sandbox) -> Self {
        assert!(Path::new(SYSTEMD).exists(), "systemd is needed: contrib/test installs it");
        std::fs::create_dir_all(sandbox.path("config/systemd/user")).unwrap();
        let groups = own_groups();
        let join: String = groups.iter().map(|g| format!("echo $$ > '{}/cgroup.procs'; ", g.display())).collect();
        // sd_booted() looks for this directory; the rest of /run stays as it is for other processes.
        let script = format!(
            "mkdir -p /run/systemd && mount -t tmpfs tmpfs /run/systemd && mkdir /run/systemd/system && {join} \
             exec {SYSTEMD} --user --log-target=console --log-level=warning"
        );
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", &script]).env_clear().envs(sandbox.environment()).stdin(Stdio::null());
        let helper = Helper::start("systemd --user", &mut command);
        let mut manager = Self { helper, groups, environment: sandbox.environment() };
        let (pid, environment) = (manager.helper.id(), manager.environment.clone());
        // In a chroot nsenter leaves it, and finds the systemd and the sockets of the machine around.
        manager.helper.wait_until("the user manager answers systemctl (in a chroot it cannot)", |_| {
            (systemctl(pid, &environment, &["list-units"]).status == 0).then_some(())
        });
        manager
    }

    pub fn systemctl(&self, arguments: &[&str]) -> Run {
        systemctl(self.helper.id(), &self.environment, arguments)
    }

    /// Runs a program where the manager is.
    pub fn run(&self, argv: &[&str]) -> Run {
        run(self.helper.id(), &self.environment, argv)
    }

    /// One property of a unit.
    pub fn show(&self, unit: &str, property: &str) -> String {
        self.systemctl(&["show", "--value", "-p", property, unit]).stdout.trim().to_owned()
    }
}

/// Asks the manager with this process id.
fn systemctl(manager: u32, environment: &[(String, String)], arguments: &[&str]) -> Run {
    run(manager, environment, &[&["systemctl", "--user", "--no-pager"], arguments].concat())
}

fn run(manager: u32, environment: &[(String, String)], argv: &[&str]) -> Run {
    let out = Command::new("nsenter")
        .args(["--mount", "--target", &manager.to_string()])
        .args(argv)
        .env_clear()
        .envs(environment.iter().cloned())
        .stdin(Stdio::null())
        .output()
        .expect("nsenter is needed");
    Run {
        status: out.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&out.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&out.stderr).into_owned(),
    }
}

/// A control group of our own in every hierarchy there is.
fn own_groups() -> Vec<PathBuf> {
    let name =
        format!("keepalive-test-{}-{:?}", std::process::id(), std::thread::current().id()).replace(['(', ')'], "");
    let (mut made, mut refused) = (Vec::new(), Vec::new());
    for root in ["/sys/fs/cgroup/systemd", "/sys/fs/cgroup/unified", "/sys/fs/cgroup"] {
        if root == "/sys/fs/cgroup" && !Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
            continue;
        }
        let group = Path::new(root).join(&name);
        match std::fs::create_dir(&group) {
            Ok(()) => made.push(group),
            Err(error) => refused.push(format!("{}: {error}", group.display())),
        }
    }
    assert!(
        !made.is_empty(),
        "no control group can be made, which takes root and a writable /sys/fs/cgroup (many containers and chroots have \
         none): {refused:?}"
    );
    made
}

impl Drop for UserManager {
    fn drop(&mut self) {
        self.helper.tell();
        self.systemctl(&["exit"]);
        self.helper.kill();
        for group in &self.groups {
            let _best_effort = Command::new("find")
                .arg(group)
                .args(["-depth", "-type", "d", "-exec", "rmdir", "{}", ";"])
                .stderr(Stdio::null())
                .status();
        }
    }
}
