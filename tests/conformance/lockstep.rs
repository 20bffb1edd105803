//! The real transaction is led along ways through the model, flight by flight: both must have sent the same token, be in
//! the same state and have said the same. Each edge is so taken in every situation that one process after the other can
//! bring about, and what comes after it is looked at, too.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use keepalive::clock::{Clock, Timestamp};
use keepalive::outcome::{Outcome, OutcomeKind};
use keepalive::provider::http::CONNECT_SLACK;
use keepalive::store::keyring::{KeyringError, KeyringItem};
use keepalive_model::one_machine::{self, Design, Edge, MessageKind, Phase, SendReason, Server, Step};
use keepalive_model::paths::{sequential, shortest_paths};
use serde_json::json;

use super::support::auth_server::{CustomResponse, Fault};
use super::support::token_family::RotationMode;
use super::world::{CrashSnapshot, HookPoint, World};

const SETTLE: Duration = Duration::from_secs(60);
const EXCHANGE: Duration = Duration::from_secs(30);
/// A grace that ends before the first access token does, and one that does not.
const GRACES: [Duration; 2] = [Duration::from_secs(600), Duration::from_secs(6 * 3600)];
/// How long the access token of the first generation lives, and those of later ones.
const LIVES: [Duration; 2] = [Duration::from_secs(2 * 3600), Duration::from_secs(10 * 86_400)];

/// The steps that can be acted out.
fn is_supported(world: &one_machine::ModelState, step: Step) -> bool {
    let at = world.processes[0].at;
    let is_locked = world.is_keyring_locked;
    // One whose grace ended a moment ago is turned back at the fence, and comes by no further place to die at.
    let is_too_late = world.processes[0].kind == SendReason::Grace && !world.is_grace_open;
    let can_die = match at {
        Phase::Ready | Phase::Intended => !is_too_late,
        Phase::Sent | Phase::Received | Phase::Sealed | Phase::Published => true,
        Phase::Idle | Phase::AtLock | Phase::Admitted => false,
    };
    match step {
        Step::LockKeyring => matches!(at, Phase::Idle | Phase::Received),
        Step::UnlockKeyring | Step::SyncKeyring => at == Phase::Idle,
        // The second would outlive every grace that can be configured.
        Step::ExpireAccess => {
            let newest = world.newest().generation;
            let is_short = newest == 1 || !world.is_grace_open;
            // A recovery that finds the fruit of a grace must not find it expired as well.
            let is_settled = !world.is_unsettled() && world.intent.is_none_or(|i| i.generation == newest);
            at == Phase::Idle && is_settled && is_short
        }
        Step::CloseGrace => at == Phase::Idle || (at == Phase::Ready && world.processes[0].kind == SendReason::Grace),
        Step::Crash(_) => can_die && !is_locked,
        Step::CutPower => at == Phase::Idle || (can_die && !is_locked),
        Step::PassMinute => at == Phase::Idle,
        Step::Serve(_) | Step::Refuse(_) | Step::Deny(_) | Step::Lose(_) => matches!(at, Phase::Idle | Phase::Sent),
        // Without the key nothing of this is known; a daemon that has it is another story.
        Step::Recheck(_) => {
            let is_plain =
                |i: one_machine::ModelIntent| i.generation == world.newest().generation && !i.is_last_chance_spent;
            !is_locked || world.intent.is_none_or(is_plain)
        }
        _ => true,
    }
}

/// How many rounds are looked at, and of how many ways one is gone: a sample, or with `KEEPALIVE_LONG=1` all of them.
#[expect(clippy::disallowed_methods, reason = "this program is not keepalive")]
fn extent() -> (u8, usize) {
    if std::env::var_os("KEEPALIVE_LONG").is_some() { (4, 1) } else { (3, 16) }
}

/// Leads the real transaction along the ways that there are with this kind of server.
fn run_all_paths(server: Server) {
    let (rounds, stride) = extent();
    let (design, template) = (sequential(server, rounds), World::template());
    let ways = shortest_paths(&design, is_supported);
    let lead = |way: &Vec<Step>| {
        let walk = || ModelRun::new(&design, way, &template).run();
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(walk)).ok()
    };
    // Spread by a multiplicative hash: the ways are sorted, so every n-th would be of few kinds.
    let is_sampled = |at: usize| (at.wrapping_mul(0x9E37_79B1) >> 16).is_multiple_of(stride);
    let sample = ways.iter().enumerate().filter(|(at, _)| is_sampled(*at)).map(|(_, way)| way);
    let flights: Vec<Option<usize>> = sample.map(lead).collect();
    let parted = flights.iter().filter(|flights| flights.is_none()).count();
    let flown: usize = flights.iter().flatten().sum();
    println!("{server:?}: {} of {} ways, {flown} flights", flights.len(), ways.len());
    assert_eq!(parted, 0, "ways on which the model and the transaction part");
    assert!(ways.len() > 100, "the model has lost ways");
}

