//! Looks before a send, and once more at the gate, whether a program that the profile feeds has the same refresh token
//! (rule 39).

use std::sync::Arc;

use crate::credential::secret::Fingerprint;
use crate::engine::refresh::context::RefreshContext;
use crate::outcome::Outcome;
use crate::provider::BeforeSendError;
use crate::store::LockedProfile;
use crate::store::journal::block::Cause;
use crate::store::keys::sealing_key::SealingKey;

impl RefreshContext {
    /// Ends the flight if a program that the profile feeds has our refresh token.
    pub(super) fn check_fed_programs(
        &self,
        locked: &mut LockedProfile<'_, '_>,
        key: &Arc<SealingKey>,
        ours: &Fingerprint,
    ) -> Result<(), Outcome> {
        // A rejected token is not sent, so a program may have it.
        if locked.journal.is_rejected() && !self.facts().is_forced() {
            return Ok(());
        }
        let programs = self.fed_programs.as_ref().filter(|_| self.profile.provider.policy.rotates());
        let holder =
            programs.and_then(|programs| programs.holder(&self.profile, &|token| key.fingerprint(&token) == *ours));
        holder.map_or(Ok(()), |failure| Err(self.set_follow_block(locked, key, Cause::FollowWait, failure)))
    }

    /// As [`RefreshContext::check_fed_programs`], for the gate: connecting may have taken time.
    pub(super) fn fed_programs_check(
        &self,
        key: &Arc<SealingKey>,
        ours: Fingerprint,
    ) -> impl FnOnce() -> Result<(), BeforeSendError> + Send + 'static {
        let programs = self.fed_programs.clone().filter(|_| self.profile.provider.policy.rotates());
        let (key, profile) = (Arc::clone(key), Arc::clone(&self.profile));
        move || match programs.and_then(|programs| programs.holder(&profile, &|token| key.fingerprint(&token) == ours))
        {
            None => Ok(()),
            Some(_) => Err(BeforeSendError::Refused("a program that is fed has the same refresh token")),
        }
    }
}
