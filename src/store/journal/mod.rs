//! The journal of a profile: what happened and what is under way, without secrets. `status` reads nothing else.

mod attempt;
pub mod block;
pub mod hook_stamps;
pub mod pause;
pub mod suspicion;
pub mod transitions;

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::clock::{Moment, Timestamp};
use crate::credential::external::ImportSource;
use crate::credential::freshness::Validity;
use crate::credential::secret::Fingerprint;
use crate::credential::{Binding, Credential, Generation};
use crate::outcome::{ErrorKind, Failure, ProfileState, Publication};
use crate::profile::ProfileName;
use crate::store::StoreError;
use crate::store::disk::format::later_format;
use crate::store::identity::identity_file::StoreIdentity;
pub use crate::store::journal::attempt::{LastAttempt, Revocation};
use crate::store::journal::block::Block;
use crate::store::journal::hook_stamps::HookStamps;
pub use crate::store::journal::pause::{Pause, PauseCause};
use crate::store::journal::suspicion::Suspicion;
use crate::sys::durable::{self, StagedFile};
use crate::sys::file_place::FilePlace;
use crate::sys::file_watch::FileVersion;

/// The version of the format below. A journal of a later version is left alone.
const FORMAT: u32 = 2;

/// One profile's journal. Replaced as a whole, under the profile's lock, durably.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Journal {
    pub format: u32,
    pub profile: ProfileName,
    pub binding: Option<Binding>,
    /// Grows with every outcome that followers may share: of an attempt that sent something or was refused.
    pub sequence: u64,
    /// The newest generation that was committed.
    pub generation: Generation,
    /// Of the newest refresh token.
    pub fingerprint: Option<Fingerprint>,
    pub validity: Option<Validity>,
    pub refreshed_at: Option<Timestamp>,
    pub login_by: Option<Timestamp>,
    /// A refresh did not move `login_by`, so no other will.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_login_by_final: bool,
    pub publication: Publication,
    pub intent: Option<Intent>,
    pub last_attempt: Option<LastAttempt>,
    /// No request before this, by any process.
    pub not_before: Option<Timestamp>,
    /// When `not_before` was set, or told: for clocks that are set meanwhile. The two are set together, by
    /// [`Journal::set_not_before`].
    pub not_before_set_at: Option<Moment>,
    /// What ends the pause until `not_before` besides time. Set by [`Journal::pause`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pause: Option<Pause>,
    /// Transient failures in a row.
    pub consecutive_failures: u32,
    /// Answers in a row that said no without saying why.
    pub consecutive_unclassified: u32,
    pub rejected: Option<Rejection>,
    /// When a person last had a rejected token sent once more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forced_at: Option<Moment>,
    /// The last refresh that was made because an API had rejected the access token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspicion: Option<Suspicion>,
    /// What hooks were told.
    #[serde(default, skip_serializing_if = "HookStamps::is_empty")]
    pub hooks: HookStamps,
    /// The last request that was granted, without its token, as [`Intent::client_mark`] has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub granted_client: Option<String>,
    /// What stands in the way of a refresh, by precedence. Set by [`Journal::set_block`].
    pub blocks: Vec<Block>,
    /// Of a logout: what was sent, or is about to be, to revoke a refresh token.
    pub revocation: Option<Revocation>,
    /// Logged out: the credential is gone on purpose, and a later one counts on from `generation`.
    pub is_tombstone: bool,
    /// The tool that it was taken over from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub origin: Option<ImportSource>,
    /// The followed tool was found signed out, and that was told.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_followed_alone: bool,
    /// The followed tool was seen with a different token that may be ours, refreshed by it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub has_tool_diverged: bool,
    /// The store that the fingerprints belong to. It survives the loss of that store's own file, and a move of this
    /// one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub store_identity: Option<StoreIdentity>,
    /// Tokens that must not be sent again, and that the ledger could not take yet.
    pub ledger_backlog: Vec<Fingerprint>,
    /// The newest consumed token that the ledger took from this journal: a ledger without it is incomplete.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_ledgered: Option<Fingerprint>,
    /// The version of the sealed file that this was written for, by [`FileVersion::mark`]. Where it is that one still, a scan
    /// of the store need not read it to know its generation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sealed_mark: Option<String>,
    /// The very file that this was written to, as `store.json` notes its own. Set by [`Journal::write`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<FilePlace>,
    /// The sealed copy is not what this journal says, or holds a token that is spent. Seen when they are looked at; never
    /// written.
    #[serde(skip)]
    pub integrity_error: Option<(ProfileState, Failure)>,
}

