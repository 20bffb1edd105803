//! Types that prove admission to a profile, and that are the only way to its refresh token.
//!
//! The way is lease → permit → locked credential → spent credential. Misuse does not compile: a [`LockedCredential`]
//! cannot outlive its [`Lease`], spending takes it apart for good, and the way back needs proof that the token was not
//! sent ([`NeverSent`]).

use std::path::Path;

use crate::credential::secret::RefreshToken;
use crate::credential::{Binding, Credential, Generation, Grant, Snapshot};
use crate::events;
use crate::guard::singleflight::LeaderSlot;
use crate::profile::ProfileName;
use crate::sys::lockfile::{LockError, LockFile, LockWait};

/// Admission to one profile: this process leads, and no other process can.
///
/// ```compile_fail,E0505
/// # use keepalive::guard::Lease;
/// # fn f(lease: Lease<u32>) {
/// let held = lease.permit();
/// lease.finish(1);
/// let _name = held.profile(); // a permit does not outlive its lease
/// # }
/// ```
#[derive(Debug)]
#[must_use = "a lease is given back by `finish`"]
pub struct Lease<O> {
    // Declared first, so dropped first: if the lease is dropped without `finish`, the followers learn of it before another
    // process can be admitted.
    leader_slot: LeaderSlot<O>,
    lock: LockFile,
}

impl<O> Lease<O> {
    /// Waits for the profile's lock file and for a place at the provider, for the lock at most `limit`, and not longer than
    /// any caller waits or than `is_stopped` allows.
    ///
    /// It holds neither while it waits for the other. The holder of the lock may take any time and must not keep other
    /// profiles of the provider waiting; and no other process waits at our lock while we queue for a place. `acquire`
    /// waits for a place, `try_acquire` takes one only if it is free.
    ///
    /// On an error it gives the leader slot back, so that the followers can be told.
    pub fn admit<L>(
        leader_slot: LeaderSlot<O>,
        lock_file: &Path,
        wait: LockWait<'_>,
        acquire: impl Fn() -> L,
        try_acquire: impl Fn() -> Option<L>,
    ) -> Result<(Self, L), (LeaderSlot<O>, LockError)> {
        let is_over = || (wait.is_stopped)() || !leader_slot.has_waiters();
        let wait = LockWait { limit: wait.limit, is_stopped: &is_over };
        let both = || -> Result<(LockFile, L), LockError> {
            loop {
                let concurrency_permit = acquire();
                if let Some(lock) = LockFile::try_acquire(lock_file)? {
                    return Ok((lock, concurrency_permit));
                }
                drop(concurrency_permit);
                events::lock_wait(leader_slot.profile(), "another process has the lock of the profile");
                let lock = LockFile::acquire_within(lock_file, wait)?;
                if let Some(concurrency_permit) = try_acquire() {
                    return Ok((lock, concurrency_permit));
                }
            }
        };
        match both() {
            Ok((lock, concurrency_permit)) => {
                leader_slot.mark_running();
                Ok((Self { leader_slot, lock }, concurrency_permit))
            }
            Err(e) => Err((leader_slot, e)),
        }
    }

    /// The right to open the profile's files, which the store asks for.
    pub fn permit(&self) -> Permit<'_> {
        Permit { profile: self.leader_slot.profile(), lock: &self.lock }
    }

    /// Whether any caller still waits for the outcome.
    pub fn has_waiters(&self) -> bool {
        self.leader_slot.has_waiters()
    }

    /// Releases the lock file and gives the outcome to every caller that waits.
    pub fn finish(self, outcome: O) {
        let Self { leader_slot, lock } = self;
        // Other processes find the outcome in the journal, which is written by now; those of this one get it here. The
        // lock goes first, so that a caller woken here who asks for more finds it free.
        drop(lock);
        leader_slot.complete(outcome);
    }
}

/// The right to touch a profile's credential. It cannot outlive the lease.
#[derive(Clone, Copy, Debug)]
pub struct Permit<'l> {
    profile: &'l ProfileName,
    lock: &'l LockFile,
}

impl<'l> Permit<'l> {
    /// A permit for work that needs the lock but is no flight: import, login, logout, take-over.
    pub fn from_lock(profile: &'l ProfileName, lock: &'l LockFile) -> Self {
        Self { profile, lock }
    }

    pub fn profile(&self) -> &'l ProfileName {
        self.profile
    }

    /// Whether the lock still excludes others: false if its file was replaced after it was locked.
    pub fn is_lock_intact(&self) -> bool {
        self.lock_checker()()
    }

    /// A copy of [`Self::is_lock_intact`] for code that cannot borrow the permit.
    pub fn lock_checker(&self) -> impl Fn() -> bool + Send + 'static {
        let watch = self.lock.watch();
        move || watch.is_current().unwrap_or(false)
    }

    /// Binds a credential to this permit.
    pub(crate) fn bind(self, credential: Credential) -> LockedCredential<'l> {
        LockedCredential { credential, permit: self }
    }
}

/// A credential read under a lease, which it cannot outlive.
///
/// ```compile_fail,E0382
/// # use keepalive::guard::LockedCredential;
/// fn twice(held: LockedCredential<'_>) {
///     let first = held.spend();
///     let second = held.spend(); // moved
/// }
/// ```
#[derive(Debug)]
pub struct LockedCredential<'l> {
    credential: Credential,
    permit: Permit<'l>,
}

