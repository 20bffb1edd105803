//! The words by which servers refuse, as tables: what each says of the token, the client, or the moment. (pure)
//!
//! Codes are compared by letters and digits alone: `invalid_grant`, `INVALID_GRANT` and `Invalid Grant` are the same.

use crate::credential::error_response::ErrorResponse;
use crate::credential::token_words;
use crate::provider::client_words::{self, ClientRefusal};
use crate::provider::condition_words;

/// This refresh token is dead (RFC 6749 §5.2); but some servers refuse a client or a condition with the same code.
const INVALID_GRANT: &str = "invalid_grant";

/// This refresh token is dead, too: seen at more than one server, or without another meaning in a response to a refresh.
/// Codes of a single provider are its `dead_codes`.
const DEAD: [&str; 18] = [
    "refresh_token_reused",
    "refresh_token_expired",
    "refresh_token_invalidated",
    "refresh_token_revoked",
    "refresh_token_not_found",
    "expired_refresh_token",
    "revoked_refresh_token",
    "invalid_refresh_token",
    "refresh_token_invalid",
    "bad_refresh_token",
    "refresh_token_already_used",
    "token_revoked",
    "token_expired",
    // Zoho calls a refresh token so: a refresh sends no other code.
    "invalid_code",
    // `suberror` of Microsoft Entra, as its libraries know them.
    "bad_token",
    "revoked_token",
    "expired_token",
    "grant_revoked",
];

/// A person must sign in again: OpenID Connect Core §3.1.2.6, RFC 9470, its kin at Google and Auth0, and `suberror` of
/// Microsoft Entra.
const PERSON: [&str; 18] = [
    "interaction_required",
    "login_required",
    "consent_required",
    "account_selection_required",
    "user_interaction_required",
    "insufficient_user_authentication",
    "unmet_authentication_requirements",
    "user_authentication_required",
    "reauthentication_required",
    "reauth_required",
    "invalid_rapt",
    "rapt_required",
    "mfa_required",
    "mfa_enrollment_required",
    "password_change_required",
    "user_password_expired",
    "basic_action",
    "additional_action",
];

/// This client, or this request, is wrong (RFC 6749 §5.2). A provider's own are its `client_codes`.
const CLIENT: [&str; 7] = [
    "invalid_client",
    "unauthorized_client",
    "unsupported_grant_type",
    "invalid_scope",
    "invalid_request",
    "incorrect_client_credentials",
    "invalid_target",
];

/// Of those: what a server may also say of a token, if it took the rest of the request before.
const OF_TOKEN_IF_TAKEN_BEFORE: [&str; 4] =
    ["unauthorized_client", "invalid_scope", "invalid_request", "invalid_target"];

/// Later.
const THROTTLED: [&str; 9] = [
    "temporarily_unavailable",
    "slow_down",
    "rate_limited",
    "ratelimited",
    "rate_limit_exceeded",
    "rate_limit_error",
    "too_many_requests",
    "throttled",
    "quota_exceeded",
];

/// Something broke in the server: its own 500, under whatever HTTP status.
const SERVER_ERROR: [&str; 5] =
    ["server_error", "internal_error", "internal_server_error", "fatal_error", "request_timeout"];

/// A condition that is not the token's and may pass. Google's `admin_policy_enforced`, `suberror` of Microsoft Entra
/// (Conditional Access), and what others call the same.
const CONDITION: [&str; 22] = [
    "message_only",
    "admin_policy_enforced",
    "policy_enforced",
    "policy_violation",
    "blocked_by_policy",
    "conditional_access",
    "protection_policy_required",
    "device_authentication_failed",
    "device_not_compliant",
    "ip_not_allowed",
    "ip_address_not_allowed",
    "location_not_allowed",
    "access_restricted",
    "account_locked",
    // An administrator may enable the account again, and the token is then as good as before.
    "user_disabled",
    "account_disabled",
    "user_deactivated",
    "account_deactivated",
    "user_suspended",
    "account_suspended",
    "user_blocked",
    "account_blocked",
];

/// Texts that name such a condition, where no grammar finds it.
const CONDITION_TEXTS: [&str; 28] = [
    "conditional access",
    "blocked by policy",
    "security policy",
    "access policy",
    "access policies",
    "admin policy",
    "ip address",
    "trusted network",
    "corporate network",
    "network location",
    "from this location",
    "from this network",
    "not compliant",
    "working hours",
    "business hours",
    "allowed hours",
    "outside of hours",
    "at this time of day",
    "account is locked",
    "account is disabled",
    "account is suspended",
    "account is deactivated",
    "account has been disabled",
    "account has been suspended",
    "account has been deactivated",
    "user is disabled",
    "user has been disabled",
    "temporarily unavailable",
];

