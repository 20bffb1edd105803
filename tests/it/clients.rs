//! How the client proves itself: every kind of client signs in and is kept alive at a certified server, and a key or secret
//! that cannot be used is told before anything happens.

use std::path::Path;
use std::process::Command;

use keepalive::provider::assertion::{BadKey, ClientKey};
use serde_json::{Value, json};

use super::support::authserver::{AuthServer, Point};
use super::support::bus::{Bus, Keyring};
use super::support::family::Mode;
use super::support::oidc::{BASIC, Client, ES256, ODD, OidcProvider, POST, PUBLIC, RS256};
use super::support::person::{Person, give_browser, url_given};
use super::support::sandbox::Sandbox;

const SCOPES: &str = "scopes = [\"openid\", \"offline_access\", \"api\"]\n";

/// 100 in the long form.
fn rotations() -> usize {
    if std::env::var_os("KEEPALIVE_LONG").is_some() { 100 } else { 10 }
}

/// A person signs in, and the credential is refreshed many times: each token is presented once, and the family lives.
#[track_caller]
fn check(client: &Client) {
    let server = OidcProvider::start(600, 0);
    let mut sandbox = Sandbox::new();
    let provider = server.provider_for(client, &sandbox.path("home"));
    sandbox.file_store(&format!("{provider}{SCOPES}[profile.demo]\nprovider = \"oidc\"\n"));
    let seen = give_browser(&mut sandbox);
    let login = sandbox.spawn(&["login", "demo"]);
    let page = Person::new("ada").sign_in(&url_given(&seen));
    assert_eq!(page.status, 200, "{}", page.text);
    login.finish().exits(0).says("demo: signed in as ada");
    let secret = std::fs::read_to_string(sandbox.path("home/client")).unwrap_or_default();
    // Of a key, any line of it.
    let secrets: Vec<&str> =
        secret.lines().filter(|line| !line.starts_with("-----")).chain(["client_assertion"]).collect();
    let wanted = rotations();
    for _ in 0..wanted {
        let run = sandbox.keepalive(&["-vv", "refresh", "-p", "demo", "--force"]).exits(0);
        let is_told = |secret: &&str| run.stderr.contains(*secret) || run.stdout.contains(*secret);
        assert_eq!(secrets.iter().find(|secret| is_told(secret)), None);
    }
    let token = sandbox.keepalive(&["token", "demo"]).exits(0).stdout;
    assert!(server.accepts(token.trim()), "the family is alive");
    assert_eq!(sandbox.status()["generation"], wanted + 1);
    let counts = server.counts();
    println!("{}: {counts:?}", client.id);
    assert_eq!((counts.refresh_requests, counts.refresh_ok), (wanted, wanted));
    assert_eq!((counts.presented_again, counts.families_revoked), (0, 0));
}

#[ignore = "needs oidc-provider; contrib/test runs it"]
#[test]
fn a_public_client_is_kept_alive() {
    check(&PUBLIC);
}

#[ignore = "needs oidc-provider; contrib/test runs it"]
#[test]
fn a_client_with_client_secret_basic_is_kept_alive() {
    check(&BASIC);
}

#[ignore = "needs oidc-provider; contrib/test runs it"]
#[test]
fn a_client_with_client_secret_post_is_kept_alive() {
    check(&POST);
}

#[ignore = "needs oidc-provider; contrib/test runs it"]
#[test]
fn a_client_whose_id_and_secret_must_be_encoded_is_kept_alive() {
    check(&ODD);
}

#[ignore = "needs oidc-provider; contrib/test runs it"]
#[test]
fn a_client_that_signs_with_es256_is_kept_alive() {
    check(&ES256);
}

#[ignore = "needs oidc-provider; contrib/test runs it"]
#[test]
fn a_client_that_signs_with_rs256_is_kept_alive() {
    check(&RS256);
}

#[ignore = "needs oidc-provider; contrib/test runs it"]
#[test]
fn a_client_that_signs_can_sign_in_on_another_device() {
    let server = OidcProvider::start(600, 0);
    let sandbox = Sandbox::new();
    let provider = server.provider_for(&ES256, &sandbox.path("home"));
    sandbox.file_store(&format!("{provider}{SCOPES}[profile.demo]\nprovider = \"oidc\"\n"));
    let login = sandbox.spawn(&["login", "demo", "--device"]);
    let beginning = format!("{}/device?user_code=", server.issuer());
    login.wait_for_line(&beginning);
    let said = login.stderr_so_far();
    let complete = said.split_whitespace().find(|word| word.starts_with(&beginning)).unwrap();
    Person::new("grace").sign_in(complete);
    // Asking for the code, and each question whether the person is done, has an assertion of its own.
    login.finish().exits(0).says("demo: signed in as grace");
}

