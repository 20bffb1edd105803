//! `keepalive daemon`: runs the scheduler and the broker until it is stopped.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, RwLock};
use std::time::Duration;

use clap::Args;
use tokio::signal::unix::Signal;
use tokio::sync::{Notify, watch as value_watch};
use tokio::task::JoinHandle;

use super::GlobalArgs;
use super::live_profiles::LiveProfiles;
use super::output::{CommandStatus, Output};
use super::signals::{self, StopSignals};
use crate::access::setup;
use crate::access::setup::Setup;
use crate::broker::listener::ListenerReports;
use crate::broker::{Broker, DaemonPlaces, gce, listener, server};
use crate::cli::logging;
use crate::config::{BrokerSettings, Config, GceSettings};
use crate::engine::Engine;
use crate::events;
use crate::hooks::watch::{HookNote, HookWatch};
use crate::mirror::watch;
use crate::outcome::{ErrorKind, Failure};
use crate::profile::{Profile, ProfileLookup, ProfileName};
use crate::scheduler::{ChangeListener, Scheduler};
use crate::store::{Store, StoreError};
use crate::sys::file_watch::{Change, ChangeWatcher, FileStamp, MISSING_POLLS, file_stamp};
use crate::sys::lockfile::{LockFile, LockHolder};
use crate::sys::{durable, process, socket, threads};

/// Refresh all profiles until stopped
///
/// Refreshes every profile at its margin, and provides access tokens on a socket. On SIGTERM or SIGINT it completes the
/// refreshes in progress (up to 45 s), then exits. On SIGHUP, or when the file changes, it reloads the configuration. A
/// second daemon on the same store refuses to start.
#[derive(Debug, Args)]
pub struct DaemonArgs {}

/// Room for the connections of the socket, and for the files and connections of refreshes.
const OPEN_FILES: u64 = 1024;
/// How often the configuration file is checked.
const CONFIG_POLL_INTERVAL: Duration = Duration::from_secs(1);

pub(super) fn run(_args: &DaemonArgs, global: &GlobalArgs, out: &Output) -> CommandStatus {
    match serve(global, out) {
        Ok(status) => status,
        Err((status, failure)) => {
            out.fail(&failure);
            status
        }
    }
}

fn listen(path: &Path) -> Result<UnixListener, Failure> {
    socket::listen(path).map_err(|e| {
        Failure::new(ErrorKind::Socket, format!("cannot listen on {}: {e}", path.display())).with_hint(match e.kind() {
            io::ErrorKind::AlreadyExists => "move it away, or set KEEPALIVE_SOCKET to another path",
            _ => "set KEEPALIVE_SOCKET to a path of at most 100 bytes in a directory of your own",
        })
    })
}

fn serve(global: &GlobalArgs, out: &Output) -> Result<CommandStatus, (CommandStatus, Failure)> {
    // The file's stamp is taken first, so that a change during the start counts.
    let seen = file_stamp(&global.places().config);
    let setup = Setup::new(global.places()).map_err(|f| (CommandStatus::Config, f))?;
    logging::init_for_daemon(global, &setup.environment);
    setup::log_warnings(&setup.config);
    let _lock = lock_daemon(&setup.store).map_err(|f| (CommandStatus::Failed, f))?;
    let (engine, endpoint) = setup.engine(true).map_err(CommandStatus::of_failed)?;
    let deaf = |e| (CommandStatus::Failed, Failure::new(ErrorKind::Signals, format!("cannot catch signals: {e}")));
    // The handler is installed before the key is fetched, which may take long: until then a SIGHUP would end the
    // process.
    let hangup = signals::hangup(&endpoint).map_err(deaf)?;
    let has_trouble = fetch_key(&setup.store)?;
    let start = |name| runtime(name).map_err(|e| (CommandStatus::TryAgain, cannot_start(&e)));
    let (refreshing, sockets) = (start("daemon")?, start("socket")?);
    let socket_path = setup.environment.socket.clone();
    process::raise_open_file_limit(OPEN_FILES);
    let socket = listen(&socket_path).map_err(|f| (CommandStatus::Failed, f))?;
    let shared = Arc::new(DaemonState::new(setup));
    let mut scheduler = Scheduler::new(engine.clone(), shared.profile_lookup());
    let bell = Arc::clone(&scheduler.config_changed);
    let broker = shared.broker(engine.clone(), &scheduler);
    let mut stop = StopSignals::for_daemon(&endpoint).map_err(deaf)?;
    events::daemon_up(&socket_path);
    notify_systemd(&[sd_notify::NotifyState::Ready]);
    let mirrors = watch_mirrors(&shared);
    scheduler.on_change = watch_hooks(&shared);
    let reloading = shared.clone().watch_config(seen, hangup, (bell, mirrors), has_trouble);
    let listening = Arc::clone(&shared).serve_tcp(broker.clone());
    let planning = refreshing.spawn(async move {
        tokio::select! {
            never = scheduler.run() => Ok(never),
            never = reloading => Ok(never),
        }
    });
    let serving = sockets.spawn(async move {
        tokio::select! {
            served = server::serve(broker, socket) => served,
            never = listening => Ok(never),
        }
    });
    let broken = endpoint.runtime().block_on(async {
        tokio::select! {
            () = stop.received() => None,
            failure = serving_failure(planning) => Some(failure),
            failure = serving_failure(serving) => Some(failure),
        }
    });
    // The engine is told before anything is dropped, so that no flight that queues now sends.
    engine.stop();
    refreshing.shutdown_background();
    sockets.shutdown_background();
    let late = finish(&engine, &shared.setup, out);
    match broken {
        Some(failure) => Err((CommandStatus::Failed, failure)),
        None if late > 0 => Ok(CommandStatus::TryAgain),
        None => Ok(signals::exit_status_of_stop()),
    }
}

