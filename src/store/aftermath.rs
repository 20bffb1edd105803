//! What an answer with tokens leaves in the journal besides them: the same, whoever settles it. (pure)

use std::time::Duration;

use super::content::{Answer, Note};
use super::key::SealingKey;
use super::record::{Intent, Record};
use crate::clock::Moment;
use crate::credential::secret::{Fingerprint, RefreshToken};
use crate::credential::{Credential, Generation};
use crate::outcome::{ErrorKind, Failure};
use crate::profile::Policy;

/// What a journal must know of an answer that granted tokens.
#[derive(Clone, Debug)]
pub struct Aftermath {
    pub notes: Vec<Note>,
    /// How long its generation must rest (rule 20).
    pub rest: Duration,
}

impl Aftermath {
    /// Why nobody knows which refresh token is the live one, if so.
    pub fn doubt(&self) -> Option<Note> {
        let mut notes = self.notes.iter().copied();
        notes.find(|note| matches!(note, Note::OldTokenAfterGrace | Note::RefreshUnreadable))
    }
}

impl Answer {
    pub fn aftermath(&self, notes: Vec<Note>) -> Aftermath {
        let rest = match self.rest_ms {
            Some(told) => Duration::from_millis(told),
            None => rest_after(self.sends),
        };
        Aftermath { notes, rest }
    }

    /// The attempt that this answers, for a journal that has none: what the answer says of it is all that is known.
    pub fn asked(&self, attempt: Option<&str>, generation: Generation, key: &SealingKey) -> Option<Intent> {
        Some(Intent {
            attempt: attempt?.to_owned(),
            generation,
            fingerprint: key.fingerprint(&RefreshToken::new(self.sent_refresh_token.0.clone())?),
            sends: self.sends,
            first_sent: self.sent.clone(),
            last_sent: self.sent.clone(),
            abandoned: None,
            abandoned_before: None,
            is_last_chance_spent: false,
            is_reusable: false,
        })
    }
}

/// The rest of a generation of which nobody knows the policy: any retry may have been one within the server's grace.
fn rest_after(sends: u32) -> Duration {
    if sends > 1 { Policy::default().settle } else { Duration::ZERO }
}

impl Record {
    /// Settles the journal by an answer with tokens, which are durably sealed: `at` is when it is settled, or when its
    /// request was sent. `pause` says how long nothing more is asked for after an answer without anything to use.
    pub fn settle_grant(
        &mut self,
        credential: &Credential,
        fingerprint: Fingerprint,
        after: &Aftermath,
        at: &Moment,
        pause: impl FnOnce(&Self) -> Duration,
    ) {
        let doubt = self.intent.take().filter(|intent| after.doubt().is_some() && !intent.is_reusable);
        self.adopt(credential, fingerprint);
        let generation = credential.generation;
        // The new access token has a last chance of its own.
        let renewed = |i| Intent { generation, abandoned: Some(at.clone()), is_last_chance_spent: false, ..i };
        self.intent = doubt.map(renewed);
        self.refreshed_at = Some(at.wall);
        self.hold = None;
        self.unclassified = 0;
        // A server that grants refresh tokens and nothing to use them for must not be asked in a loop.
        let is_usable = !after.notes.contains(&Note::AccessUnusable);
        self.failures = if is_usable { 0 } else { self.failures + 1 };
        self.unusable = (!is_usable).then(|| unusable(&credential.binding.provider));
        let pause = if is_usable { Duration::ZERO } else { pause(self) };
        let wait = Some(after.rest.max(pause)).filter(|wait| !wait.is_zero());
        self.pause_until(credential.grant.not_before.max(wait.map(|wait| at.wall.plus(wait))), Some(at));
    }

    /// The same by a credential that is newer than the journal, and no answer: a login or an import that was cut off, or
    /// what was found in the keyring.
    pub(super) fn settle_arrival(&mut self, credential: &Credential, fingerprint: &Fingerprint) {
        // Sealed once more, as by a take-over, a token brings nothing new.
        let is_the_same = self.fingerprint.as_ref() == Some(fingerprint);
        let (ours, other) = match self.intent.take() {
            Some(intent) if intent.fingerprint == *fingerprint => (Some(intent), None),
            other => (None, other),
        };
        self.adopt(credential, fingerprint.clone());
        // A second send that brought the old token back: it may be dead, which no new generation changes.
        self.intent = ours
            .filter(|i| i.generation >= credential.generation || i.sends > 1)
            .map(|i| Intent { generation: i.generation.max(credential.generation), ..i });
        self.hold = None;
        self.failures = 0;
        self.unclassified = 0;
        if !is_the_same {
            // An answer that only the keyring would take is no longer known as one, but its attempt is.
            let retried = other.filter(|i| i.sends > 1 && !i.is_reusable);
            let rested = retried.as_ref().map(|i| i.last_sent.wall.plus(rest_after(i.sends)));
            let told = retried.map(|i| i.last_sent).or_else(|| credential.validity().map(|v| v.obtained.clone()));
            self.pause_until(credential.grant.not_before.max(rested), told.as_ref());
        }
    }
}

