//! The forms in which `token` prints an access token, one function each. (pure)

use clap::ValueEnum;
use serde::Serialize;
use serde_json::{Value, json};

use crate::cli::obtain::check_carriable;
use crate::clock::Timestamp;
use crate::credential::Generation;
use crate::credential::external::shell_quoted;
use crate::credential::jwt;
use crate::engine::access_token::TokenOutput;
use crate::outcome::{ErrorKind, Failure, OutcomeKind};
use crate::profile::ProfileName;
use crate::sys::paths;

/// How a token is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum Format {
    /// The token alone: msmtp, mbsync, Codex, and scripts
    Raw,
    /// A JSON object with the token, its expiry, scope and generation
    Json,
    /// An HTTP Authorization header
    Header,
    /// A line for the configuration of curl (`curl -K -`)
    Curl,
    /// Assignments for a shell or for EnvironmentFile= of systemd
    Env,
    /// An ExecCredential of Kubernetes
    Kubectl,
    /// The answer of an executable for Google's workload identity, with the ID token
    GcloudExecutable,
    /// The answer of an auth_provider_command of Grok Build
    Grok,
}

/// What is printed.
pub(super) struct FormatInput<'a> {
    pub profile: &'a ProfileName,
    pub token: &'a TokenOutput,
    pub outcome: OutcomeKind,
    pub warnings: &'a [String],
    pub now: Timestamp,
    /// The name of the variable of `env`.
    pub variable: &'a str,
    /// What kubectl says of itself, in `KUBERNETES_EXEC_INFO`.
    pub exec_info: Option<&'a str>,
}

/// The text of a token in a format, with the newline at its end.
pub(super) fn render(format: Format, input: &FormatInput<'_>) -> Result<String, Failure> {
    if format != Format::Json {
        check_carriable(&input.token.access_token)?;
    }
    let text = match format {
        Format::Raw => input.token.access_token.clone(),
        Format::Json => to_text(&document(input))?,
        Format::Header => header(input.token),
        Format::Curl => curl(input.token),
        Format::Env => env(input),
        Format::Kubectl => to_text(&exec_credential(input))?,
        Format::GcloudExecutable => to_text(&gcloud_executable(input)?)?,
        Format::Grok => to_text(&grok(input))?,
    };
    Ok(text + "\n")
}

/// The whole seconds that are left.
fn expires_in(token: &TokenOutput, now: Timestamp) -> Option<u64> {
    token.expires_at.map(|at| at.since(now).as_secs())
}

fn to_text(value: &impl Serialize) -> Result<String, Failure> {
    serde_json::to_string(value).map_err(|e| Failure::new(ErrorKind::Json, e.to_string()))
}

#[derive(Serialize)]
struct TokenDocument<'a> {
    profile: &'a ProfileName,
    access_token: &'a str,
    token_type: &'a str,
    expires_at: Option<Timestamp>,
    expires_in: Option<u64>,
    assumed: bool,
    scope: Option<&'a str>,
    generation: Generation,
    #[serde(skip_serializing_if = "Option::is_none")]
    id_token: Option<&'a str>,
    outcome: OutcomeKind,
    warnings: &'a [String],
}

fn document<'a>(input: &FormatInput<'a>) -> TokenDocument<'a> {
    let token = input.token;
    TokenDocument {
        profile: input.profile,
        access_token: &token.access_token,
        token_type: &token.token_type,
        expires_at: token.expires_at,
        expires_in: expires_in(token, input.now),
        assumed: token.assumed,
        scope: token.scope.as_deref(),
        generation: token.generation,
        id_token: token.id_token.as_deref(),
        outcome: input.outcome,
        warnings: input.warnings,
    }
}

/// A bearer token (RFC 6750), whatever the provider calls its type: tokens bound to a key are not stored.
fn header(token: &TokenOutput) -> String {
    format!("Authorization: Bearer {}", token.access_token)
}

fn curl(token: &TokenOutput) -> String {
    format!("header = \"{}\"", header(token).replace('\\', "\\\\").replace('"', "\\\""))
}

