//! Another program holds the same refresh token: every row of the table of shared mode, by the real transaction.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use keepalive::clock::Timestamp;
use keepalive::credential::external::{AccountIdentity, ExternalCredential, ImportSource};
use keepalive::credential::token_response;
use keepalive::credential::token_response::ParsedResponse;
use keepalive::engine::refresh::followed_stores::{FollowedStores, OtherEntry, StoreContent, ToolFacts};
use keepalive::engine::status;
use keepalive::engine::status::StatusPolicy;
use keepalive::outcome::{ErrorKind, Failure, Outcome, OutcomeKind, ProfileState, Publication};
use keepalive::store::keyring::KeyringError;
use serde_json::{Value, json};

use super::support::auth_server::Fault;
use super::support::other_tool;
use super::support::token_family::RotationMode;
use super::world::{ACCESS_LIFETIME, HookPoint, World};

/// A tool's store in memory: what it holds, and whose that is; or why it cannot be read. And its entries in other places,
/// which are seen once.
#[derive(Clone, Default)]
struct FakeTool(Arc<Mutex<ToolContents>>, Arc<Mutex<Vec<OtherEntry>>>);

#[derive(Clone, Default)]
enum ToolContents {
    Tokens {
        answer: Value,
        email: &'static str,
        written: i64,
    },
    SignedOut,
    #[default]
    Unreadable,
}

impl FollowedStores for FakeTool {
    fn about(&self, _: &ImportSource) -> ToolFacts {
        ToolFacts { is_refreshing: true, sign_out: "rm auth.json".into() }
    }

    fn all_entries(&self, _: &ImportSource, _: &str) -> Vec<OtherEntry> {
        self.1.lock().unwrap().drain(..).collect()
    }

    fn read(&self, origin: &ImportSource, within: &str) -> Result<StoreContent, Failure> {
        assert_eq!((origin.tool.as_str(), within), ("codex", "demo"));
        match self.0.lock().unwrap().clone() {
            ToolContents::Unreadable => {
                Err(Failure::new(ErrorKind::Source, "auth.json cannot be read").with_hint("look at it"))
            }
            ToolContents::SignedOut => Ok(StoreContent::SignedOut("auth.json: it does not exist".into())),
            ToolContents::Tokens { answer, email, written } => {
                let ParsedResponse::Granted(granted) = token_response::parse(200, answer.to_string().as_bytes(), true)
                else {
                    panic!()
                };
                let identity =
                    AccountIdentity { email: (!email.is_empty()).then(|| email.into()), ..AccountIdentity::default() };
                let written = Some(Timestamp::from_secs(written));
                let client_id = answer["client_id"].as_str().map(str::to_owned);
                Ok(StoreContent::Credential(Box::new(ExternalCredential {
                    identity,
                    response: *granted,
                    written_at: written,
                    client_id,
                    ..ExternalCredential::default()
                })))
            }
        }
    }
}

impl FakeTool {
    fn holds(&self, answer: &Value, email: &'static str, written: i64) {
        *self.0.lock().unwrap() = ToolContents::Tokens { answer: answer.clone(), email, written };
    }

    fn signs_out(&self) {
        *self.0.lock().unwrap() = ToolContents::SignedOut;
    }
}

const START: i64 = 1_790_000_000;
/// Before anything here began, and after.
const EARLIER: i64 = START - 1000;
const LATER: i64 = START + 500;

/// A world that follows a tool, in step with it.
struct FollowingWorld {
    world: World,
    tool: FakeTool,
    answer: Value,
}

impl FollowingWorld {
    fn new(mode: RotationMode) -> Self {
        Self::configured(mode, "")
    }

    fn configured(mode: RotationMode, provider: &str) -> Self {
        let mut world = World::new(None, mode, provider);
        let (tool, answer) = (FakeTool::default(), world.server.mint());
        tool.holds(&answer, "ada@acme.example", EARLIER);
        let identity = AccountIdentity { email: Some("ada@acme.example".into()), ..AccountIdentity::default() };
        let origin = ImportSource {
            tool: "codex".into(),
            location: Some("auth.json".into()),
            identity,
            ..ImportSource::default()
        };
        world.follow(Arc::new(tool.clone()), &answer, origin);
        assert_eq!(world.journal().generation.get(), 2);
        Self { world, tool, answer }
    }