/// Rule 16: the refresh token is safe, and there is nothing new to use. Unless somebody changes what is asked for, it will
/// be so again.
fn unusable(provider: &str) -> Failure {
    Failure::new(ErrorKind::AtUnusable, format!("{provider} issued a refresh token but no usable access token")).hint(
        format!(
            "the refresh token is kept; check scopes and headers in [provider.{provider}], and that the server issues Bearer tokens"
        ),
    )
    .hint(format!(
        "the refresh token is kept; check scopes and headers of [provider.{provider}], and that it grants Bearer tokens"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use crate::store::samples::{credential, intent, now, print, record};

    const REST: Duration = Duration::from_secs(15);

    /// A journal at generation 2, with this attempt, at which generation 3 arrives with this token.
    fn arrived(intent: Option<Intent>, token: char) -> Record {
        let mut record = Record { intent, failures: 3, unclassified: 2, ..record() };
        record.settle_arrival(&credential(3, "r"), &print(token));
        assert_eq!((record.generation.get(), record.fingerprint.clone()), (3, Some(print(token))));
        assert_eq!((record.failures, record.unclassified, &record.hold), (0, 0, &None));
        record
    }

    fn sent(generation: u64, sends: u32) -> Option<Intent> {
        Some(Intent { sends, ..intent(Generation::new(generation)) })
    }

    #[test]
    fn r05_a_token_that_arrives_ends_the_doubt_about_another() {
        for sends in [1, 2] {
            assert_eq!(arrived(sent(2, sends), 'b').intent, None);
        }
    }

    #[test]
    fn r17_a_token_that_arrives_once_more_stays_in_the_doubt_that_was_carried_along_or_that_it_came_back_from() {
        assert_eq!(arrived(sent(2, 1), 'a').intent, None, "what was sealed over it had no doubt");
        for (generation, sends, kept) in [(3, 1, 3), (4, 1, 4), (2, 2, 3)] {
            let kept = Intent { generation: Generation::new(kept), sends, ..intent(Generation::NONE) };
            assert_eq!(arrived(sent(generation, sends), 'a').intent, Some(kept));
        }
    }

    #[test]
    fn r20_what_only_the_keyring_has_of_a_rescue_rests_as_its_answer_would() {
        let wait = |intent: Option<Intent>, token| arrived(intent, token).not_before;
        assert_eq!(wait(sent(2, 2), 'b'), Some(now().wall.plus(REST)));
        assert_eq!(arrived(sent(2, 2), 'b').noted, Some(now()), "by the clock of its last request");
        assert_eq!(wait(sent(2, 1), 'b'), None);
        assert_eq!(wait(sent(2, 2).map(|i| Intent { is_reusable: true, ..i }), 'b'), None);
        assert_eq!(wait(sent(2, 2), 'a'), None);
    }

    #[test]
    fn r25_a_wait_is_that_of_the_newest_token_and_stays_with_the_one_that_it_is_of() {
        let (told, own) = (Timestamp::from_secs(1_790_000_600), Timestamp::from_secs(1_790_000_900));
        for (token, wait) in [('a', told), ('b', own)] {
            let mut record = Record { not_before: Some(told), ..record() };
            let mut newest = credential(3, "r");
            newest.grant.not_before = Some(own);
            record.settle_arrival(&newest, &print(token));
            assert_eq!(record.not_before, Some(wait), "{token}");
        }
    }

    #[test]
    fn r20_only_what_may_be_a_rescue_rests_where_the_answer_does_not_say() {
        assert_eq!([1, 2, 3].map(rest_after), [Duration::ZERO, REST, REST]);
    }

    #[test]
    fn r17_the_old_token_after_a_second_send_is_in_doubt_as_the_generation_that_it_has_become() {
        let after = |notes| Aftermath { notes, rest: Duration::ZERO };
        let settled = |notes, intent| {
            let mut record = Record { intent, ..record() };
            record.settle_grant(&credential(3, "r"), print('a'), &after(notes), &now(), |_| REST);
            record.intent
        };
        let kept = Intent { abandoned: Some(now()), sends: 2, ..intent(Generation::new(3)) };
        let last = || sent(2, 2).map(|i| Intent { is_last_chance_spent: true, ..i });
        for note in [Note::OldTokenAfterGrace, Note::RefreshUnreadable] {
            assert_eq!(settled(vec![note], last()), Some(kept.clone()));
        }
        assert_eq!(settled(Vec::new(), sent(2, 2)), None);
        let reusable = sent(2, 2).map(|i| Intent { is_reusable: true, ..i });
        assert_eq!(settled(vec![Note::OldTokenAfterGrace], reusable), None);
    }
}
