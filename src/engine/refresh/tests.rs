//! Tables of the pure decisions: what is admitted, and what each end of an attempt writes.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::Timestamp;
use crate::config::Config;
use crate::credential::error_response::ErrorResponse;
use crate::credential::freshness::{Demand, Validity};
use crate::credential::redaction::SentSecrets;
use crate::credential::{Binding, Generation};
use crate::engine::refresh::admission::{Denied, admit};
use crate::engine::refresh::context::Facts;
use crate::engine::refresh::errors::{
    give_up_token, settle_early_response, settle_error_response, settle_in_doubt, settle_unreachable,
};
use crate::engine::refresh::retry_policy::SendKind;
use crate::engine::refresh::settle::{End, LedgerWrite, Settlement};
use crate::outcome::{ErrorKind, Failure, OutcomeKind};
use crate::profile::Profile;
use crate::provider::client_auth::ClientCredentials;
use crate::provider::{PreparedProvider, RawResponse};
use crate::store::disk::sealed_content::SealedResponse;
use crate::store::journal::block::{Block, Cause, RefusedClient};
use crate::store::journal::{Intent, Journal, Pause, PauseCause, Rejection};
use crate::store::test_samples::{credential, fingerprint, intent, journal, now};

/// A strict server, unless `more` says otherwise, at which `journal()` of the samples has its token.
fn with_facts<T>(more: &str, run: impl FnOnce(Facts<'_>) -> T) -> T {
    let text = format!(
        "[provider.acme]\ntoken_endpoint = \"https://a/token\"\nclient_id = \"c\"\n{more}\n[profile.p]\nprovider = \"acme\"\n"
    );
    let config = Config::parse(&text, Path::new("config.toml"), None).unwrap();
    let profile: Profile = config.profile(&"p".parse().unwrap(), None).unwrap();
    let prepared = PreparedProvider {
        provider: Arc::clone(&profile.provider),
        token_endpoint: "https://a/token".parse().unwrap(),
        issuer: None,
        credentials: ClientCredentials::Public,
    };
    let (client_mark, random) = ("mark", 1.0);
    let demand = Demand::Margin { lookahead: Duration::ZERO };
    run(Facts { profile: &profile, prepared: &prepared, now: now(), client_mark, demand, random })
}

/// The journal under a first send of its token.
fn sent() -> Journal {
    Journal { intent: Some(intent(journal().generation)), ..journal() }
}

fn response(status: u16) -> SealedResponse {
    serde_json::from_value(serde_json::json!({
        "status": status, "body": "", "is_complete": true, "sent_refresh_token": "r", "sent_at": now(), "send_count": 1,
        "binding": credential(2, "r").binding, "previous_grant": {"token_type": "Bearer"}, "default_lifetime_ms": 1, "cooldown_ms": 0,
    }))
    .unwrap()
}

fn refused(facts: &Facts<'_>, journal: Journal, status: u16, code: &str) -> Settlement {
    let denied = ErrorResponse::new(code, None, &SentSecrets::default());
    settle_error_response(facts, journal, &response(status), Some(&denied))
}

fn refused_client(mark: &str, probe_count: u32) -> Block {
    let client = RefusedClient { config_fingerprint: mark.into(), probe_count };
    Block { client: Some(client), ..Block::new(Cause::Client, Failure::new(ErrorKind::ClientRefused, "no")) }
}

/// Rules 22 to 25.
#[test]
fn refusal_writes_what_its_class_says() {
    let (rejected, clear) = (LedgerWrite::Rejected(fingerprint('a')), LedgerWrite::ClearDoubt(fingerprint('a')));
    for (status, code, kind, write) in [
        (400, "invalid_grant", OutcomeKind::NeedsLogin, &rejected),
        (401, "invalid_client", OutcomeKind::ConfigError, &clear),
        (429, "slow_down", OutcomeKind::Deferred, &clear),
        (400, "interaction_required", OutcomeKind::NeedsLogin, &rejected),
        (400, "what_is_this", OutcomeKind::Deferred, &clear),
    ] {
        let Settlement { changes, end, outcome } = with_facts("", |facts| refused(&facts, sent(), status, code));
        assert_eq!((outcome.kind, &changes.ledger[..]), (kind, std::slice::from_ref(write)), "{code}");
        assert!(matches!(end, End::Refused), "{code}");
        let journal = changes.journal;
        assert_eq!((journal.intent.is_none(), journal.sequence, journal.is_rejected()), (true, 1, write == &rejected));
        assert_eq!(journal.last_attempt.map(|attempt| (attempt.outcome, attempt.error)), Some((kind, outcome.error)));
        assert_eq!(journal.not_before.is_some(), kind == OutcomeKind::Deferred, "{code}");
    }
}

/// Rule 24.
#[test]
fn client_error_of_a_known_request_rejects_the_token() {
    let intent = Intent { client_mark: Some("me".into()), ..intent(journal().generation) };
    let first = Journal { intent: Some(intent), ..journal() };
    for (granted, kind) in [
        (None, OutcomeKind::ConfigError),
        (Some("other".to_owned()), OutcomeKind::ConfigError),
        (Some("me".to_owned()), OutcomeKind::NeedsLogin),
    ] {
        let before = Journal { granted_client: granted, ..first.clone() };
        let settled = with_facts("", |facts| refused(&facts, before, 400, "invalid_request"));
        assert_eq!(settled.outcome.kind, kind);
        let failure = settled.outcome.error.unwrap();
        assert!(failure.hint.unwrap().contains("sign in again") || kind == OutcomeKind::ConfigError);
        let rejection = settled.changes.journal.rejected;
        assert_eq!(rejection.and_then(|r| r.client), (kind == OutcomeKind::NeedsLogin).then(|| "me".to_owned()));
    }
}

/// Rule 22.
#[test]
fn rejection_ends_with_the_client_it_came_from_unless_presumed() {
    let sent = Intent { client_mark: Some("me".into()), ..intent(journal().generation) };
    let refused_by = |intent: Intent, code| {
        let before = Journal { intent: Some(intent), ..journal() };
        with_facts("", |facts| refused(&facts, before, 400, code)).changes.journal
    };
    let dead = refused_by(sent.clone(), "invalid_grant");
    assert!(dead.is_rejected() && dead.is_rejection_of_another_client("mended"));
    assert!(!dead.is_rejection_of_another_client("me"));
    let spent = refused_by(Intent { is_last_chance_used: true, send_count: 2, ..sent }, "what_is_this");
    assert!(spent.is_rejected() && !spent.is_rejection_of_another_client("mended"));
}

#[test]
fn last_message_names_the_503_and_its_remedy() {
    let why = "the server returned 503";
    let hint = "trust_503 = true in [provider.acme]";
    let settled = with_facts("", |facts| settle_in_doubt(&facts, sent(), why, None));
    assert!(settled.outcome.error.unwrap().hint.unwrap().contains(hint));
    let last = Intent { is_last_chance_used: true, send_count: 2, ..intent(journal().generation) };
    let last = Journal { intent: Some(last), ..journal() };
    let settled = with_facts("", |facts| settle_in_doubt(&facts, last.clone(), why, None));
    let failure = settled.outcome.error.unwrap();
    assert!(failure.message.ends_with("; last: the server returned 503"), "{}", failure.message);
    assert!(failure.hint.unwrap().contains(hint));
    let settled = with_facts("", |facts| settle_in_doubt(&facts, last, "no response in time", None));
    assert!(!settled.outcome.error.unwrap().hint.unwrap().contains("trust_503"));
}

/// Rule 23.
#[test]
fn early_response_says_nothing_about_the_token() {
    let in_doubt = Journal { consecutive_unclassified: 4, ..sent() };
    for (before, status) in [(&journal(), 400), (&in_doubt, 400), (&in_doubt, 404), (&in_doubt, 500)] {
        let early = RawResponse { status, is_complete: true, ..RawResponse::empty() };
        let Settlement { changes, end, outcome } =
            with_facts("", |facts| settle_early_response(&facts, before.clone(), &early));
        assert_eq!((outcome.kind, changes.ledger), (OutcomeKind::Deferred, Vec::new()), "{status}");
        assert!(matches!(end, End::Unsent), "{status}");
        assert_eq!(changes.journal.intent, before.intent);
        assert_eq!(changes.journal.consecutive_unclassified, before.consecutive_unclassified);
    }
}

/// Rule 17.
#[test]
fn doubt_is_in_the_ledger_where_reuse_is_punished() {
    let in_doubt = LedgerWrite::InDoubt(fingerprint('a'), now().wall);
    for (rotation, ledger, is_paused) in
        [("strict", vec![in_doubt.clone()], false), ("lenient", Vec::new(), true), ("none", Vec::new(), true)]
    {
        let more = format!("rotation = \"{rotation}\"");
        let settled = with_facts(&more, |facts| settle_in_doubt(&facts, sent(), "no response", None));
        assert_eq!((settled.outcome.kind, settled.changes.ledger), (OutcomeKind::InDoubt, ledger), "{rotation}");
        assert!(matches!(settled.end, End::InDoubt));
        let journal = settled.changes.journal;
        assert_eq!((journal.intent.and_then(|i| i.gave_up_at), journal.not_before.is_some()), (Some(now()), is_paused));
    }
}

/// Rule 18.
#[test]
fn failed_last_chance_gives_the_token_up() {
    let last = Intent { is_last_chance_used: true, send_count: 2, ..intent(journal().generation) };
    let last = Journal { intent: Some(last), ..journal() };
    let ends: [fn(&Facts<'_>, Journal) -> Settlement; 3] = [
        |facts, journal| settle_in_doubt(facts, journal, "no response", None),
        |facts, journal| refused(facts, journal, 400, "what_is_this"),
        give_up_token,
    ];
    for end in ends {
        let Settlement { changes, outcome, .. } = with_facts("", |facts| end(&facts, last.clone()));
        assert_eq!(outcome.error.map(|error| error.kind), Some(ErrorKind::PresumedSpent));
        assert_eq!(changes.ledger, [LedgerWrite::Consumed(fingerprint('a'))]);
        assert!(changes.journal.is_rejected() && changes.journal.intent.is_none());
        assert_eq!(changes.journal.sequence, 1, "it is one attempt");
    }
}

/// Rule 6.
#[test]
fn unreachable_server_only_makes_a_pause() {
    let Settlement { changes, outcome, .. } =
        with_facts("", |facts| settle_unreachable(&facts, journal(), "no route to host"));
    let at = now().wall.plus(Duration::from_secs(2));
    assert_eq!((outcome.kind, outcome.retry_at, changes.ledger), (OutcomeKind::Deferred, Some(at), Vec::new()));
    assert_eq!((changes.journal.not_before, changes.journal.intent), (Some(at), None));
}

/// Why `journal` is denied, `None` if it is given up; or under which rule it is admitted.
fn admission(
    journal: &Journal,
    belongs: &Binding,
    is_forced: bool,
) -> Result<SendKind, Option<(OutcomeKind, Option<Timestamp>)>> {
    let demand = match is_forced {
        true => Demand::NewerThan(journal.generation),
        false => Demand::Margin { lookahead: Duration::ZERO },
    };
    admission_for(demand, journal, belongs)
}

fn admission_for(
    demand: Demand,
    journal: &Journal,
    belongs: &Binding,
) -> Result<SendKind, Option<(OutcomeKind, Option<Timestamp>)>> {
    with_facts("", |facts| admit(&Facts { demand, ..facts }, journal, belongs)).map_err(|denied| match denied {
        Denied::Ended(outcome) => Some((outcome.kind, outcome.retry_at)),
        Denied::GiveUp => None,
    })
}

#[test]
fn admission_is_denied_by_the_first_reason_that_holds() {
    let (at, here) = (now().wall.plus(Duration::from_secs(60)), credential(2, "r").binding);
    let elsewhere = Binding { client_id: "another".into(), ..here.clone() };
    let failure = Failure::new(ErrorKind::of_provider("invalid_grant"), "no");
    let rejected =
        Some(Rejection { fingerprint: fingerprint('a'), at: now().wall, failure, client: None, was_in_doubt: false });
    let blocked = |block: Block| Journal { blocks: vec![block], ..journal() };
    let paused = Journal { not_before: Some(at), ..journal() };
    let used_up = Some(Intent { is_last_chance_used: true, ..intent(journal().generation) });
    let ended = |kind, at| Err(Some((kind, at)));
    for (what, journal, belongs, without, forced) in [
        ("nothing", journal(), &here, Ok(SendKind::First), Ok(SendKind::First)),
        (
            "a rejection, before the server is looked at",
            Journal { rejected, ..blocked(refused_client("mark", 3)) },
            &elsewhere,
            ended(OutcomeKind::NeedsLogin, None),
            ended(OutcomeKind::ConfigError, None),
        ),
        (
            "another client",
            journal(),
            &elsewhere,
            ended(OutcomeKind::ConfigError, None),
            ended(OutcomeKind::ConfigError, None),
        ),
        (
            "a hold",
            blocked(refused_client("mark", 0).until(at, &now())),
            &here,
            ended(OutcomeKind::ConfigError, Some(at)),
            Ok(SendKind::First),
        ),
        (
            "a hold without probes",
            blocked(refused_client("mark", 3)),
            &here,
            ended(OutcomeKind::ConfigError, None),
            Ok(SendKind::First),
        ),
        (
            "a hold of other settings",
            blocked(refused_client("old", 3)),
            &here,
            Ok(SendKind::First),
            Ok(SendKind::First),
        ),
        ("a pause", paused, &here, ended(OutcomeKind::Deferred, Some(at)), ended(OutcomeKind::Deferred, Some(at))),
        ("a last chance that was used", Journal { intent: used_up, ..journal() }, &here, Err(None), Err(None)),
    ] {
        assert_eq!(admission(&journal, belongs, false), without, "{what}");
        assert_eq!(admission(&journal, belongs, true), forced, "{what}, --force");
    }
}

/// Rules 6 and 25: who is held back by which pause.
#[test]
fn pause_after_a_failed_connection_binds_no_person() {
    let (at, here) = (now().wall.plus(Duration::from_secs(60)), credential(2, "r").binding);
    let paused = |pause: Option<Pause>, is_alive| {
        let mut journal = journal();
        journal.set_not_before(Some(at), Some(&now()));
        journal.pause = pause;
        let (obtained, lifetime_ms) = (now(), 600_000);
        let live = Validity { obtained, lifetime_ms, assumed: false, is_remainder: false, expired_at: None };
        journal.validity = Some(live).filter(|_| is_alive);
        journal
    };
    let pause = |cause, client: &str| Some(Pause { cause, client: client.into() });
    let [plan, token, force] = [
        Demand::Margin { lookahead: Duration::ZERO },
        Demand::ValidFor(Duration::from_secs(7200)),
        Demand::NewerThan(Generation::new(2)),
    ];
    let held = Err(Some((OutcomeKind::Deferred, Some(at))));
    let unsent = || pause(PauseCause::Unsent, "mark");
    for (pause, is_alive, expected) in [
        (None, true, [held, held, held]),
        (unsent(), true, [Ok(SendKind::First), held, Ok(SendKind::First)]),
        (unsent(), false, [Ok(SendKind::First); 3]),
        (pause(PauseCause::Unexplained, "mark"), false, [held, held, held]),
        (pause(PauseCause::Unexplained, "another"), true, [Ok(SendKind::First); 3]),
        (pause(PauseCause::Unsent, "another"), true, [Ok(SendKind::First); 3]),
    ] {
        let journal = paused(pause, is_alive);
        assert_eq!([plan, token, force].map(|demand| admission_for(demand, &journal, &here)), expected);
    }
}

/// Rule 6.
#[test]
fn pause_after_failed_connections_is_a_minute_at_most() {
    let long = Journal { consecutive_failures: 40, ..journal() };
    let settled = with_facts("", |facts| settle_unreachable(&facts, long, "no route to host"));
    assert_eq!(settled.outcome.retry_at, Some(now().wall.plus(Duration::from_secs(60))));
}
