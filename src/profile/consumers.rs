//! The programs that keepalive can feed: one row each, no code for one. Where a row differs from another, a field says so.
//!
//! A consumer gets an access token and never a refresh token: then it refreshes nothing.

use crate::profile::mirror_value::MirrorValue;

/// A program that reads its access token from a place that keepalive keeps up to date.
#[derive(Debug, PartialEq, Eq)]
pub struct Consumer {
    /// Its name in `keepalive feed` and as the `kind` of a mirror.
    pub name: &'static str,
    /// Its name for a person.
    pub title: &'static str,
    /// Its name in `import --from`, if its store can have a credential that is to be taken over.
    pub tool: Option<&'static str>,
    /// The provider of its sign-in, if it has only one.
    pub provider: Option<&'static str>,
    pub delivery: Delivery,
    /// It has one file, in a place that is known; else a person names the file.
    pub has_one_file: bool,
    /// How it names a sign-in, if its store has several.
    pub entry: EntryName,
    /// How to sign in there again.
    pub sign_in: &'static str,
    /// What was run, or that nothing was.
    pub tested: &'static str,
}

/// How a consumer gets the token.
#[derive(Debug, PartialEq, Eq)]
pub enum Delivery {
    /// In a JSON file. `ENTRY` in a pointer stands for the name of the sign-in.
    Document {
        fields: &'static [Field],
        /// Where the consumer would have the refresh token.
        refresh: &'static str,
        /// Where it has the account, if it does.
        account: &'static str,
        lock: ConsumerLock,
    },
    /// To a program of the consumer, on its standard input. `ENTRY`, `PROVIDER` and `SECONDS` are replaced.
    Command { argv: &'static [&'static str] },
}

/// A member of a consumer's file.
#[derive(Debug, PartialEq, Eq)]
pub struct Field {
    pub pointer: &'static str,
    pub content: FieldContent,
}

/// What a member of a consumer's file becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldContent {
    /// The value, which must be known.
    Value(MirrorValue),
    /// The value. If it is not known, the member must be there, and stays.
    ValueOrThere(MirrorValue),
    /// The value if it is known; else the member stays as it is.
    IfKnown(MirrorValue),
    /// What is there stays; the value if nothing is.
    ThereOrValue(MirrorValue),
    /// This text. What was there before is put back when the feed is undone.
    Text(&'static str),
    /// The empty text, in place of a refresh token that must be a text.
    Blank,
    /// Null, if nothing is there.
    NullIfAbsent,
    /// The member is removed.
    Removed,
}

/// The lock that a consumer takes to write its file; names in the directory of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConsumerLock {
    None,
    /// `flock` on each, in this order.
    Files(&'static [&'static str]),
    /// A directory that is made. `owner`: the file that names its holder, if there is one.
    Directory {
        name: &'static str,
        owner: &'static str,
    },
}

