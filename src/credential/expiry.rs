//! Reads when an access token ends, in the words of servers and of the tools that save their responses. What is not told,
//! or cannot be, is not taken for fresh. (pure)

use std::time::Duration;

use serde_json::{Map, Value};

use crate::clock::{Moment, Timestamp};
use crate::credential::freshness::Validity;
use crate::credential::jwt::unverified_claims;
use crate::credential::member_names::member;
use crate::credential::time_value;
use crate::credential::time_value::{TimeKind, TimeValue};

/// The longest lifetime that is believed. More is a unit that was mixed up, or a way to say "I do not know".
const MAX_LIFETIME: Duration = Duration::from_secs(400 * 24 * 3600);

/// Absolute claims beside a relative one count from here on: less is a clock that is wrong.
const MIN_TIME_LEFT: Duration = Duration::from_secs(60);

/// Tools round, and some subtract a margin of a few minutes: claims that are so close agree.
const TOLERANCE: Duration = Duration::from_secs(600);

/// The farthest that a time without its zone can be from UTC.
const MAX_ZONE: Duration = Duration::from_secs(14 * 3600);

/// The members that say when the access token ends.
const END_NAMES: [(&str, TimeKind); 39] = [
    ("expires_in", TimeKind::LifetimeOrInstant),
    ("expires_in_sec", TimeKind::LifetimeOrInstant),
    ("expires_in_secs", TimeKind::LifetimeOrInstant),
    ("expires_in_seconds", TimeKind::LifetimeOrInstant),
    ("expires_in_ms", TimeKind::Millis),
    ("expires_in_millis", TimeKind::Millis),
    ("expires_in_milliseconds", TimeKind::Millis),
    ("expired_in", TimeKind::LifetimeOrInstant),
    ("expire_in", TimeKind::LifetimeOrInstant),
    ("expires", TimeKind::LifetimeOrInstant),
    (".expires", TimeKind::LifetimeOrInstant),
    ("token_expires_in", TimeKind::LifetimeOrInstant),
    ("access_token_expires_in", TimeKind::LifetimeOrInstant),
    ("expires_at", TimeKind::Instant),
    ("expires_at_ms", TimeKind::Instant),
    ("expires_on", TimeKind::Instant),
    ("expires_time", TimeKind::Instant),
    ("expires_date", TimeKind::Instant),
    ("expire", TimeKind::Instant),
    ("expire_at", TimeKind::Instant),
    ("expire_time", TimeKind::Instant),
    ("expire_date", TimeKind::Instant),
    ("expired", TimeKind::Instant),
    ("expired_at", TimeKind::Instant),
    ("expiry", TimeKind::Instant),
    ("expiry_at", TimeKind::Instant),
    ("expiry_date", TimeKind::Instant),
    ("expiry_time", TimeKind::Instant),
    ("expiration", TimeKind::Instant),
    ("expiration_at", TimeKind::Instant),
    ("expiration_date", TimeKind::Instant),
    ("expiration_time", TimeKind::Instant),
    ("expiration_timestamp", TimeKind::Instant),
    ("token_expiry", TimeKind::Instant),
    ("token_expires_at", TimeKind::Instant),
    ("access_token_expiry", TimeKind::Instant),
    ("access_token_expires_at", TimeKind::Instant),
    ("valid_until", TimeKind::Instant),
    ("exp", TimeKind::Instant),
];

/// The members that say when it was issued or saved.
const ISSUE_NAMES: [&str; 19] = [
    "obtained_at",
    "created_at",
    "issued_at",
    "issued",
    ".issued",
    "iat",
    "acquired_at",
    "fetched_at",
    "received_at",
    "retrieved_at",
    "granted_at",
    "saved_at",
    "obtainment_timestamp",
    "create_time",
    "created",
    "last_refresh",
    "last_refreshed",
    "last_refreshed_at",
    "refreshed_at",
];

