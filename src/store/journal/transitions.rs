//! How the journal changes when a response with tokens is settled, by whatever run settles it. (pure)

use std::time::Duration;

use crate::clock::{Moment, Timestamp};
use crate::credential::external::ImportSource;
use crate::credential::secret::{Fingerprint, RefreshToken};
use crate::credential::{Credential, Generation};
use crate::outcome::{ErrorKind, Failure, Outcome};
use crate::profile::Policy;
use crate::store::disk::sealed_content::{GrantWarning, SealedResponse};
use crate::store::journal::block::{Block, Cause};
use crate::store::journal::{Intent, Journal, LastAttempt};
use crate::store::keys::sealing_key::SealingKey;

/// What the journal must know of a response that granted tokens.
#[derive(Clone, Debug)]
pub struct GrantEffects {
    pub warnings: Vec<GrantWarning>,
    /// How long its generation must rest (rule 20).
    pub cooldown: Duration,
}

impl GrantEffects {
    /// Why it is unknown which refresh token is the live one, if so.
    pub fn doubt_cause(&self) -> Option<GrantWarning> {
        let mut warnings = self.warnings.iter().copied();
        warnings.find(|note| matches!(note, GrantWarning::OldTokenAfterRetry | GrantWarning::RefreshTokenUnreadable))
    }
}

impl SealedResponse {
    pub fn grant_effects(&self, warnings: Vec<GrantWarning>) -> GrantEffects {
        GrantEffects { warnings, cooldown: Duration::from_millis(self.cooldown_ms) }
    }

    /// The intent for this response if the journal has none: only what the response says is known.
    pub fn to_intent(&self, attempt: Option<&str>, generation: Generation, key: &SealingKey) -> Option<Intent> {
        let sent = key.fingerprint(&RefreshToken::new(self.sent_refresh_token.0.clone())?);
        Some(Intent { send_count: self.send_count, ..Intent::new(attempt?, generation, sent, &self.sent_at) })
    }
}

/// The rest of a generation whose policy is unknown: any retry may have been one within the server's grace.
fn default_cooldown(sends: u32) -> Duration {
    if sends > 1 { Policy::default().settle } else { Duration::ZERO }
}

impl Journal {
    /// The store that a profile with `follow = true` reads; `None`: its credential came from none that can be read.
    pub fn followed_origin(&self) -> Option<&ImportSource> {
        self.origin.as_ref().filter(|origin| origin.location.is_some())
    }

    /// Records how an attempt ended, for followers and for `status`.
    pub fn record_attempt(&mut self, outcome: &Outcome, at: Timestamp) {
        self.sequence += 1;
        let (retry_at, error) = (outcome.retry_at, outcome.error.clone());
        self.last_attempt = Some(LastAttempt { at, outcome: outcome.kind, retry_at, error });
    }

    /// Settles the journal by a response with tokens, which are durably sealed: `at` is when it is settled, or when its
    /// request was sent. `pause` says how long no more requests are made if the response had no usable access token.
    pub fn apply_grant(
        &mut self,
        credential: &Credential,
        fingerprint: Fingerprint,
        after: &GrantEffects,
        at: &Moment,
        pause: impl FnOnce(&Self) -> Duration,
    ) {
        if let Some(mark) = self.intent.as_ref().and_then(|intent| intent.client_mark.clone()) {
            self.granted_client = Some(mark);
        }
        // A person had a rejected token sent once more, and the server has accepted it.
        self.rejected.take_if(|_| self.intent.as_ref().is_some_and(|intent| intent.is_forced));
        let doubt = self.intent.take().filter(|intent| after.doubt_cause().is_some() && !intent.is_reusable);
        let is_login_by_final = !self.is_prolonged_by(credential, at);
        self.set_credential(credential, fingerprint);
        self.is_login_by_final = is_login_by_final;
        let generation = credential.generation;
        // The new access token has a last chance of its own.
        let renewed = |i| Intent { generation, gave_up_at: Some(at.clone()), is_last_chance_used: false, ..i };
        self.intent = doubt.map(renewed);
        self.refreshed_at = Some(at.wall);
        self.consecutive_unclassified = 0;
        // A server that grants refresh tokens and nothing to use them for must not be asked in a loop.
        let is_usable = !after.warnings.contains(&GrantWarning::NoUsableAccessToken);
        self.consecutive_failures = if is_usable { 0 } else { self.consecutive_failures + 1 };
        self.clear_blocks(&[Cause::AccessToken]);
        if !is_usable {
            self.set_block(Block::new(Cause::AccessToken, access_token_error(&credential.binding.provider)));
        }
        let pause = if is_usable { Duration::ZERO } else { pause(self) };
        let wait = Some(after.cooldown.max(pause)).filter(|wait| !wait.is_zero());
        self.set_not_before(credential.grant.not_before.max(wait.map(|wait| at.wall.plus(wait))), Some(at));
    }

