//! How the client proves itself: every kind of client signs in and is kept alive at a certified server, and a key or secret
//! that cannot be used is told before anything happens.

use std::path::Path;
use std::process::Command;

use keepalive::provider::client_assertion::{ClientKey, ClientKeyError};
use serde_json::{Value, json};

use super::support::auth_server::{AuthServer, HoldPoint};
use super::support::browser_user::{BrowserUser, install_browser, wait_for_url};
use super::support::oidc_provider::{BASIC, ES256, ODD, OidcProvider, POST, PUBLIC, RS256, RegisteredClient};
use super::support::sandbox::Sandbox;
use super::support::session_bus::{KeyringState, SessionBus};
use super::support::token_family::RotationMode;

const SCOPES: &str = "scopes = [\"openid\", \"offline_access\", \"api\"]\n";

/// 100 in the long form.
fn rotations() -> usize {
    if std::env::var_os("KEEPALIVE_LONG").is_some() { 100 } else { 10 }
}

/// A person signs in, and the credential is refreshed many times: each token is presented once, and the family lives.
#[track_caller]
fn check(client: &RegisteredClient) {
    let server = OidcProvider::start(600, 0);
    let mut sandbox = Sandbox::new();
    let provider = server.provider_for(client, &sandbox.path("home"));
    sandbox.file_store(&format!("{provider}{SCOPES}[profile.demo]\nprovider = \"oidc\"\n"));
    let seen = install_browser(&mut sandbox);
    let login = sandbox.spawn(&["login", "demo"]);
    let page = BrowserUser::new("ada").sign_in(&wait_for_url(&seen));
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
fn public_client_signs_in_and_refreshes() {
    check(&PUBLIC);
}

#[ignore = "needs oidc-provider; contrib/test runs it"]
#[test]
fn client_secret_basic_client_signs_in_and_refreshes() {
    check(&BASIC);
}

#[ignore = "needs oidc-provider; contrib/test runs it"]
#[test]
fn client_secret_post_client_signs_in_and_refreshes() {
    check(&POST);
}

#[ignore = "needs oidc-provider; contrib/test runs it"]
#[test]
fn client_whose_secret_needs_encoding_signs_in_and_refreshes() {
    check(&ODD);
}

#[ignore = "needs oidc-provider; contrib/test runs it"]
#[test]
fn es256_client_signs_in_and_refreshes() {
    check(&ES256);
}

#[ignore = "needs oidc-provider; contrib/test runs it"]
#[test]
fn rs256_client_signs_in_and_refreshes() {
    check(&RS256);
}

#[ignore = "needs oidc-provider; contrib/test runs it"]
#[test]
fn es256_client_signs_in_by_the_device_flow() {
    let server = OidcProvider::start(600, 0);
    let sandbox = Sandbox::new();
    let provider = server.provider_for(&ES256, &sandbox.path("home"));
    sandbox.file_store(&format!("{provider}{SCOPES}[profile.demo]\nprovider = \"oidc\"\n"));
    let login = sandbox.spawn(&["login", "demo", "--device"]);
    let beginning = format!("{}/device?user_code=", server.issuer());
    login.wait_for_line(&beginning);
    let said = login.stderr_so_far();
    let complete = said.split_whitespace().find(|word| word.starts_with(&beginning)).unwrap();
    BrowserUser::new("grace").sign_in(complete);
    // Asking for the code, and each question whether the person is done, has an assertion of its own.
    login.finish().exits(0).says("demo: signed in as grace");
}

#[ignore = "needs oidc-provider; contrib/test runs it"]
#[test]
fn login_with_a_wrong_secret_or_key_is_a_config_error() {
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
        let seen = install_browser(&mut sandbox);
        let login = sandbox.spawn(&["login", "demo"]);
        BrowserUser::new("ada").sign_in(&wait_for_url(&seen));
        login
            .finish()
            .exits(78)
            .says("oidc returned invalid_client")
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
fn every_request_carries_a_new_client_assertion() {
    let server = AuthServer::start(RotationMode::Strict);
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
fn assertion_audience_is_the_issuer_unless_configured() {
    let server = AuthServer::start(RotationMode::Strict);
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
fn openssl_keys_load_or_are_refused_with_the_reason() {
    let dir = tempfile::tempdir().unwrap();
    let read = |pem: &str| ClientKey::from_pem(pem, None).map(|key| format!("{key:?}"));
    for (arguments, expected) in [
        ("genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256", Ok("ClientKey(Es256)")),
        ("genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048", Ok("ClientKey(Rs256)")),
        ("genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:1024", Err(ClientKeyError::TooSmall)),
        ("genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-384", Err(ClientKeyError::UnsupportedAlgorithm)),
        ("genpkey -algorithm ED25519", Err(ClientKeyError::UnsupportedAlgorithm)),
        ("ecparam -name prime256v1 -genkey -noout", Err(ClientKeyError::NotPkcs8("SEC 1"))),
        ("genrsa -traditional 2048", Ok("ClientKey(Rs256)")),
        ("genrsa -traditional 1024", Err(ClientKeyError::TooSmall)),
        ("genpkey -algorithm RSA -aes256 -pass pass:hunter2", Err(ClientKeyError::Encrypted)),
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
fn unusable_client_key_is_refused_before_the_lock_is_taken() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = signing(&server, "");
    let key = sandbox.path("home/client");
    let gate = server.hold(HoldPoint::BeforeProcessing);
    let flying = sandbox.spawn(&["refresh", "-p", "demo", "--force"]);
    gate.wait_reached();
    // A command that waited for the lock would wait for this flight.
    for (text, words, hint) in [
        ("hunter2", "it is not a private key in PEM", "BEGIN PRIVATE KEY"),
        (
            "-----BEGIN EC PRIVATE KEY-----\nhunter2\n-----END EC PRIVATE KEY-----\n",
            "it is SEC 1",
            "openssl pkcs8 -topk8",
        ),
        ("-----BEGIN ENCRYPTED PRIVATE KEY-----\nhunter2\n", "it is encrypted", "decrypt it"),
    ] {
        std::fs::write(&key, text).unwrap();
        let run = sandbox.keepalive(&["-vv", "refresh", "-p", "demo", "--force"]).exits(78);
        let run = run.says("client_key in [provider.acme] cannot be used to sign").says(words).says(hint);
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
fn client_secret_is_read_from_env_file_and_command() {
    let server = AuthServer::start(RotationMode::Strict);
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

/// What a refresh has just said is no surprise to `status`.
#[test]
fn status_shows_that_the_client_secret_is_missing() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = Sandbox::new();
    let place = sandbox.path("home/secret");
    std::fs::write(&place, "secret").unwrap();
    let keys = format!("client_auth = \"client_secret_post\"\nclient_secret = {{ file = {place:?} }}\n");
    sandbox.file_store(&format!("{}[profile.demo]\nprovider = \"acme\"\n", server.provider(&keys)));
    sandbox.import_as_is("demo", &server.mint()).exits(0);
    std::fs::remove_file(&place).unwrap();
    for _ in ["gone", "empty"] {
        sandbox.refresh(&[]).exits(78);
        let run = sandbox.keepalive(&["status", "--json"]).exits(78);
        let row = &run.json()["profiles"][0];
        assert_eq!((&row["state"], &row["error"]["kind"]), (&"config_error".into(), &"client_secret".into()), "{row}");
        std::fs::write(&place, "").unwrap();
    }
    std::fs::write(&place, "secret").unwrap();
    sandbox.keepalive(&["status"]).exits(0);
}

#[test]
fn client_secret_is_sent_raw_or_empty_where_the_server_wants_it() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = Sandbox::new();
    let place = sandbox.path("home/secret");
    std::fs::write(&place, SECRET).unwrap();
    let configure = |auth: &str, source: &str| {
        let keys = format!("client_auth = \"{auth}\"\nclient_secret = {source}\n");
        sandbox.file_store(&format!("{}[profile.demo]\nprovider = \"acme\"\n", server.provider(&keys)));
    };
    server.require_secret(SECRET);
    let file = format!("{{ file = {place:?} }}");
    configure("client_secret_basic", &file);
    sandbox.import("demo", &server.mint()).exits(0);
    let run = sandbox.refresh(&["--force"]).exits(78);
    let hint = run.result()["error"]["hint"].as_str().unwrap().to_owned();
    assert!(hint.contains("client_auth = \"client_secret_basic_raw\""), "{hint}");
    configure("client_secret_basic_raw", &file);
    sandbox.refresh(&["--force"]).exits(0);
    server.require_secret("");
    std::fs::write(&place, "").unwrap();
    let run = sandbox.refresh(&["--force"]).exits(78).says("it is empty");
    run.says("if the client has an empty secret: client_secret = \"\"");
    for auth in ["client_secret_basic", "client_secret_basic_raw"] {
        configure(auth, "\"\"");
        sandbox.refresh(&["--force"]).exits(0);
    }
    assert_eq!(server.counts().refresh_ok, 3);
}

#[ignore = "needs gnome-keyring; contrib/test runs it"]
#[test]
fn client_secret_and_key_are_read_from_the_keyring() {
    let server = AuthServer::start(RotationMode::Strict);
    server.require_secret("a+secret%2Bof%2Fthe%25client");
    let mut sandbox = Sandbox::new();
    let bus = SessionBus::start(&mut sandbox, KeyringState::Unlocked);
    let item = ["store", "--label=acme", "service", "keepalive-client", "username", "acme"];
    let asking = "client_auth = \"client_secret_basic\"\nclient_secret = { keyring = \"acme\" }\n";
    sandbox.config(&format!("{}[profile.demo]\nprovider = \"acme\"\n", server.provider(asking)));
    sandbox.keepalive(&["doctor"]).exits(78).says(&format!("secret-tool {}", item.join(" ")));
    bus.secret_tool(&item, SECRET).exits(0);
    with_secret(&server, &sandbox, "keyring = \"acme\"");
    let server = AuthServer::start(RotationMode::Strict);
    let mut sandbox = Sandbox::new();
    let bus = SessionBus::start(&mut sandbox, KeyringState::Unlocked);
    bus.secret_tool(&item, &fresh_key()).exits(0);
    let keys = "client_auth = \"private_key_jwt\"\nclient_key = { keyring = \"acme\" }\n";
    sandbox.config(&format!("{}[profile.demo]\nprovider = \"acme\"\n", server.provider(keys)));
    sandbox.import("demo", &server.mint()).exits(0);
    sandbox.refresh(&["--force"]).exits(0);
    assert_eq!(claims(&server.last_form())["sub"], "public");
}