/// The members that say when the refresh token ends.
const REFRESH_END_NAMES: [(&str, TimeKind); 11] = [
    ("refresh_token_expires_in", TimeKind::LifetimeOrInstant),
    ("refresh_expires_in", TimeKind::LifetimeOrInstant),
    ("x_refresh_token_expires_in", TimeKind::LifetimeOrInstant),
    ("refresh_token_expired_in", TimeKind::LifetimeOrInstant),
    ("refresh_token_expires", TimeKind::LifetimeOrInstant),
    ("refresh_token_expires_at", TimeKind::Instant),
    ("refresh_token_expires_on", TimeKind::Instant),
    ("refresh_token_expiry", TimeKind::Instant),
    ("refresh_token_expiration", TimeKind::Instant),
    ("refresh_expires_at", TimeKind::Instant),
    ("refresh_expiry", TimeKind::Instant),
];

/// What the configuration says about the lifetime of a provider's access tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LifetimeBounds {
    /// Assumed where nothing is told.
    pub default: Duration,
    /// No token lives longer, whatever is told.
    pub max: Option<Duration>,
}

/// What a response says about the end of its access token.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct ExpiryClaims {
    /// How long it lives from its issue.
    pub lifetimes: Vec<Duration>,
    /// When it ends.
    pub ends: Vec<Timestamp>,
    /// When it ends, without a time zone.
    pub vague_ends: Vec<Timestamp>,
    pub issued_at: Option<Timestamp>,
    /// Issue and end by the token itself, if it is a JWT.
    pub jwt: JwtTimes,
    /// The members that are there and cannot be read.
    pub unreadable: Vec<&'static str>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct JwtTimes {
    pub issued_at: Option<Timestamp>,
    pub ends: Option<Timestamp>,
}

/// When a refresh token ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefreshTokenEnd {
    /// Keycloak writes zero for an offline token.
    Never,
    After(Duration),
    At(Timestamp),
}

impl RefreshTokenEnd {
    /// The end that the members of a response tell, or of a saved one.
    pub fn of_members(members: &Map<String, Value>) -> Option<Self> {
        REFRESH_END_NAMES.iter().find_map(|(name, kind)| match time_value::read(member(members, name)?, *kind) {
            TimeValue::Lifetime(life) => Some(Self::After(life)),
            TimeValue::Instant(at) => Some(Self::At(at)),
            TimeValue::Zero => Some(Self::Never),
            TimeValue::Absent | TimeValue::NoZone(_) | TimeValue::Unreadable => None,
        })
    }

    /// The instant, for a refresh token that was issued at `issued`.
    pub fn instant(self, issued: Timestamp) -> Option<Timestamp> {
        match self {
            Self::Never => None,
            Self::After(life) => Some(issued.plus(life)),
            Self::At(at) => Some(at),
        }
    }
}

impl ExpiryClaims {
    /// The claims of the members of a response, or of a saved one, and of its access token.
    pub fn of_members(members: &Map<String, Value>, access: Option<&str>) -> Self {
        let mut claims = Self { jwt: access.map(JwtTimes::of_token).unwrap_or_default(), ..Self::default() };
        for (name, kind) in END_NAMES {
            match member(members, name).map_or(TimeValue::Absent, |value| time_value::read(value, kind)) {
                TimeValue::Lifetime(life) => claims.lifetimes.push(life),
                TimeValue::Instant(at) => claims.ends.push(at),
                TimeValue::NoZone(at) => {
                    claims.vague_ends.push(at);
                    claims.unreadable.push(name);
                }
                TimeValue::Unreadable => claims.unreadable.push(name),
                TimeValue::Absent | TimeValue::Zero => {}
            }
        }
        for name in ISSUE_NAMES {
            match member(members, name).map_or(TimeValue::Absent, |value| time_value::read(value, TimeKind::Instant)) {
                TimeValue::Instant(at) => claims.issued_at = claims.issued_at.or(Some(at)),
                TimeValue::NoZone(_) => claims.unreadable.push(name),
                // Such a name may be that of something else.
                TimeValue::Unreadable | TimeValue::Lifetime(_) | TimeValue::Absent | TimeValue::Zero => {}
            }
        }
        claims
    }