impl<'l> LockedCredential<'l> {
    pub fn snapshot(&self) -> Snapshot {
        self.credential.snapshot()
    }

    pub fn credential(&self) -> &Credential {
        &self.credential
    }

    pub fn permit(&self) -> Permit<'l> {
        self.permit
    }

    /// Takes the credential apart to spend it. There is no way back but [`SpentCredential::replaced_by`], or
    /// [`SpentCredential::restore_unsent`] with proof that nothing was sent.
    pub fn spend(self) -> (RefreshToken, SpentCredential<'l>) {
        let Credential { generation, binding, refresh, grant } = self.credential;
        (refresh, SpentCredential { generation, binding, grant, permit: self.permit })
    }
}

/// The rest of a credential whose refresh token has been taken out to be sent.
#[derive(Debug)]
#[must_use = "a spent credential ends as its successor, or as an attempt in doubt"]
pub struct SpentCredential<'l> {
    pub generation: Generation,
    pub binding: Binding,
    pub grant: Grant,
    permit: Permit<'l>,
}

/// Proof that a refresh token was never handed to the network. Only the send gate makes one.
#[derive(Debug)]
pub struct NeverSent(());

impl NeverSent {
    pub(crate) fn by_closed_gate() -> Self {
        Self(())
    }
}

impl<'l> SpentCredential<'l> {
    pub fn permit(&self) -> Permit<'l> {
        self.permit
    }

    /// Puts the credential together again, because its token was not sent.
    pub fn restore_unsent(self, refresh: RefreshToken, _proof: NeverSent) -> LockedCredential<'l> {
        let Self { generation, binding, grant, permit } = self;
        permit.bind(Credential { generation, binding, refresh, grant })
    }

    /// The next generation, as the store read it back from what it sealed.
    pub fn replaced_by(self, next: Credential) -> LockedCredential<'l> {
        debug_assert!(next.generation > self.generation, "no store moves to a lower generation (rule 13)");
        self.permit.bind(next)
    }
}

#[cfg(test)]
mod tests {
    use super::super::FlightGroup;
    use super::*;

    const WAIT: LockWait<'_> = LockWait::at_most(std::time::Duration::from_secs(30));

    fn admitted(guard: &FlightGroup<u32>, path: &Path) -> (super::super::FlightHandle<u32>, Lease<u32>) {
        let (flight, leader_slot) = guard.join_or_lead(&"p".parse().unwrap());
        (flight, Lease::admit(leader_slot.unwrap(), path, WAIT, || (), || Some(())).unwrap().0)
    }

    #[test]
    fn admitted_flight_without_callers_is_not_wanted() {
        let dir = tempfile::tempdir().unwrap();
        let guard = FlightGroup::default();
        let (flight, lease) = admitted(&guard, &dir.path().join("lock"));
        assert!(lease.has_waiters());
        drop(flight);
        assert!(!lease.has_waiters());
        lease.finish(1);
    }

    #[test]
    fn flight_waiting_for_lock_or_slot_does_not_hold_the_other() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let guard = FlightGroup::<u32>::default();
        let (_flight, leader_slot) = guard.join_or_lead(&"p".parse().unwrap());
        let is_free = || LockFile::try_acquire(&path).unwrap().is_some();
        let (waits, looks) = (std::cell::Cell::new(0), std::cell::Cell::new(0));
        // Another process gets the lock while the first lane is waited for, and has it until that lane is given back.
        let acquire = || {
            waits.set(waits.get() + 1);
            assert!(is_free());
            (waits.get() == 1).then(|| LockFile::acquire(&path).unwrap())
        };
        let try_acquire = || {
            looks.set(looks.get() + 1);
            assert!(!is_free());
            None
        };
        let (lease, _lane) = Lease::admit(leader_slot.unwrap(), &path, WAIT, acquire, try_acquire).unwrap();
        assert!(!is_free());
        lease.finish(1);
        assert_eq!((waits.get(), looks.get()), (2, 1));
    }

    #[test]
    fn wait_for_the_lock_ends_at_a_stop_and_without_callers() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let _other_process = LockFile::acquire(&path).unwrap();
        for (is_stopped, is_waited_for) in [(true, true), (false, false)] {
            let guard = FlightGroup::<u32>::default();
            let (flight, leader_slot) = guard.join_or_lead(&"p".parse().unwrap());
            let _flight = is_waited_for.then_some(flight);
            let wait = LockWait { limit: std::time::Duration::from_secs(5), is_stopped: &|| is_stopped };
            let begun = std::time::Instant::now();
            let (leader_slot, error) = Lease::admit(leader_slot.unwrap(), &path, wait, || (), || Some(())).unwrap_err();
            assert!(matches!(error, LockError::Held(_)) && begun.elapsed() < wait.limit, "{error}");
            leader_slot.complete(1);
        }
    }

    /// Rule 2.
    #[test]
    fn lock_with_a_replaced_file_is_not_intact() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let guard = FlightGroup::default();
        let (_flight, lease) = admitted(&guard, &path);
        assert!(lease.permit().is_lock_intact());
        std::fs::rename(&path, dir.path().join("old")).unwrap();
        assert!(!lease.permit().is_lock_intact());
        std::fs::write(&path, "").unwrap();
        assert!(!lease.permit().is_lock_intact());
        lease.finish(1);
    }
}
