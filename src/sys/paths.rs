//! Finds the directories and files of this run, and reads every environment variable.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// Configuration file. Overridden by `--config`.
pub const CONFIG: &str = "KEEPALIVE_CONFIG";
/// Directory of locks, journals and records.
pub const STATE_DIR: &str = "KEEPALIVE_STATE_DIR";
/// The daemon's socket.
pub const SOCKET: &str = "KEEPALIVE_SOCKET";
/// Set for commands that keepalive runs: the profiles they are run for, separated by commas.
pub const ACTIVE_PROFILES: &str = "KEEPALIVE_WITHIN";
/// Set for the processes of a rehearsal: the pid of the one that started them, with which they end.
pub const PARENT: &str = "KEEPALIVE_PARENT";
/// A filter for the log, in the form of `tracing`'s `EnvFilter`; beats `-v` and `-q`.
pub const LOG: &str = "KEEPALIVE_LOG";
/// Set by the completion script of a shell: the name of that shell.
pub const COMPLETE: &str = "KEEPALIVE_COMPLETE";
/// Set for the command of `exec`, and named by `token --format env`: the access token, unless another name is asked for.
pub const TOKEN: &str = "KEEPALIVE_ACCESS_TOKEN";
/// Set for the command of `exec`, and for hooks: the profile.
pub const PROFILE: &str = "KEEPALIVE_PROFILE";
/// Set for the command of `exec`: when its token expires.
pub const EXPIRES_AT: &str = "KEEPALIVE_EXPIRES_AT";
/// Set by Grok Build for its `auth_provider_command`, if its API has rejected the token.
const GROK_AUTH_EXPIRED: &str = "GROK_AUTH_EXPIRED";
/// Set for hooks: what has happened.
pub const EVENT: &str = "KEEPALIVE_EVENT";
/// Where systemd puts a unit's credentials.
const CREDENTIALS_DIRECTORY: &str = "CREDENTIALS_DIRECTORY";

/// The places of one run.
#[derive(Clone, Debug)]
pub struct Environment {
    pub config: PathBuf,
    /// The user named the file, so its absence is an error.
    pub is_config_explicit: bool,
    pub state_dir: PathBuf,
    pub socket: PathBuf,
    /// `None` lets the D-Bus library find none.
    pub session_bus: Option<SessionBus>,
    pub home: Option<PathBuf>,
    /// `$XDG_RUNTIME_DIR`, or the place where systemd puts it.
    pub runtime_dir: Option<PathBuf>,
    /// Where the units of this user are.
    pub unit_dir: PathBuf,
    /// The places that differ from what the home directory alone gives, by the variable that names each.
    pub own_places: Vec<(&'static str, PathBuf)>,
    pub credentials_dir: Option<PathBuf>,
    /// `KEEPALIVE_WITHIN`, split.
    pub active_profiles: Vec<String>,
    pub log_filter: Option<String>,
    /// `KEEPALIVE_PARENT`.
    pub parent_pid: Option<u32>,
    pub desktop: Desktop,
    pub tool_dirs: ToolDirs,
    /// This program, if it is `keepalive` and may start itself. In a program that embeds the library it is not.
    pub own_program: Option<PathBuf>,
}

/// The session bus, and what the keyrings on it can be told by.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SessionBus {
    pub address: String,
    /// Where KWallet has its settings; the last file counts.
    pub kwallet_settings: Vec<PathBuf>,
}

/// The directories of other tools; `None` if the home directory is not known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ToolDirs {
    /// `CODEX_HOME`.
    pub codex: Option<PathBuf>,
    /// `CLAUDE_CONFIG_DIR`.
    pub claude: Option<PathBuf>,
    /// `GROK_HOME`.
    pub grok: Option<PathBuf>,
    /// Below `GEMINI_CLI_HOME`.
    pub gemini: Option<PathBuf>,
    /// `OPENCLAW_STATE_DIR`.
    pub openclaw: Option<PathBuf>,
    /// Below `XDG_DATA_HOME`.
    pub opencode: Option<PathBuf>,
    /// `PI_CODING_AGENT_DIR`.
    pub pi: Option<PathBuf>,
    /// `HERMES_HOME`.
    pub hermes: Option<PathBuf>,
    /// `CHATGPT_TOKEN_DIR` and `CHATGPT_AUTH_FILE`: the file itself.
    pub litellm: Option<PathBuf>,
    pub cliproxy: Option<PathBuf>,
    /// `MCP_REMOTE_CONFIG_DIR`.
    pub mcp_remote: Option<PathBuf>,
    /// `RCLONE_CONFIG`: the file itself.
    pub rclone: Option<PathBuf>,
    /// `GH_CONFIG_DIR`.
    pub gh: Option<PathBuf>,
}

