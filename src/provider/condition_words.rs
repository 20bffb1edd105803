//! Finds in a text whether it names a condition that is not the token's and may pass: a network, a device, a place, hours,
//! a policy, maintenance. (pure)

use crate::credential::token_words::sentences;

/// What a condition is about.
const THINGS: &[&str] = &[
    "ip",
    "ips",
    "ipv4",
    "ipv6",
    "vpn",
    "network",
    "networks",
    "firewall",
    "allowlist",
    "whitelist",
    "denylist",
    "blocklist",
    "blacklist",
    "location",
    "locations",
    "country",
    "countries",
    "region",
    "regions",
    "territory",
    "geography",
    "geolocation",
    "geo",
    "device",
    "devices",
    "computer",
    "workstation",
    "policy",
    "policies",
    "weekend",
    "weekends",
];
/// Words behind them that make them a parameter, or something else: `device_code is required`.
const OTHER_THINGS: &[&str] = &[
    "id",
    "ids",
    "identifier",
    "uuid",
    "code",
    "codes",
    "token",
    "tokens",
    "grant",
    "flow",
    "key",
    "name",
    "type",
    "parameter",
    "field",
    "header",
    "error",
    "timeout",
    "authorization",
    "secret",
];
/// Words before them that make them something that does not pass.
const OTHER_KINDS: &[&str] =
    &["password", "token", "privacy", "cookie", "cors", "referrer", "origin", "retention", "parameter"];
/// What is said of them.
const RESTRICTIONS: &[&str] = &[
    "restricted",
    "restriction",
    "restrictions",
    "restricts",
    "blocked",
    "blocks",
    "blocking",
    "banned",
    "denied",
    "denies",
    "deny",
    "rejected",
    "refused",
    "required",
    "requires",
    "require",
    "allowed",
    "allow",
    "allows",
    "allowable",
    "permitted",
    "permit",
    "permits",
    "prohibited",
    "prohibits",
    "forbidden",
    "disallowed",
    "unsupported",
    "unauthorized",
    "unauthorised",
    "authorized",
    "authorised",
    "outside",
    "untrusted",
    "trusted",
    "unmanaged",
    "managed",
    "unregistered",
    "registered",
    "enrolled",
    "unenrolled",
    "compliant",
    "noncompliant",
    "compliance",
    "unapproved",
    "approved",
    "suspicious",
    "violated",
    "violates",
    "violation",
    "prevents",
    "prevented",
    "unavailable",
    "supported",
];
/// Hours in which something is open: `24 hours` are none.
const KINDS_OF_HOURS: &[&str] = &[
    "login",
    "logon",
    "signin",
    "in",
    "access",
    "business",
    "working",
    "work",
    "office",
    "service",
    "opening",
    "operating",
    "allowed",
    "permitted",
    "of",
];

/// Whether a text names such a condition.
pub(super) fn name_condition(text: &str) -> bool {
    sentences(text).iter().any(|words| {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let is_restricted = words.iter().any(|word| RESTRICTIONS.contains(word));
        let before = |at: usize| at.checked_sub(1).map_or("", |before| words[before]);
        let after = |at: usize| words.get(at + 1).copied().unwrap_or_default();
        words.iter().enumerate().any(|(at, word)| match *word {
            "maintenance" => {
                ["under", "for", "scheduled", "planned", "system", "server", "down", "in"].contains(&before(at))
                    || ["mode", "in", "window", "is", "work"].contains(&after(at))
                    || words.len() == 1
            }
            "hours" => is_restricted && KINDS_OF_HOURS.contains(&before(at)) || before(at) == "outside",
            thing if THINGS.contains(&thing) => {
                is_restricted && !OTHER_THINGS.contains(&after(at)) && !OTHER_KINDS.contains(&before(at))
            }
            _ => false,
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_that_name_a_passing_condition_are_known() {
        for said in [
            "ip restricted",
            "login hours restricted",
            "Your IP has been blocked",
            "VPN required",
            "Access from your country is not allowed",
            "Maintenance in progress",
            "The service is under maintenance.",
            "Logins are not permitted outside working hours",
            "IP_RESTRICTED",
            "LOGIN_HOURS_RESTRICTED",
            "This device is not managed",
            "DeviceNotTrusted",
            "device registration is required",
            "Your location is not permitted by your administrator",
            "Request denied by an access policy",
            "The client IP is not in the allowlist, and is not permitted",
            "Access from untrusted networks is denied",
            "Sign-in is only allowed from the corporate network",
            "geo restriction",
            "Unsupported region",
            "Country, region, or territory not supported; unsupported_country_region_territory",
        ] {
            assert!(name_condition(said), "{said}");
        }
    }

    #[test]
    fn words_about_tokens_and_requests_name_no_condition() {
        for said in [
            "",
            "invalid_grant",
            "The refresh token has expired",
            "Token expired: its lifetime is limited to 24 hours",
            "device_code is required",
            "missing required parameter: device_id",
            "network error",
            "password policy requires a change",
            "location header required",
            "The token was revoked by its policy of use",
            "client authentication required",
            "access denied",
            "scopes not allowed",
        ] {
            assert!(!name_condition(said), "{said}");
        }
    }
}