    /// The tool refreshes and stores what it got.
    fn rotates(&self) -> Value {
        let answer = other_tool::refresh(&self.world.server, other_tool::token(&self.answer));
        self.tool.holds(&answer, "ada@acme.example", LATER);
        answer
    }

    #[track_caller]
    fn assert_stops(&self, kind: OutcomeKind, word: &str, requests: usize) -> Outcome {
        let outcome = self.world.refresh();
        let error = outcome.error.clone().unwrap();
        assert_eq!((outcome.kind, error.kind.word()), (kind, word), "{outcome:?}");
        // What cannot be read may come back soon; what a person must settle takes its time.
        let wait = if kind == OutcomeKind::Deferred { 60 } else { 600 };
        let now = keepalive::clock::Clock::now(&*self.world.clock).wall;
        assert!(error.hint.is_some() && outcome.retry_at == Some(now.plus(Duration::from_secs(wait))));
        assert_eq!((self.world.requests(), self.world.journal().generation.get()), (requests, 2));
        outcome
    }

    fn state(&self) -> ProfileState {
        let profile = self.world.profile();
        let terms = StatusPolicy {
            policy: &profile.provider.policy,
            margin: profile.margin,
            jitter: Duration::ZERO,
            is_following: true,
        };
        status::profile_status(Some(&self.world.journal()), terms, &keepalive::clock::Clock::now(&*self.world.clock))
            .state
    }
}

/// Every way to rotate, as the configuration names it.
const ROTATING: [&str; 3] =
    ["rotation = \"strict\"", "rotation = \"grace\"\nreuse_grace = \"120s\"", "rotation = \"lenient\""];

/// Rule 39.
#[test]
fn refresh_is_ordinary_while_the_tool_has_a_lasting_token() {
    let shared = FollowingWorld::configured(RotationMode::NoRotation { echo: true }, "rotation = \"none\"");
    let outcome = shared.world.refresh();
    assert_eq!((outcome.kind, outcome.generation.get(), shared.world.requests()), (OutcomeKind::Refreshed, 3, 1));
}

/// Rule 39.
#[test]
fn token_that_the_tool_holds_is_never_sent_where_it_rotates() {
    for provider in ROTATING {
        let shared = FollowingWorld::configured(RotationMode::Strict, provider);
        // A person insists.
        let outcome = shared.assert_stops(OutcomeKind::Deferred, "tool_first", 0);
        let hint = outcome.error.unwrap().hint.unwrap();
        assert!(hint.contains("run codex once") && hint.contains("rm auth.json"), "{hint}");
        assert_eq!(shared.state(), ProfileState::Fresh);
        // In the margin the scheduler asks, and the profile stays fresh while its access token lives.
        shared.world.clock.advance(ACCESS_LIFETIME / 10 * 9);
        let outcome = shared.world.refresh_if_due();
        assert_eq!((outcome.kind, shared.state()), (OutcomeKind::Deferred, ProfileState::Fresh), "{outcome:?}");
        shared.world.clock.advance(ACCESS_LIFETIME);
        let outcome = shared.world.refresh_if_due();
        assert_eq!((outcome.kind, shared.state()), (OutcomeKind::Deferred, ProfileState::Expired), "{outcome:?}");
        assert_eq!(shared.world.requests(), 0, "{provider}");
        // The tool refreshes, and all is well.
        let answer = other_tool::refresh(&shared.world.server, other_tool::token(&shared.answer));
        shared.tool.holds(&answer, "ada@acme.example", START + 1200);
        assert_eq!(shared.world.refresh_if_due().kind, OutcomeKind::Refreshed);
        let counts = shared.world.server.counts();
        assert_eq!((counts.refresh_requests, counts.presented_again, counts.families_revoked), (1, 0, 0));
    }
}