fn env(input: &FormatInput<'_>) -> String {
    let token = format!("{}={}", input.variable, always_quoted(&input.token.access_token));
    match input.token.expires_at {
        Some(at) => format!("{token}\n{}={}", paths::EXPIRES_AT, always_quoted(&at.to_the_second().to_string())),
        None => token,
    }
}

/// Quoted even where a shell would not need it, so that each line has one form.
fn always_quoted(text: &str) -> String {
    let quoted = shell_quoted(text);
    if quoted.starts_with('\'') { quoted } else { format!("'{quoted}'") }
}

/// The version of the API that is answered in, unless kubectl names another.
const EXEC_API: &str = "client.authentication.k8s.io/v1";

fn exec_credential(input: &FormatInput<'_>) -> Value {
    let info = input.exec_info.and_then(|text| serde_json::from_str::<Value>(text).ok());
    let asked = info.as_ref().and_then(|info| info.get("apiVersion")?.as_str());
    let is_known = |version: &&str| {
        let name = version.strip_prefix("client.authentication.k8s.io/").unwrap_or_default();
        !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric())
    };
    json!({
        "kind": "ExecCredential",
        "apiVersion": asked.filter(is_known).unwrap_or(EXEC_API),
        "status": {
            "token": input.token.access_token,
            "expirationTimestamp": input.token.expires_at.map(Timestamp::to_the_second),
        },
    })
}

/// Google's clients exchange an ID token for one of theirs; they refuse an access token.
fn gcloud_executable(input: &FormatInput<'_>) -> Result<Value, Failure> {
    let lacks = |message: &str| {
        let hint = format!("keepalive login {} with the scope openid", input.profile);
        Failure::new(ErrorKind::Format, format!("{}: {message}", input.profile)).with_hint(hint)
    };
    let id_token = input.token.id_token.as_deref().ok_or_else(|| lacks("there is no ID token"))?;
    check_carriable(id_token)?;
    let claims = jwt::unverified_claims(id_token).ok_or_else(|| lacks("the ID token cannot be read"))?;
    let end = claims.get("exp").and_then(Value::as_i64).ok_or_else(|| lacks("the ID token does not say its end"))?;
    if Timestamp::from_secs(end) <= input.now {
        return Err(lacks("the ID token has expired, and the last refresh brought no other"));
    }
    Ok(json!({
        "version": 1,
        "success": true,
        "token_type": "urn:ietf:params:oauth:token-type:id_token",
        "id_token": id_token,
        "expiration_time": end,
    }))
}

/// How an executable says that it failed. Only with the exit status 0 is its message shown.
pub(super) fn gcloud_failure(failure: &Failure) -> Value {
    let code = failure.kind.word().to_ascii_uppercase();
    json!({"version": 1, "success": false, "code": code, "message": failure.in_one_line()})
}