/// Waits for what is under way, and removes what tells of a running daemon. Returns how many refreshes did not finish.
fn finish(engine: &Engine, setup: &Setup, out: &Output) -> usize {
    notify_systemd(&[sd_notify::NotifyState::Stopping]);
    tracing::info!(event = "daemon.stop", "stopping; finishing refreshes in progress");
    let late = engine.drain();
    setup.hooks().end_all();
    // The next daemon replaces them anyway.
    let traces = [setup.environment.socket.clone(), setup.store.layout().listener()];
    let _gone = traces.map(std::fs::remove_file);
    for name in &late {
        out.warn(&format!("{name}: the refresh did not finish in time; its outcome is in doubt"));
    }
    tracing::info!(event = "daemon.stop", "stopped");
    late.len()
}

/// Looks at the mirrors, on a thread of its own that ends with the process. What it writes is whole or not there.
fn watch_mirrors(shared: &Arc<DaemonState>) -> Option<Sender<()>> {
    let (bell, rings) = mpsc::channel();
    let shared = Arc::clone(shared);
    let watch = move || watch::run(shared.setup.mirrors(), &|| shared.mirrored_profiles(), &rings);
    match std::thread::Builder::new().name("mirrors".into()).spawn(watch) {
        Ok(_) => Some(bell),
        Err(error) => {
            tracing::error!(event = "internal", %error, "cannot start the thread of the mirrors");
            None
        }
    }
}

/// Looks at what hooks are to be told, on a thread of its own that ends with the process. Returns whom to tell of a profile
/// that has changed.
fn watch_hooks(shared: &Arc<DaemonState>) -> Option<ChangeListener> {
    let (tell, notes) = mpsc::channel();
    let watch = HookWatch::new(Arc::clone(shared.setup.hooks()), shared.profile_lookup(), (tell.clone(), notes));
    match std::thread::Builder::new().name("hooks".into()).spawn(move || watch.run()) {
        // If that thread is gone, the log says why.
        Ok(_) => Some(Box::new(move |name| drop(tell.send(HookNote::Changed(name.clone()))))),
        Err(error) => {
            tracing::error!(event = "internal", %error, "cannot start the thread of the hooks");
            None
        }
    }
}

/// How serving ended, which it never should. A daemon that neither refreshes nor serves must exit, so that its
/// supervisor starts another.
async fn serving_failure(serving: JoinHandle<std::io::Result<Infallible>>) -> Failure {
    let failure = match serving.await {
        Ok(Ok(never)) => match never {},
        Ok(Err(error)) => Failure::new(ErrorKind::Socket, format!("cannot serve the socket: {error}")),
        Err(error) => Failure::new(ErrorKind::Broken, format!("internal error, the daemon exits: {error}"))
            .with_hint("restart it, and report this message"),
    };
    tracing::error!(event = "internal", kind = failure.kind.word(), "{}", failure.message);
    failure
}

fn cannot_start(error: &io::Error) -> Failure {
    Failure::new(ErrorKind::Runtime, format!("cannot start: {error}"))
}

/// So that work that waits for the disk does not hold up other work of its kind.
const WORKERS: usize = 2;

/// The runtime of the scheduler, or of the socket and TCP. The scheduler looks at files, and on a slow disk that must hold up
/// no request for a token that is known. The exchanges have a runtime of their own, so that a response that has arrived is
/// read whatever these do.
fn runtime(name: &str) -> std::io::Result<tokio::runtime::Runtime> {
    // A runtime that gets its first thread and not its second waits for the first without an end.
    threads::check_available(WORKERS)?;
    threads::build_runtime(tokio::runtime::Builder::new_multi_thread().worker_threads(WORKERS).thread_name(name))
}