/// How a consumer names a sign-in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryName {
    /// Its store has one.
    Single,
    /// By the provider: by another name than ours where the table has one.
    Provider(&'static [(&'static str, &'static str)]),
    /// By the provider, with this behind it.
    ProviderWith(&'static str),
}

const fn field(pointer: &'static str, content: FieldContent) -> Field {
    Field { pointer, content }
}

use FieldContent::{Blank, IfKnown, NullIfAbsent, Removed, Text, ThereOrValue, Value, ValueOrThere};
use MirrorValue as V;

/// The members of one sign-in of opencode and of pi.
const BY_PROVIDER: &[Field] = &[
    field("/ENTRY/type", Text("oauth")),
    field("/ENTRY/refresh", Blank),
    field("/ENTRY/access", Value(V::AccessToken)),
    field("/ENTRY/expires", Value(V::ExpiresAtUnixMs)),
    field("/ENTRY/accountId", IfKnown(V::Account)),
];

/// All of them, in the order of the manual.
pub const CONSUMERS: &[Consumer] = &[
    Consumer {
        name: "codex",
        title: "Codex",
        tool: Some("codex"),
        provider: Some("openai"),
        delivery: Delivery::Document {
            fields: &[
                // In this mode it never posts, reads the file again after a 401, and revokes nothing at a logout.
                field("/auth_mode", Text("chatgptAuthTokens")),
                field("/OPENAI_API_KEY", NullIfAbsent),
                field("/tokens/id_token", ValueOrThere(V::IdToken)),
                field("/tokens/access_token", Value(V::AccessToken)),
                // It must be there: without it Codex is signed out, and says nothing.
                field("/tokens/refresh_token", Blank),
                field("/tokens/account_id", ValueOrThere(V::Account)),
                field("/last_refresh", Value(V::ObtainedAt)),
            ],
            refresh: "/tokens/refresh_token",
            account: "/tokens/account_id",
            lock: ConsumerLock::Files(&["auth.lock", "auth.json.lock"]),
        },
        has_one_file: true,
        entry: EntryName::Single,
        sign_in: "codex login",
        tested: "Codex 0.171.0",
    },
    Consumer {
        name: "claude",
        title: "Claude Code",
        tool: Some("claude"),
        provider: Some("anthropic"),
        delivery: Delivery::Document {
            fields: &[
                field("/claudeAiOauth/accessToken", Value(V::AccessToken)),
                // Without it Claude Code never tries to refresh, not even an expired token.
                field("/claudeAiOauth/refreshToken", Removed),
                field("/claudeAiOauth/refreshTokenExpiresAt", Removed),
                field("/claudeAiOauth/expiresAt", Value(V::ExpiresAtUnixMs)),
                field("/claudeAiOauth/scopes", ThereOrValue(V::Scopes)),
            ],
            refresh: "/claudeAiOauth/refreshToken",
            account: "",
            lock: ConsumerLock::Directory { name: ".oauth_refresh.lock", owner: ".oauth_refresh.lock.owner" },
        },
        has_one_file: true,
        entry: EntryName::Single,
        sign_in: "claude, then /login",
        tested: "Claude Code 2.1.332",
    },
    Consumer {
        name: "gemini",
        title: "Gemini CLI",
        tool: Some("gemini"),
        provider: Some("google"),
        delivery: Delivery::Document {
            fields: &[
                field("/access_token", Value(V::AccessToken)),
                field("/refresh_token", Removed),
                field("/token_type", Value(V::TokenType)),
                field("/expiry_date", Value(V::ExpiresAtUnixMs)),
                field("/scope", IfKnown(V::Scope)),
                field("/id_token", IfKnown(V::IdToken)),
            ],
            refresh: "/refresh_token",
            account: "",
            lock: ConsumerLock::None,
        },
        has_one_file: true,
        entry: EntryName::Single,
        sign_in: "gemini, then /auth",
        tested: "Gemini CLI 0.61.0; it reads the file at its start alone",
    },
    Consumer {
        name: "opencode",
        title: "opencode",
        tool: Some("opencode"),
        provider: None,
        delivery: Delivery::Document {
            fields: BY_PROVIDER,
            refresh: "/ENTRY/refresh",
            account: "/ENTRY/accountId",
            lock: ConsumerLock::None,
        },
        has_one_file: true,
        entry: EntryName::Provider(&[]),
        sign_in: "opencode auth login",
        tested: "opencode 1.18.33",
    },
    Consumer {
        name: "pi",
        title: "pi",
        tool: Some("pi"),
        provider: None,
        delivery: Delivery::Document {
            fields: BY_PROVIDER,
            refresh: "/ENTRY/refresh",
            account: "/ENTRY/accountId",
            lock: ConsumerLock::Directory { name: "auth.json.lock", owner: "" },
        },
        has_one_file: true,
        entry: EntryName::Provider(&[("openai", "openai-codex"), ("google", "google-gemini-cli")]),
        sign_in: "pi, then /login",
        tested: "not tested with pi itself",
    },
    Consumer {
        name: "litellm",
        title: "LiteLLM",
        tool: Some("litellm"),
        provider: Some("openai"),
        delivery: Delivery::Document {
            fields: &[
                field("/access_token", Value(V::AccessToken)),
                field("/refresh_token", Removed),
                field("/expires_at", Value(V::ExpiresAtUnix)),
                field("/id_token", IfKnown(V::IdToken)),
                field("/account_id", IfKnown(V::Account)),
            ],
            refresh: "/refresh_token",
            account: "/account_id",
            lock: ConsumerLock::None,
        },
        has_one_file: true,
        entry: EntryName::Single,
        sign_in: "start LiteLLM, which shows a device login",
        tested: "the source of LiteLLM 1.110.2, not its program",
    },
    Consumer {
        name: "mcp-remote",
        title: "mcp-remote",
        tool: Some("mcp-remote"),
        provider: None,
        delivery: Delivery::Document {
            fields: &[
                field("/access_token", Value(V::AccessToken)),
                field("/token_type", Value(V::TokenType)),
                field("/expires_in", Value(V::ExpiresIn)),
                field("/expires_at", Value(V::ExpiresAtUnixMs)),
                field("/refresh_token", Removed),
                field("/scope", IfKnown(V::Scope)),
            ],
            refresh: "/refresh_token",
            account: "",
            lock: ConsumerLock::None,
        },
        has_one_file: false,
        entry: EntryName::Single,
        sign_in: "start mcp-remote, which opens a browser",
        tested: "mcp-remote 0.15.1",
    },
    Consumer {
        name: "openclaw",
        title: "OpenClaw",
        tool: None,
        provider: None,
        delivery: Delivery::Command {
            argv: &[
                "openclaw",
                "models",
                "auth",
                "paste-token",
                "--provider",
                "PROVIDER",
                "--profile-id",
                "ENTRY",
                "--expires-in",
                "SECONDSs",
            ],
        },
        has_one_file: false,
        entry: EntryName::ProviderWith(":keepalive"),
        sign_in: "openclaw models auth login",
        tested: "OpenClaw 2026.9.6",
    },
];

impl Consumer {
    pub fn from_name(name: &str) -> Option<&'static Self> {
        CONSUMERS.iter().find(|consumer| consumer.name == name)
    }

    /// The name of a sign-in for this provider of ours.
    pub fn entry_of(&self, provider: &str) -> String {
        match self.entry {
            EntryName::Single => String::new(),
            EntryName::Provider(names) => {
                names.iter().find(|(ours, _)| *ours == provider).map_or(provider, |(_, theirs)| theirs).to_owned()
            }
            EntryName::ProviderWith(end) => format!("{provider}{end}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_consumer_gets_an_access_token_and_no_refresh_token() {
        for consumer in CONSUMERS {
            assert_eq!(Consumer::from_name(consumer.name), Some(consumer));
            let Delivery::Document { fields, refresh, .. } = &consumer.delivery else { continue };
            let of = |pointer: &str| fields.iter().find(|f| f.pointer == pointer).map(|f| f.content);
            assert!(matches!(of(refresh), Some(Blank | Removed)), "{}", consumer.name);
            assert_eq!(fields.iter().filter(|f| f.content == Value(V::AccessToken)).count(), 1, "{}", consumer.name);
        }
    }

    #[test]
    fn entry_is_called_as_the_consumer_calls_it() {
        let entry = |consumer: &str, provider: &str| Consumer::from_name(consumer).unwrap().entry_of(provider);
        assert_eq!(entry("opencode", "openai"), "openai");
        assert_eq!(entry("pi", "openai"), "openai-codex");
        assert_eq!(entry("openclaw", "xai"), "xai:keepalive");
        assert_eq!(entry("codex", "openai"), "");
    }
}