    /// Whether a refresh moved the end of the refresh token, if it has one (rule 35). An end that moves, moves by the
    /// time that has passed; one that stays is told to the second, so it seems to move a little.
    fn is_prolonged_by(&self, new: &Credential, at: &Moment) -> bool {
        let Some((before, after)) = self.login_by.zip(new.grant.login_by) else { return true };
        let passed = self.validity.as_ref().map_or(Duration::ZERO, |v| at.wall.since(v.obtained.wall));
        after.since(before) >= passed / 2
    }

    /// Settles the journal by a newer credential without a response: a login or an import that was cut off, or a
    /// keyring item.
    pub(in crate::store) fn apply_new_credential(&mut self, credential: &Credential, fingerprint: &Fingerprint) {
        // A take-over seals the same token again, which brings nothing new.
        let is_the_same = self.fingerprint.as_ref() == Some(fingerprint);
        let (ours, other) = match self.intent.take() {
            Some(intent) if intent.fingerprint == *fingerprint => (Some(intent), None),
            other => (None, other),
        };
        self.set_credential(credential, fingerprint.clone());
        // A second send brought the old token back: it may be dead, whatever the generation.
        self.intent = ours
            .filter(|i| i.generation >= credential.generation || i.send_count > 1)
            .map(|i| Intent { generation: i.generation.max(credential.generation), ..i });
        self.consecutive_failures = 0;
        self.consecutive_unclassified = 0;
        if !is_the_same {
            // A response that only the keyring took is not recognised as one any more, but its attempt is.
            let retried = other.filter(|i| i.send_count > 1 && !i.is_reusable);
            let rested = retried.as_ref().map(|i| i.last_sent.wall.plus(default_cooldown(i.send_count)));
            let told = retried.map(|i| i.last_sent).or_else(|| credential.validity().map(|v| v.obtained.clone()));
            self.set_not_before(credential.grant.not_before.max(rested), told.as_ref());
        }
    }
}

/// Rule 16: the refresh token is safe, but there is no new access token. Unless the request is changed, that will
/// happen again.
fn access_token_error(provider: &str) -> Failure {
    let message = format!("{provider} issued a refresh token but no usable access token");
    Failure::new(ErrorKind::AtUnusable, message).with_hint(format!(
        "the refresh token is kept; check scopes and headers in [provider.{provider}], and that the server issues Bearer \
         tokens"
    ))
}

impl Journal {
    pub fn block(&self, cause: Cause) -> Option<&Block> {
        self.blocks.iter().find(|block| block.cause == cause)
    }

    pub fn block_mut(&mut self, cause: Cause) -> Option<&mut Block> {
        self.blocks.iter_mut().find(|block| block.cause == cause)
    }

    /// The block that decides how the profile stands; what only delays the refresh does not.
    pub fn deciding_block(&self) -> Option<&Block> {
        self.blocks.first().filter(|block| !block.cause.is_delay())
    }

    /// Adds a block in its place by precedence. A cause has one at most, and so have those of a followed tool.
    pub fn set_block(&mut self, block: Block) {
        if Cause::FOLLOW.contains(&block.cause) {
            self.clear_blocks(&Cause::FOLLOW);
        }
        self.clear_blocks(&[block.cause]);
        let place = self.blocks.partition_point(|other| other.cause < block.cause);
        self.blocks.insert(place, block);
    }

    /// Tells whether there was one.
    pub fn clear_blocks(&mut self, causes: &[Cause]) -> bool {
        self.remove_blocks(|block| causes.contains(&block.cause))
    }

    /// The sealing key was had. Tells whether a run had noted that it could not be.
    pub fn clear_key_block(&mut self) -> bool {
        self.remove_blocks(Block::is_about_key)
    }

    fn remove_blocks(&mut self, is_over: impl Fn(&Block) -> bool) -> bool {
        let before = self.blocks.len();
        self.blocks.retain(|block| !is_over(block));
        self.blocks.len() < before
    }