    /// Claims of a store that tells only an end.
    pub fn ending_at(end: Option<Timestamp>) -> Self {
        Self { ends: end.into_iter().collect(), ..Self::default() }
    }

    /// The validity of the access token of a response to a request that was sent at `sent`.
    pub fn validity_of_response(&self, sent: &Moment, bounds: LifetimeBounds) -> Validity {
        let told = self.lifetime_of_response(sent.wall);
        Validity {
            obtained: sent.clone(),
            lifetime_ms: millis(bounds.cap(told.unwrap_or(bounds.default))),
            assumed: told.is_none(),
            is_remainder: false,
            expired_at: None,
        }
    }

    /// The shortest believable lifetime. Relative claims do not depend on this machine's clock, and neither do two
    /// instants of the server; so a bare end that has passed, or is about to, does not count beside them.
    fn lifetime_of_response(&self, sent: Timestamp) -> Option<Duration> {
        let of_jwt = self.jwt.issued_at.zip(self.jwt.ends).map(|(issued, end)| end.since(issued));
        let between = self.issued_at.map(|issued| self.ends.iter().map(move |end| end.since(issued)));
        let relative = self.lifetimes.iter().copied().chain(of_jwt).chain(between.into_iter().flatten());
        let relative = relative.filter(is_believable).min();
        let bare_end = self.jwt.ends.filter(|_| self.jwt.issued_at.is_none());
        let bare_ends = self.ends.iter().copied().filter(|_| self.issued_at.is_none()).chain(bare_end);
        let left = bare_ends.map(|end| end.since(sent)).filter(is_believable).min();
        match (relative, left) {
            (Some(relative), Some(left)) if left >= MIN_TIME_LEFT => Some(relative.min(left)),
            (Some(relative), _) => Some(relative),
            (None, left) => left,
        }
    }

    /// The validity of the access token of a response that was saved some time ago: what is left of it. If its age or
    /// its end is not told, or is absurd, or if two claims disagree, it is not proven to live.
    pub fn validity_of_import(&self, now: &Moment, bounds: LifetimeBounds) -> Validity {
        let remainder = |left: Duration, assumed, expired_at| Validity {
            obtained: now.clone(),
            lifetime_ms: millis(left),
            assumed,
            is_remainder: true,
            expired_at,
        };
        let vague_past = self.vague_ends.iter().min().filter(|end| end.plus(MAX_ZONE) < now.wall);
        if let Some(past) = self.access_expiry().filter(|end| *end <= now.wall).or(vague_past.copied()) {
            return remainder(Duration::ZERO, false, Some(past));
        }
        let whole = self.lifetimes.iter().copied().filter(is_believable).min();
        let shortest = bounds.cap(whole.unwrap_or(bounds.default));
        let lefts: Vec<Duration> = self.all_ends().map(|end| end.since(now.wall)).collect();
        let Some(left) = lefts.iter().copied().filter(is_believable).min() else {
            return remainder(shortest, true, None);
        };
        let (tolerance, longest) = (TOLERANCE.max(left / 20), lefts.iter().copied().max().unwrap_or(left));
        let most = bounds.cap(whole.unwrap_or(MAX_LIFETIME));
        let is_sure = longest <= left + tolerance && left <= most + tolerance && self.vague_ends.is_empty();
        if !is_sure {
            return remainder(left.min(most), true, None);
        }
        let is_new = whole.is_some_and(|whole| whole <= left.saturating_add(whole / 20));
        Validity { is_remainder: !is_new, ..remainder(left.min(most), false, None) }
    }

    /// When the access token was issued, as far as the claims show it.
    pub fn issue_time(&self) -> Option<Timestamp> {
        let whole = self.lifetimes.iter().copied().filter(is_believable).min();
        let counted_back = self.ends.iter().copied().min().zip(whole).map(|(end, life)| end.minus(life));
        self.issued_at.or(self.jwt.issued_at).or(counted_back)
    }

    /// The earliest end that is told, if any; long past, if it has ended.
    pub fn access_expiry(&self) -> Option<Timestamp> {
        self.all_ends().min()
    }

