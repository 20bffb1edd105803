//! The whole job against the real authorization server, with its credential in a real keyring.

use super::support::oidc_provider::OidcProvider;
use super::support::sandbox::Sandbox;
use super::support::session_bus::{KeyringState, SessionBus};
use super::support::simultaneous::run_at_once;

#[ignore = "needs oidc-provider; contrib/test runs it"]
#[test]
fn oidc_provider_revokes_the_family_on_replay() {
    let server = OidcProvider::start(60, 0);
    let sandbox = Sandbox::new();
    sandbox.file_store(&server.provider());
    let first = server.mint();
    sandbox.keepalive_with_input(&["import", "a", "--provider", "oidc"], &first.to_string()).exits(0);
    sandbox.keepalive(&["refresh", "-p", "a", "--force"]).exits(0);
    assert_eq!(server.counts().families_revoked, 0);
    // Another store, which cannot know that the token is spent: what keepalive exists to prevent.
    let other = Sandbox::new();
    other.file_store(&server.provider());
    other.keepalive_with_input(&["import", "b", "--provider", "oidc"], &first.to_string()).exits(0);
    other.keepalive(&["refresh", "-p", "b", "--force"]).exits(77);
    let counts = server.counts();
    assert_eq!((counts.presented_again, counts.families_revoked > 0), (1, true));
    sandbox.keepalive(&["refresh", "-p", "a", "--force"]).exits(77);
}

#[ignore = "needs gnome-keyring; contrib/test runs it"]
#[test]
fn daemon_and_callers_replay_nothing_at_oidc_provider() {
    let server = OidcProvider::start(2, 0);
    let mut sandbox = Sandbox::new();
    sandbox.config(&format!("{}[profile.demo]\nprovider = \"oidc\"\n", server.provider()));
    let _bus = SessionBus::start(&mut sandbox, KeyringState::Unlocked);
    sandbox.import("demo", &server.mint()).exits(0);
    let daemon = sandbox.daemon();
    let force = vec!["refresh", "-p", "demo", "--force"];
    let token = vec!["token", "demo", "--min-valid", "100ms"];
    let due = vec!["refresh"];
    let herd = [vec![force; 2], vec![token.clone(); 4], vec![due; 2]].concat();
    let is_long = std::env::var_os("KEEPALIVE_LONG").is_some();
    // The short form rushes; in the long one the daemon has two rotations to itself between herds.
    let (rounds, alone) = if is_long { (1000, 2) } else { (12, 0) };
    let (mut next, mut served) = (0, 0);
    super::support::eventually_within(rounds, "the rotations", || {
        let made = server.counts().refresh_ok;
        if made < next {
            return None;
        }
        for run in run_at_once(&sandbox, &herd) {
            run.exits(0);
            served += 1;
        }
        next = server.counts().refresh_ok + alone;
        (made >= rounds).then_some(())
    });
    let run = sandbox.keepalive(&token).exits(0);
    assert!(server.accepts(run.stdout.trim()) || server.accepts(sandbox.keepalive(&token).exits(0).stdout.trim()));
    daemon.terminate();
    let by_daemon = daemon.stderr_so_far().matches("refreshed").count();
    daemon.finish().exits(0);
    let counts = server.counts();
    println!("{} rotations, {by_daemon} by the daemon; {served} callers served: {counts:?}", counts.refresh_ok);
    assert!(by_daemon * 3 >= counts.refresh_ok || !is_long);
    assert_eq!((counts.presented_again, counts.families_revoked), (0, 0));
    assert_eq!(counts.refresh_ok, counts.refresh_requests);
}
