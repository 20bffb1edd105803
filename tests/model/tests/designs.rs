//! The design that is built holds at every kind of server; each naive one is caught. `KEEPALIVE_LONG=1` walks through two
//! rounds per process instead of one, and three processes.

use keepalive_model::followed_tool::FollowDesign;
use keepalive_model::lock_order::{Import, LockDesign};
use keepalive_model::one_machine::{Budget, Design, Sealing, Server};
use keepalive_model::several_machines;
use keepalive_model::{Report, explore, explore_until, shortest_violation};

#[expect(clippy::disallowed_methods, reason = "this program is not keepalive")]
fn is_long() -> bool {
    std::env::var_os("KEEPALIVE_LONG").is_some()
}

fn holds(name: &str, design: Design, reached: &[&str]) -> Report {
    let report = explore(design);
    println!("{name:<44} {:>10} states, depth {}", report.states, report.depth);
    assert_eq!(report.violated, [""; 0], "{name}: {:#?}", shortest_violation(design));
    for situation in reached {
        assert!(report.reached.iter().any(|r| r.starts_with(situation)), "{name} never reaches {situation}");
    }
    report
}

/// A naive design must break just these, or the model has lost its teeth.
fn caught(name: &str, design: Design, expected: &[&str]) {
    let report = explore_until(design, expected);
    let violated: Vec<&str> = report.violated.iter().map(|name| &name[..2]).collect();
    println!("{name:<44} {:>10} states, violates {}", report.states, violated.join(" "));
    for property in expected {
        assert!(violated.contains(property), "{name}: {property} should be violated: {violated:?}");
    }
}

fn strict() -> Design {
    Design::implemented(Server::Strict)
}

/// No lock, no journal, no sealed copy: a first attempt at a client.
fn naive() -> Design {
    Design { reread: false, intent: false, sealing: Sealing::Never, preflight: false, share: false, ..strict() }
}

/// Rule 40.
#[test]
fn built_design_holds_at_every_server() {
    for server in Server::ALL {
        let grace: &[&str] = if server.has_grace() { &["S1", "S2", "S3"] } else { &["S1", "S2"] };
        holds(&format!("built, {server:?}"), Design::implemented(server), grace);
    }
}

/// A server that denies by a policy, and a person who insists: of two processes, or again and again in one.
fn with_person(server: Server) -> [Design; 2] {
    let budget = Budget { denials: 2, insists: 2, losses: 1, crashes: 1, expiries: 1, ..Budget::NONE };
    let built = Design { budget, ..Design::implemented(server) };
    [built, Design { processes: 1, rounds: 4, ..built }]
}

/// Rule 22.
#[test]
fn person_may_insist_on_a_rejected_token_at_every_server() {
    for server in Server::ALL {
        for design in with_person(server) {
            holds(&format!("built, a person insists, {server:?}"), design, &["S1"]);
        }
    }
}

/// Rule 22.
#[test]
fn force_of_any_token_is_caught() {
    let [_, built] = with_person(Server::Strict);
    caught("--force sends anything", Design { force_any: true, ..built }, &["P5", "P6"]);
    caught("--force without a pause", Design { force_waits: false, ..built }, &["PA"]);
}

/// Rule 18.
#[test]
fn last_chance_recovers_a_request_the_server_never_saw() {
    let report = holds("built, Strict", strict(), &["S4"]);
    assert!(report.states > 10_000);
}

/// Rule 40.
#[test]
fn built_design_holds_with_more_rounds_and_processes() {
    if !is_long() {
        // Some seconds instead of minutes: without refusals and keyring locks.
        let budget = Budget { refusals: 0, locks: 0, crashes: 1, power_cuts: 0, ..Budget::ONE_EACH };
        holds("built, Strict, 2 rounds, fewer faults", Design { rounds: 2, budget, ..strict() }, &["S1"]);
        return;
    }
    for server in Server::ALL {
        let budget =
            if server.has_grace() { Budget { refusals: 0, locks: 0, ..Budget::ONE_EACH } } else { Budget::ONE_EACH };
        holds(
            &format!("built, {server:?}, 2 rounds"),
            Design { rounds: 2, budget, ..Design::implemented(server) },
            &["S1"],
        );
    }
    let budget = Budget { crashes: 2, ..Budget::ONE_EACH };
    holds("built, Strict, 3 processes, 2 crashes", Design { processes: 3, budget, ..strict() }, &["S1"]);
}

/// Rule 40.
#[test]
fn design_with_an_in_process_map_only_is_caught() {
    caught("in-process map only", Design { lock: false, ..naive() }, &["P1", "P2", "P3", "P5"]);
}

/// Rule 40.
#[test]
fn design_with_a_lock_but_no_reread_is_caught() {
    caught("lock, no re-read", naive(), &["P2", "P3", "P5"]);
}