/// Texts by which a server says that it was asked too often.
const THROTTLED_TEXTS: [&str; 5] =
    ["too many requests", "rate limit", "request limit", "requests continuously", "too many refresh"];

/// Texts by which a server asks for a person.
const PERSON_TEXTS: [&str; 17] = [
    "sign in again",
    "signin again",
    "log in again",
    "login again",
    "interaction required",
    "reauthenticate",
    "re authenticate",
    "reauthorize",
    "re authorize",
    "authenticate again",
    "authorize again",
    "authorise again",
    "relogin",
    "re login",
    "reauthentication",
    "multi factor authentication",
    "multifactor authentication",
];

/// Texts that name the client, or what it proves itself with.
const CLIENT_TEXTS: [&str; 9] = [
    "client secret",
    "client credentials",
    "client authentication",
    "client assertion",
    "client id",
    "unknown client",
    "client not found",
    "client is disabled",
    "application with identifier",
];

/// What a number of Microsoft Entra means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum EntraMeaning {
    Person,
    Condition,
    Client,
    Throttled,
}

/// Numbers of Microsoft Entra (`AADSTS…`), by learn.microsoft.com, "Microsoft Entra authentication and authorization
/// error codes". Those of dead tokens come with `invalid_grant`.
const ENTRA: [(u32, EntraMeaning); 39] = [
    (16_000, EntraMeaning::Person),
    (50_055, EntraMeaning::Person),
    (50_058, EntraMeaning::Person),
    (50_072, EntraMeaning::Person),
    (50_074, EntraMeaning::Person),
    (50_076, EntraMeaning::Person),
    (50_078, EntraMeaning::Person),
    (50_079, EntraMeaning::Person),
    (50_125, EntraMeaning::Person),
    (50_144, EntraMeaning::Person),
    (50_158, EntraMeaning::Person),
    (65_001, EntraMeaning::Person),
    (65_004, EntraMeaning::Person),
    (70_043, EntraMeaning::Person),
    (70_044, EntraMeaning::Person),
    (50_005, EntraMeaning::Condition),
    (50_053, EntraMeaning::Condition),
    (50_057, EntraMeaning::Condition),
    (50_097, EntraMeaning::Condition),
    (50_105, EntraMeaning::Condition),
    (50_131, EntraMeaning::Condition),
    (53_000, EntraMeaning::Condition),
    (53_001, EntraMeaning::Condition),
    (53_002, EntraMeaning::Condition),
    (53_003, EntraMeaning::Condition),
    (53_004, EntraMeaning::Condition),
    (53_009, EntraMeaning::Condition),
    (53_011, EntraMeaning::Condition),
    (530_031, EntraMeaning::Condition),
    (530_032, EntraMeaning::Condition),
    (530_034, EntraMeaning::Condition),
    (530_035, EntraMeaning::Condition),
    (90_002, EntraMeaning::Client),
    (700_016, EntraMeaning::Client),
    (700_027, EntraMeaning::Client),
    (7_000_215, EntraMeaning::Client),
    (7_000_222, EntraMeaning::Client),
    (50_196, EntraMeaning::Throttled),
    (90_055, EntraMeaning::Throttled),
];

/// What a refusal says, each by its own table.
pub(super) struct Words<'a> {
    error: &'a ErrorResponse,
    /// Its texts in small letters, words apart by one blank, between two blanks.
    text: String,
}

impl<'a> Words<'a> {
    pub(super) fn new(error: &'a ErrorResponse) -> Self {
        let mut text = String::from(" ");
        for said in error.texts() {
            let mut before = ' ';
            for c in said.chars() {
                let is_new_word = c.is_uppercase() && before.is_lowercase();
                if (is_new_word || !c.is_alphanumeric()) && !text.ends_with(' ') {
                    text.push(' ');
                }
                if c.is_alphanumeric() {
                    text.extend(c.to_lowercase());
                }
                before = c;
            }
            if !text.ends_with(' ') {
                text.push(' ');
            }
        }
        Self { error, text }
    }

    pub(super) fn has_dead_code(&self, own: &[String]) -> bool {
        self.has_code(&[INVALID_GRANT]) || self.has_code(&DEAD) || self.has_own(own)
    }