/// What is known of a person's screen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Desktop {
    /// Commands that open a page, in the order of preference, as `BROWSER` lists them.
    pub browsers: Vec<String>,
    /// There is a graphical session here, so the system's own way to open a page has somewhere to open it.
    pub is_graphical: bool,
}

impl Environment {
    /// Finds the places from the environment and, first of all, from `--config`.
    pub fn from_env(config: Option<&Path>) -> Self {
        Self::from_env_except(config, None)
    }

    /// As [`Environment::from_env`], with a state directory that the environment does not change.
    pub fn from_env_except(config: Option<&Path>, state_dir_given: Option<&Path>) -> Self {
        let home = std::env::home_dir().filter(|h| h.is_absolute());
        let runtime = runtime_dir();
        let named = config.map(Path::to_owned).or_else(|| path(CONFIG));
        let given = state_dir_given.map(Path::to_owned).or_else(|| path(STATE_DIR));
        let state = given.unwrap_or_else(|| state_dir(home.as_deref()));
        let is_config_explicit = named.is_some();
        let config = named.unwrap_or_else(|| config_dir(home.as_deref()).join("config.toml"));
        Self {
            is_config_explicit,
            own_places: own_places(&config, &state, home.as_deref()),
            unit_dir: xdg("XDG_CONFIG_HOME", home.as_deref(), ".config").join("systemd/user"),
            runtime_dir: runtime.clone(),
            config,
            socket: path(SOCKET).unwrap_or_else(|| {
                runtime.as_ref().map_or_else(|| state.join("keepalive.sock"), |r| r.join("keepalive/keepalive.sock"))
            }),
            session_bus: session_bus(runtime.as_deref(), home.as_deref()),
            credentials_dir: path(CREDENTIALS_DIRECTORY),
            active_profiles: text(ACTIVE_PROFILES)
                .map(|w| w.split(',').map(str::to_owned).collect())
                .unwrap_or_default(),
            log_filter: text(LOG),
            parent_pid: text(PARENT).and_then(|pid| pid.parse().ok()),
            desktop: desktop(),
            tool_dirs: tool_dirs(home.as_deref()),
            own_program: None,
            state_dir: state,
            home,
        }
    }
}

/// What another process of this user must be told to use the same places.
fn own_places(config: &Path, state: &Path, home: Option<&Path>) -> Vec<(&'static str, PathBuf)> {
    let usual = |below: &str| home.map(|home| home.join(below));
    let whole = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let mut places = Vec::new();
    if usual(".config/keepalive/config.toml").as_deref() != Some(config) {
        places.push((CONFIG, whole(config)));
    }
    if usual(".local/state/keepalive").as_deref() != Some(state) {
        places.push((STATE_DIR, whole(state)));
    }
    places.extend(path(SOCKET).map(|socket| (SOCKET, whole(&socket))));
    places
}

/// The value of the environment variable that a user named in the configuration, for example for a client secret.
pub fn user_variable(variable: &str) -> Option<String> {
    text(variable)
}

/// The variables that a hook inherits. It gets no others, as some may be secret.
pub fn inherited_by_hooks() -> Vec<(OsString, OsString)> {
    const NAMES: [&str; 4] = ["PATH", "HOME", "LANG", "DBUS_SESSION_BUS_ADDRESS"];
    let is_named = |name: &OsString| {
        let name = name.to_str().unwrap_or_default();
        NAMES.contains(&name) || name.starts_with("XDG_")
    };
    std::env::vars_os().filter(|(name, _)| is_named(name)).collect()
}

/// Where a program is in `PATH`.
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = variable("PATH")?;
    std::env::split_paths(&path).filter(|dir| dir.is_absolute()).map(|dir| dir.join(name)).find(|path| is_program(path))
}

/// Whether there is a file that can be run.
pub fn is_program(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|about| {
        #[cfg(unix)]
        let is_executable = std::os::unix::fs::PermissionsExt::mode(&about.permissions()) & 0o111 != 0;
        #[cfg(not(unix))]
        let is_executable = true;
        about.is_file() && is_executable
    })
}

