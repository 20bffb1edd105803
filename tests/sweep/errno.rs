//! Every call on a file fails once with each error that disks and kernels have; every call on a socket likewise; and, at
//! full length, the disk stays broken from a call on.
//!
//! A failing disk may cost a run, never a credential: afterwards the old generation or the new one is there. Only a failing
//! network may leave a doubt.

use super::Extent;
use super::fixture::{PointResult, StoreType, SweepFixture, SweepReport, TracedCommand};
use super::support::token_family::RotationMode;
use super::tracer::{CallFilter, Injection, TraceOrder};

const OF_FILES: &[(&str, i32)] = &[
    ("ENOSPC", libc::ENOSPC),
    ("EIO", libc::EIO),
    ("EINTR", libc::EINTR),
    ("EROFS", libc::EROFS),
    ("EAGAIN", libc::EAGAIN),
    ("EDQUOT", libc::EDQUOT),
    ("EACCES", libc::EACCES),
];
const OF_SOCKETS: &[(&str, i32)] =
    &[("ECONNRESET", libc::ECONNRESET), ("EINTR", libc::EINTR), ("EAGAIN", libc::EAGAIN), ("EPIPE", libc::EPIPE)];

pub fn run(extent: Extent) -> bool {
    let mut is_good = true;
    let stores = if extent.is_full() { &[StoreType::File, StoreType::KeyringState][..] } else { &[StoreType::File] };
    for store in stores {
        for (calls, errors) in [(CallFilter::Files, OF_FILES), (CallFilter::Sockets, OF_SOCKETS)] {
            for (name, number) in &errors[..if extent.is_full() { errors.len() } else { 2 }] {
                let tally = sweep(*store, calls, &Injection::Fail(*number));
                is_good &= tally.print(&format!("{name} once, {calls:?}, {store:?} store"));
            }
        }
        if extent.is_full() {
            for (name, number) in &OF_FILES[..2] {
                let tally = sweep(*store, CallFilter::Files, &Injection::FailFromHere(*number));
                is_good &= tally.print(&format!("{name} from here on, {store:?} store"));
            }
        }
    }
    is_good
}

fn sweep(store: StoreType, calls: CallFilter, action: &Injection) -> SweepReport {
    let mut stage = SweepFixture::new(store, RotationMode::Strict, "timeout = \"3s\"\n");
    let mut tally = SweepReport::default();
    for at in 1.. {
        let profile = stage.sign_in(TracedCommand::Refresh);
        let before = stage.server.counts();
        let struck =
            stage.run_traced(TracedCommand::Refresh, &profile, &TraceOrder { at, action: action.clone(), calls });
        let Some(call) = struck.acted.clone() else { break };
        if !matches!(struck.status, 0 | 1 | 69 | 75) {
            tally.fault(format!("{at} ({call}): exit {}: {}{}", struck.status, struck.stdout, struck.stderr));
            continue;
        }
        match stage.examine(&profile, &before) {
            Ok(PointResult::Doubt { .. }) if calls == CallFilter::Files && matches!(action, Injection::Fail(_)) => {
                tally.fault(format!("{at} ({call}): in doubt: {}", struck.stdout));
            }
            Ok(aftermath) => tally.add(format!("exit {}, then {aftermath:?}", struck.status)),
            Err(fault) => tally.fault(format!("{at} ({call}): {fault}")),
        }
    }
    tally
}