    /// A credential was stored: what it brings ends these. The same token, sealed once more, brings nothing new to use, and
    /// what a followed tool holds is found out by looking.
    pub(super) fn clear_blocks_for(&mut self, is_new_token: bool) {
        self.clear_blocks(&[Cause::Store, Cause::Client]);
        if is_new_token {
            self.clear_blocks(&[Cause::AccessToken]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credential::freshness::Validity;
    use crate::store::test_samples::{credential, fingerprint, intent, journal, now};

    const REST: Duration = Duration::from_secs(15);

    /// A journal at generation 2, with this attempt, at which generation 3 arrives with this token.
    fn arrived(intent: Option<Intent>, token: char) -> Journal {
        let mut journal = Journal { intent, consecutive_failures: 3, consecutive_unclassified: 2, ..journal() };
        journal.set_block(Block::new(Cause::Client, Failure::new(ErrorKind::ClientRefused, "no")));
        journal.apply_new_credential(&credential(3, "r"), &fingerprint(token));
        assert_eq!((journal.generation.get(), journal.fingerprint.clone()), (3, Some(fingerprint(token))));
        assert_eq!((journal.consecutive_failures, journal.consecutive_unclassified, journal.blocks.len()), (0, 0, 0));
        journal
    }

    fn sent(generation: u64, sends: u32) -> Option<Intent> {
        Some(Intent { send_count: sends, ..intent(Generation::new(generation)) })
    }

    /// Rule 5.
    #[test]
    fn newly_sealed_token_ends_the_doubt_about_another() {
        for sends in [1, 2] {
            assert_eq!(arrived(sent(2, sends), 'b').intent, None);
        }
    }

    /// Rule 17.
    #[test]
    fn same_token_sealed_again_stays_in_its_doubt() {
        assert_eq!(arrived(sent(2, 1), 'a').intent, None, "what was sealed over it had no doubt");
        for (generation, sends, kept) in [(3, 1, 3), (4, 1, 4), (2, 2, 3)] {
            let kept = Intent { generation: Generation::new(kept), send_count: sends, ..intent(Generation::NONE) };
            assert_eq!(arrived(sent(generation, sends), 'a').intent, Some(kept));
        }
    }

    /// Rule 20.
    #[test]
    fn keyring_only_token_of_a_retry_gets_a_not_before() {
        let wait = |intent: Option<Intent>, token| arrived(intent, token).not_before;
        assert_eq!(wait(sent(2, 2), 'b'), Some(now().wall.plus(REST)));
        assert_eq!(arrived(sent(2, 2), 'b').not_before_set_at, Some(now()), "by the clock of its last request");
        assert_eq!(wait(sent(2, 1), 'b'), None);
        assert_eq!(wait(sent(2, 2).map(|i| Intent { is_reusable: true, ..i }), 'b'), None);
        assert_eq!(wait(sent(2, 2), 'a'), None);
    }

    /// Rule 25.
    #[test]
    fn wait_stays_with_its_token_and_a_new_token_brings_its_own() {
        let (told, own) = (Timestamp::from_secs(1_790_000_600), Timestamp::from_secs(1_790_000_900));
        for (token, wait) in [('a', told), ('b', own)] {
            let mut journal = Journal { not_before: Some(told), ..journal() };
            let mut newest = credential(3, "r");
            newest.grant.not_before = Some(own);
            journal.apply_new_credential(&newest, &fingerprint(token));
            assert_eq!(journal.not_before, Some(wait), "{token}");
        }
    }

    /// Rule 20.
    #[test]
    fn unstated_rest_applies_only_after_a_second_send() {
        assert_eq!([1, 2, 3].map(default_cooldown), [Duration::ZERO, REST, REST]);
    }

    /// Rule 17.
    #[test]
    fn old_token_after_a_second_send_stays_in_doubt() {
        let after = |warnings| GrantEffects { warnings, cooldown: Duration::ZERO };
        let settled = |warnings, intent| {
            let mut journal = Journal { intent, ..journal() };
            journal.apply_grant(&credential(3, "r"), fingerprint('a'), &after(warnings), &now(), |_| REST);
            journal.intent
        };
        let kept = Intent { gave_up_at: Some(now()), send_count: 2, ..intent(Generation::new(3)) };
        let last = || sent(2, 2).map(|i| Intent { is_last_chance_used: true, ..i });
        for note in [GrantWarning::OldTokenAfterRetry, GrantWarning::RefreshTokenUnreadable] {
            assert_eq!(settled(vec![note], last()), Some(kept.clone()));
        }
        assert_eq!(settled(Vec::new(), sent(2, 2)), None);
        let reusable = sent(2, 2).map(|i| Intent { is_reusable: true, ..i });
        assert_eq!(settled(vec![GrantWarning::OldTokenAfterRetry], reusable), None);
    }

    /// Rule 35.
    #[test]
    fn refresh_token_end_that_a_refresh_did_not_move_is_final() {
        let at = |secs| Some(now().wall.plus(Duration::from_secs(secs)));
        let effects = GrantEffects { warnings: Vec::new(), cooldown: Duration::ZERO };
        let is_final = |passed, before, after| {
            let validity = Validity {
                obtained: now(),
                lifetime_ms: 600_000,
                assumed: false,
                is_remainder: false,
                expired_at: None,
            };
            let mut journal = Journal { login_by: before, validity: Some(validity), ..journal() };
            let mut credential = credential(3, "r");
            credential.grant.login_by = after;
            let settled = Moment { wall: now().wall.plus(Duration::from_secs(passed)), ..now() };
            journal.apply_grant(&credential, fingerprint('b'), &effects, &settled, |_| Duration::ZERO);
            journal.is_login_by_final
        };
        for (passed, before, after, expected) in [
            (1350, at(1800), at(1350 + 1800), false),
            // Its end is told to the second.
            (1350, at(1800), at(1801), true),
            (1350, at(1800), at(1800), true),
            (1350, at(1800), at(1700), true),
            // It moves a little, near the end of the session.
            (1350, at(1800), at(1900), true),
            // A person forced it just after another.
            (1, at(1800), at(1801), false),
            (1350, None, at(1800), false),
            (1350, at(1800), None, false),
        ] {
            assert_eq!(is_final(passed, before, after), expected, "{passed} {before:?} {after:?}");
        }
    }
}