/// Rule 40.
#[test]
fn model_and_transaction_agree_without_rotation() {
    run_all_paths(Server::NoRotation);
}

/// Rule 40.
#[test]
fn model_and_transaction_agree_at_a_lenient_server() {
    run_all_paths(Server::Lenient);
}

/// Rule 40.
#[test]
fn model_and_transaction_agree_at_a_strict_server() {
    run_all_paths(Server::Strict);
}

/// Rule 40.
#[test]
fn model_and_transaction_agree_under_grace_same() {
    run_all_paths(Server::GraceSame);
}

/// Rule 40.
#[test]
fn model_and_transaction_agree_under_grace_multi() {
    run_all_paths(Server::GraceMulti);
}

/// Rule 40.
#[test]
fn model_and_transaction_agree_under_grace_latest() {
    run_all_paths(Server::GraceLatest);
}

struct ModelRun<'a> {
    design: &'a Design,
    path: &'a [Step],
    model: one_machine::ModelState,
    real: World,
    /// What a power cut leaves of the keyring.
    on_disk: BTreeMap<KeyringItem, String>,
    grace: Duration,
    /// The real generations count on from the login of the template.
    offset: u64,
    obtained: BTreeMap<u8, Timestamp>,
    /// When the newest request was, or was to be, made.
    sent: Option<Timestamp>,
    requests: usize,
    first_token: String,
}

/// One flight on the way: what happens in it.
struct ModelFlight {
    steps: Vec<Step>,
    before: one_machine::ModelState,
    after: one_machine::ModelState,
    edges: Vec<Edge>,
    /// What the server is asked, and answers.
    asked: Option<u8>,
    answer: Option<(MessageKind, u8)>,
    died: Option<Phase>,
    is_power_cut: bool,
}

impl ModelFlight {
    fn is_person(&self) -> bool {
        self.steps.first() == Some(&Step::Insist(0))
    }
}

impl<'a> ModelRun<'a> {
    fn new(design: &'a Design, way: &'a [Step], template: &CrashSnapshot) -> Self {
        let model = design.start();
        let grace = GRACES[usize::from(outlives_access(design, way))];
        let real = World::new(Some(template), RotationMode::Strict, &provider(design.server, grace));
        real.server.set_access_life(LIVES[0]);
        real.sign_in();
        let on_disk = real.keyring.snapshot();
        let obtained = BTreeMap::from([(1, real.clock.now().wall)]);
        let (offset, first_token) = (real.journal().generation.get() - 1, real.server.current_refresh_token(1));
        Self { design, path: way, model, real, on_disk, grace, offset, obtained, sent: None, requests: 0, first_token }
    }

    /// Gives how often it flew.
    fn run(mut self) -> usize {
        let (mut flights, mut rest) = (0, self.path);
        while let Some((&step, others)) = rest.split_first() {
            if matches!(step, Step::Enter(0) | Step::Insist(0)) {
                let flight = self.next_flight(rest);
                rest = &rest[flight.steps.len()..];
                self.run_flight(&flight);
                flights += 1;
                continue;
            }
            self.apply_event(step);
            rest = others;
        }
        flights
    }

    /// Something happens while no process is at work.
    fn apply_event(&mut self, step: Step) {
        match step {
            Step::LockKeyring => self.real.keyring.set_fault(Some(KeyringError::Locked)),
            Step::UnlockKeyring => self.real.keyring.set_fault(None),
            Step::SyncKeyring => self.on_disk = self.real.keyring.snapshot(),
            Step::CutPower => self.restart(self.real.snapshot(), true),
            Step::ExpireAccess => {
                let generation = self.model.newest().generation;
                let life = LIVES[usize::from(generation > 1)];
                self.wait_until(self.obtained[&generation].plus(life - Duration::from_secs(20)));
            }
            Step::PassMinute => self.real.clock.advance(Duration::from_secs(61)),
            Step::CloseGrace if self.model.is_grace_open => self.real.clock.advance(self.grace),
            // On the network, where no process sees it.
            Step::CloseGrace | Step::Serve(_) | Step::Refuse(_) | Step::Deny(_) | Step::Lose(_) => {}
            _ => panic!("{step:?} while nobody is at work"),
        }
        self.model = self.design.step(&self.model, step).unwrap().0;
    }

