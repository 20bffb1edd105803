//! Answers as they come: every recorded one, through the library and through the program, with what must become of it.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use keepalive::clock::{Clock, ManualClock, Timestamp};
use keepalive::config::Config;
use keepalive::credential::secret::{AccessToken, RefreshToken};
use keepalive::credential::{Credential, Generation, Grant, content_coding, freshness};
use keepalive::engine::{Engine, new_credential};
use keepalive::outcome::Outcome;
use keepalive::profile::{KeySource, Profile, ProfileName, StoreKind, StoreSettings};
use keepalive::provider::TokenEndpoint;
use keepalive::provider::http::HttpEndpoint;
use keepalive::store::Store;
use keepalive::store::disk::envelope;
use keepalive::store::disk::sealed_content::{SealedContent, SealedResponse};
use keepalive::store::journal::block::Cause;
use keepalive::store::keys::sealing_key::SealingKey;

use super::support::auth_server::{AuthServer, CustomResponse, Fault, Issued};
use super::support::recorded_responses::{RecordedResponse, recorded_responses};
use super::support::sandbox::Sandbox;
use super::support::token_family::RotationMode;

const NOW: Timestamp = Timestamp::from_secs(1_795_000_000);

/// What went over the wire, once it has.
type SentResponse = Arc<Mutex<Option<(Issued, Vec<u8>)>>>;

/// The fault that answers with this shape.
fn fault(shape: &RecordedResponse, now: Timestamp) -> (Fault, SentResponse) {
    let sent = SentResponse::default();
    let (noted, shape) = (Arc::clone(&sent), shape.clone());
    let commits = shape.commits;
    let answer = move |issued: &Issued| {
        let body = shape.encoded_body(issued, now);
        let bytes = shape.bytes(&body);
        *noted.lock().unwrap() = Some((issued.clone(), body));
        bytes
    };
    (Fault::Custom(CustomResponse { commits, response: Arc::new(answer) }), sent)
}

/// The library alone, in this process, on a clock that stands still: a store, the wire code, an engine.
struct ResponseFixture {
    server: AuthServer,
    dir: tempfile::TempDir,
    store: Arc<Store>,
    engine: Engine,
    profile: Arc<Profile>,
    key: Arc<SealingKey>,
    first_access: String,
}

impl ResponseFixture {
    fn new() -> Self {
        let server = AuthServer::start(RotationMode::Strict);
        let dir = tempfile::tempdir().unwrap();
        let key = dir.path().join("key");
        std::fs::write(&key, [7; 32]).unwrap();
        std::fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        let kind = StoreKind::File { key: KeySource::File(key) };
        let settings = StoreSettings { kind, path: None, allow_network_filesystem: true };
        let store = Arc::new(Store::new(&settings, &dir.path().join("state"), None, || unreachable!("a file store")));
        let text = format!("{}[profile.demo]\nprovider = \"acme\"\n", server.provider(""));
        let config = Config::parse(&text, &dir.path().join("c.toml"), None).unwrap();
        let profile = Arc::new(config.profile(&name(), None).unwrap());
        let clock: Arc<dyn Clock> = Arc::new(ManualClock::new(NOW));
        let metadata = dir.path().join("metadata");
        let endpoint = Arc::new(
            HttpEndpoint::new(Box::new(|_, _| Err("no secrets".into())), Arc::clone(&clock), &metadata).unwrap(),
        );
        let minted = server.mint();
        let text = |name: &str| minted[name].as_str().unwrap();
        let obtained = clock.now();
        let credential = Credential {
            generation: Generation::NONE,
            binding: endpoint.prepare(&profile.provider, "demo").unwrap().binding(),
            refresh: RefreshToken::new(text("refresh_token")).unwrap(),
            grant: Grant {
                access: AccessToken::new(text("access_token")),
                validity: Some(freshness::Validity {
                    obtained,
                    lifetime_ms: 600_000,
                    assumed: false,
                    is_remainder: false,
                    expired_at: None,
                }),
                token_type: "Bearer".into(),
                scope: Some("a b".into()),
                id_token: None,
                login_by: None,
                not_before: None,
            },
        };
        let first_access = text("access_token").to_owned();
        new_credential::store_credential(
            &store,
            &name(),
            credential,
            new_credential::Provenance::Import,
            &clock.now(),
            &new_credential::StoringWaits::SILENT,
        )
        .unwrap();
        let key = store.keys().load("demo").unwrap();
        let engine = Engine::new(Arc::clone(&store), endpoint, clock, false, Vec::new());
        Self { server, dir, store, engine, profile, key, first_access }
    }

