//! Checks whether the store can be used: its directory, filesystem, locks, keyring and key.

use std::path::Path;
use std::time::Duration;

use super::Finding;
use crate::access::setup::Setup;
use crate::cli::output::{CommandStatus, Output};
use crate::outcome::{ErrorKind, Failure};
use crate::store::{Store, StoreError};
use crate::sys::lockfile::{LockFile, LockWait};
#[cfg(unix)]
use crate::sys::secret_file::access_text;
use crate::sys::{durable, machine};

/// How long another `doctor` is waited for that looks at the locks.
const PROBE_WAIT: Duration = Duration::from_secs(5);

pub(super) fn check_directory(setup: &Setup, _: &Output) -> Vec<Finding> {
    let loose = loose_files(setup.store.layout().dir());
    std::iter::once(directory(&setup.store)).chain(loose).collect()
}

/// The files of the store that only its directory protects from other users.
fn loose_files(dir: &Path) -> impl Iterator<Item = Finding> {
    let entries = |dir: &Path| {
        let found = std::fs::read_dir(dir).into_iter().flatten().flatten();
        found.map(|entry| entry.path()).collect::<Vec<_>>()
    };
    let of_profiles = entries(&dir.join("profiles")).into_iter().flat_map(move |dir| entries(&dir));
    let files = entries(dir).into_iter().chain(of_profiles).filter(|path| path.is_file() && !path.is_symlink());
    files.filter_map(|path| {
        let (mode, access) = others_access(&path)?;
        let text = format!("{} has mode {mode:04o}: {access} where its directory lets them", path.display());
        Some(Finding::warning("store directory", text, &format!("chmod 600 {}", path.display())))
    })
}

pub(super) fn check_filesystem(setup: &Setup, _: &Output) -> Vec<Finding> {
    vec![filesystem(&setup.store)]
}

pub(super) fn check_locks(setup: &Setup, _: &Output) -> Vec<Finding> {
    let now = setup.clock.now().wall;
    let age = |age| humantime::format_duration(age).to_string();
    let shared = setup.store.long_shared_locks(now).into_iter().map(|(path, holder, for_long)| {
        let text = format!("{holder} has had {} for {}", path.display(), age(for_long));
        Finding::warning("locks", text, &holder.hint())
    });
    let names = setup.all_profiles().unwrap_or_default();
    let profiles = names.iter().filter_map(|name| {
        let (holder, for_long) = setup.store.long_lock(name, now)?;
        let text = format!("{name}: {holder} has had the lock of the profile for {}", age(for_long));
        Some(Finding::warning("locks", text, &holder.hint()))
    });
    std::iter::once(lock(&setup.store)).chain(shared).chain(profiles).collect()
}

pub(super) fn check_ledger(setup: &Setup, _: &Output) -> Vec<Finding> {
    let finding = match setup.store.scan().and_then(|scan| setup.store.check_ledger_complete(&scan)) {
        Ok(()) => Finding::good("ledger", "consistent with the journals"),
        Err(e) => Finding::from_store_error("ledger", &e),
    };
    vec![finding]
}

pub(super) fn check_keyring(setup: &Setup, _: &Output) -> Vec<Finding> {
    keyring(&setup.store).into_iter().collect()
}

pub(super) fn check_key(setup: &Setup, _: &Output) -> Vec<Finding> {
    vec![key(&setup.store)]
}

fn directory(store: &Store) -> Finding {
    let dir = store.layout().dir();
    if !dir.exists() {
        return Finding::good("store directory", format!("{} will be created on first use", dir.display()));
    }
    if let Some((mode, access)) = others_access(dir) {
        let failure = Failure::new(ErrorKind::Permissions, format!("{} has mode {mode:04o}: {access}", dir.display()))
            .with_hint(format!("chmod 700 {}", dir.display()));
        return Finding::bad("store directory", failure, CommandStatus::StoreUnavailable);
    }
    // The name is this process's own: several may look at once.
    let probe = dir.join(format!("probe.{}", std::process::id()));
    match durable::replace(&probe, b"x").and_then(|()| durable::remove(&probe)) {
        Ok(()) => Finding::good("store directory", format!("{} is private and writable", dir.display())),
        Err(e) => {
            let failure = Failure::new(ErrorKind::Io, format!("cannot write to {}: {e}", dir.display()))
                .with_hint("check its owner and the free space");
            Finding::bad("store directory", failure, CommandStatus::StoreUnavailable)
        }
    }
}

#[cfg(unix)]
fn others_access(dir: &Path) -> Option<(u32, String)> {
    use std::os::unix::fs::PermissionsExt;
    let mode = std::fs::metadata(dir).ok()?.permissions().mode() & 0o777;
    (mode & 0o077 != 0).then(|| (mode, access_text(mode & 0o077)))
}

#[cfg(not(unix))]
fn others_access(_dir: &Path) -> Option<(u32, String)> {
    None
}

/// The nearest directory that exists.
fn nearest_existing(dir: &Path) -> &Path {
    dir.ancestors().find(|a| a.exists()).unwrap_or(dir)
}

fn filesystem(store: &Store) -> Finding {
    let dir = nearest_existing(store.layout().dir());
    match machine::filesystem(dir) {
        Err(e) => Finding::warning("filesystem", format!("cannot be determined: {e}"), "check the path of the store"),
        Ok(f) if f.is_network => match store.check_filesystem() {
            Err(e) => Finding::from_store_error("filesystem", &e),
            Ok(()) => Finding::warning(
                "filesystem",
                format!("{} is a network filesystem, which the configuration allows", f.name),
                "no other machine may use this store",
            ),
        },
        Ok(f) => Finding::good("filesystem", format!("{} (local)", f.name)),
    }
}

/// Checks that the lock works: two descriptors of one process must exclude each other, or no two processes do.
fn lock(store: &Store) -> Finding {
    let dir = store.layout().dir();
    if !dir.exists() {
        return Finding::good("locks", "not checked: there is no store yet");
    }
    let path = dir.join("doctor.lock");
    let tried =
        LockFile::acquire_within(&path, LockWait::at_most(PROBE_WAIT)).map(|held| (LockFile::is_held(&path), held));
    match tried {
        Ok((true, _)) => Finding::good("locks", "file locking works"),
        Ok((false, _)) => {
            let failure = Failure::new(ErrorKind::Lock, "file locking does not work on this filesystem")
                .with_hint("set [store] path to a local filesystem");
            Finding::bad("locks", failure, CommandStatus::StoreUnavailable)
        }
        Err(e) => Finding::bad(
            "locks",
            Failure::new(ErrorKind::Lock, format!("file locking failed: {e}")),
            CommandStatus::StoreUnavailable,
        ),
    }
}

fn keyring(store: &Store) -> Option<Finding> {
    let keyring = store.keyring()?;
    Some(match keyring.check() {
        Ok(()) => Finding::good("keyring", format!("reachable and unlocked (service {})", keyring.service())),
        Err(e) => Finding::from_store_error("keyring", &e.into()),
    })
}

fn key(store: &Store) -> Finding {
    let key = store.keys().load("").and_then(|key| store.keys().check_id(&key, "").map(|()| key));
    match key {
        Ok(key) => Finding::good("sealing key", format!("{} ({} store)", key.id(), store.kind())),
        Err(StoreError::Empty) => Finding::good("sealing key", "will be created with the first credential"),
        Err(e) => Finding::from_store_error("sealing key", &e),
    }
}