    fn next_flight(&self, steps: &[Step]) -> ModelFlight {
        let before = self.model.clone();
        let mut flight = ModelFlight {
            steps: Vec::new(),
            after: before.clone(),
            before,
            edges: Vec::new(),
            asked: None,
            answer: None,
            died: None,
            is_power_cut: false,
        };
        for &step in steps {
            let world = flight.after.clone();
            let at = world.processes[0].at;
            match step {
                Step::Yield(_) => flight.asked = Some(world.processes[0].credential.token),
                Step::Receive(_, k) => flight.answer = Some((world.network[k].content, world.network[k].token)),
                Step::Crash(_) => flight.died = Some(at),
                Step::CutPower => (flight.died, flight.is_power_cut) = (Some(at), true),
                _ => {}
            }
            let (after, edge) = self.design.step(&world, step).unwrap();
            flight.steps.push(step);
            flight.edges.extend(edge);
            flight.after = after;
            if flight.after.processes[0].at == Phase::Idle {
                break;
            }
        }
        if flight.edges.last() == Some(&Edge::YieldTooLate) {
            flight.asked = None;
        }
        flight
    }

    fn run_flight(&mut self, flight: &ModelFlight) {
        self.let_time_pass(flight);
        self.prepare_flight(flight);
        let outcome = match flight.died {
            // A caller without `--force` must be in need of a refresh.
            None if flight.edges.last() == Some(&Edge::RefuseDead) && !flight.is_person() => {
                Some(self.real.refresh_if_due())
            }
            None => Some(self.real.refresh()),
            Some(at) => {
                let snapshot = self.real.crash_at(place_of(at));
                self.restart(snapshot, flight.is_power_cut);
                None
            }
        };
        if flight.edges.contains(&Edge::WriteIntent) {
            self.sent = Some(self.real.clock.now().wall);
        }
        if let Some(token) = flight.asked {
            self.requests += 1;
            let form = self.real.server.last_form();
            let presented = form.iter().find(|(name, _)| name == "refresh_token").map(|(_, value)| value.clone());
            assert_eq!(presented, Some(self.name(token)), "{}", self.describe(flight));
        }
        if let Some((MessageKind::Tokens, _)) = flight.answer {
            let generation = flight.after.newest().generation;
            self.obtained.insert(generation, self.real.clock.now().wall);
        }
        self.model = flight.after.clone();
        self.compare(flight, outcome.as_ref());
    }

    /// The model has no clock: what has to wait there, waits until it may, and no longer.
    fn let_time_pass(&self, flight: &ModelFlight) {
        // Then a person would not be held back.
        let is_held = flight.before.is_forced_lately && flight.before.needs_login;
        if let (false, false, Some(sent)) = (is_held, flight.before.is_unsettled(), self.sent) {
            self.wait_until(sent.plus(2 * EXCHANGE + CONNECT_SLACK + SETTLE + Duration::from_secs(1)));
        }
        let is_held = flight.edges.last() == Some(&Edge::PauseForOrphan);
        if flight.edges.contains(&Edge::SettleIntent) && self.design.server.has_grace() {
            // The fruit of a grace that recovery finds holds back what comes next: it cannot know what is settled.
            self.real.refresh_if_due();
        }
        let pause = self.real.journal().blocked_until(&self.real.clock.now());
        if let (Some(at), false) = (pause, is_held) {
            self.wait_until(at);
        }
    }

    fn wait_until(&self, at: Timestamp) {
        self.real.clock.advance(at.since(self.real.clock.now().wall));
    }