/// Allows one daemon per store: the lock lasts as long as the process.
fn lock_daemon(store: &Store) -> Result<LockFile, Failure> {
    let layout = store.layout();
    let path = layout.daemon_lock();
    let cannot = |e: std::io::Error| Failure::new(ErrorKind::Lock, format!("cannot lock {}: {e}", path.display()));
    durable::create_dir(layout.dir()).map_err(cannot)?;
    match LockFile::try_acquire(&path).map_err(cannot)? {
        Some(lock) => Ok(lock),
        None => {
            let message = format!("a daemon already runs on this store ({})", LockHolder::of(&path));
            Err(Failure::new(ErrorKind::Running, message)
                .with_hint("stop it first: systemctl --user stop keepalive, or kill that process"))
        }
    }
}

/// Fetches the key at the start: with it in memory the daemon survives a keyring that goes away later.
///
/// A file store without its key is a configuration error, which waiting does not cure. A keyring may be locked or
/// absent until a user signs in to this machine, so the daemon waits for it; `true` then.
fn fetch_key(store: &Store) -> Result<bool, (CommandStatus, Failure)> {
    let strangers = store.keys().load("").and_then(|key| {
        store.keys().check_id(&key, "")?;
        store.keys().profiles_sealed_by_other(&key)
    });
    let error = match strangers {
        Ok(strangers) => {
            for (name, error) in strangers {
                let failure = failure_from(&error);
                tracing::error!(event = "store.unavailable", profile = %name, hint = hint(&failure.hint), "{}", failure.message);
            }
            return Ok(false);
        }
        Err(StoreError::Empty) => return Ok(false),
        Err(error) => error,
    };
    let failure = failure_from(&error);
    let told = failure.hint.as_ref().map_or(failure.message.clone(), |hint| format!("{}; {hint}", failure.message));
    notify_systemd(&[sd_notify::NotifyState::Status(&told)]);
    let is_configured = matches!(error, StoreError::KeyUnavailable { .. } | StoreError::OtherKey { .. });
    if is_configured && store.keyring().is_none() {
        return Err((CommandStatus::Config, failure));
    }
    if matches!(error, StoreError::Keyring(_)) {
        tracing::warn!(
            event = "store.unavailable",
            hint = hint(&failure.hint),
            "no sealing key yet: {}",
            failure.message
        );
    } else {
        tracing::error!(
            event = "store.unavailable",
            hint = hint(&failure.hint),
            "cannot get the sealing key: {}",
            failure.message
        );
    }
    Ok(!store.keys().has_cached())
}

fn failure_from(error: &StoreError) -> Failure {
    error.outcome().error.unwrap_or_else(|| Failure::new(ErrorKind::Io, error.to_string()))
}

fn hint(hint: &Option<String>) -> &str {
    hint.as_deref().unwrap_or("")
}

/// The state that the scheduler, the broker and a reload share.
struct DaemonState {
    setup: Setup,
    config: RwLock<Arc<Config>>,
    /// Where the TCP listener is to listen. Sent with each configuration that is read, so that a taken port is tried again.
    listen: value_watch::Sender<Option<SocketAddr>>,
    gce: value_watch::Sender<Vec<GceSettings>>,
}

impl DaemonState {
    fn new(setup: Setup) -> Self {
        let config = RwLock::new(Arc::clone(&setup.config));
        let BrokerSettings { listen, gce, .. } = setup.config.broker.clone();
        let (listen, gce) = (value_watch::Sender::new(listen), value_watch::Sender::new(gce));
        Self { setup, config, listen, gce }
    }

    fn config(&self) -> Arc<Config> {
        Arc::clone(&self.config.read().unwrap_or_else(std::sync::PoisonError::into_inner))
    }

    fn profile(&self, name: &ProfileName) -> Result<Profile, Failure> {
        let journal = self.setup.store.peek(name).ok().flatten();
        let provider = journal.and_then(|r| r.binding).map(|b| b.provider);
        self.config().profile(name, provider.as_deref()).map_err(|e| e.to_failure())
    }

    /// The profiles that feed other programs.
    fn mirrored_profiles(&self) -> Vec<Arc<Profile>> {
        let config = self.config();
        let names = config.profile_names().filter(|name| config.has_mirrors(name));
        names.filter_map(|name| self.profile(name).ok()).map(Arc::new).collect()
    }

    fn profile_lookup(self: &Arc<Self>) -> ProfileLookup {
        let shared = Arc::clone(self);
        Arc::new(move |name| shared.profile(name).map(Arc::new))
    }