    /// `invalid_grant` of a server that refuses the client in clear words, and says nothing of a token.
    pub(super) fn is_clients_invalid_grant(&self, own: &[String]) -> bool {
        let is_general = self.has_code(&[INVALID_GRANT]) && !self.has_code(&DEAD) && !self.has_own(own);
        let mut words = self.error.texts().filter(|text| !is_code(text, &[INVALID_GRANT]));
        is_general
            && self.client_refusal() == Some(ClientRefusal::Named)
            && !words.any(|text| client_words::speaks_of_token(text) || token_words::name_dead_token(text))
    }

    pub(super) fn has_client_code(&self, own: &[String]) -> bool {
        self.has_code(&CLIENT) || self.has_own(own)
    }

    /// A code that a server may also use for a token. One of the client's credentials is, only where it has none.
    pub(super) fn may_be_of_token(&self, is_public_client: bool) -> bool {
        self.has_code(&OF_TOKEN_IF_TAKEN_BEFORE) || (is_public_client && self.has_code(&["invalid_client"]))
    }

    pub(super) fn is_throttled(&self) -> bool {
        self.has_code(&THROTTLED) || self.has_entra(EntraMeaning::Throttled)
    }

    pub(super) fn says_throttled(&self) -> bool {
        self.says(&THROTTLED_TEXTS)
    }

    pub(super) fn is_server_error(&self) -> bool {
        self.has_code(&SERVER_ERROR)
    }

    pub(super) fn asks_for_person(&self) -> bool {
        self.has_code(&PERSON) || self.has_entra(EntraMeaning::Person)
    }

    pub(super) fn says_person(&self) -> bool {
        self.says(&PERSON_TEXTS)
    }

    pub(super) fn names_condition(&self) -> bool {
        self.has_code(&CONDITION)
            || self.has_entra(EntraMeaning::Condition)
            || self.says(&CONDITION_TEXTS)
            || self.error.texts().any(condition_words::name_condition)
    }

    pub(super) fn names_client(&self) -> bool {
        self.says(&CLIENT_TEXTS) || self.client_refusal() == Some(ClientRefusal::Named)
    }

    /// Whether it refuses the client in words, whatever its code.
    pub(super) fn refuses_client(&self) -> bool {
        self.client_refusal().is_some()
    }

    /// Words that say no more of the client than the code that a server may also use for a token.
    pub(super) fn refusal_may_be_of_token(&self, is_public_client: bool) -> bool {
        match self.client_refusal() {
            Some(ClientRefusal::Unauthorized) => true,
            Some(ClientRefusal::Invalid) => is_public_client,
            Some(ClientRefusal::Named) | None => false,
        }
    }

    fn client_refusal(&self) -> Option<ClientRefusal> {
        let by_number = self.has_entra(EntraMeaning::Client).then_some(ClientRefusal::Named);
        self.error.texts().filter_map(client_words::client_refusal).max().max(by_number)
    }

    pub(super) fn names_dead_token(&self) -> bool {
        self.error.texts().any(token_words::name_dead_token)
    }

    fn has_code(&self, known: &[&str]) -> bool {
        self.error.codes().any(|code| is_code(code, known))
    }

    fn has_own(&self, own: &[String]) -> bool {
        self.error.codes().any(|code| own.iter().any(|own| letters(own) == letters(code)))
    }

    fn says(&self, phrases: &[&str]) -> bool {
        phrases.iter().any(|phrase| self.text.contains(&format!(" {phrase} ")))
    }

    fn has_entra(&self, meaning: EntraMeaning) -> bool {
        let numbers = self.text.match_indices("aadsts").filter_map(|(at, name)| {
            let digits = &self.text[at + name.len()..];
            digits[..digits.find(|c: char| !c.is_ascii_digit())?].parse::<u32>().ok()
        });
        let is_meant = |number: u32| ENTRA.iter().any(|(known, means)| *known == number && *means == meaning);
        numbers.into_iter().any(is_meant)
    }
}

fn is_code(text: &str, known: &[&str]) -> bool {
    let code = letters(last_part(text));
    known.iter().any(|known| letters(known) == code)
}

/// The code at the end of a name space: of a URL (RFC 9457), or of `keymanagement.service.invalid_refresh_token`.
fn last_part(code: &str) -> &str {
    code.trim().trim_end_matches(['/', '.', '!']).rsplit(['/', '.', '#', ':']).next().unwrap_or(code)
}

fn letters(code: &str) -> String {
    code.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect()
}