/// A refresh token that is about to be sent, or was sent, with no response settled yet (rule 5).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Intent {
    pub attempt_id: String,
    pub generation: Generation,
    pub fingerprint: Fingerprint,
    /// Times this token was, or is about to be, sent, but for those that were turned away.
    pub send_count: u32,
    /// When the first send began: the server's grace cannot have begun earlier.
    pub first_sent: Moment,
    /// When the newest send began.
    pub last_sent: Moment,
    /// When the wait for a response ended; `None` while a process waits, or if it died.
    pub gave_up_at: Option<Moment>,
    /// `gave_up_at` of the send before this one, which counts again if this one is turned away.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub previous_gave_up_at: Option<Moment>,
    /// The one send before expiry was made.
    pub is_last_chance_used: bool,
    /// The server does not punish a second use, so the token need not be given up when the attempt is forgotten.
    pub is_reusable: bool,
    /// Identifies the request without its token: endpoint, client and its settings, as [`RefusedClient`] has it.
    ///
    /// [`RefusedClient`]: block::RefusedClient
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_mark: Option<String>,
    /// The token had been rejected, and a person had it sent once more. Until there is a response, the rejection stands.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_forced: bool,
}

/// A refresh token that is not sent again, unless a person insists and it [may](Rejection::may_be_sent_again) be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rejection {
    pub fingerprint: Fingerprint,
    pub at: Timestamp,
    pub failure: Failure,
    /// The client and the endpoint that it came from, as [`Intent::client_mark`] has them: when they change, it is
    /// forgotten. `None` if that is unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
    /// An earlier request with it may have been processed, so it may be consumed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub was_in_doubt: bool,
}

impl Rejection {
    /// No server has said that the token is dead: it was given up, and may be alive.
    pub fn is_presumed(&self) -> bool {
        matches!(self.failure.kind, ErrorKind::PresumedSpent | ErrorKind::PresumedDead)
    }

    /// Whether a server has answered every request with the token: then another does nothing to it that the first has not
    /// done.
    pub fn may_be_sent_again(&self) -> bool {
        !self.was_in_doubt && self.failure.kind != ErrorKind::PresumedSpent
    }
}

impl Intent {
    /// The intent for an attempt whose journal is gone: whatever would favour another send counts as over.
    pub fn from_ledger(generation: Generation, fingerprint: Fingerprint, at: Timestamp) -> Self {
        // The moment belongs to no boot, so that no grace is believed to last.
        let then = Moment { wall: at, boot_id: String::new(), uptime_ms: 0 };
        Self::new("recalled", generation, fingerprint, &then)
    }

    /// The intent for a token that was sent once, at this moment, with nothing else known.
    pub fn new(attempt_id: &str, generation: Generation, fingerprint: Fingerprint, sent: &Moment) -> Self {
        Self {
            attempt_id: attempt_id.to_owned(),
            generation,
            fingerprint,
            send_count: 1,
            first_sent: sent.clone(),
            last_sent: sent.clone(),
            gave_up_at: None,
            previous_gave_up_at: None,
            is_last_chance_used: false,
            is_reusable: false,
            client_mark: None,
            is_forced: false,
        }
    }
}