fn grok(input: &FormatInput<'_>) -> Value {
    json!({"access_token": input.token.access_token, "expires_in": expires_in(input.token, input.now)})
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_secs(1_790_000_000);

    fn rendered(
        format: Format,
        access_token: &str,
        id_token: Option<&str>,
        exec_info: Option<&str>,
    ) -> Result<String, Failure> {
        let token = TokenOutput {
            access_token: access_token.into(),
            token_type: "bearer".into(),
            expires_at: Some(Timestamp::from_millis(NOW.as_millis() + 3_541_900)),
            assumed: false,
            scope: Some("a b".into()),
            generation: serde_json::from_str("7").unwrap(),
            id_token: id_token.map(str::to_owned),
        };
        let (profile, warnings) = ("work".parse().unwrap(), ["w".to_owned()]);
        let input = FormatInput {
            profile: &profile,
            token: &token,
            outcome: OutcomeKind::Deferred,
            warnings: &warnings,
            now: NOW,
            variable: "KEEPALIVE_ACCESS_TOKEN",
            exec_info,
        };
        render(format, &input)
    }

    fn text(format: Format, token: &str) -> String {
        rendered(format, token, None, None).unwrap()
    }

    fn value(format: Format, exec_info: Option<&str>) -> Value {
        serde_json::from_str(&rendered(format, "at", None, exec_info).unwrap()).unwrap()
    }

    #[test]
    fn each_text_format_is_what_its_program_reads() {
        assert_eq!(text(Format::Raw, "a.b"), "a.b\n");
        assert_eq!(text(Format::Header, "a.b"), "Authorization: Bearer a.b\n");
        assert_eq!(text(Format::Curl, r#"a"b\c"#), "header = \"Authorization: Bearer a\\\"b\\\\c\"\n");
        assert_eq!(
            text(Format::Env, "a'b"),
            "KEEPALIVE_ACCESS_TOKEN='a'\\''b'\nKEEPALIVE_EXPIRES_AT='2026-09-21T15:12:21Z'\n"
        );
    }

    #[test]
    fn json_document_has_the_members_of_the_daemons_api() {
        let text = text(Format::Json, "a\nb");
        let start = r#"{"profile":"work","access_token":"a\nb","token_type":"bearer","expires_at":"#;
        assert!(text.starts_with(start), "{text}");
        let document: Value = serde_json::from_str(&text).unwrap();
        assert_eq!((&document["expires_in"], &document["generation"]), (&json!(3541), &json!(7)));
        assert_eq!((&document["outcome"], &document["warnings"]), (&json!("deferred"), &json!(["w"])));
        assert!(document.get("id_token").is_none());
    }

    #[test]
    fn kubectl_gets_the_api_version_that_it_named() {
        let version = |info: Option<&str>| value(Format::Kubectl, info)["apiVersion"].as_str().unwrap().to_owned();
        let beta = r#"{"kind":"ExecCredential","apiVersion":"client.authentication.k8s.io/v1beta1","spec":{}}"#;
        assert_eq!(version(Some(beta)), "client.authentication.k8s.io/v1beta1");
        for other in
            [None, Some("{"), Some(r#"{"apiVersion":"v1"}"#), Some(r#"{"apiVersion":"client.authentication.k8s.io/"}"#)]
        {
            assert_eq!(version(other), EXEC_API);
        }
        let status = &value(Format::Kubectl, None)["status"];
        assert_eq!(status, &json!({"token": "at", "expirationTimestamp": "2026-09-21T15:12:21Z"}));
    }

    #[test]
    fn grok_gets_no_more_than_token_and_life() {
        assert_eq!(value(Format::Grok, None), json!({"access_token": "at", "expires_in": 3541}));
    }

    #[test]
    fn google_gets_the_id_token_and_never_the_access_token() {
        let jwt = |exp: i64| {
            use base64::Engine as _;
            let part = |json: Value| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(json.to_string());
            format!("{}.{}.sig", part(json!({"alg": "none"})), part(json!({"exp": exp})))
        };
        let with = |id_token: Option<&str>| rendered(Format::GcloudExecutable, "secret-at", id_token, None);
        let end = NOW.as_millis() / 1000 + 60;
        let text = with(Some(&jwt(end))).unwrap();
        assert!(!text.contains("secret-at"));
        let answer: Value = serde_json::from_str(&text).unwrap();
        assert_eq!((&answer["success"], &answer["expiration_time"]), (&json!(true), &json!(end)));
        for (id_token, why) in
            [(None, "no ID token"), (Some(jwt(end - 60)), "has expired"), (Some("x".into()), "cannot be read")]
        {
            let failure = with(id_token.as_deref()).unwrap_err();
            assert!(failure.message.contains(why), "{failure:?}");
            let told = gcloud_failure(&failure);
            assert_eq!(
                (&told["version"], &told["success"], &told["code"]),
                (&json!(1), &json!(false), &json!("FORMAT"))
            );
            assert!(told["message"].as_str().unwrap().contains("keepalive login work"));
        }
    }

    #[test]
    fn token_that_could_add_a_line_is_refused_but_by_json() {
        for token in ["a\nb", "a\rb", "a b", "a\0b", "a\u{7f}", "a\u{e9}", ""] {
            for format in Format::value_variants().iter().filter(|format| **format != Format::Json) {
                let failure = rendered(*format, token, Some("x"), None).unwrap_err();
                assert!(
                    failure.kind == ErrorKind::Format && !failure.message.contains(token.trim()) | token.is_empty()
                );
            }
            assert!(rendered(Format::Json, token, None, None).is_ok());
        }
    }
}