/// Rule 39.
#[test]
fn lone_live_token_is_refreshed_while_the_tool_is_signed_out() {
    let shared = FollowingWorld::new(RotationMode::Strict);
    *shared.tool.0.lock().unwrap() = ToolContents::Unreadable;
    shared.assert_stops(OutcomeKind::Deferred, "source", 0);
    shared.tool.signs_out();
    let outcome = shared.world.refresh();
    assert_eq!((outcome.kind, outcome.generation.get(), outcome.error), (OutcomeKind::Refreshed, 3, None));
    let told = "codex is signed out (auth.json: it does not exist): keepalive goes on alone";
    assert_eq!(outcome.warnings, [told]);
    let journal = shared.world.journal();
    assert!(journal.is_followed_alone && journal.blocks.is_empty(), "{journal:?}");
    // It is told once.
    let outcome = shared.world.refresh();
    assert_eq!((outcome.kind, outcome.warnings.len(), shared.world.requests()), (OutcomeKind::Refreshed, 0, 2));
}

/// Rule 39.
#[test]
fn store_that_comes_back_is_judged_by_what_it_holds() {
    let alone = || {
        let shared = FollowingWorld::new(RotationMode::Strict);
        shared.tool.signs_out();
        assert_eq!(shared.world.refresh().generation.get(), 3);
        shared
    };
    // A copy from before: its token is consumed.
    let shared = alone();
    shared.tool.holds(&shared.answer, "ada@acme.example", EARLIER);
    assert_eq!((shared.world.refresh().generation.get(), shared.world.requests()), (4, 2));
    assert!(!shared.world.journal().is_followed_alone);
    // Its user signed in again.
    let shared = alone();
    shared.tool.holds(&shared.world.server.mint(), "ada@acme.example", LATER);
    assert_eq!((shared.world.refresh().generation.get(), shared.world.requests()), (4, 1));
    // Another account.
    let shared = alone();
    shared.tool.holds(&shared.world.server.mint(), "bob@acme.example", LATER);
    let outcome = shared.world.refresh();
    assert_eq!((outcome.kind, shared.world.requests()), (OutcomeKind::ConfigError, 1));
    // Our own: it was away for a moment.
    let shared = FollowingWorld::new(RotationMode::Strict);
    shared.tool.signs_out();
    shared.world.server.script([Fault::Respond(429, "", "{}")]);
    shared.world.refresh();
    shared.tool.holds(&shared.answer, "ada@acme.example", EARLIER);
    shared.world.clock.advance(ACCESS_LIFETIME);
    let outcome = shared.world.refresh();
    assert_eq!(outcome.error.unwrap().kind, ErrorKind::ToolFirst);
    assert_eq!((outcome.kind, shared.world.requests()), (OutcomeKind::Deferred, 1));
}

/// Rule 39.
#[test]
fn store_that_comes_back_while_connecting_stops_the_send() {
    let shared = tool_writes_during_refresh(2, |s| ToolContents::Tokens {
        answer: s.answer.clone(),
        email: "ada@acme.example",
        written: EARLIER,
    });
    let outcome = shared.world.refresh();
    let error = outcome.error.unwrap();
    assert_eq!((outcome.kind, error.kind.word()), (OutcomeKind::Deferred, "interrupted"), "{error:?}");
    assert_eq!((shared.world.requests(), shared.world.journal().open_intent()), (0, None));
}

/// Rule 39.
#[test]
fn tool_with_a_consumed_token_does_not_stop_a_refresh() {
    let shared = FollowingWorld::new(RotationMode::Strict);
    shared.tool.signs_out();
    shared.world.refresh();
    // The tool's store is back as it was: its token is in the ledger now.
    shared.tool.holds(&shared.answer, "ada@acme.example", EARLIER);
    let outcome = shared.world.refresh();
    assert_eq!((outcome.kind, outcome.generation.get(), shared.world.requests()), (OutcomeKind::Refreshed, 4, 2));
    assert_eq!(shared.world.server.counts().presented_again, 0);
}