    /// What will happen in the flight.
    fn prepare_flight(&self, flight: &ModelFlight) {
        for step in &flight.steps {
            match step {
                Step::CloseGrace if flight.before.is_grace_open => {
                    let (clock, grace) = (Arc::clone(&self.real.clock), self.grace);
                    self.real.hook(HookPoint::BeforeExchange, move || {
                        clock.advance(grace);
                        Ok(())
                    });
                }
                Step::LockKeyring => {
                    let keyring = self.real.keyring.clone();
                    self.real.hook(HookPoint::AfterExchange, move || {
                        keyring.set_fault(Some(KeyringError::Locked));
                        Ok(())
                    });
                }
                _ => {}
            }
        }
        // What recovery publishes is not what the process dies of.
        if flight.edges.contains(&Edge::RollForward) {
            for place in [HookPoint::BeforePublish, HookPoint::AfterPublish] {
                self.real.hook(place, || Ok(()));
            }
        }
        if flight.asked.is_none() {
            return;
        }
        let fault = match flight.answer {
            Some((MessageKind::Tokens, token)) => Fault::Custom(tokens(&self.name(token), self.requests)),
            Some((MessageKind::Denial, _)) => Fault::Respond(400, "", r#"{"error":"invalid_grant"}"#),
            Some((MessageKind::Busy, _)) => Fault::Respond(429, "", ""),
            Some((MessageKind::Request, _)) | None => Fault::DropBefore,
        };
        self.real.server.script([fault]);
    }

    fn restart(&mut self, snapshot: CrashSnapshot, is_power_cut: bool) {
        self.real = self.real.restart_from(snapshot, is_power_cut.then(|| self.on_disk.clone()));
        if is_power_cut {
            self.real.clock.reboot();
        }
    }

    fn name(&self, token: u8) -> String {
        if token == 1 { self.first_token.clone() } else { format!("canary-rt-way-{token}") }
    }

    fn compare(&self, flight: &ModelFlight, outcome: Option<&Outcome>) {
        let (journal, model) = (self.real.journal(), &self.model);
        let real = (
            journal.generation.get(),
            journal.open_intent().map(|i| (i.send_count.min(3), i.is_last_chance_used)),
            journal.is_rejected(),
            self.real.published(),
            self.real.requests(),
        );
        let newest = model.newest().generation;
        let expected = (
            u64::from(newest) + self.offset,
            model
                .intent
                .filter(|i| i.generation >= newest && !model.needs_login)
                .map(|i| (u32::from(i.sends), i.is_last_chance_spent)),
            model.needs_login,
            Some(u64::from(model.keyring.generation) + self.offset),
            self.requests,
        );
        assert_eq!(real, expected, "generation, doubt, dead, published, requests: {}", self.describe(flight));
        let Some(outcome) = outcome else { return };
        let edge = *flight.edges.last().unwrap();
        let is_away = flight.before.is_keyring_locked && outcome.kind == OutcomeKind::StoreUnavailable;
        assert!(
            is_away || expected_outcomes(edge, model).contains(&outcome.kind),
            "{edge:?} {outcome:?}: {}",
            self.describe(flight)
        );
    }

    fn describe(&self, flight: &ModelFlight) -> String {
        let ModelFlight { steps, edges, .. } = flight;
        format!("{steps:?}, {edges:?}")
    }
}

impl Drop for ModelRun<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("at a server of the kind {:?}, on the way {:?}", self.design.server, self.path);
        }
    }
}

fn expected_outcomes(edge: Edge, after: &one_machine::ModelState) -> &'static [OutcomeKind] {
    match edge {
        Edge::RollForwardLater | Edge::KeyringAway => &[OutcomeKind::StoreUnavailable],
        Edge::RefuseDead | Edge::PresumeConsumed | Edge::ReceiveDenial => &[OutcomeKind::NeedsLogin],
        Edge::FollowSuccess => &[OutcomeKind::Refreshed, OutcomeKind::Fresh],
        Edge::WaitInDoubt => &[OutcomeKind::InDoubt],
        Edge::GiveUp if after.needs_login => &[OutcomeKind::NeedsLogin],
        Edge::GiveUp => &[OutcomeKind::InDoubt],
        Edge::PauseForOrphan | Edge::YieldTooLate | Edge::ReceiveBusy => &[OutcomeKind::Deferred],
        Edge::Commit => &[OutcomeKind::Refreshed],
        _ => &[],
    }
}

fn place_of(at: Phase) -> HookPoint {
    match at {
        Phase::Ready => HookPoint::BeforeExchange,
        Phase::Intended => HookPoint::AfterIntent,
        Phase::Sent | Phase::Received => HookPoint::AfterExchange,
        Phase::Sealed => HookPoint::BeforePublish,
        Phase::Published => HookPoint::AfterPublish,
        Phase::Idle | Phase::AtLock | Phase::Admitted => panic!("nothing dies at {at:?}"),
    }
}

/// Whether the grace must be the long one: it is open when the access token expires.
fn outlives_access(design: &Design, way: &[Step]) -> bool {
    let mut world = design.start();
    way.iter().any(|&step| {
        let is_open = step == Step::ExpireAccess && world.is_grace_open;
        world = design.step(&world, step).unwrap().0;
        is_open
    })
}

fn provider(server: Server, grace: Duration) -> String {
    let semantics = match server {
        Server::NoRotation => return "rotation = \"none\"\n".to_owned() + WAITS,
        Server::Lenient => return "rotation = \"lenient\"\n".to_owned() + WAITS,
        Server::Strict => return WAITS.to_owned(),
        Server::GraceSame => "same",
        Server::GraceMulti => "multi",
        Server::GraceLatest => "latest",
    };
    let seconds = grace.as_secs();
    format!("rotation = \"grace\"\nreuse_grace = \"{seconds}s\"\ngrace_semantics = \"{semantics}\"\n{WAITS}")
}

const WAITS: &str = "timeout = \"30s\"\nconnect_timeout = \"30s\"\nsettle = \"60s\"\n";

fn tokens(refresh: &str, number: usize) -> CustomResponse {
    let access = format!("canary-at-way-{number}");
    let life = LIVES[1].as_secs();
    let body = json!({"access_token": access, "token_type": "Bearer", "expires_in": life, "refresh_token": refresh});
    let body = body.to_string();
    let head = format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n", body.len());
    CustomResponse { commits: false, response: Arc::new(move |_| [head.as_bytes(), body.as_bytes()].concat()) }
}
