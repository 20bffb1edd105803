//! An agent of eight tasks that share one login. None of them ever sees a refresh token.
//!
//! ```text
//! cargo run --example agent -- PROFILE [URL]
//! ```
//!
//! Each line on standard input is a turn: every task takes the access token of the profile, posts to the API at URL with it
//! (plain HTTP; without a URL nothing is called), and the agent says what was needed. Start several agents at once, with and
//! without `keepalive daemon`, and let the token expire: there is one refresh for all of them.

#![allow(
    clippy::disallowed_methods,
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "the bans are the program's, and this one prints"
)]

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use keepalive::{AccessToken, Demand, Generation, Keeper, Token, TokenError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

const TASKS: usize = 8;
/// The longest call takes less. Where tokens live shorter, they are refreshed in the middle of their life.
const LONGEST_CALL: Duration = Duration::from_secs(600);

/// How the call of one task went.
struct Call {
    generation: Generation,
    /// The API took the token only after a newer one was asked for.
    was_rejected: bool,
    /// `None`: there is no API to call, or it did not respond.
    status: Option<u16>,
}

#[tokio::main]
async fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let Some(profile) = arguments.next() else {
        eprintln!("usage: agent PROFILE [URL], with a line on standard input for each turn");
        return 2.into();
    };
    let url = arguments.next();
    let keeper = match Keeper::open() {
        Ok(keeper) => keeper,
        Err(error) => {
            eprintln!("agent: {error}");
            return error.exit_status().into();
        }
    };
    let watch = tokio::spawn(tell_of_new_tokens(keeper.clone(), profile.clone()));
    let mut exit_status = 0;
    // Standard input blocks this thread; the tasks have those of the runtime.
    for (turn, _line) in (1..).zip(std::io::stdin().lines()) {
        match take_turn(&keeper, &profile, url.as_deref()).await {
            Ok(summary) => println!("turn {turn}: {summary}"),
            Err(error) => {
                let then = if error.is_transient() { "the next turn may have one" } else { "a person must act" };
                eprintln!("turn {turn}: no token: {error} ({then})");
                exit_status = error.exit_status();
            }
        }
    }
    watch.abort();
    // Never `std::process::exit`: it would cut off a refresh whose token was sent.
    keeper.shutdown().await;
    exit_status.into()
}

/// Has all tasks make a call, and waits for them.
async fn take_turn(keeper: &Keeper, profile: &str, url: Option<&str>) -> Result<String, TokenError> {
    let mut tasks = JoinSet::new();
    for _ in 0..TASKS {
        tasks.spawn(call(keeper.clone(), profile.to_owned(), url.map(str::to_owned)));
    }
    let mut calls = Vec::new();
    for called in tasks.join_all().await {
        calls.push(called?);
    }
    let generations: BTreeSet<String> = calls.iter().map(|call| call.generation.to_string()).collect();
    let accepted = calls.iter().filter(|call| call.status == Some(200)).count();
    let rejected = calls.iter().filter(|call| call.was_rejected).count();
    Ok(format!(
        "{TASKS} tasks used generation {}; the API took {accepted} calls, {rejected} of them with a second token",
        generations.into_iter().collect::<Vec<_>>().join(" and "),
    ))
}

/// One call of one task: what every consumer of a token does.
async fn call(keeper: Keeper, profile: String, url: Option<String>) -> Result<Call, TokenError> {
    let token = keeper.token(&profile, Demand::ValidFor(LONGEST_CALL)).await?;
    for warning in token.warnings() {
        eprintln!("agent: {warning}");
    }
    let Some(url) = url else { return Ok(Call { generation: token.generation, was_rejected: false, status: None }) };
    let status = post(&url, &token.access_token).await;
    if status != Some(401) {
        return Ok(Call { generation: token.generation, was_rejected: false, status });
    }
    // The token was revoked, or replaced a moment ago. keepalive bounds what this may cost.
    let token = keeper.token(&profile, Demand::Rejected(token.generation)).await?;
    let status = post(&url, &token.access_token).await;
    Ok(Call { generation: token.generation, was_rejected: true, status })
}

/// Says when this login has another token, no matter which process refreshed it.
async fn tell_of_new_tokens(keeper: Keeper, profile: String) {
    let Ok(mut token) = keeper.token(&profile, Demand::ValidFor(Duration::ZERO)).await else { return };
    eprintln!("agent: {}", described(&profile, &token));
    while let Ok(newer) = keeper.changed(&profile, token.generation).await {
        eprintln!("agent: {}", described(&profile, &newer));
        token = newer;
    }
}

fn described(profile: &str, token: &Token) -> String {
    let left = token.expires_at().and_then(|at| at.duration_since(SystemTime::now()).ok());
    let left = left.map_or("an unknown time".to_owned(), |left| format!("{} s", left.as_secs()));
    format!("{profile} has generation {}, valid for {left}", token.generation)
}

/// Enough of HTTP for an API on loopback; an agent has a library for it. Returns the status.
async fn post(url: &str, token: &AccessToken) -> Option<u16> {
    let (host, path) = url.strip_prefix("http://")?.split_once('/')?;
    let mut stream = TcpStream::connect(host).await.ok()?;
    let token = token.expose();
    let request = format!(
        "POST /{path} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {token}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut response = String::new();
    stream.read_to_string(&mut response).await.ok()?;
    response.split(' ').nth(1)?.parse().ok()
}