/// Rule 39.
#[test]
fn token_refreshed_by_the_tool_is_adopted_without_a_request() {
    let shared = FollowingWorld::new(RotationMode::Strict);
    let theirs = shared.rotates();
    let outcome = shared.world.refresh();
    assert_eq!((outcome.kind, outcome.generation.get(), outcome.error), (OutcomeKind::Refreshed, 3, None));
    assert_eq!((shared.world.requests(), shared.world.published()), (1, Some(3)), "the request was the tool's");
    assert!(outcome.warnings.iter().any(|w| w == "adopted generation 3 from codex"));
    let stored = shared.world.process().store().snapshot(shared.world.name()).unwrap().unwrap();
    assert_eq!(stored.grant.access.unwrap().expose(), theirs["access_token"]);
    // Back in step, the next one is the tool's too, unless it signs out; the token before is never sent again.
    assert_eq!(shared.world.refresh().kind, OutcomeKind::Deferred);
    shared.tool.signs_out();
    assert_eq!(shared.world.refresh().generation.get(), 4);
    let counts = shared.world.server.counts();
    assert_eq!((counts.refresh_requests, counts.presented_again, counts.families_revoked), (2, 0, 0));
}

/// Rule 39.
#[test]
fn adopted_token_that_expires_soon_is_left_to_a_rotating_tool() {
    let lasting = (RotationMode::Lenient, "rotation = \"none\"", OutcomeKind::Refreshed, 4, 2);
    for (mode, provider, kind, generation, requests) in
        [(RotationMode::Strict, "", OutcomeKind::Deferred, 3, 1), lasting]
    {
        let shared = FollowingWorld::configured(mode, provider);
        let mut theirs = other_tool::refresh(&shared.world.server, other_tool::token(&shared.answer));
        theirs["expires_in"] = Value::Null;
        theirs["expires_at"] = json!(START + 1);
        shared.tool.holds(&theirs, "ada@acme.example", LATER);
        shared.world.clock.advance(ACCESS_LIFETIME);
        let outcome = shared.world.refresh_if_due();
        assert_eq!((outcome.kind, outcome.generation.get()), (kind, generation), "{outcome:?}");
        let counts = shared.world.server.counts();
        assert_eq!((counts.refresh_requests, counts.presented_again), (requests, 0));
    }
}

/// Rule 11.
#[test]
fn crash_during_adoption_loses_nothing_and_sends_nothing() {
    for (place, keyring) in [(HookPoint::BeforePublish, 2), (HookPoint::AfterPublish, 3)] {
        let shared = FollowingWorld::new(RotationMode::Strict);
        shared.rotates();
        let snapshot = shared.world.crash_at(place);
        let world = shared.world.restart_from(snapshot, None);
        assert_eq!(world.published(), Some(keyring), "{place:?}");
        let outcome = world.refresh_if_due();
        assert_eq!((outcome.kind, outcome.generation.get()), (OutcomeKind::Fresh, 3), "{outcome:?}");
        assert_eq!((world.published(), world.requests()), (Some(3), 1), "the request was the tool's");
        shared.tool.signs_out();
        assert_eq!(world.refresh().generation.get(), 4);
        assert_eq!(world.server.counts().presented_again, 0);
    }
}

/// Rule 12.
#[test]
fn adopted_token_is_published_later_when_the_keyring_locks() {
    let shared = FollowingWorld::new(RotationMode::Strict);
    shared.rotates();
    let keyring = shared.world.keyring.clone();
    shared.world.hook(HookPoint::BeforePublish, move || {
        keyring.set_fault(Some(KeyringError::Locked));
        Ok(())
    });
    let outcome = shared.world.refresh();
    assert_eq!((outcome.kind, outcome.publication), (OutcomeKind::Refreshed, Publication::PublishPending));
    shared.world.keyring.set_fault(None);
    assert_eq!(shared.world.refresh_if_due().publication, Publication::Published);
    assert_eq!((shared.world.published(), shared.world.requests()), (Some(3), 1));
}

/// Rule 39.
#[test]
fn another_account_in_the_tool_stops_the_refresh() {
    let shared = FollowingWorld::new(RotationMode::Strict);
    shared.tool.holds(&shared.world.server.mint(), "bob@acme.example", LATER);
    shared.assert_stops(OutcomeKind::ConfigError, "conflict", 0);
    assert_eq!(shared.state(), ProfileState::ConfigError);
    // Signed in again as before: it goes on by itself.
    shared.tool.holds(&shared.world.server.mint(), "ada@acme.example", LATER);
    assert_eq!(shared.world.refresh_if_due().kind, OutcomeKind::Refreshed);
    assert_eq!((shared.state(), shared.world.requests()), (ProfileState::Fresh, 0));
}