    fn all_ends(&self) -> impl Iterator<Item = Timestamp> {
        let issued = self.issued_at;
        let counted = self.lifetimes.iter().filter_map(move |life| Some(issued?.plus(*life)));
        self.ends.iter().copied().chain(self.jwt.ends).chain(counted)
    }
}

impl JwtTimes {
    /// The times in an unverified JWT: good enough to know when its own issuer will refuse it.
    fn of_token(token: &str) -> Self {
        let claims = unverified_claims(token).unwrap_or_default();
        let time = |name: &str| match time_value::read(claims.get(name)?, TimeKind::Instant) {
            TimeValue::Instant(at) => Some(at),
            _ => None,
        };
        Self { issued_at: time("iat"), ends: time("exp") }
    }
}

impl LifetimeBounds {
    /// What is assumed where nothing credible is told.
    pub fn assumed(self) -> Duration {
        self.cap(self.default)
    }

    fn cap(self, lifetime: Duration) -> Duration {
        self.max.map_or(lifetime, |max| lifetime.min(max))
    }
}

/// Zero, as a relative claim, means "I do not know" at more than one server.
fn is_believable(life: &Duration) -> bool {
    !life.is_zero() && *life <= MAX_LIFETIME
}

fn millis(d: Duration) -> u64 {
    u64::try_from(d.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;

    use super::*;

    const NOW: i64 = 1_790_000_000;
    const BOUNDS: LifetimeBounds = LifetimeBounds { default: Duration::from_secs(900), max: None };

    fn now() -> Moment {
        Moment { wall: Timestamp::from_secs(NOW), boot_id: "b".into(), uptime_ms: 0 }
    }

    fn claims(members: &str) -> ExpiryClaims {
        let members: Map<String, Value> = serde_json::from_str(&format!("{{{members}}}")).unwrap();
        let access = members.get("access_token").and_then(Value::as_str).map(str::to_owned);
        ExpiryClaims::of_members(&members, access.as_deref())
    }

    fn jwt(claims: &str) -> String {
        format!(r#""access_token":"e30.{}.sig""#, URL_SAFE_NO_PAD.encode(claims))
    }

    /// The seconds that the token of a response lives, and whether that is assumed.
    fn response(members: &str) -> (u64, bool) {
        let validity = claims(members).validity_of_response(&now(), BOUNDS);
        (validity.lifetime().as_secs(), validity.assumed)
    }

    #[test]
    fn lifetime_of_a_response_is_read_in_every_dialect() {
        for (members, seconds) in [
            (r#""expires_in":60"#, 60),
            (r#""expires_in":"60""#, 60),
            (r#""expires_in":"60s""#, 60),
            (r#""expires_in":60.9"#, 60),
            (r#""expiresIn":60"#, 60),
            (r#""expires_in_sec":3600,"expires_in":3600000"#, 3600),
            (r#""expires_in_sec":"3600","expires_in":"3600000""#, 3600),
            (r#""expiresInMs":60000"#, 60),
            (r#""expires":60"#, 60),
            (r#""expired_in":120"#, 120),
            (r#""expired_in":1790000120000"#, 120),
            (r#""expires_in":1790000120"#, 120),
            (r#""expires_at":1790000090"#, 90),
            (r#""expires_at":1790000090123"#, 90),
            (r#""expires_at":"2026-09-21T14:34:00Z""#, 1240),
            (r#""expires_on":"1790000090""#, 90),
            (r#""expiry":"2026-09-21T16:34:00.123456789+02:00""#, 1240),
            (r#""expiration":"2026-09-21 14:34:00 UTC""#, 1240),
            (r#"".expires":"Mon, 21 Sep 2026 14:34:00 GMT""#, 1240),
            // The shorter counts.
            (r#""expires_in":7200,"expires_at":1790003600"#, 3600),
            (r#""expires_in":3600000,"expires_at":1790003600"#, 3600),
            (r#""expires_in":99999999999999,"expires_at":1790003600"#, 3600),
            // By the server's own clock.
            (r#""issued_at":1789990000,"expires_at":1789993600"#, 3600),
            (r#""expires_in":7200,"created_at":1789990000,"expires_at":1789993600"#, 3600),
            // A clock that is wrong does not end a token that was granted just now.
            (r#""expires_in":60,"expires_at":1"#, 60),
            (r#""expires_in":3600,"expires_at":1789999999"#, 3600),
            (r#""expires_in":3600,"expires_at":1790000010"#, 3600),
        ] {
            assert_eq!(response(members), (seconds, false), "{members}");
        }
        assert_eq!(response(&jwt(r#"{"exp":1790000077}"#)), (77, false));
        assert_eq!(response(&jwt(r#"{"iat":1780000000,"exp":1780000077}"#)), (77, false));
        assert_eq!(
            response(&format!(r#""expires_in":3600000,{}"#, jwt(r#"{"iat":1780000000,"exp":1780003600}"#))).0,
            3600
        );
    }

    #[test]
    fn absurd_lifetime_of_a_response_is_not_believed() {
        for members in [
            r#""x":1"#,
            r#""expires_in":0"#,
            r#""expires_in":-5"#,
            r#""expires_in":"soon""#,
            r#""expires_in":null"#,
            r#""expires_in":{"a":1}"#,
            r#""expires_in":999999999"#,
            r#""expires_in":1e300"#,
            r#""expires_in":3600000000"#,
            r#""expires_at":"9999-12-31T23:59:59Z""#,
            r#""expiry":"0001-01-01T00:00:00Z""#,
            r#""expires_at":1789999999"#,
        ] {
            assert_eq!(response(members), (900, true), "{members}");
        }
    }

    #[test]
    fn no_lifetime_is_longer_than_the_configured_one() {
        let bounds = LifetimeBounds { max: Some(Duration::from_secs(600)), ..BOUNDS };
        let response = |members: &str| claims(members).validity_of_response(&now(), bounds);
        assert_eq!(response(r#""expires_in":3600000"#).lifetime().as_secs(), 600);
        assert_eq!(response(r#""x":1"#).lifetime().as_secs(), 600);
        let import = claims(r#""expires_at":1790007200"#).validity_of_import(&now(), bounds);
        assert_eq!((import.lifetime().as_secs(), import.is_unproven()), (600, true));
    }

    fn import(members: &str) -> Validity {
        claims(members).validity_of_import(&now(), BOUNDS)
    }

    #[test]
    fn import_with_a_proven_end_lives_until_then() {
        for (members, left, is_remainder) in [
            (r#""expires_in":100,"obtained_at":1789999950"#, 50, true),
            (r#""expires_in":100,"obtained_at":1789999995"#, 95, false),
            (r#""expires_in":100,"obtained_at":1789999994"#, 94, true),
            (r#""expires_in":3600,"issued_at":"1789999000000""#, 2600, true),
            (r#""expires_in":3600,"created":"2026-09-21T14:03:20Z""#, 3000, true),
            (r#""expires_in":100,"expires_at":1790000030"#, 30, true),
            (r#""expires_at":1790000030"#, 30, true),
            (r#""expiry_date":1790000030000"#, 30, true),
            (r#""expired":"2026-09-21T14:34:00Z""#, 1240, true),
            (r#""expiry":"2026-09-21T16:34:00.123456789+02:00""#, 1240, true),
            // Tools round, and subtract some minutes.
            (r#""expires_at":1790003600,"expires":1790003300000"#, 3300, true),
        ] {
            let validity = import(members);
            assert_eq!((validity.lifetime().as_secs(), validity.is_remainder), (left, is_remainder), "{members}");
            assert!(!validity.assumed, "{members}");
        }
        assert_eq!(import(&jwt(r#"{"exp":1790000030}"#)).lifetime().as_secs(), 30);
    }

    #[test]
    fn import_of_unknown_age_or_end_is_not_proven_to_live() {
        for (members, left) in [
            (r#""x":1"#, 900),
            (r#""expires_in":100"#, 100),
            (r#""expires_in":100,"created_at":"yesterday""#, 100),
            (r#""expires_at":0"#, 900),
            (r#""expires_at":null,"expires_in":0"#, 900),
            (r#""expiry":"0001-01-01T00:00:00Z""#, 900),
            (r#""expires_at":"soon""#, 900),
            (r#""expires_at":3600"#, 900),
            (r#""expires_at":"2026-09-21T14:34:00""#, 900),
            // Absurd: a unit that was mixed up, or "never".
            (r#""expires_at":4102444800000"#, 900),
            (r#""expires_in":3600,"expires_at":1793600000"#, 3600),
            (r#""expires_in":315360000"#, 900),
            // The claims disagree, and the shorter counts.
            (r#""expires_at":1790003600,"expiry":"2026-09-21T14:23:20Z""#, 600),
            (r#""expires_in_sec":3600,"expires_in":3600000,"obtained_at":1789999000"#, 2600),
            (r#""expires_in":600,"obtained_at":1790009000"#, 600),
        ] {
            let validity = import(members);
            assert_eq!((validity.lifetime().as_secs(), validity.is_unproven()), (left, true), "{members}");
            assert_eq!(validity.expires_at(), now().wall.plus(validity.lifetime()), "{members}");
        }
        let both = format!(r#""expires_at":1790360000,{}"#, jwt(r#"{"exp":1790000030}"#));
        assert_eq!((import(&both).lifetime().as_secs(), import(&both).is_unproven()), (30, true));
    }

    #[test]
    fn import_that_has_ended_keeps_the_time_of_its_end() {
        for (members, end) in [
            (r#""expires_in":100,"created_at":1789999000"#, NOW - 900),
            (r#""expires_at":1789568000"#, NOW - 432_000),
            (r#""expiry":"2024-05-07T10:00:00.123456789+02:00""#, 1_715_068_800),
            (r#""expires_on":"1715068800""#, 1_715_068_800),
            (r#""expired":"2024-05-07T08:00:00Z""#, 1_715_068_800),
            // No time zone is so far away.
            (r#""expires_at":"2024-05-07T08:00:00.5""#, 1_715_068_800),
            // The shorter counts.
            (r#""expires_at":1790003600,"expires_on":1789999999"#, NOW - 1),
        ] {
            let validity = import(members);
            assert_eq!(validity.expires_at().to_the_second(), Timestamp::from_secs(end), "{members}");
            assert!(validity.remaining(&now()).is_zero() && !validity.assumed, "{members}");
        }
        assert_eq!(import(&jwt(r#"{"exp":1789568000}"#)).expires_at(), Timestamp::from_secs(1_789_568_000));
    }

    #[test]
    fn time_that_cannot_be_read_is_named() {
        let unreadable = |members: &str| claims(members).unreadable;
        assert_eq!(
            unreadable(r#""expiresAt":"soon","expiry":"2026-09-21 14:13:20","expires_in":60"#),
            ["expires_at", "expiry"]
        );
        assert_eq!(unreadable(r#""expires_in":-5"#), ["expires_in"]);
        assert!(unreadable(r#""expires_at":null,"expired":false,"expires":0,"created":{"by":1}"#).is_empty());
    }

    #[test]
    fn end_of_a_refresh_token_is_read_in_every_dialect() {
        let end = |members: &str| {
            let members: Map<String, Value> = serde_json::from_str(&format!("{{{members}}}")).unwrap();
            RefreshTokenEnd::of_members(&members).and_then(|end| end.instant(now().wall))
        };
        let at = |s| Some(Timestamp::from_secs(s));
        assert_eq!(end(r#""refresh_token_expires_in":"15897600""#), at(NOW + 15_897_600));
        assert_eq!(end(r#""refresh_expires_in":1800"#), at(NOW + 1800));
        assert_eq!(end(r#""x_refresh_token_expires_in":8726400"#), at(NOW + 8_726_400));
        assert_eq!(end(r#""refreshTokenExpiresAt":1790000500000"#), at(NOW + 500));
        assert_eq!(end(r#""refresh_token_expiry":"2026-09-21T14:34:00Z""#), at(NOW + 1240));
        assert_eq!((end(r#""refresh_expires_in":0"#), end(r#""x":1"#)), (None, None));
    }
}
