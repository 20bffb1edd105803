//! Servers that tests stand on: one that dies, or that is missing, is named in the failure with its own words.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::Command;

use super::support::Helper;
use super::support::oidc_provider::OidcProvider;

#[track_caller]
fn assert_says(said: &str, wanted: &[&str]) {
    for words in wanted {
        assert!(said.contains(words), "no {words:?} in {said}");
    }
}

/// The message of the panic that a helper's start ends in.
fn message(start: impl FnOnce()) -> String {
    let panic = catch_unwind(AssertUnwindSafe(start)).expect_err("it does not come up");
    panic.downcast_ref::<String>().unwrap().clone()
}

#[test]
fn server_that_dies_shows_its_words_in_the_failure() {
    let dies = "echo 'TypeError: URL.parse is not a function' >&2; exit 3";
    let said = message(|| drop(OidcProvider::run(Command::new("sh").args(["-c", dies]), 60, 0)));
    assert_says(&said, &["says where it listens", "exit status: 3", "TypeError: URL.parse is not a function"]);
}

#[test]
fn server_that_is_killed_shows_its_words_in_the_failure() {
    let mut command = Command::new("sh");
    let mut helper = Helper::start("server", command.args(["-c", "echo cannot bind; kill -9 $$"]));
    let said = message(|| helper.wait_until("it listens", |_| None));
    assert_says(&said, &["waited in vain: it listens", "server ended with signal: 9", "cannot bind"]);
}

#[test]
fn program_that_is_missing_is_named_with_the_remedy() {
    let said = message(|| drop(Helper::start("dbus-daemon", &mut Command::new("no-such-program"))));
    assert_says(&said, &["dbus-daemon is needed", "contrib/test installs it"]);
}