    fn broker(self: &Arc<Self>, engine: Engine, scheduler: &Scheduler) -> Broker {
        let shared = Arc::clone(self);
        let profiles = LiveProfiles {
            environment: self.setup.environment.clone(),
            store: Arc::clone(&self.setup.store),
            clock: Arc::clone(&self.setup.clock),
            config: Box::new(move || shared.config()),
        };
        let places = DaemonPlaces::of(&self.setup.environment);
        Broker::new(engine, Arc::new(profiles), places, Arc::clone(&scheduler.last_look))
    }

    /// Serves on TCP where the configuration says.
    async fn serve_tcp(self: Arc<Self>, broker: Broker) -> Infallible {
        let (retry, reports) = (listener::RETRY_INTERVAL, ListenerReports::new(&self.setup.store));
        tokio::select! {
            never = listener::run(broker.clone(), Arc::clone(&reports), self.listen.subscribe(), retry) => never,
            never = gce::run(broker, reports, self.gce.subscribe(), retry) => never,
        }
    }

    /// Reloads on SIGHUP and when the file changes from `seen`, and withdraws the report of a missing key once there is
    /// one.
    async fn watch_config(
        self: Arc<Self>,
        seen: FileStamp,
        mut hangup: Signal,
        (bell, mirrors): (Arc<Notify>, Option<Sender<()>>),
        mut has_trouble: bool,
    ) -> Infallible {
        let path = self.setup.environment.config.clone();
        let mut file = ChangeWatcher::new(seen);
        loop {
            let is_told = tokio::select! {
                _ = hangup.recv() => true,
                () = tokio::time::sleep(CONFIG_POLL_INTERVAL) => false,
            };
            if has_trouble && self.setup.store.keys().has_cached() {
                has_trouble = false;
                notify_systemd(&[sd_notify::NotifyState::Status("")]);
            }
            let stamp = file_stamp(&path);
            match file.poll(stamp, is_told) {
                Change::None => {}
                Change::Missing => report_config_missing(),
                Change::Changed => {
                    notify_systemd(&[sd_notify::NotifyState::Reloading]);
                    self.reload(stamp.is_some());
                    notify_systemd(&[sd_notify::NotifyState::Ready]);
                    bell.notify_one();
                    // If that thread is gone, the log says why.
                    let _told = mirrors.as_ref().map(|mirrors| mirrors.send(()));
                }
            }
        }
    }

    /// Reloads the configuration. A broken one is reported and the old one stays in force. Running flights keep the
    /// configuration that they started with. `file_exists`: the file was there a moment ago.
    fn reload(&self, is_there: bool) {
        match setup::load(&self.setup.environment) {
            Ok(config) if is_there && config.path.is_none() => report_config_missing(),
            Ok(config) => {
                if config.store != self.config().store {
                    tracing::warn!(event = "config.warning", "[store] has changed; restart the daemon to apply it");
                }
                setup::log_warnings(&config);
                let BrokerSettings { listen, gce, .. } = config.broker.clone();
                *self.config.write().unwrap_or_else(std::sync::PoisonError::into_inner) = Arc::new(config);
                self.listen.send_replace(listen);
                self.gce.send_replace(gce);
                tracing::info!(event = "daemon.reload", "configuration reloaded");
            }
            Err(failure) => {
                let (kind, hint) = (failure.kind.word(), failure.hint.as_deref());
                let more = match failure.mistakes.len() {
                    0 | 1 => String::new(),
                    n => format!(" (keepalive doctor shows all {n} mistakes)"),
                };
                tracing::error!(
                    event = "config.error",
                    kind,
                    hint,
                    "the new configuration is invalid; still using the old one: {}{more}",
                    failure.message
                );
            }
        }
    }
}

fn report_config_missing() {
    let patience = humantime::format_duration(CONFIG_POLL_INTERVAL * MISSING_POLLS);
    tracing::warn!(
        event = "config.warning",
        "the configuration file is missing; still using the old one for {patience}"
    );
}

fn notify_systemd(states: &[sd_notify::NotifyState<'_>]) {
    // Not under systemd, or without a notify socket, this does nothing.
    let _nobody = sd_notify::notify(states);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn daemon_ends_with_an_error_when_a_service_task_dies() {
        let services = runtime("daemon").unwrap();
        let dies: JoinHandle<std::io::Result<Infallible>> = services.spawn(async { panic!("as if by a bug") });
        assert_eq!(services.block_on(serving_failure(dies)).kind, ErrorKind::Broken);
        let closed = services.spawn(async { Err(std::io::Error::other("as if")) });
        assert_eq!(services.block_on(serving_failure(closed)).kind, ErrorKind::Socket);
    }
}