impl Journal {
    pub fn new(profile: ProfileName) -> Self {
        Self {
            format: FORMAT,
            profile,
            binding: None,
            sequence: 0,
            generation: Generation::NONE,
            fingerprint: None,
            validity: None,
            refreshed_at: None,
            login_by: None,
            is_login_by_final: false,
            publication: Publication::None,
            intent: None,
            last_attempt: None,
            not_before: None,
            not_before_set_at: None,
            pause: None,
            consecutive_failures: 0,
            consecutive_unclassified: 0,
            rejected: None,
            forced_at: None,
            suspicion: None,
            hooks: HookStamps::default(),
            granted_client: None,
            blocks: Vec::new(),
            revocation: None,
            is_tombstone: false,
            origin: None,
            is_followed_alone: false,
            has_tool_diverged: false,
            store_identity: None,
            ledger_backlog: Vec::new(),
            last_ledgered: None,
            sealed_mark: None,
            file: None,
            integrity_error: None,
        }
    }

    /// Reads a profile's journal without a lock. It is replaced atomically, so it is complete.
    pub fn read(path: &Path, profile: &ProfileName) -> Result<Option<Self>, StoreError> {
        let Some(bytes) = durable::read(path).map_err(|e| StoreError::io("read", path, e))? else {
            return Ok(None);
        };
        let damaged = |why: String| StoreError::DamagedFile { path: path.to_owned(), why };
        let parsed = serde_json::from_slice::<Self>(&bytes);
        let is_known = parsed.as_ref().is_ok_and(|journal| journal.format <= FORMAT);
        if !is_known && let Some(found) = later_format(&bytes, FORMAT) {
            return Err(StoreError::LaterVersion { path: path.to_owned(), found });
        }
        let journal = parsed.map_err(|e| damaged(e.to_string()))?;
        if journal.format != FORMAT {
            return Err(damaged(format!(
                "it has format {}; this version of keepalive supports {FORMAT}",
                journal.format
            )));
        }
        if journal.profile != *profile {
            return Err(damaged(format!("it belongs to profile {}", journal.profile)));
        }
        Ok(Some(journal))
    }

    /// Whether its fingerprints are of the store with this UUID.
    pub(in crate::store) fn is_of(&self, store: &str) -> bool {
        self.store_identity.as_ref().is_some_and(|own| own.uuid == store)
    }

    /// Refuses a live journal that was copied in from another store: what it says of tokens cannot be compared with what is
    /// known here.
    pub(in crate::store) fn check_store(&self, path: &Path, store: &StoreIdentity) -> Result<(), StoreError> {
        if self.is_of(&store.uuid) || !self.has_credential() || !store.is_permanent() {
            return Ok(());
        }
        Err(StoreError::ForeignJournal { path: path.to_owned(), profile: self.profile.clone() })
    }

    /// Names the store, unless this is refused. What another store's ledger took says nothing of this one's.
    pub(in crate::store) fn set_store(&mut self, store: &StoreIdentity) {
        let is_of_it = self.is_of(&store.uuid);
        self.last_ledgered.take_if(|_| !is_of_it);
        if is_of_it || !self.has_credential() || !store.is_permanent() {
            self.store_identity = Some(store.for_journal()).filter(StoreIdentity::is_permanent);
        }
    }

    /// Replaces the journal; durable on return.
    pub fn write(&self, path: &Path) -> std::io::Result<()> {
        let staged = StagedFile::create(path, 0)?;
        let journal = Self { file: FilePlace::of(staged.file())?, ..self.clone() };
        staged.commit(&serde_json::to_vec_pretty(&journal).map_err(std::io::Error::other)?)
    }

    /// Whether the sealed file is the one that this was written for.
    pub fn is_written_for(&self, sealed: Option<FileVersion>) -> bool {
        sealed.zip(self.sealed_mark.as_ref()).is_some_and(|(sealed, mark)| sealed.has_mark(mark))
    }

    /// Whether the sealed file, though of the generation of this journal, is not the one that it was written for: it was
    /// copied, or restored from a backup. `None`: that cannot be told.
    pub fn is_copied(&self, sealed: Option<Generation>, version: Option<FileVersion>) -> Option<bool> {
        let is_told = self.sealed_mark.is_some() && self.has_credential() && sealed == Some(self.generation);
        is_told.then(|| !self.is_written_for(version))
    }

    pub fn has_credential(&self) -> bool {
        self.generation > Generation::NONE && !self.is_tombstone
    }

