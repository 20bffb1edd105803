//! Checks the clock, and whether a daemon runs.

use crate::access::setup::Setup;
use crate::cli::doctor::Finding;
use crate::cli::listener_state::{TcpListener, TcpListenerState};
use crate::cli::output::{CommandStatus, Output};
use crate::cli::refresher::{REMEDY, Refresher};
use crate::outcome::{ErrorKind, Failure};
use crate::sys::peer_user;

/// 2026-01-01: this program is younger than that, so an earlier clock is wrong.
const EARLIEST_PLAUSIBLE_TIME: i64 = 1_767_225_600;

pub(super) fn check_clock(setup: &Setup, _: &Output) -> Vec<Finding> {
    vec![clock(setup)]
}

pub(super) fn check_daemon(setup: &Setup, _: &Output) -> Vec<Finding> {
    vec![daemon(setup)]
}

/// Nothing is told of a listener that is not configured.
pub(super) fn check_listener(setup: &Setup, _: &Output) -> Vec<Finding> {
    let handles = setup.store.handles().list().err().map(|e| Finding::from_store_error("handles", &e));
    handles.into_iter().chain(TcpListener::all(setup).iter().flat_map(listener)).collect()
}

fn listener(listener: &TcpListener) -> Vec<Finding> {
    let address = listener.address;
    let unknown = listener.unknown_profile.as_ref();
    let unknown = unknown.map(|e| Finding::warning("listener", e.message.clone(), e.hint.as_deref().unwrap_or("")));
    let state = match &listener.state {
        TcpListenerState::Listening if !peer_user::is_told() => {
            let text = format!("listening on {address}; this system does not tell the user of a client");
            let hint = match cfg!(target_os = "linux") {
                true => "handles are refused unless they are made with --any-user; load the kernel module tcp_diag",
                false => "a handle is all that protects the tokens: keep each secret",
            };
            Finding::warning("listener", text, hint)
        }
        TcpListenerState::Listening => Finding::good("listener", format!("listening on {address}")),
        TcpListenerState::Failed(failure) => {
            Finding::warning("listener", failure.message.clone(), failure.hint.as_deref().unwrap_or_default())
        }
        TcpListenerState::Pending => Finding::warning(
            "listener",
            format!("the daemon does not listen on {address} yet"),
            "if that stays so, restart it: its log says why",
        ),
        TcpListenerState::NoDaemon => {
            Finding::warning("listener", format!("no daemon listens on {address}"), "keepalive service install")
        }
    };
    std::iter::once(state).chain(unknown).collect()
}

fn clock(setup: &Setup) -> Finding {
    let now = setup.clock.now();
    if now.wall.as_millis() < EARLIEST_PLAUSIBLE_TIME * 1000 {
        let failure = Failure::new(ErrorKind::Clock, format!("the clock is wrong: {}", now.wall))
            .with_hint("set it: timedatectl set-ntp true");
        return Finding::bad("clock", failure, CommandStatus::Failed);
    }
    if now.boot_id.is_empty() {
        return Finding::warning("clock", "this system has no boot id", "so grace periods of providers cannot be used");
    }
    Finding::good("clock", now.wall.to_the_second().to_string())
}

fn daemon(setup: &Setup) -> Finding {
    match Refresher::of(setup) {
        Refresher::Daemon { holder } => {
            let text = format!("running ({holder}), socket {}", setup.environment.socket.display());
            match holder.is_stopped {
                true => Finding::warning("daemon", text, &holder.hint()),
                false => Finding::good("daemon", text),
            }
        }
        Refresher::Runs { last: Some(last) } => {
            Finding::good("daemon", format!("not running; the last run by a timer or cron was at {}", last.local()))
        }
        Refresher::Runs { last: None } => {
            Finding::good("daemon", "not running; a timer or cron is installed and runs within ten minutes")
        }
        Refresher::Nobody => Finding::warning("daemon", "not running: nothing will refresh these profiles", REMEDY),
    }
}
