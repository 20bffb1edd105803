//! A real, third-party authorization server: the npm package `oidc-provider`, run by `tests/oidc/server.mjs`.

use std::collections::HashSet;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use super::Helper;
use super::auth_server::Counts;

pub struct OidcProvider {
    issuer: String,
    log: PathBuf,
    _node: Helper,
    _dir: tempfile::TempDir,
}

/// A client that is registered there.
pub struct RegisteredClient {
    pub id: &'static str,
    pub auth: &'static str,
    pub secret: &'static str,
}

const fn client(id: &'static str, auth: &'static str, secret: &'static str) -> RegisteredClient {
    RegisteredClient { id, auth, secret }
}

pub const PUBLIC: RegisteredClient = client("public", "none", "");
pub const BASIC: RegisteredClient =
    client("conf-basic", "client_secret_basic", "basic-secret-0123456789abcdef0123456789");
pub const POST: RegisteredClient = client("conf-post", "client_secret_post", "post-secret-0123456789abcdef0123456789");
/// Id and secret are full of what must be encoded.
pub const ODD: RegisteredClient = client("conf:odd id", "client_secret_basic", "a+b/c=d%2B:e&f?g h~i\"j\\k");
pub const ES256: RegisteredClient = client("conf-pkjwt", "private_key_jwt", "");
pub const RS256: RegisteredClient = client("conf-pkjwt-rsa", "private_key_jwt", "");

impl OidcProvider {
    /// Starts it with rotation and reuse detection on. `delay_ms`: between the grant's processing and its answer.
    pub fn start(access_ttl_s: u32, delay_ms: u32) -> Self {
        let server = super::root().join("tests/oidc");
        assert!(
            server.join("node_modules/oidc-provider").exists(),
            "oidc-provider is needed: contrib/test installs it (npm ci in tests/oidc)"
        );
        Self::run(Command::new("node").arg(server.join("server.mjs")), access_ttl_s, delay_ms)
    }

    /// Starts the command as that server.
    #[track_caller]
    pub fn run(command: &mut Command, access_ttl_s: u32, delay_ms: u32) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        command
            .env("ACCESS_TTL", access_ttl_s.to_string())
            .env("TOKEN_DELAY_MS", delay_ms.to_string())
            .env("LOG", &log)
            // It ends when this is closed.
            .stdin(Stdio::piped());
        let mut node = Helper::start("node", command);
        // The package says this and that before.
        let ready = node.wait_until("the authorization server says where it listens", |said| {
            said.lines().find_map(|line| serde_json::from_str::<Value>(line).ok())
        });
        let issuer = ready["issuer"].as_str().unwrap().to_owned();
        Self { issuer, log, _node: node, _dir: dir }
    }

    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// Host and port.
    pub fn address(&self) -> String {
        self.issuer.trim_start_matches("http://").to_owned()
    }

    /// The provider's section of a configuration, under the name `oidc`.
    pub fn provider(&self) -> String {
        format!("[provider.oidc]\nissuer = \"{}\"\nclient_id = \"public\"\n", self.issuer)
    }

    /// As `provider`, for a client with a secret, which lies in the file `secret`.
    pub fn confidential(&self, secret: &Path) -> String {
        std::fs::write(secret, "a secret+of/the%client\n").unwrap();
        format!(
            "[provider.oidc]\nissuer = \"{}\"\nclient_id = \"confidential\"\nclient_auth = \"client_secret_basic\"\n\
             client_secret = {{ file = \"{}\" }}\n",
            self.issuer,
            secret.display()
        )
    }

    /// The section for one of its other clients, whose secret or key lies in a file below `home`.
    pub fn provider_for(&self, client: &RegisteredClient, home: &Path) -> String {
        let place = home.join("client");
        let section = format!("[provider.oidc]\nissuer = \"{}\"\nclient_id = \"{}\"\n", self.issuer, client.id);
        let proof = match client.auth {
            "none" => return section,
            "private_key_jwt" => {
                let answer = self.get(&format!("/_test/key?client={}", client.id), None).1;
                let answer: Value = serde_json::from_str(&answer).unwrap();
                std::fs::write(&place, answer["pem"].as_str().unwrap()).unwrap();
                "client_key_id = \"k1\"\nclient_key"
            }
            _ => {
                std::fs::write(&place, format!("{}\n", client.secret)).unwrap();
                "client_secret"
            }
        };
        format!("{section}client_auth = \"{}\"\n{proof} = {{ file = \"{}\" }}\n", client.auth, place.display())
    }

    pub fn mint(&self) -> Value {
        serde_json::from_str(&self.get("/_test/mint", None).1).unwrap()
    }

    /// Whether a protected resource accepts the access token.
    pub fn accepts(&self, access_token: &str) -> bool {
        self.get("/_test/api", Some(access_token)).0 == 200
    }

    fn get(&self, path: &str, token: Option<&str>) -> (u16, String) {
        let mut stream = TcpStream::connect(self.issuer.trim_start_matches("http://")).unwrap();
        let authorization = token.map_or(String::new(), |t| format!("authorization: Bearer {t}\r\n"));
        write!(stream, "GET {path} HTTP/1.1\r\nhost: x\r\n{authorization}connection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }

    /// The server's own log, counted.
    pub fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        let mut presented = HashSet::new();
        for line in std::fs::read_to_string(&self.log).unwrap_or_default().lines() {
            let event: Value = serde_json::from_str(line).unwrap();
            match event["event"].as_str() {
                Some("revoked") => counts.families_revoked += 1,
                Some("refresh") => {
                    counts.refresh_requests += 1;
                    counts.refresh_ok += usize::from(event["status"] == 200);
                    let is_first = presented.insert(event["token"].as_str().unwrap_or_default().to_owned());
                    counts.presented_again += usize::from(!is_first);
                }
                _ => {}
            }
        }
        counts
    }
}