    /// Whether the current refresh token is known to be dead.
    pub fn is_rejected(&self) -> bool {
        match (&self.rejected, &self.fingerprint) {
            (Some(rejected), Some(current)) => rejected.fingerprint == *current,
            _ => false,
        }
    }

    /// Whether the request that is under way was granted before, but for its token.
    pub fn is_request_known(&self) -> bool {
        let mark = self.intent.as_ref().and_then(|intent| intent.client_mark.as_ref());
        mark.is_some() && mark == self.granted_client.as_ref()
    }

    /// Whether the current token was rejected when it came from another client, or at another endpoint, than `mark` says.
    pub fn is_rejection_of_another_client(&self, mark: &str) -> bool {
        let sent_by =
            self.rejected.as_ref().filter(|_| self.is_rejected()).and_then(|rejected| rejected.client.as_deref());
        sent_by.is_some_and(|sent_by| sent_by != mark)
    }

    /// An attempt of the current generation whose outcome is unknown.
    pub fn open_intent(&self) -> Option<&Intent> {
        self.intent.as_ref().filter(|i| i.generation >= self.generation && !self.is_rejected())
    }

    /// A revocation of the current refresh token whose outcome is unknown.
    pub fn open_revocation(&self) -> Option<&Revocation> {
        let is_open = |r: &&Revocation| !r.is_confirmed && self.fingerprint.as_ref() == Some(&r.fingerprint);
        self.revocation.as_ref().filter(is_open).filter(|_| !self.is_rejected())
    }

    /// Makes this a tombstone. It keeps what a later login counts on from, and the tokens that it must not take.
    pub fn make_tombstone(&mut self, revocation: Option<Revocation>) {
        let buried = Self::new(self.profile.clone());
        *self = Self {
            binding: self.binding.take(),
            sequence: self.sequence + 1,
            generation: self.generation,
            // The intent stays until the ledger has it.
            intent: self.intent.take().filter(|i| !i.is_reusable),
            rejected: self.rejected.take(),
            revocation: revocation.or_else(|| self.revocation.take().filter(|r| !r.is_confirmed)),
            ledger_backlog: std::mem::take(&mut self.ledger_backlog),
            last_ledgered: self.last_ledgered.take(),
            is_tombstone: true,
            store_identity: self.store_identity.take(),
            ..buried
        };
    }

    /// Reopens a tombstone for a later login. It counts up to what was sealed when it was made, so a higher sealed
    /// generation came later, by a login or an import that was cut off before it could write this journal.
    pub fn reopen_for_newer_login(&mut self, sealed: Option<Generation>) {
        if sealed.is_some_and(|sealed| sealed > self.generation) {
            self.is_tombstone = false;
        }
    }

    /// The tokens that must not come back once another takes their place: rejected, revoked, in doubt, or known only to
    /// this journal to be consumed.
    pub fn unusable_tokens(&self) -> impl Iterator<Item = &Fingerprint> {
        let doubtful = self.intent.as_ref().filter(|i| !i.is_reusable).map(|i| &i.fingerprint);
        let refused = self.rejected.as_ref().map(|r| &r.fingerprint);
        let revoked = self.revocation.as_ref().filter(|r| r.is_confirmed).map(|r| &r.fingerprint);
        doubtful.into_iter().chain(refused).chain(revoked).chain(&self.ledger_backlog)
    }

    /// Clears every mark against a token that was granted anew. Returns whether there was one.
    pub fn clear_marks(&mut self, token: &Fingerprint) -> bool {
        let doubt = self.intent.take_if(|intent| intent.fingerprint == *token).is_some();
        let refusal = self.rejected.take_if(|rejected| rejected.fingerprint == *token).is_some();
        let revocation = self.revocation.take_if(|revocation| revocation.fingerprint == *token).is_some();
        let before = self.ledger_backlog.len();
        self.ledger_backlog.retain(|missing| missing != token);
        doubt || refusal || revocation || self.ledger_backlog.len() < before
    }