#[ignore = "needs oidc-provider; contrib/test runs it"]
#[test]
fn a_secret_or_key_that_the_server_does_not_accept_is_a_matter_of_configuration() {
    let server = OidcProvider::start(600, 0);
    for (client, wrong) in [(&BASIC, "another"), (&POST, "another"), (&ES256, "")] {
        let mut sandbox = Sandbox::new();
        let provider = server.provider_for(client, &sandbox.path("home"));
        sandbox.file_store(&format!("{provider}{SCOPES}[profile.demo]\nprovider = \"oidc\"\n"));
        let keys =
            if wrong.is_empty() { ", client_key, client_key_id and assertion_audience" } else { " and client_secret" };
        match wrong {
            // The key of another client.
            "" => drop(server.provider_for(&RS256, &sandbox.path("home"))),
            text => std::fs::write(sandbox.path("home/client"), text).unwrap(),
        }
        let seen = give_browser(&mut sandbox);
        let login = sandbox.spawn(&["login", "demo"]);
        Person::new("ada").sign_in(&url_given(&seen));
        login
            .finish()
            .exits(78)
            .says("oidc says invalid_client")
            .says(&format!("client_auth{keys} in [provider.oidc]"));
    }
}

/// The claims of an assertion that was sent.
fn claims(form: &[(String, String)]) -> Value {
    use base64::Engine as _;
    let member = |name: &str| form.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
    let kind = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
    assert_eq!(member("client_assertion_type"), Some(kind), "{form:?}");
    let part = member("client_assertion").unwrap().split('.').nth(1).unwrap();
    serde_json::from_slice(&base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
}

/// A sandbox whose client signs with a fresh key in the file `client`, signed in.
fn signing(server: &AuthServer, more: &str) -> Sandbox {
    let sandbox = Sandbox::new();
    std::fs::write(sandbox.path("home/client"), fresh_key()).unwrap();
    let keys = format!(
        "client_auth = \"private_key_jwt\"\nclient_key = {{ file = \"{}\" }}\n{more}",
        sandbox.path("home/client").display()
    );
    sandbox.file_store(&format!("{}[profile.demo]\nprovider = \"acme\"\n", server.provider(&keys)));
    sandbox.import("demo", &server.mint()).exits(0);
    sandbox
}

fn fresh_key() -> String {
    use base64::Engine as _;
    use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
    let random = ring::rand::SystemRandom::new();
    let der = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    format!("-----BEGIN PRIVATE KEY-----\n{text}\n-----END PRIVATE KEY-----\n")
}

#[test]
fn every_request_has_an_assertion_of_its_own() {
    let server = AuthServer::start(Mode::Strict);
    let sandbox = signing(&server, "");
    let mut seen = Vec::new();
    for _ in 0..3 {
        sandbox.refresh(&["--force"]).exits(0);
        let claims = claims(&server.last_form());
        assert_eq!((&claims["iss"], &claims["sub"]), (&json!("public"), &json!("public")));
        // No issuer is known here.
        assert_eq!(claims["aud"], format!("{}/token", server.url()));
        assert_eq!(claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap(), 75);
        seen.push(claims["jti"].as_str().unwrap().to_owned());
    }
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), 3);
}

#[test]
fn the_audience_is_the_issuer_or_as_the_user_says() {
    let server = AuthServer::start(Mode::Strict);
    let issuer = "issuer = \"https://login.acme.example\"\n";
    let token_endpoint = format!("{}/token", server.url());
    for (more, audience) in [
        (issuer.to_owned(), "https://login.acme.example"),
        (format!("{issuer}assertion_audience = \"token_endpoint\"\n"), token_endpoint.as_str()),
        (format!("{issuer}assertion_audience = \"urn:acme\"\n"), "urn:acme"),
    ] {
        let sandbox = signing(&server, &more);
        sandbox.refresh(&["--force"]).exits(0);
        assert_eq!(claims(&server.last_form())["aud"], audience);
    }
}

/// Runs openssl, and gives what it writes.
fn openssl(directory: &Path, arguments: &str) -> String {
    let out = Command::new("openssl").args(arguments.split(' ')).current_dir(directory).output();
    let out = out.expect("openssl is needed: contrib/test installs it");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap()
}

#[ignore = "needs openssl; contrib/test runs it"]
#[test]
fn keys_as_openssl_makes_them_serve_or_are_told_what_would() {
    let dir = tempfile::tempdir().unwrap();
    let read = |pem: &str| ClientKey::from_pem(pem, None).map(|key| format!("{key:?}"));
    for (arguments, expected) in [
        ("genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256", Ok("ClientKey(Es256)")),
        ("genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048", Ok("ClientKey(Rs256)")),
        ("genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:1024", Err(BadKey::TooSmall)),
        ("genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-384", Err(BadKey::Kind)),
        ("genpkey -algorithm ED25519", Err(BadKey::Kind)),
        ("ecparam -name prime256v1 -genkey -noout", Err(BadKey::NotPkcs8("SEC 1"))),
        ("genrsa -traditional 2048", Ok("ClientKey(Rs256)")),
        ("genrsa -traditional 1024", Err(BadKey::TooSmall)),
        ("genpkey -algorithm RSA -aes256 -pass pass:hunter2", Err(BadKey::Encrypted)),
    ] {
        let pem = openssl(dir.path(), arguments);
        assert_eq!(read(&pem), expected.map(str::to_owned), "{arguments}");
    }
    // The remedy is one.
    std::fs::write(dir.path().join("KEY"), openssl(dir.path(), "ecparam -name prime256v1 -genkey -noout")).unwrap();
    openssl(dir.path(), "pkcs8 -topk8 -nocrypt -in KEY -out NEW");
    let pem = std::fs::read_to_string(dir.path().join("NEW")).unwrap();
    assert_eq!(read(&pem), Ok("ClientKey(Es256)".to_owned()));
}