    fn refresh(&self) -> Outcome {
        let demand = self.engine.force_demand(&name()).unwrap();
        self.engine.refresh(&self.profile, demand, Duration::from_secs(60), &|| ())
    }

    /// The answer that lies sealed under a name.
    fn sealed(&self, file: &str) -> SealedResponse {
        let bytes = std::fs::read(self.dir.path().join("state/profiles/demo").join(file)).unwrap();
        match envelope::open::<SealedContent>(&bytes, &name(), &self.key).unwrap().1 {
            SealedContent::Response(answer) => answer,
            SealedContent::Credential(_) => panic!("{file} holds no answer"),
        }
    }
}

fn name() -> ProfileName {
    "demo".parse().unwrap()
}

fn in_json(word: impl serde::Serialize) -> String {
    serde_json::to_value(word).unwrap().as_str().unwrap().to_owned()
}

/// Plays one shape against the library, and looks into the store.
fn through_the_library(shape: &RecordedResponse) {
    let told = &shape.name;
    let bench = ResponseFixture::new();
    let (fault, sent) = fault(shape, NOW);
    bench.server.script([fault]);
    let outcome = bench.refresh();
    assert_eq!(in_json(outcome.kind), shape.outcome, "{told}: {outcome:?}");
    let (issued, body) = sent.lock().unwrap().take().unwrap();
    let journal = bench.store.peek(&name()).unwrap().unwrap();
    let kept = RefreshToken::new(shape.keeps(&issued)).unwrap();
    assert_eq!(journal.fingerprint, Some(bench.key.fingerprint(&kept)), "{told}: another token is held");
    assert_eq!(journal.generation.get(), 1 + u64::from(shape.is_granted()), "{told}");
    assert_eq!(journal.intent.is_some(), shape.outcome == "in_doubt", "{told}: {journal:?}");
    assert_eq!(journal.is_rejected(), shape.outcome == "needs_login", "{told}");
    assert_eq!(journal.block(Cause::Client).is_some(), shape.outcome == "config_error" && shape.access, "{told}");
    let said = outcome.error.as_ref().map_or("", |e| &e.message);
    assert!(shape.says.as_ref().is_none_or(|words| said.contains(words)), "{told}: {said}");
    assert!(!said.chars().any(char::is_control) && !said.contains("canary"), "r37, r38: {told}: {said:?}");
    let warned = outcome.warnings.join("; ");
    assert!(shape.warns.as_ref().is_none_or(|words| warned.contains(words)), "{told}: {warned}");
    if shape.is_granted() {
        let life = journal.validity.as_ref().map(|v| v.lifetime().as_secs());
        assert_eq!(life, shape.life, "{told}");
        assert_eq!(journal.login_by, shape.login_by.map(|s| NOW.plus(Duration::from_secs(s))), "{told}");
        let held = bench.store.snapshot(&name()).unwrap().unwrap().grant.access.unwrap();
        assert_eq!(held.expose() != bench.first_access, shape.access, "r27: {told}");
    }
    let not_before = journal.not_before.map(|at| at.since(NOW).as_secs());
    assert!(shape.not_before.is_none_or(|s| not_before == Some(s)), "{told}: {not_before:?}");
    match shape.access {
        true => assert!(!shape.is_granted() || shape.not_before == not_before, "{told}: {not_before:?}"),
        false => assert!(not_before.is_some_and(|s| (1..=2).contains(&s)), "{told}: {not_before:?}"),
    }
    if shape.is_granted() || (shape.outcome == "in_doubt" && !body.is_empty()) {
        let answer = bench.sealed(if shape.is_granted() { "sealed" } else { "received" });
        let arrived = &body[..body.len().min(content_coding::MAX_BODY_BYTES)];
        assert!(answer.decode_body() == arrived, "{told}: it is not sealed as it came");
        assert_eq!(answer.content_encoding, shape.content_encoding(), "{told}");
    }
    assert_eq!(bench.server.counts().refresh_requests, 1, "{told}");
}