/// What kubectl tells a program that it runs for a token: an ExecCredential, as JSON.
pub fn kubernetes_exec_info() -> Option<String> {
    text("KUBERNETES_EXEC_INFO")
}

/// Where a program is that is started by its name; `None`: nowhere in `PATH`.
pub fn find_in_path(program: &str) -> Option<PathBuf> {
    let is_program = |path: &PathBuf| {
        #[cfg(unix)]
        let is_executable = rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok();
        #[cfg(not(unix))]
        let is_executable = true;
        path.is_file() && is_executable
    };
    std::env::split_paths(&variable("PATH")?).map(|dir| dir.join(program)).find(is_program)
}

/// The name that this program was called by, and its arguments.
pub fn arguments() -> Vec<OsString> {
    std::env::args_os().collect()
}

/// Whether Grok Build says that its API has rejected the token. It does not say which one.
pub fn is_grok_token_rejected() -> bool {
    text(GROK_AUTH_EXPIRED).as_deref() == Some("1")
}

/// What systemd says of the stream that standard output and error were connected to: device and inode, as `8:1234`.
pub fn journal_stream() -> Option<String> {
    text("JOURNAL_STREAM")
}

/// Whether a terminal, if there is one, can do no more than print: `TERM` says so, or nothing. Consoles of Windows have none.
pub fn is_terminal_dumb() -> bool {
    !cfg!(windows) && variable("TERM").is_none_or(|kind| kind == "dumb")
}

/// Whether characters beyond ASCII can be expected to show: by the locale, and by the terminal if it is one.
pub fn is_unicode_shown(is_terminal: bool) -> bool {
    match ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().find_map(text) {
        _ if cfg!(any(windows, target_os = "macos")) => true,
        Some(locale) => locale.to_lowercase().contains("utf") && !(is_terminal && is_terminal_dumb()),
        None => !is_terminal,
    }
}

#[expect(clippy::disallowed_methods, reason = "the one place that asks")]
fn variable(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|v| !v.is_empty())
}

fn text(name: &str) -> Option<String> {
    variable(name)?.into_string().ok()
}

fn path(name: &str) -> Option<PathBuf> {
    variable(name).map(PathBuf::from)
}

fn tool_dirs(home: Option<&Path>) -> ToolDirs {
    let given = |name: &str| path(name).map(|given| whole_path(&given, home));
    let at = |name: &str, below: &str| given(name).or_else(|| home.map(|h| h.join(below)));
    ToolDirs {
        codex: at("CODEX_HOME", ".codex"),
        claude: at("CLAUDE_CONFIG_DIR", ".claude"),
        grok: at("GROK_HOME", ".grok"),
        gemini: given("GEMINI_CLI_HOME").as_deref().or(home).map(|h| h.join(".gemini")),
        openclaw: given("OPENCLAW_STATE_DIR").or_else(|| home.map(|h| first_there(h, [".openclaw", ".clawdbot"]))),
        opencode: home.map(|h| xdg("XDG_DATA_HOME", Some(h), ".local/share").join("opencode")),
        pi: at("PI_CODING_AGENT_DIR", ".pi/agent"),
        hermes: at("HERMES_HOME", ".hermes"),
        litellm: at("CHATGPT_TOKEN_DIR", ".config/litellm/chatgpt")
            .map(|dir| dir.join(path("CHATGPT_AUTH_FILE").unwrap_or_else(|| "auth.json".into()))),
        cliproxy: home.map(|h| h.join(".cli-proxy-api")),
        mcp_remote: at("MCP_REMOTE_CONFIG_DIR", ".mcp-auth"),
        rclone: given("RCLONE_CONFIG").or_else(|| home.map(usual_rclone)),
        gh: given("GH_CONFIG_DIR").or_else(|| home.map(|h| xdg("XDG_CONFIG_HOME", Some(h), ".config").join("gh"))),
    }
}

/// The first of the directories below `home` that is there, or the one that would be made.
fn first_there(home: &Path, names: [&str; 2]) -> PathBuf {
    names.map(|name| home.join(name)).into_iter().find(|dir| dir.exists()).unwrap_or_else(|| home.join(names[0]))
}

/// Where rclone has its configuration: in the home directory itself if an earlier version put it there.
fn usual_rclone(home: &Path) -> PathBuf {
    let (new, old) =
        (xdg("XDG_CONFIG_HOME", Some(home), ".config").join("rclone/rclone.conf"), home.join(".rclone.conf"));
    if old.exists() && !new.exists() { old } else { new }
}

