//! A credential that another tool holds as well: before each flight its store is read, and what it holds by now decides
//! (rule 39). Nothing is ever written there.

use std::sync::Arc;

use super::backoff::{CONFLICT, SOURCE};
use super::flightplan::Flightplan;
use super::handover;
use super::refusal::{self, note_attempt};
use super::source::nothing_to_follow;
use crate::credential::foreign::{Foreign, Likeness, Origin};
use crate::credential::secret::Fingerprint;
use crate::outcome::{ErrorKind, Failure, Outcome, OutcomeKind};
use crate::provider::GateError;
use crate::store::key::SealingKey;
use crate::store::record::{Record, Standstill};
use crate::store::{Loaded, Vault};

/// What the store of a followed tool says about our own token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Theirs {
    /// It holds the same.
    InStep,
    /// It holds one that was consumed here.
    Stale,
    /// It was refreshed, or signed in, behind our back.
    Newer,
    /// Another account, or no way to tell whose or how old it is.
    Conflict(&'static str),
}

/// What to make of the tool's token (rule 39). (pure)
fn judge(is_ours: bool, is_consumed: bool, likeness: Likeness, is_newer: bool) -> Theirs {
    match likeness {
        _ if is_ours => Theirs::InStep,
        _ if is_consumed => Theirs::Stale,
        Likeness::Same if is_newer => Theirs::Newer,
        Likeness::Same => {
            Theirs::Conflict("a different token of the same account that is not newer than the stored one")
        }
        Likeness::Other => Theirs::Conflict("a token of another account"),
        Likeness::Unknown => Theirs::Conflict("a different token and does not name its account"),
    }
}