    /// Takes over the public parts of a credential. The caller has it durably sealed.
    pub fn set_credential(&mut self, credential: &Credential, fingerprint: Fingerprint) {
        self.clear_blocks_for(self.fingerprint.as_ref() != Some(&fingerprint));
        self.binding = Some(credential.binding.clone());
        self.generation = credential.generation;
        self.fingerprint = Some(fingerprint);
        self.validity = credential.grant.validity.clone();
        self.login_by = credential.grant.login_by;
        self.is_login_by_final = false;
        self.is_tombstone = false;
        self.integrity_error = None;
        self.revocation = None;
        if self.intent.as_ref().is_some_and(|i| i.generation < credential.generation) {
            self.intent = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::clock::{Clock, ManualClock};
    use crate::store::journal::block::Cause;
    use crate::store::test_samples::{fingerprint, intent, journal, now};

    fn rejection() -> Rejection {
        Rejection {
            fingerprint: fingerprint('a'),
            at: now().wall,
            failure: Failure::new(ErrorKind::of_provider("invalid_grant"), "gone"),
            client: None,
            was_in_doubt: false,
        }
    }

    fn credential(generation: u64) -> Credential {
        crate::store::test_samples::credential(generation, "r")
    }

    /// Rule 22.
    #[test]
    fn reissued_token_clears_every_mark_against_it() {
        let sent = Revocation { fingerprint: fingerprint('a'), at: now().wall, is_confirmed: true };
        let of_a: [Journal; 4] = [
            Journal { intent: Some(intent(Generation::new(2))), ..journal() },
            Journal { rejected: Some(rejection()), ..journal() },
            Journal { revocation: Some(sent), ..journal() },
            Journal { ledger_backlog: vec![fingerprint('a')], ..journal() },
        ];
        for said in of_a {
            let mut other = said.clone();
            assert!(!other.clear_marks(&fingerprint('b')));
            assert_eq!(other, said);
            let mut revived = said;
            assert!(revived.clear_marks(&fingerprint('a')));
            assert_eq!(revived, journal());
        }
    }

    /// Rule 13.
    #[test]
    fn damaged_journal_is_not_taken_for_a_later_version() {
        let is_later = |format: u32| later_format(format!(r#"{{"format":{format}}}"#).as_bytes(), FORMAT).is_some();
        assert_eq!([FORMAT - 1, FORMAT, FORMAT + 1].map(is_later), [false, false, true]);
        assert_eq!(later_format(b"dust", FORMAT), None);
    }

    #[test]
    fn a_new_journal_and_a_tombstone_have_no_credential() {
        assert!(!Journal::new("p".parse().unwrap()).has_credential());
        assert!(journal().has_credential());
        let mut buried = journal();
        buried.make_tombstone(None);
        assert!(!buried.has_credential());
    }

    #[test]
    fn attempt_is_open_until_superseded_or_its_token_rejected() {
        let mut journal = journal();
        journal.intent = Some(intent(Generation::new(2)));
        assert!(journal.open_intent().is_some());
        journal.rejected = Some(rejection());
        assert!(journal.open_intent().is_none());
        journal.rejected = None;
        journal.generation = Generation::new(3);
        assert!(journal.open_intent().is_none());
    }

    /// Rule 5.
    #[test]
    fn adopted_generation_ends_the_attempts_of_earlier_ones() {
        for (adopted, is_over) in [(2, false), (3, true)] {
            let mut journal = journal();
            journal.intent = Some(intent(Generation::new(2)));
            journal.set_credential(&credential(adopted), fingerprint('b'));
            assert_eq!(journal.intent.is_none(), is_over, "{adopted}");
        }
    }

    #[test]
    fn revocation_is_open_until_confirmed_or_its_token_is_gone() {
        let sent = Revocation { fingerprint: fingerprint('a'), at: now().wall, is_confirmed: false };
        let mut journal = Journal { revocation: Some(sent.clone()), ..journal() };
        assert_eq!(journal.open_revocation(), Some(&sent));
        journal.rejected = Some(rejection());
        assert_eq!(journal.open_revocation(), None, "a refresh has shown that it is dead");
        journal.rejected = None;
        journal.fingerprint = Some(fingerprint('b'));
        assert_eq!(journal.open_revocation(), None, "a refresh has replaced it");
        journal.fingerprint = Some(fingerprint('a'));
        journal.revocation = Some(Revocation { is_confirmed: true, ..sent });
        assert_eq!(journal.open_revocation(), None);
    }

    /// Rule 25.
    #[test]
    fn wait_is_measured_by_the_boot_clock_until_a_reboot() {
        let clock = ManualClock::new(Timestamp::from_secs(1_790_000_000));
        let start = clock.now();
        let at = start.wall.plus(Duration::from_secs(600));
        let mut journal = journal();
        journal.set_not_before(Some(at), Some(&start));
        let left = |clock: &ManualClock| {
            let now = clock.now();
            journal.blocked_until(&now).map(|until| until.since(now.wall).as_secs())
        };
        clock.advance(Duration::from_secs(100));
        assert_eq!(
            (journal.blocked_until(&clock.now()), left(&clock)),
            (Some(at), Some(500)),
            "the time that was told"
        );
        for wall in [1_790_007_200, 1_780_000_000, 1_790_000_100] {
            clock.set_wall(Timestamp::from_secs(wall));
            assert_eq!(left(&clock), Some(500), "{wall}");
        }
        // The clocks drift, and a time that was named is kept to.
        clock.set_wall(clock.now().wall.plus(Duration::from_millis(900)));
        assert_eq!(journal.blocked_until(&clock.now()), Some(at));
        clock.set_wall(at);
        assert_eq!(left(&clock), Some(500), "that was a step");
        clock.advance(Duration::from_secs(500));
        assert_eq!(left(&clock), None);
        clock.reboot();
        for (wall, expected) in [(1_789_999_999, None), (1_790_000_000, Some(600)), (1_790_000_600, None)] {
            clock.set_wall(Timestamp::from_secs(wall));
            assert_eq!(left(&clock), expected, "{wall}");
        }
        let mut untimed = Journal { not_before_set_at: None, ..journal.clone() };
        clock.set_wall(Timestamp::from_secs(1_780_000_000));
        assert_eq!(untimed.blocked_until(&clock.now()), Some(at));
        untimed.set_not_before(None, Some(&start));
        assert_eq!((untimed.not_before_set_at.clone(), untimed.blocked_until(&clock.now())), (None, None));
    }

    /// Rule 16.
    #[test]
    fn same_token_adopted_again_keeps_its_unusable_error() {
        for (token, is_kept) in [('a', true), ('b', false)] {
            let mut journal = journal();
            journal.set_block(Block::new(Cause::AccessToken, Failure::new(ErrorKind::AtUnusable, "nothing")));
            journal.set_credential(&credential(3), fingerprint(token));
            assert_eq!(journal.block(Cause::AccessToken).is_some(), is_kept, "{token}");
        }
    }

    /// Rule 13.
    #[test]
    fn tombstone_keeps_the_generation_and_the_old_tokens() {
        let revocation = Revocation { fingerprint: fingerprint('a'), at: now().wall, is_confirmed: true };
        let before = Journal {
            binding: Some(credential(2).binding),
            sequence: 7,
            rejected: Some(rejection()),
            intent: Some(intent(Generation::new(2))),
            not_before: Some(now().wall),
            ledger_backlog: vec![fingerprint('c')],
            ..journal()
        };
        assert_eq!(
            before.unusable_tokens().collect::<Vec<_>>(),
            [&fingerprint('a'), &fingerprint('a'), &fingerprint('c')]
        );
        let mut buried = before.clone();
        buried.make_tombstone(Some(revocation.clone()));
        let mut reusable = before.clone();
        reusable.intent = reusable.intent.map(|i| Intent { is_reusable: true, ..i });
        reusable.make_tombstone(None);
        assert_eq!(reusable.intent, None, "its server does not mind");
        let kept = Journal {
            binding: before.binding,
            intent: before.intent,
            rejected: before.rejected,
            ledger_backlog: before.ledger_backlog,
            generation: before.generation,
            ..Journal::new("p".parse().unwrap())
        };
        assert_eq!(buried, Journal { sequence: 8, revocation: Some(revocation), is_tombstone: true, ..kept });
    }
}
