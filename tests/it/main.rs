//! All integration tests, in one binary: the built program against real servers, keyrings and service managers.

#![allow(
    clippy::disallowed_methods,
    clippy::print_stderr,
    clippy::print_stdout,
    clippy::unwrap_used,
    unreachable_pub,
    reason = "the bans are the program's; tests live in the real world"
)]

#[allow(dead_code, reason = "shared with the sweeps")]
mod support;

mod api;
mod claude_code;
mod client_auth;
mod codex;
mod contrib;
mod contrib_test;
mod copies;
mod credential_helpers;
mod daemon;
mod damaged_store;
mod discovery;
mod doctor;
mod end_to_end;
mod exec;
mod feed_faults;
mod feeds;
mod first_login;
mod followed_tools;
mod fuzz;
mod google_metadata;
mod handles;
mod helpers;
mod hooks;
mod http;
mod import;
mod interrupted_refresh;
mod keyring;
mod keyring_protocol;
mod library;
mod log;
mod login;
mod logout;
mod mail;
mod many_processes;
mod mirrors;
mod misuse;
mod oauth_clients;
mod oauth_endpoint;
mod opencode;
mod other_tools;
mod output;
mod people;
mod protocol;
mod providers;
mod quick;
mod recorded_responses;
mod refresh;
mod refusals;
mod rehearse;
mod rules;
mod screens;
mod sealing_key;
mod service;
mod store_room;
mod systemd;
mod tidy;
mod token;
mod token_formats;
mod waits;