/// Rule 39.
#[test]
fn token_of_another_client_in_the_tool_stops_the_refresh() {
    let shared = FollowingWorld::new(RotationMode::Strict);
    let mut answer = shared.world.server.mint();
    answer["client_id"] = json!("another");
    shared.tool.holds(&answer, "ada@acme.example", LATER);
    shared.assert_stops(OutcomeKind::ConfigError, "conflict", 0);
    answer["client_id"] = json!("public");
    shared.tool.holds(&answer, "ada@acme.example", LATER);
    assert_eq!((shared.world.refresh_if_due().kind, shared.world.requests()), (OutcomeKind::Refreshed, 0));
}

/// Rule 39.
#[test]
fn tool_without_an_account_name_stops_the_refresh() {
    let shared = FollowingWorld::new(RotationMode::Strict);
    shared.tool.holds(&shared.world.server.mint(), "", LATER);
    shared.assert_stops(OutcomeKind::ConfigError, "conflict", 0);
}

/// Rule 39. What was lost: the family, when a token was sent that the tool had been seen to replace.
#[test]
fn sign_out_after_an_unknown_token_stays_a_conflict() {
    let shared = FollowingWorld::new(RotationMode::Strict);
    let theirs = other_tool::refresh(&shared.world.server, other_tool::token(&shared.answer));
    shared.tool.holds(&theirs, "", LATER);
    shared.assert_stops(OutcomeKind::ConfigError, "conflict", 1);
    shared.tool.signs_out();
    for _ in 0..2 {
        shared.assert_stops(OutcomeKind::ConfigError, "conflict", 1);
    }
    assert_eq!(shared.world.server.counts().presented_again, 0);
    shared.tool.holds(&theirs, "ada@acme.example", LATER);
    assert_eq!(shared.world.refresh().generation.get(), 3);
    // Another account says nothing of our token.
    let shared = FollowingWorld::new(RotationMode::Strict);
    shared.tool.holds(&shared.world.server.mint(), "bob@acme.example", LATER);
    shared.assert_stops(OutcomeKind::ConfigError, "conflict", 0);
    shared.tool.signs_out();
    assert_eq!(shared.world.refresh().generation.get(), 3);
}

/// Rule 39.
#[test]
fn unknown_token_that_is_not_newer_stops_the_refresh() {
    let shared = FollowingWorld::new(RotationMode::Strict);
    let mut old = shared.world.server.mint();
    old["expires_in"] = json!(1);
    shared.tool.holds(&old, "ada@acme.example", EARLIER);
    shared.assert_stops(OutcomeKind::ConfigError, "conflict", 0);
}

#[test]
fn unreadable_tool_store_defers_the_refresh() {
    let shared = FollowingWorld::new(RotationMode::Strict);
    *shared.tool.0.lock().unwrap() = ToolContents::Unreadable;
    shared.assert_stops(OutcomeKind::Deferred, "source", 0);
    assert_eq!(shared.state(), ProfileState::Fresh, "the access token is");
    shared.world.clock.advance(ACCESS_LIFETIME / 10 * 9);
    shared.assert_stops(OutcomeKind::Deferred, "source", 0);
    assert_eq!(shared.state(), ProfileState::Deferred);
    shared.tool.holds(&shared.answer, "ada@acme.example", EARLIER);
    let outcome = shared.world.refresh_if_due();
    assert_eq!((outcome.error.unwrap().kind, shared.world.requests()), (ErrorKind::ToolFirst, 0));
    assert_eq!(shared.state(), ProfileState::Fresh);
}

#[test]
fn tool_store_without_a_refresh_token_defers_the_refresh() {
    let shared = FollowingWorld::new(RotationMode::Strict);
    shared.tool.holds(&json!({"access_token": "a", "expires_in": 600}), "ada@acme.example", LATER);
    shared.assert_stops(OutcomeKind::Deferred, "source", 0);
}