/// A path that means the same from every directory. Tools read a tilde that the shell left.
fn whole_path(given: &Path, home: Option<&Path>) -> PathBuf {
    match (given.strip_prefix("~"), home) {
        (Ok(below), Some(home)) => home.join(below),
        _ => std::path::absolute(given).unwrap_or_else(|_| given.to_owned()),
    }
}

fn desktop() -> Desktop {
    let is_set = |name| variable(name).is_some();
    let is_remote = is_set("SSH_CONNECTION") || is_set("SSH_TTY");
    // Where every login has a screen, only a remote one has not.
    let is_graphical = match cfg!(any(target_os = "macos", windows)) {
        true => !is_remote,
        false => is_set("WAYLAND_DISPLAY") || is_set("DISPLAY"),
    };
    let browsers = text("BROWSER").map(|list| list.split(':').filter(|b| !b.is_empty()).map(str::to_owned).collect());
    Desktop { browsers: browsers.unwrap_or_default(), is_graphical }
}

/// An XDG directory: the variable if it is absolute, as the specification asks, else below the home directory.
fn xdg(name: &str, home: Option<&Path>, below: &str) -> PathBuf {
    path(name)
        .filter(|p| p.is_absolute())
        .unwrap_or_else(|| home.map_or_else(|| PathBuf::from(below), |h| h.join(below)))
}

#[cfg(not(any(target_os = "macos", windows)))]
fn config_dir(home: Option<&Path>) -> PathBuf {
    xdg("XDG_CONFIG_HOME", home, ".config").join("keepalive")
}

#[cfg(not(any(target_os = "macos", windows)))]
fn state_dir(home: Option<&Path>) -> PathBuf {
    xdg("XDG_STATE_HOME", home, ".local/state").join("keepalive")
}

#[cfg(target_os = "macos")]
fn config_dir(home: Option<&Path>) -> PathBuf {
    xdg("XDG_CONFIG_HOME", home, "Library/Application Support").join("keepalive")
}

#[cfg(target_os = "macos")]
fn state_dir(home: Option<&Path>) -> PathBuf {
    xdg("XDG_STATE_HOME", home, "Library/Application Support").join("keepalive")
}

#[cfg(windows)]
fn config_dir(home: Option<&Path>) -> PathBuf {
    xdg("APPDATA", home, "AppData/Roaming").join("keepalive")
}

#[cfg(windows)]
fn state_dir(home: Option<&Path>) -> PathBuf {
    xdg("LOCALAPPDATA", home, "AppData/Local").join("keepalive")
}

/// `$XDG_RUNTIME_DIR`; under cron or ssh, where it is unset, the place where systemd puts it, if that is ours.
fn runtime_dir() -> Option<PathBuf> {
    path("XDG_RUNTIME_DIR").filter(|p| p.is_absolute()).or_else(usual_runtime_dir)
}

#[cfg(unix)]
fn usual_runtime_dir() -> Option<PathBuf> {
    use std::os::unix::fs::MetadataExt;
    let uid = rustix::process::geteuid().as_raw();
    let dir = PathBuf::from(format!("/run/user/{uid}"));
    let about = std::fs::symlink_metadata(&dir).ok()?;
    (about.is_dir() && about.uid() == uid).then_some(dir)
}

#[cfg(not(unix))]
fn usual_runtime_dir() -> Option<PathBuf> {
    None
}

fn session_bus(runtime: Option<&Path>, home: Option<&Path>) -> Option<SessionBus> {
    let address = text("DBUS_SESSION_BUS_ADDRESS").or_else(|| {
        let bus = runtime?.join("bus");
        bus.exists().then(|| format!("unix:path={}", bus.display()))
    })?;
    Some(SessionBus { address, kwallet_settings: kwallet_settings(home) })
}

/// The settings of KDE's programs: those of the machine, the most important first as the XDG specification has them, then
/// those of the user.
fn kwallet_settings(home: Option<&Path>) -> Vec<PathBuf> {
    let machine = text("XDG_CONFIG_DIRS").unwrap_or_else(|| "/etc/xdg".to_owned());
    let machine = machine.split(':').rev().map(PathBuf::from).filter(|dir| dir.is_absolute());
    machine.chain([xdg("XDG_CONFIG_HOME", home, ".config")]).map(|dir| dir.join("kwalletrc")).collect()
}