#[test]
fn a_key_that_cannot_sign_is_told_with_its_remedy_before_any_lock() {
    let server = AuthServer::start(Mode::Strict);
    let sandbox = signing(&server, "");
    let key = sandbox.path("home/client");
    let gate = server.hold(Point::BeforeProcessing);
    let flying = sandbox.spawn(&["refresh", "-p", "demo", "--force"]);
    gate.wait_reached();
    // Whoever waited for the lock would wait for this flight.
    for (text, words, hint) in [
        ("hunter2", "it is no private key in PEM", "BEGIN PRIVATE KEY"),
        (
            "-----BEGIN EC PRIVATE KEY-----\nhunter2\n-----END EC PRIVATE KEY-----\n",
            "it is SEC 1",
            "openssl pkcs8 -topk8",
        ),
        ("-----BEGIN ENCRYPTED PRIVATE KEY-----\nhunter2\n", "it is encrypted", "unencrypted"),
    ] {
        std::fs::write(&key, text).unwrap();
        let run = sandbox.keepalive(&["-vv", "refresh", "-p", "demo", "--force"]).exits(78);
        let run = run.says("client_key in [provider.acme] holds nothing to sign with").says(words).says(hint);
        assert!(!run.stderr.contains("hunter2"), "{run:#?}");
    }
    std::fs::remove_file(&key).unwrap();
    let run = sandbox.refresh(&["--force"]).exits(78);
    assert_eq!(run.result()["error"]["kind"], "client_key", "{run:#?}");
    drop(gate);
    flying.finish().exits(0);
    assert_eq!(server.counts().refresh_requests, 1);
    std::fs::write(&key, fresh_key()).unwrap();
    sandbox.refresh(&["--force"]).exits(0);
}

const SECRET: &str = "a secret+of/the%client";

/// A refresh with the secret from `source`.
fn with_secret(server: &AuthServer, sandbox: &Sandbox, source: &str) {
    let keys = format!("client_auth = \"client_secret_basic\"\nclient_secret = {{ {source} }}\n");
    let text = format!("{}[profile.demo]\nprovider = \"acme\"\n", server.provider(&keys));
    match sandbox.path("home/key").exists() {
        true => sandbox.file_store(&text),
        false => sandbox.config(&text),
    }
    sandbox.import("demo", &server.mint()).exits(0);
    sandbox.refresh(&["--force"]).exits(0);
}

#[test]
fn a_secret_is_read_from_wherever_it_is_kept() {
    let server = AuthServer::start(Mode::Strict);
    server.require_secret("a+secret%2Bof%2Fthe%25client");
    let sources = ["env = \"ACME_SECRET\"", "file = \"PLACE\"", "command = [\"cat\", \"PLACE\"]"];
    for source in sources {
        let mut sandbox = Sandbox::new();
        sandbox.file_store("");
        sandbox.set_env("ACME_SECRET", SECRET);
        let place = sandbox.path("home/secret");
        std::fs::write(&place, format!("{SECRET}\n")).unwrap();
        with_secret(&server, &sandbox, &source.replace("PLACE", &place.display().to_string()));
    }
    assert_eq!(server.counts().refresh_ok, sources.len());
}

#[ignore = "needs gnome-keyring; contrib/test runs it"]
#[test]
fn secrets_and_keys_are_read_from_the_keyring() {
    let server = AuthServer::start(Mode::Strict);
    server.require_secret("a+secret%2Bof%2Fthe%25client");
    let mut sandbox = Sandbox::new();
    let bus = Bus::start(&mut sandbox, Keyring::Unlocked);
    let item = ["store", "--label=acme", "service", "keepalive-client", "username", "acme"];
    let asking = "client_auth = \"client_secret_basic\"\nclient_secret = { keyring = \"acme\" }\n";
    sandbox.config(&format!("{}[profile.demo]\nprovider = \"acme\"\n", server.provider(asking)));
    sandbox.keepalive(&["doctor"]).exits(78).says(&format!("secret-tool {}", item.join(" ")));
    bus.secret_tool(&item, SECRET).exits(0);
    with_secret(&server, &sandbox, "keyring = \"acme\"");
    let server = AuthServer::start(Mode::Strict);
    let mut sandbox = Sandbox::new();
    let bus = Bus::start(&mut sandbox, Keyring::Unlocked);
    bus.secret_tool(&item, &fresh_key()).exits(0);
    let keys = "client_auth = \"private_key_jwt\"\nclient_key = { keyring = \"acme\" }\n";
    sandbox.config(&format!("{}[profile.demo]\nprovider = \"acme\"\n", server.provider(keys)));
    sandbox.import("demo", &server.mint()).exits(0);
    sandbox.refresh(&["--force"]).exits(0);
    assert_eq!(claims(&server.last_form())["sub"], "public");
}