impl Flightplan {
    /// The credential to go on with: the one loaded, or a newer one of the same account that the followed tool holds by
    /// now. `Err`: the flight ends here and sends nothing, since the newer one will do, or since nobody can know whether
    /// the tool has spent our token.
    pub fn follow<'l>(
        &self,
        vault: &mut Vault<'_, 'l>,
        key: &Arc<SealingKey>,
        loaded: Loaded<'l>,
        warnings: &mut Vec<String>,
    ) -> Result<Loaded<'l>, Outcome> {
        let newer = if self.profile.follow { self.newer(vault, key)? } else { None };
        let Some(newer) = newer else {
            return self.go_on(vault).map(|()| loaded);
        };
        let outcome = self.adopt(vault, key, newer)?;
        if self.is_fresh(&vault.record) {
            return Err(outcome);
        }
        // It ends too soon as well. The tool holds the same as we now: in step, so it may be refreshed.
        warnings.extend(outcome.warnings);
        vault.load(key, self.is_resident)?.ok_or_else(|| refusal::no_credential(&self.profile.name))
    }

    /// A token was refused: it is read once more what the tool has, before anybody is asked to sign in.
    pub fn second_look(&self, vault: &mut Vault<'_, '_>, key: &Arc<SealingKey>, outcome: Outcome) -> Outcome {
        if !self.profile.follow || outcome.kind != OutcomeKind::NeedsLogin {
            return outcome;
        }
        // What stands in the way of a look does not change the verdict; the next flight tells of it.
        match self.look(vault, key) {
            Ok((Theirs::Newer, foreign)) => self.adopt(vault, key, foreign).unwrap_or(outcome),
            Ok((Theirs::InStep | Theirs::Stale | Theirs::Conflict(_), _)) | Err(_) => outcome,
        }
    }

    /// For the fence: whether at the instant of the send the tool still holds our token, or an old one. Connecting may have
    /// taken its time.
    pub fn watch(
        &self,
        record: &Record,
        key: &Arc<SealingKey>,
        ours: Fingerprint,
    ) -> impl FnOnce() -> Result<(), GateError> + Send + 'static {
        let followed = record.followable().filter(|_| self.profile.follow).cloned().zip(self.source.clone());
        let (store, key, name) = (Arc::clone(&self.store), Arc::clone(key), self.profile.name.clone());
        move || {
            let Some((origin, source)) = followed else { return Ok(()) };
            let unreadable = |_: Failure| GateError::Refused("the store of the followed tool can no longer be read");
            let foreign = source.read(&origin, name.as_str()).map_err(unreadable)?;
            let theirs = foreign.granted.refresh.as_ref().map(|token| key.fingerprint(token));
            let is_known = |theirs: &Fingerprint| *theirs == ours || store.ledger().contains(theirs).unwrap_or(false);
            match theirs.filter(is_known) {
                Some(_) => Ok(()),
                None => Err(GateError::Refused("the followed tool has a different token now")),
            }
        }
    }

    /// The newer credential of the tool, if it has one.
    fn newer(&self, vault: &mut Vault<'_, '_>, key: &SealingKey) -> Result<Option<Foreign>, Outcome> {
        let (theirs, foreign) = match self.look(vault, key) {
            Ok(found) => found,
            Err(failure) if failure.kind == ErrorKind::Source => {
                return Err(self.stand_still(vault, OutcomeKind::Deferred, failure));
            }
            Err(failure) => return Err(self.stand_still(vault, OutcomeKind::ConfigError, failure)),
        };
        match theirs {
            Theirs::InStep | Theirs::Stale => Ok(None),
            Theirs::Newer => Ok(Some(foreign)),
            Theirs::Conflict(what) => {
                let origin = vault.record.origin.as_ref();
                let from = origin.map_or_else(String::new, Origin::to_string);
                let again = origin.map_or_else(String::new, |o| o.import_command(self.profile.name.as_str()));
                let failure = Failure::new(ErrorKind::Conflict, format!("{from} has {what}"))
                    .hint(format!("to use that one: {again} --replace; to keep this one: follow = false"));
                Err(self.stand_still(vault, OutcomeKind::ConfigError, failure))
            }
        }
    }

    /// Reads the tool's store and compares. An error of kind `source` may pass by itself.
    fn look(&self, vault: &Vault<'_, '_>, key: &SealingKey) -> Result<(Theirs, Foreign), Failure> {
        let record = &vault.record;
        let name = &self.profile.name;
        let origin = record.followable().ok_or_else(|| nothing_to_follow(name))?;
        let source = self.source.as_ref().ok_or_else(|| nothing_to_follow(name))?;
        let foreign = source.read(origin, name.as_str())?;
        let Some(theirs) = foreign.granted.refresh.as_ref().map(|token| key.fingerprint(token)) else {
            return Err(Failure::new(ErrorKind::Source, format!("{origin} no longer has a refresh token"))
                .hint("sign in with that tool, or remove follow = true if you no longer use it"));
        };
        let is_consumed = vault
            .is_consumed(&theirs)
            .map_err(|e| Failure::new(ErrorKind::Source, format!("cannot tell whether {origin} is up to date: {e}")))?;
        let is_ours = record.fingerprint.as_ref() == Some(&theirs);
        if !is_ours && !is_consumed {
            let conflict = |ended: Outcome| {
                let failure = ended.error.unwrap_or_else(|| nothing_to_follow(name));
                // That another profile's files cannot be read may pass.
                let may_pass = ended.kind == OutcomeKind::StoreUnavailable;
                if may_pass { Failure { kind: ErrorKind::Source, ..failure } } else { failure }
            };
            handover::refuse_held(&self.store, name, key, &theirs).map_err(conflict)?;
        }
        let is_newer = foreign.is_newer_than(record.validity.as_ref(), &self.now());
        let likeness = match foreign.client_id.as_ref() {
            Some(client) if *client != self.prepared.provider.client_id => Likeness::Unknown,
            Some(_) | None => origin.identity.likeness(&foreign.identity),
        };
        Ok((judge(is_ours, is_consumed, likeness, is_newer), foreign))
    }

    /// Makes the tool's credential the newest generation. From the seal on it is safe whatever fails, so failures are
    /// told and not returned.
    fn adopt(&self, vault: &mut Vault<'_, '_>, key: &Arc<SealingKey>, foreign: Foreign) -> Result<Outcome, Outcome> {
        let now = self.now();
        let told = foreign.granted.expiry.lifetime_of_import(&now);
        // It belongs where ours did: following a tool does not lead to another server.
        let binding = vault.record.binding.clone().unwrap_or_else(|| self.prepared.binding());
        let login_by = foreign.login_by;
        let lifetime = self.profile.provider.default_lifetime;
        let made = handover::credential(foreign.granted, binding, &now, told, lifetime);
        let mut credential = made.ok_or_else(|| refusal::no_credential(&self.profile.name))?;
        credential.grant.login_by = credential.grant.login_by.or(login_by);
        credential.generation = vault.record.generation.next();
        let fingerprint = key.fingerprint(&credential.refresh);
        // Not waited for: the token that was refused may be locked as well.
        let Some(_token_lock) = self.store.try_lock_token(&fingerprint)? else {
            let busy = Failure::new(ErrorKind::Busy, "another profile is importing the token of the followed tool");
            return Err(Outcome::new(OutcomeKind::Deferred).because(busy));
        };
        handover::refuse_held(&self.store, &self.profile.name, key, &fingerprint)?;
        let spent = vault.record.fingerprint.clone();
        vault.seal(&credential, key)?;
        let from = vault.record.origin.as_ref().map_or("the tool", |o| o.tool.as_str());
        let mut outcome = Outcome::new(OutcomeKind::Refreshed);
        outcome.warnings.push(format!("adopted generation {} from {from}", credential.generation));
        // Whether the tool spent it or has signed in anew: it must not come back.
        if let Some(Err(e)) = spent.map(|spent| vault.note_consumed(&spent)) {
            outcome.warnings.push(format!("cannot write the ledger: {e}"));
        }
        match handover::settle(vault, &credential, key) {
            Ok(warnings) => outcome.warnings.extend(warnings),
            Err(ended) => outcome.warnings.extend(ended.error.map(|e| e.message)),
        }
        note_attempt(self, &mut vault.record, &outcome);
        if let Err(e) = vault.save() {
            outcome.warnings.push(format!("cannot write the journal; the next refresh will update it: {e}"));
        }
        tracing::info!(profile = %self.profile.name, generation = %credential.generation, "adopted");
        Ok(outcome)
    }

    /// Nothing stands in the way any more; if that was all there was to do, the flight is over.
    fn go_on(&self, vault: &mut Vault<'_, '_>) -> Result<(), Outcome> {
        if vault.record.standstill.take().is_none() {
            return Ok(());
        }
        vault.save()?;
        if self.is_fresh(&vault.record) { Err(Outcome::new(OutcomeKind::Fresh)) } else { Ok(()) }
    }

    /// Notes why nothing is sent, for `status` and for whoever waited.
    fn stand_still(&self, vault: &mut Vault<'_, '_>, kind: OutcomeKind, failure: Failure) -> Outcome {
        let wait = if kind == OutcomeKind::ConfigError { CONFLICT } else { SOURCE };
        let now = self.now();
        let at = now.wall.plus(wait);
        let outcome = Outcome::new(kind).retry_at(at).because(failure.clone());
        vault.record.standstill = Some(Standstill { outcome: kind, failure, next_look: at, noted: Some(now) });
        note_attempt(self, &mut vault.record, &outcome);
        match vault.save() {
            Ok(()) => outcome,
            Err(e) => e.outcome(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r39_the_table_of_shared_mode() {
        let conflict = |theirs| matches!(theirs, Theirs::Conflict(_));
        for likeness in [Likeness::Same, Likeness::Other, Likeness::Unknown] {
            for is_newer in [true, false] {
                assert_eq!(judge(true, false, likeness, is_newer), Theirs::InStep);
                assert_eq!(judge(false, true, likeness, is_newer), Theirs::Stale);
            }
        }
        assert_eq!(judge(false, false, Likeness::Same, true), Theirs::Newer);
        assert!(conflict(judge(false, false, Likeness::Same, false)), "nobody can tell what became of it");
        assert!(conflict(judge(false, false, Likeness::Other, true)));
        assert!(conflict(judge(false, false, Likeness::Unknown, true)));
    }
}