/// Plays one shape against the program, and asks it and the server.
fn through_the_program(shape: &RecordedResponse) {
    let told = &shape.name;
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = Sandbox::signed_in(&server);
    let now = Timestamp::from(chrono::DateTime::<chrono::Utc>::from(std::time::SystemTime::now()));
    let (fault, sent) = fault(shape, now);
    server.script([fault]);
    let run = sandbox.refresh(&["--force"]);
    assert_eq!(run.status, shape.exit, "{told}: {run:#?}");
    assert_eq!(run.result()["outcome"], shape.outcome, "{told}: {run:#?}");
    for words in [&shape.says, &shape.warns].into_iter().flatten() {
        assert!(run.stdout.contains(words) || run.stderr.contains(words), "{told}: no {words:?} in {run:#?}");
    }
    assert!(!(run.stdout + &run.stderr).contains("canary"), "r37: {told}");
    assert_eq!(sandbox.status()["state"], shape.state(), "{told}");
    let (issued, _) = sent.lock().unwrap().take().unwrap();
    // A person may have a rejected token sent once more by --force; a run by itself never does.
    let is_rejected = shape.outcome == "needs_login";
    let again = sandbox.refresh(if is_rejected { &[] } else { &["--force"] });
    let requests = server.counts().refresh_requests;
    match shape.outcome.as_str() {
        "refreshed" if shape.not_before.is_some() => assert_eq!((again.status, requests), (75, 1), "r25: {told}"),
        "refreshed" => {
            let form = server.last_form();
            let token = form.iter().find(|(key, _)| key == "refresh_token").map(|(_, value)| value.clone());
            assert_eq!((requests, token), (2, Some(shape.keeps(&issued))), "r16: {told}: {again:#?}");
            let is_known = !shape.commits || shape.keeps(&issued) == issued.refresh;
            assert_eq!(again.status == 0, is_known, "{told}: {again:#?}");
        }
        // It is asked again after a pause of a second or two, which may be over by now.
        "config_error" if !shape.access => {
            assert!(matches!((again.status, requests), (78, 1) | (0, 2)), "{told}: {again:#?}")
        }
        "config_error" => assert_eq!((again.status, requests), (0, 2), "--force is one probe: {told}: {again:#?}"),
        _ => assert_eq!((again.status, requests), (shape.exit, 1), "nothing is sent again: {told}: {again:#?}"),
    }
}

/// Plays all shapes, some at a time; tells of all that fail.
fn each(play: fn(&RecordedResponse)) {
    let shapes = recorded_responses();
    let next = AtomicUsize::new(0);
    let failures = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while let Some(shape) = shapes.get(next.fetch_add(1, Ordering::SeqCst)) {
                    if std::panic::catch_unwind(|| play(shape)).is_err() {
                        failures.lock().unwrap().push(shape.name.clone());
                    }
                }
            });
        }
    });
    let failures = failures.into_inner().unwrap();
    assert!(failures.is_empty(), "{} of {}: {failures:#?}", failures.len(), shapes.len());
}

