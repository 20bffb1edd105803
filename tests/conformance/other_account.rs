//! A response to a refresh that belongs to another account than the credential.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use keepalive::outcome::{Outcome, OutcomeKind};
use serde_json::{Value, json};

use super::support::auth_server::{CustomResponse, Fault};
use super::support::token_family::RotationMode;
use super::world::World;

fn jwt(claims: &Value) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}.c2ln", part(&json!({"alg": "none"})), part(claims))
}

fn answered(more: &Value) -> Fault {
    let mut body = json!({"access_token": "canary-at-x", "token_type": "Bearer", "expires_in": 600, "refresh_token": "canary-rt-x"});
    for (name, value) in more.as_object().unwrap() {
        body[name] = value.clone();
    }
    let body = body.to_string();
    let head = format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n", body.len());
    Fault::Custom(CustomResponse {
        commits: false,
        response: Arc::new(move |_| [head.as_bytes(), body.as_bytes()].concat()),
    })
}

/// A world with a credential that says this, after a refresh that was answered with that.
fn refreshed(own: &Value, more: &Value) -> (World, Outcome) {
    let world = World::new(None, RotationMode::Strict, "");
    let mut answer = world.server.mint();
    for (name, value) in own.as_object().unwrap() {
        answer[name] = value.clone();
    }
    world.import(world.credential(&answer), true).unwrap();
    world.server.script([answered(more)]);
    let outcome = world.refresh();
    (world, outcome)
}

#[test]
fn token_of_another_account_is_kept_and_not_handed_out() {
    let work = json!({"sub": "ada", "https://api.openai.com/auth": {"chatgpt_account_id": "acct-1"}});
    let home = json!({"sub": "ada", "https://api.openai.com/auth": {"chatgpt_account_id": "acct-2"}});
    let bob = json!({"sub": "bob", "email": "bob@acme.example"});
    for (name, own, other) in [("id_token", &work, &home), ("id_token", &work, &bob), ("access_token", &work, &home)] {
        let (world, outcome) = refreshed(&json!({name: jwt(own)}), &json!({name: jwt(other), "expires_in": "soon"}));
        assert!(outcome.warnings.iter().any(|w| w.starts_with("no credible expires_in")), "{name}: {outcome:?}");
        let kind = outcome.kind;
        let generation = world.journal().generation.get();
        assert_eq!((kind, generation, world.requests()), (OutcomeKind::ConfigError, 3, 1), "{name}");
        for _ in 0..2 {
            assert_eq!((world.refresh().kind, world.refresh_if_due().kind), (kind, kind));
            let result = world.process().access_token(world.profile(), Duration::ZERO, Duration::from_secs(9), &|| {});
            let error = result.outcome.error.unwrap();
            assert_eq!((result.token.is_none(), error.kind.word()), (true, "conflict"));
        }
        assert_eq!(world.requests(), 1, "nothing is sent in a loop");
        world.sign_in();
        let result = world.process().access_token(world.profile(), Duration::ZERO, Duration::from_secs(9), &|| {});
        assert!(result.token.is_some(), "a person has agreed");
        assert_eq!(world.refresh().kind, OutcomeKind::Refreshed);
    }
}

#[test]
fn token_of_the_same_account_is_handed_out() {
    let ada = |email: &str| jwt(&json!({"sub": "ada", "email": email}));
    for (own, more) in [
        (json!({"id_token": ada("ada@acme.example")}), json!({"id_token": ada("lovelace@acme.example")})),
        (json!({"id_token": ada("ada@acme.example")}), json!({})),
        (json!({}), json!({"id_token": ada("ada@acme.example")})),
        (json!({"id_token": ada("a@b.example")}), json!({"access_token": jwt(&json!({"sub": "0815"}))})),
    ] {
        assert_eq!(refreshed(&own, &more).1.kind, OutcomeKind::Refreshed, "{own} {more}");
    }
}
