//! Follows another tool that holds the same credential: its store is read before each flight, and decides what to do
//! (rule 39). Nothing is ever written there.

use std::sync::Arc;

use crate::credential::external::{AccountFile, AccountMatch, ExternalCredential, ImportSource};
use crate::credential::secret::Fingerprint;
use crate::engine::new_credential;
use crate::engine::refresh::backoff::{FOLLOW_CONFLICT_INTERVAL, FOLLOW_RETRY_INTERVAL};
use crate::engine::refresh::context::RefreshContext;
use crate::engine::refresh::errors;
use crate::engine::refresh::followed_stores::{
    StoreContent, ToolFacts, account_pending, cannot_follow, conflict, nothing_to_follow, other_name,
    tool_never_refreshes, tool_refreshes_first,
};
use crate::engine::refresh::other_entries::{Holder, OurToken, unknown_holder};
use crate::engine::refresh::settle::{Changes, End};
use crate::events;
use crate::outcome::{ErrorKind, Failure, Outcome, OutcomeKind};
use crate::provider::BeforeSendError;
use crate::store::journal::Journal;
use crate::store::journal::block::{Block, Cause};
use crate::store::keys::sealing_key::SealingKey;
use crate::store::{LoadedCredential, LockedProfile};

/// What a followed tool's store says about our token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FollowedToken {
    /// The tool is signed out: it holds none.
    None,
    /// It holds the same token.
    Same,
    /// It holds the same token, and names another account for it.
    Misnamed,
    /// It holds a token that was consumed here.
    Consumed,
    /// The tool refreshed the token, or its user signed in again.
    Newer,
    /// It holds another account's token, or one whose account or age is unknown.
    Conflict(&'static str),
}

const OTHER_ACCOUNT: &str = "a token of another account";

/// A tool that held a different token, which may have been ours refreshed, and is signed out now: ours may be consumed.
/// (pure)
fn judged_with_what_was_seen(now: FollowedToken, has_diverged: bool) -> FollowedToken {
    match now {
        FollowedToken::None if has_diverged => FollowedToken::Conflict(
            "no token now, and had a different one before, which may have replaced the stored one",
        ),
        now => now,
    }
}

/// Compares the tool's token with ours (rule 39). (pure)
fn compare(is_ours: bool, is_consumed: bool, likeness: AccountMatch, is_newer: bool) -> FollowedToken {
    match likeness {
        AccountMatch::Different if is_ours => FollowedToken::Misnamed,
        _ if is_ours => FollowedToken::Same,
        _ if is_consumed => FollowedToken::Consumed,
        AccountMatch::Same if is_newer => FollowedToken::Newer,
        AccountMatch::Same => {
            FollowedToken::Conflict("a different token of the same account that is not newer than the stored one")
        }
        AccountMatch::Different => FollowedToken::Conflict(OTHER_ACCOUNT),
        AccountMatch::Unknown => FollowedToken::Conflict("a different token and does not name its account"),
    }
}

/// What a flight may do with our token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Course {
    /// Our token may be sent: the tool does not hold it, or the server does not mind two holders.
    Send,
    /// The tool's credential is adopted.
    Adopt,
    /// The tool refreshes first.
    Wait,
    /// A person must choose.
    Stop(&'static str),
    /// A person must choose, and until then the token is not handed out.
    Withhold,
}

/// What follows from the tool's token (rule 39). `rotates`: the server accepts a refresh token once. (pure)
fn course(theirs: FollowedToken, rotates: bool) -> Course {
    match (theirs, rotates) {
        (FollowedToken::None | FollowedToken::Consumed, _) | (FollowedToken::Same, false) => Course::Send,
        (FollowedToken::Same, true) => Course::Wait,
        (FollowedToken::Misnamed, _) => Course::Withhold,
        (FollowedToken::Newer, _) => Course::Adopt,
        (FollowedToken::Conflict(what), _) => Course::Stop(what),
    }
}

/// What a look at the tool's store found.
struct Seen {
    token: FollowedToken,
    /// What the store holds; `Err`: why the entry that is followed holds nothing.
    credential: Result<Box<ExternalCredential>, String>,
    /// The entry that holds our token, if that is under another name.
    held_as: Option<ImportSource>,
}