#[test]
fn resolved_tool_conflict_does_not_refresh_a_fresh_profile() {
    let shared = FollowingWorld::new(RotationMode::Strict);
    shared.tool.holds(&shared.world.server.mint(), "bob@acme.example", LATER);
    shared.assert_stops(OutcomeKind::ConfigError, "conflict", 0);
    shared.tool.holds(&shared.answer, "ada@acme.example", EARLIER);
    assert_eq!((shared.world.refresh_if_due().kind, shared.world.requests()), (OutcomeKind::Fresh, 0));
    assert_eq!(shared.state(), ProfileState::Fresh);
}

/// A tool that is quicker than we can see.
struct RacingTool {
    tool: FakeTool,
    /// Held from this look on: the first is before the flight, the second at the fence, the third after a refusal.
    at: usize,
    then: ToolContents,
    looks: Mutex<usize>,
}

impl FollowedStores for RacingTool {
    fn about(&self, origin: &ImportSource) -> ToolFacts {
        self.tool.about(origin)
    }

    fn all_entries(&self, origin: &ImportSource, within: &str) -> Vec<OtherEntry> {
        self.tool.all_entries(origin, within)
    }

    fn read(&self, origin: &ImportSource, within: &str) -> Result<StoreContent, Failure> {
        let mut looks = self.looks.lock().unwrap();
        *looks += 1;
        if *looks == self.at {
            *self.tool.0.lock().unwrap() = self.then.clone();
        }
        self.tool.read(origin, within)
    }
}

fn tool_writes_during_refresh(at: usize, then: impl FnOnce(&FollowingWorld) -> ToolContents) -> FollowingWorld {
    let mut shared = FollowingWorld::new(RotationMode::Strict);
    let then = then(&shared);
    let quick = RacingTool { tool: shared.tool.clone(), at, then, looks: Mutex::default() };
    let origin = shared.world.journal().origin.unwrap();
    shared.world.follow(Arc::new(quick), &shared.answer, origin);
    // So that the request is made at all.
    shared.tool.signs_out();
    shared
}

fn newer(shared: &FollowingWorld) -> ToolContents {
    let answer = shared.world.server.mint();
    ToolContents::Tokens { answer, email: "ada@acme.example", written: LATER }
}

/// Rule 39.
#[test]
fn tool_refresh_while_connecting_stops_the_send() {
    for then in [newer, |_: &FollowingWorld| ToolContents::Unreadable] {
        let shared = tool_writes_during_refresh(2, then);
        let outcome = shared.world.refresh();
        let error = outcome.error.unwrap();
        assert_eq!((outcome.kind, error.kind.word()), (OutcomeKind::Deferred, "interrupted"), "{error:?}");
        assert_eq!((shared.world.requests(), shared.world.journal().open_intent()), (0, None));
    }
    let shared = tool_writes_during_refresh(2, newer);
    shared.world.refresh();
    assert_eq!((shared.world.refresh().generation.get(), shared.world.requests()), (3, 0), "the next one adopts it");
}