#[test]
fn response_table_is_unique_and_covers_every_outcome() {
    let shapes = recorded_responses();
    assert!(shapes.len() >= 140, "{}", shapes.len());
    let names: std::collections::HashSet<_> = shapes.iter().map(|s| &s.name).collect();
    assert_eq!(names.len(), shapes.len(), "each name once");
    for outcome in ["refreshed", "deferred", "in_doubt", "needs_login", "config_error"] {
        assert!(shapes.iter().any(|s| s.outcome == outcome), "{outcome}");
    }
}

/// Rules 16, 22 and 23.
#[test]
fn every_recorded_response_is_handled_by_the_library() {
    each(through_the_library);
}

/// Rules 16, 22 and 23.
#[test]
fn every_recorded_response_is_handled_by_the_program() {
    each(through_the_program);
}

/// An answer with tokens, by its name in the table.
fn recorded(name: &str) -> Fault {
    let shape = recorded_responses().into_iter().find(|s| s.name == name).unwrap();
    fault(&shape, NOW).0
}

/// Rule 9.
#[test]
fn compressed_response_of_a_killed_run_is_recovered() {
    for name in ["gzip that nobody asked for", "two codings in two lines", "cut behind the refresh token"] {
        let server = AuthServer::start(RotationMode::Strict);
        let sandbox = Sandbox::signed_in(&server);
        let folder = sandbox.path("state/keepalive/profiles/demo");
        let before: Vec<_> =
            ["record.json", "sealed"].map(|file| (file, std::fs::read(folder.join(file)).unwrap())).into();
        server.script([recorded(name)]);
        sandbox.refresh(&["--force"]).exits(0);
        // As if it had been killed between the seal and all that follows from it.
        std::fs::rename(folder.join("sealed"), folder.join("received")).unwrap();
        for (file, bytes) in before {
            std::fs::write(folder.join(file), bytes).unwrap();
        }
        let result = sandbox.refresh(&["--force"]).exits(0).result();
        assert_eq!(result["generation"], 2, "{name}");
        assert_eq!(server.counts().refresh_requests, 1, "it is recovered, not asked for: {name}");
        sandbox.refresh(&["--force"]).exits(0);
        let counts = server.counts();
        assert_eq!((counts.refresh_ok, counts.presented_again), (2, 0), "{name}");
    }
}

#[test]
fn response_without_access_token_starts_a_pause() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = Sandbox::signed_in(&server);
    let before = sandbox.keepalive(&["token", "demo"]).exits(0).stdout;
    server.script((0..9).map(|_| recorded("a refresh token alone")));
    for _ in 0..2 {
        sandbox.refresh(&[]);
        sandbox.refresh(&["--force"]);
    }
    let requests = server.counts().refresh_requests;
    assert!((1..=3).contains(&requests), "{requests} requests: an answer of this kind starts a pause");
    let status = sandbox.keepalive(&["--json", "status", "-p", "demo"]).exits(78).profile();
    assert_eq!(
        (status["state"].as_str(), status["error"]["kind"].as_str()),
        (Some("config_error"), Some("at_unusable"))
    );
    // What there was before may live on.
    let run = sandbox.keepalive(&["token", "demo"]).exits(0).says("no usable access token");
    assert_eq!(run.stdout, before);
    assert_eq!(server.counts().presented_again, 0);
}

/// Rule 13.
#[test]
fn older_sealed_credential_is_not_handed_out() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = Sandbox::signed_in(&server);
    let sealed = sandbox.path("state/keepalive/profiles/demo/sealed");
    let old = std::fs::read(&sealed).unwrap();
    sandbox.refresh(&["--force"]).exits(0);
    let new = std::fs::read(&sealed).unwrap();
    std::fs::write(&sealed, old).unwrap();
    let run = sandbox.keepalive(&["token", "demo"]).exits(78).says("generation 1, but generation 2 had already");
    assert!(run.stdout.is_empty());
    assert_eq!(server.counts().refresh_requests, 1);
    // The newest answer did not get its final name: the token in it is the one to hand out.
    std::fs::write(sealed.with_file_name("received"), new).unwrap();
    sandbox.keepalive(&["token", "demo"]).exits(0).says("canary-at-f0-3");
}