impl RefreshContext {
    /// The credential to go on with: the loaded one, or a newer one of the same account that the followed tool holds.
    /// `Err`: the flight ends here and sends nothing, because the newer one suffices, or because the tool may have
    /// consumed our token.
    pub fn follow_tool<'l>(
        &self,
        locked: &mut LockedProfile<'_, 'l>,
        key: &Arc<SealingKey>,
        loaded: LoadedCredential<'l>,
        warnings: &mut Vec<String>,
    ) -> Result<LoadedCredential<'l>, Outcome> {
        let newer = if self.profile.follow { self.newer_credential(locked, key, warnings)? } else { None };
        let Some(newer) = newer else {
            return self.clear_follow_block(locked).map(|()| loaded);
        };
        let outcome = self.adopt_followed_credential(locked, key, newer)?;
        if self.is_demand_met(&locked.journal) {
            return Err(outcome);
        }
        // The adopted token ends too soon as well, and the tool holds the same one.
        warnings.extend(outcome.warnings);
        if self.profile.provider.policy.rotates() {
            return Err(self.wait_for_tool(locked, key, None));
        }
        locked.load(key, self.is_daemon)?.ok_or_else(|| errors::no_credential(&self.profile.name))
    }

    /// Reads the tool's store once more after a rejection, before the person is asked to sign in.
    pub fn recheck_followed_store(
        &self,
        locked: &mut LockedProfile<'_, '_>,
        key: &Arc<SealingKey>,
        outcome: Outcome,
    ) -> Outcome {
        if !self.profile.follow || outcome.kind != OutcomeKind::NeedsLogin {
            return outcome;
        }
        // An error of this read does not change the outcome; the next flight reports it.
        match self.read_followed_store(locked, key) {
            Ok(Seen { token: FollowedToken::Newer, credential: Ok(external), .. }) => {
                self.adopt_followed_credential(locked, key, *external).unwrap_or(outcome)
            }
            Ok(_) | Err(_) => outcome,
        }
    }

    /// A check for the gate: whether our token may still be sent, by what the tool holds at that moment. Connecting may
    /// have taken time.
    pub fn followed_store_check(
        &self,
        journal: &Journal,
        key: &Arc<SealingKey>,
        ours: Fingerprint,
    ) -> impl FnOnce() -> Result<(), BeforeSendError> + Send + 'static {
        let followed =
            journal.followed_origin().filter(|_| self.profile.follow).cloned().zip(self.followed_stores.clone());
        let (store, key, name) = (Arc::clone(&self.store), Arc::clone(key), self.profile.name.clone());
        let rotates = self.profile.provider.policy.rotates();
        let client_id = self.prepared.provider.client_id.clone();
        move || {
            let Some((origin, source)) = followed else { return Ok(()) };
            let unreadable =
                |_: Failure| BeforeSendError::Refused("the store of the followed tool can no longer be read");
            let is_consumed = |theirs: &Fingerprint| store.ledger().is_consumed(theirs).unwrap_or(false);
            if let StoreContent::Credential(external) = source.read(&origin, name.as_str()).map_err(unreadable)? {
                match external.response.refresh.as_ref().map(|token| key.fingerprint(token)) {
                    Some(theirs) if theirs == ours && course(FollowedToken::Same, rotates) == Course::Send => {
                        return Ok(());
                    }
                    Some(theirs) if theirs == ours => {
                        let why = "the followed tool has the same token, and refreshes it first";
                        return Err(BeforeSendError::Refused(why));
                    }
                    Some(theirs) if is_consumed(&theirs) => {}
                    Some(_) | None => {
                        return Err(BeforeSendError::Refused("the followed tool has a different token now"));
                    }
                }
            }
            let ours = OurToken { origin: &origin, client_id: &client_id, fingerprint: Some(ours) };
            let entries = if rotates { source.all_entries(&origin, name.as_str()) } else { Vec::new() };
            match ours.holder(entries, |token| key.fingerprint(token), is_consumed) {
                Holder::None => Ok(()),
                _ => Err(BeforeSendError::Refused("another entry of the followed tool may hold the same token")),
            }
        }
    }

    /// The newer credential of the tool, if it has one.
    fn newer_credential(
        &self,
        locked: &mut LockedProfile<'_, '_>,
        key: &Arc<SealingKey>,
        warnings: &mut Vec<String>,
    ) -> Result<Option<ExternalCredential>, Outcome> {
        let rotates = self.profile.provider.policy.rotates();
        let origin = locked.journal.origin.as_ref().zip(self.followed_stores.as_ref());
        let cannot = origin.and_then(|(o, stores)| cannot_follow(&self.profile.name, o, &stores.about(o), rotates));
        let seen = match cannot.map_or_else(|| self.read_followed_store(locked, key), Err) {
            Ok(found) => found,
            Err(failure) => {
                let may_pass = failure.kind == ErrorKind::Source;
                let cause = if may_pass { Cause::FollowSource } else { Cause::FollowConflict };
                return Err(self.set_follow_block(locked, key, cause, failure));
            }
        };
        let token = judged_with_what_was_seen(seen.token, locked.journal.has_tool_diverged);
        locked.journal.has_tool_diverged = matches!(token, FollowedToken::Conflict(what) if what != OTHER_ACCOUNT);
        let seen = Seen { token, ..seen };
        self.note_signed_out(locked, &seen, warnings);
        match course(seen.token, rotates) {
            Course::Send => Ok(None),
            Course::Adopt => Ok(seen.credential.ok().map(|external| *external)),
            // A rejected token is not sent, so there is nothing to wait for: a person signs in with the tool, or here.
            Course::Wait if locked.journal.is_rejected() && !self.facts().is_forced() => Ok(None),
            Course::Wait => Err(self.wait_for_tool(locked, key, seen.held_as)),
            Course::Stop(what) => {
                let failure = conflict(&self.profile.name, locked.journal.origin.as_ref(), what);
                Err(self.set_follow_block(locked, key, Cause::FollowConflict, failure))
            }
            Course::Withhold => {
                let failure = other_name(&self.profile.name, locked.journal.origin.as_ref());
                Err(self.set_follow_block(locked, key, Cause::OtherAccount, failure))
            }
        }
    }

    /// Ends the flight, because the tool holds the same token and refreshes it first. `held_as`: under another name.
    fn wait_for_tool(
        &self,
        locked: &mut LockedProfile<'_, '_>,
        key: &Arc<SealingKey>,
        held_as: Option<ImportSource>,
    ) -> Outcome {
        if let Err(ended) = self.clear_follow_block(locked) {
            return ended;
        }
        let origin = held_as.or_else(|| locked.journal.followed_origin().cloned());
        let Some((origin, about)) = origin.zip(self.followed_stores.as_ref()).map(|(o, s)| (o.clone(), s.about(&o)))
        else {
            return Outcome::new(OutcomeKind::ConfigError).with_error(nothing_to_follow(&self.profile.name));
        };
        match about {
            ToolFacts { is_refreshing: true, .. } => {
                self.set_follow_block(locked, key, Cause::FollowWait, tool_refreshes_first(&origin, &about))
            }
            ToolFacts { is_refreshing: false, .. } => {
                let failure = tool_never_refreshes(&self.profile.name, &origin, &about);
                self.set_follow_block(locked, key, Cause::FollowConflict, failure)
            }
        }
    }

    /// Tells once that the tool is signed out. The journal remembers it as soon as it is written for another reason.
    fn note_signed_out(&self, locked: &mut LockedProfile<'_, '_>, seen: &Seen, warnings: &mut Vec<String>) {
        let was_told = locked.journal.is_followed_alone;
        locked.journal.is_followed_alone = seen.token == FollowedToken::None;
        if let (FollowedToken::None, Err(why), false) = (seen.token, &seen.credential, was_told) {
            let tool = locked.journal.origin.as_ref().map_or("the tool", |origin| origin.tool.as_str());
            let told = format!("{tool} is signed out ({why}): keepalive goes on alone");
            events::goes_on_alone(&self.profile, &told);
            warnings.push(told);
        }
    }

    /// Reads the tool's store and compares. Where the entry that is followed has no token, or a consumed one, every entry
    /// that the tool has is looked at. An error of the kind `source` may pass.
    fn read_followed_store(&self, locked: &LockedProfile<'_, '_>, key: &SealingKey) -> Result<Seen, Failure> {
        let name = &self.profile.name;
        let origin = locked.journal.followed_origin().ok_or_else(|| nothing_to_follow(name))?;
        let source = self.followed_stores.as_ref().ok_or_else(|| nothing_to_follow(name))?;
        let (seen, why) = match source.read(origin, name.as_str())? {
            StoreContent::SignedOut(why) => {
                let credential = Err(why.clone());
                (Seen { token: FollowedToken::None, credential, held_as: None }, why)
            }
            StoreContent::Credential(external) => {
                let seen = self.judge(locked, key, external, origin)?;
                if seen.token != FollowedToken::Consumed {
                    return Ok(seen);
                }
                (seen, format!("{origin} has a consumed token"))
            }
        };
        let fingerprint = locked.journal.fingerprint.clone();
        let ours = OurToken { origin, client_id: &self.prepared.provider.client_id, fingerprint };
        let is_consumed = |theirs: &Fingerprint| locked.is_consumed(theirs).unwrap_or(false);
        let entries = source.all_entries(origin, name.as_str());
        let rotates = self.profile.provider.policy.rotates();
        match ours.holder(entries, |token| key.fingerprint(token), is_consumed) {
            Holder::Ours(entry) => {
                let held_as = Some(entry.origin(origin));
                Ok(Seen { token: FollowedToken::Same, credential: Err(why), held_as })
            }
            // At a server that does not rotate it does not matter where the tool's token went.
            Holder::SameAccount(_) | Holder::Unknown(_) if !rotates => Ok(seen),
            Holder::None => Ok(seen),
            Holder::SameAccount(external) => self.judge(locked, key, external, origin),
            Holder::Unknown(entry) => Err(unknown_holder(origin, &why, &entry, name.as_str())),
        }
    }

    /// Compares a credential of the tool with ours.
    fn judge(
        &self,
        locked: &LockedProfile<'_, '_>,
        key: &SealingKey,
        external: Box<ExternalCredential>,
        origin: &ImportSource,
    ) -> Result<Seen, Failure> {
        let (journal, name) = (&locked.journal, &self.profile.name);
        let Some(theirs) = external.response.refresh.as_ref().map(|token| key.fingerprint(token)) else {
            return Err(Failure::new(ErrorKind::Source, format!("{origin} no longer has a refresh token"))
                .with_hint("sign in with that tool, or remove follow = true if you no longer use it"));
        };
        let is_consumed = locked
            .is_consumed(&theirs)
            .map_err(|e| Failure::new(ErrorKind::Source, format!("cannot tell whether {origin} is up to date: {e}")))?;
        let is_ours = journal.fingerprint.as_ref() == Some(&theirs);
        if !is_ours && !is_consumed {
            let claimed = |ended: Outcome| {
                let failure = ended.error.unwrap_or_else(|| nothing_to_follow(name));
                // Another profile's files may become readable again.
                let may_pass = ended.kind == OutcomeKind::StoreUnavailable;
                if may_pass { Failure { kind: ErrorKind::Source, ..failure } } else { failure }
            };
            new_credential::check_unclaimed(&self.store, name, key, &theirs).map_err(claimed)?;
        }
        let likeness = match external.client_id.as_ref() {
            Some(client) if *client != self.prepared.provider.client_id => AccountMatch::Unknown,
            Some(_) | None if is_ours && external.account_file != AccountFile::Settled => AccountMatch::Unknown,
            Some(_) | None => origin.identity.compare(&external.identity),
        };
        let is_newer = external.is_newer_than(journal.validity.as_ref());
        let token = compare(is_ours, is_consumed, likeness, is_newer);
        if token == FollowedToken::Newer && external.account_file == AccountFile::TokensNewer {
            return Err(account_pending(origin));
        }
        Ok(Seen { token, credential: Ok(external), held_as: None })
    }

    /// Stores the tool's credential as the newest generation. Once it is sealed it is safe, so later errors are
    /// warnings.
    fn adopt_followed_credential(
        &self,
        locked: &mut LockedProfile<'_, '_>,
        key: &Arc<SealingKey>,
        external: ExternalCredential,
    ) -> Result<Outcome, Outcome> {
        let now = self.now();
        // The binding stays: following a tool does not lead to another server.
        let binding = locked.journal.binding.clone().unwrap_or_else(|| self.prepared.binding());
        let validity = external.validity(&now, self.profile.provider.lifetime_bounds());
        let is_in_keyring = external.is_in_keyring;
        let made = new_credential::build_credential(external.response, binding, validity);
        let mut credential = made.ok_or_else(|| errors::no_credential(&self.profile.name))?;
        credential.generation = locked.journal.generation.next();
        let fingerprint = key.fingerprint(&credential.refresh);
        // The lock is not waited for, because the rejected token may be locked as well.
        let Some(_token_lock) = self.store.try_lock_token(&fingerprint)? else {
            let busy = Failure::new(ErrorKind::Busy, "another profile is importing the token of the followed tool");
            return Err(Outcome::new(OutcomeKind::Deferred).with_error(busy));
        };
        new_credential::check_unclaimed(&self.store, &self.profile.name, key, &fingerprint)?;
        let spent = locked.journal.fingerprint.clone();
        if let Some(origin) = &mut locked.journal.origin {
            origin.is_in_keyring = is_in_keyring;
        }
        locked.seal_credential(&credential, key)?;
        let from = locked.journal.origin.as_ref().map_or("the tool", |o| o.tool.as_str());
        let mut outcome = Outcome::new(OutcomeKind::Refreshed);
        outcome.warnings.push(format!("adopted generation {} from {from}", credential.generation));
        // Our old token must not come back, whether the tool consumed it or signed in again.
        if let Some(Err(e)) = spent.map(|spent| locked.mark_consumed_or_queue(&spent)) {
            outcome.warnings.push(format!("cannot write the ledger: {e}"));
        }
        match new_credential::settle_new_credential(locked, &credential, key, Some((&outcome, now.wall))) {
            Ok(warnings) => outcome.warnings.extend(warnings),
            Err(ended) => outcome.warnings.extend(ended.error.map(|e| e.message)),
        }
        events::adopted(&self.profile, credential.generation);
        Ok(outcome)
    }

    /// Clears the block; if nothing else was to be done, the flight is over.
    fn clear_follow_block(&self, locked: &mut LockedProfile<'_, '_>) -> Result<(), Outcome> {
        if !locked.journal.clear_blocks(&Cause::FOLLOW) {
            return Ok(());
        }
        locked.save_journal()?;
        if self.is_demand_met(&locked.journal) { Err(Outcome::new(OutcomeKind::Fresh)) } else { Ok(()) }
    }

    /// Records why nothing is sent, for `status` and for followers.
    pub(super) fn set_follow_block(
        &self,
        locked: &mut LockedProfile<'_, '_>,
        key: &Arc<SealingKey>,
        cause: Cause,
        failure: Failure,
    ) -> Outcome {
        let is_passing = matches!(cause, Cause::FollowSource | Cause::FollowWait);
        let wait = if is_passing { FOLLOW_RETRY_INTERVAL } else { FOLLOW_CONFLICT_INTERVAL };
        let now = self.now();
        let at = now.wall.plus(wait);
        let block = Block::new(cause, failure.clone()).until(at, &now);
        let outcome = Outcome::new(block.outcome).with_retry_at(at).with_error(failure);
        let mut changes = Changes::from(locked.journal.clone());
        changes.journal.clear_blocks(&Cause::FOLLOW);
        changes.journal.set_block(block);
        changes.end(End::Unsent, outcome, &now).apply(self, locked, key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rule 39.
    #[test]
    fn followed_token_is_judged_by_identity_and_age() {
        let conflict = |theirs| matches!(theirs, FollowedToken::Conflict(_));
        for likeness in [AccountMatch::Same, AccountMatch::Different, AccountMatch::Unknown] {
            for is_newer in [true, false] {
                let of_ours = match likeness {
                    AccountMatch::Different => FollowedToken::Misnamed,
                    AccountMatch::Same | AccountMatch::Unknown => FollowedToken::Same,
                };
                assert_eq!(compare(true, false, likeness, is_newer), of_ours);
                assert_eq!(compare(false, true, likeness, is_newer), FollowedToken::Consumed);
            }
        }
        assert_eq!(compare(false, false, AccountMatch::Same, true), FollowedToken::Newer);
        assert!(conflict(compare(false, false, AccountMatch::Same, false)), "nobody can tell what became of it");
        assert!(conflict(compare(false, false, AccountMatch::Different, true)));
        assert!(conflict(compare(false, false, AccountMatch::Unknown, true)));
    }

    /// Rule 39.
    #[test]
    fn signed_out_tool_that_held_another_token_is_unknown() {
        let judged = |now| judged_with_what_was_seen(now, true);
        assert!(matches!(judged(FollowedToken::None), FollowedToken::Conflict(what) if what != OTHER_ACCOUNT));
        assert_eq!(judged(FollowedToken::Same), FollowedToken::Same);
        assert_eq!(judged_with_what_was_seen(FollowedToken::None, false), FollowedToken::None);
    }

    /// Rule 39.
    #[test]
    fn token_that_the_tool_holds_is_sent_only_without_rotation() {
        for (theirs, rotating, otherwise) in [
            (FollowedToken::None, Course::Send, Course::Send),
            (FollowedToken::Same, Course::Wait, Course::Send),
            (FollowedToken::Consumed, Course::Send, Course::Send),
            (FollowedToken::Misnamed, Course::Withhold, Course::Withhold),
            (FollowedToken::Newer, Course::Adopt, Course::Adopt),
            (FollowedToken::Conflict("x"), Course::Stop("x"), Course::Stop("x")),
        ] {
            assert_eq!((course(theirs, true), course(theirs, false)), (rotating, otherwise), "{theirs:?}");
        }
    }
}