fn refused(then: impl FnOnce(&FollowingWorld) -> ToolContents) -> (FollowingWorld, Outcome) {
    let shared = tool_writes_during_refresh(3, then);
    shared.world.server.script([Fault::Respond(400, "", r#"{"error":"invalid_grant"}"#)]);
    let outcome = shared.world.refresh();
    (shared, outcome)
}

/// Rule 22.
#[test]
fn tool_is_read_again_before_a_rejection_needs_login() {
    let (shared, outcome) = refused(newer);
    assert_eq!((outcome.kind, outcome.generation.get(), outcome.error), (OutcomeKind::Refreshed, 3, None));
    assert_eq!((shared.state(), shared.world.requests()), (ProfileState::Fresh, 1));
    assert!(shared.world.journal().rejected.is_none());
}

#[test]
fn tool_is_not_read_again_without_a_rejection() {
    let shared = tool_writes_during_refresh(3, newer);
    let outcome = shared.world.refresh();
    assert_eq!((outcome.kind, outcome.generation.get(), shared.world.requests()), (OutcomeKind::Refreshed, 3, 1));
    assert_eq!(outcome.warnings.len(), 1, "nothing was adopted: {outcome:?}");
}

/// Rule 22.
#[test]
fn rejected_token_needs_login_until_the_tool_has_a_newer_one() {
    let (shared, outcome) =
        refused(|s| ToolContents::Tokens { answer: s.answer.clone(), email: "ada@acme.example", written: EARLIER });
    assert_eq!((outcome.kind, shared.world.requests()), (OutcomeKind::NeedsLogin, 1));
    assert_eq!(shared.world.refresh_if_due().kind, OutcomeKind::NeedsLogin);
    assert_eq!((shared.state(), shared.world.requests()), (ProfileState::NeedsLogin, 1));
    shared.tool.holds(&shared.world.server.mint(), "ada@acme.example", LATER);
    assert_eq!((shared.world.refresh_if_due().kind, shared.world.requests()), (OutcomeKind::Refreshed, 1));
    assert_eq!(shared.state(), ProfileState::Fresh);
}

/// Rule 17.
#[test]
fn doubt_ends_when_the_tool_has_a_newer_token() {
    let shared = FollowingWorld::new(RotationMode::Strict);
    shared.tool.signs_out();
    shared.world.server.script([Fault::DropAfter]);
    assert_eq!(shared.world.refresh().kind, OutcomeKind::InDoubt);
    shared.tool.holds(&shared.world.server.mint(), "ada@acme.example", LATER);
    let outcome = shared.world.refresh();
    assert_eq!((outcome.kind, outcome.generation.get()), (OutcomeKind::Refreshed, 3), "{outcome:?}");
    assert_eq!(
        (shared.state(), shared.world.journal().open_intent(), shared.world.requests()),
        (ProfileState::Fresh, None, 1)
    );
}

#[test]
fn profile_that_came_from_no_tool_cannot_follow_one() {
    let mut world = World::new(None, RotationMode::Strict, "");
    let origin = ImportSource { tool: "codex".into(), ..ImportSource::default() };
    world.follow(Arc::new(FakeTool::default()), &world.server.mint(), origin);
    let outcome = world.refresh();
    assert_eq!((outcome.kind, world.requests()), (OutcomeKind::ConfigError, 0));
    assert_eq!(outcome.error.unwrap().kind, ErrorKind::Follow);
}

#[test]
fn journal_without_an_origin_is_read() {
    let shared = FollowingWorld::new(RotationMode::Strict);
    let mut journal = serde_json::to_value(shared.world.journal()).unwrap();
    assert_eq!(journal["origin"]["tool"], "codex");
    assert!(!journal.to_string().contains("canary"), "no token is in it");
    journal.as_object_mut().unwrap().remove("origin");
    let old: keepalive::store::journal::Journal = serde_json::from_value(journal).unwrap();
    assert_eq!((old.origin, old.blocks), (None, Vec::new()));
}

/// Rule 4.
#[test]
fn tool_token_held_by_another_profile_stops_the_refresh() {
    let shared = FollowingWorld::new(RotationMode::Strict);
    let theirs = shared.world.server.mint();
    let other = "copy".parse().unwrap();
    shared.world.import_into(&other, shared.world.credential(&theirs), false).unwrap();
    shared.tool.holds(&theirs, "ada@acme.example", LATER);
    let outcome = shared.assert_stops(OutcomeKind::ConfigError, "conflict", 0);
    assert!(outcome.error.unwrap().message.starts_with("profile copy already has"));
}

/// Rule 4.
#[test]
fn unreadable_other_profile_defers_adoption_until_readable() {
    let shared = FollowingWorld::new(RotationMode::Strict);
    let other = "copy".parse().unwrap();
    let answer = shared.world.server.mint();
    shared.world.import_into(&other, shared.world.credential(&answer), false).unwrap();
    // Opened, a link is an error.
    let (path, aside) = (shared.world.file("profiles/copy/record.json"), shared.world.file("aside"));
    std::fs::rename(&path, &aside).unwrap();
    std::os::unix::fs::symlink(&aside, &path).unwrap();
    shared.rotates();
    shared.assert_stops(OutcomeKind::Deferred, "source", 1);
    std::fs::remove_file(&path).unwrap();
    std::fs::rename(&aside, &path).unwrap();
    shared.world.clock.advance(Duration::from_secs(60));
    assert_eq!((shared.world.refresh().generation.get(), shared.world.requests()), (3, 1));
}