/// Rule 40.
#[test]
fn design_without_an_intent_is_caught() {
    let design = Design { intent: false, sealing: Sealing::Never, preflight: false, ..strict() };
    caught("lock and re-read, no intent", Design { rounds: 2, ..design }, &["P5", "P9"]);
}

/// Rule 40.
#[test]
fn design_without_a_sealed_credential_is_caught() {
    let design = Design { sealing: Sealing::Never, preflight: false, ..strict() };
    caught("intent, no sealed copy", Design { rounds: 2, ..design }, &["P3"]);
}

/// Rule 10.
#[test]
fn sealed_credential_deleted_at_commit_is_caught() {
    let design = Design { sealing: Sealing::UntilCommit, rounds: 2, ..strict() };
    caught("sealed copy deleted at commit", design, &["P2", "P3"]);
}

/// Rule 17.
#[test]
fn design_with_a_blind_retry_is_caught() {
    caught("blind retry", Design { blind_retry: true, ..strict() }, &["P5"]);
}

/// Rule 20.
#[test]
fn last_chance_without_a_quarantine_is_caught() {
    caught("no quarantine before the last chance", Design { quarantine: false, rounds: 2, ..strict() }, &["P5"]);
}

/// Rule 26.
#[test]
fn design_without_shared_outcomes_is_caught() {
    caught("no outcome sharing", Design { share: false, ..strict() }, &["P7"]);
}

/// Rule 19.
#[test]
fn grace_retry_without_a_send_gate_is_caught() {
    caught("grace, no send gate", Design { gate: false, ..Design::implemented(Server::GraceMulti) }, &["P5"]);
}

/// Rule 20.
#[test]
fn latest_grace_retry_without_a_wait_is_caught() {
    let design = Design { grace_waits: false, ..Design::implemented(Server::GraceLatest) };
    caught("grace `latest`, retry without waiting", design, &["P5"]);
}

#[test]
fn unbounded_network_leaves_no_safe_retry() {
    caught(
        "grace, unbounded network",
        Design { bounded_network: false, ..Design::implemented(Server::GraceMulti) },
        &["P5"],
    );
}

/// Rule 36.
#[test]
fn lease_alone_permits_no_send_among_hosts() {
    let proposed = several_machines::MultiHostDesign::proposed();
    for (ground, expected) in [
        (several_machines::SendPermission::Lease, "L1"),
        (several_machines::SendPermission::LeaseLeft, "L1"),
        (several_machines::SendPermission::Permit, "L2"),
    ] {
        let tries = if ground == several_machines::SendPermission::Permit { 2 } else { 1 };
        let report = explore_until(
            several_machines::MultiHostDesign { send_permission: ground, tries, ..proposed },
            &[expected],
        );
        println!("hosts, {ground:?}: {} states, violates {:?}", report.states, report.violated);
        assert!(report.violated.iter().any(|name| name.starts_with(expected)), "{ground:?}: {:?}", report.violated);
    }
    let short = explore_until(several_machines::MultiHostDesign { takeover: 0, ..proposed }, &["L2"]);
    assert!(!short.violated.is_empty(), "a takeover without a wait is caught");
    let report = explore(if is_long() { proposed } else { several_machines::MultiHostDesign { tries: 1, ..proposed } });
    println!("hosts, permit with fence and wait: {} states", report.states);
    assert_eq!(report.violated, [""; 0]);
    assert_eq!(report.reached.len(), 1);
}

/// Rule 33.
#[test]
fn stopped_process_keeps_only_its_own_profile_waiting() {
    let report = explore(LockDesign::IMPLEMENTED);
    println!("locks, built: {} states", report.states);
    assert_eq!((report.violated, report.reached.len()), (vec![], 2));
}

/// Rule 33.
#[test]
fn shared_token_locks_and_waits_with_the_store_are_caught() {
    let shared = LockDesign { is_lock_per_token: false, ..LockDesign::IMPLEMENTED };
    let waiting = LockDesign { import: Import::WaitsWithStore, ..LockDesign::IMPLEMENTED };
    for design in [shared, waiting] {
        assert_eq!(explore(design).violated.len(), 1, "{design:?}");
    }
}

/// Rule 39.
#[test]
fn followed_tool_and_keepalive_never_race() {
    let report = explore(FollowDesign::IMPLEMENTED);
    println!("followed tool, built: {} states", report.states);
    assert_eq!((report.violated, report.reached.len()), (vec![], 2));
}

/// Rule 39.
#[test]
fn sending_what_the_tool_holds_writes_or_moved_is_caught() {
    let sending = FollowDesign { tool_goes_first: false, ..FollowDesign::IMPLEMENTED };
    let trusting = FollowDesign { torn_is_unknown: false, ..FollowDesign::IMPLEMENTED };
    let blind = FollowDesign { moved_is_unknown: false, ..FollowDesign::IMPLEMENTED };
    for design in [sending, trusting, blind] {
        assert_eq!(explore(design).violated.len(), 1, "{design:?}");
    }
}
