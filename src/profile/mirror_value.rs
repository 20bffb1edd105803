//! The values that a mirror can have. There is none for the refresh token, so no mirror can name it.

macro_rules! mirror_values {
    ($($variant:ident, $name:literal, $text:literal;)*) => {
        /// The values that a mirror can have. There is none for the refresh token.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum MirrorValue {
            $(#[doc = $text] $variant,)*
        }

        impl MirrorValue {
            /// Each with its name in the configuration.
            pub const ALL: &'static [(&'static str, Self)] = &[$(($name, Self::$variant),)*];
        }
    };
}

mirror_values! {
    AccessToken, "access_token", "The access token.";
    IdToken, "id_token", "The newest ID token.";
    TokenType, "token_type", "As a rule `Bearer`.";
    ExpiresAt, "expires_at", "When the access token expires, as RFC 3339 in UTC.";
    ExpiresAtUnix, "expires_at_unix", "The same in seconds since 1970.";
    ExpiresAtUnixMs, "expires_at_unix_ms", "The same in milliseconds.";
    ExpiresIn, "expires_in", "Seconds from the writing to the expiry.";
    ObtainedAt, "obtained_at", "When the access token was obtained, as RFC 3339 in UTC.";
    Account, "account", "The account or workspace that the tokens, or the store that they came from, name.";
    Generation, "generation", "The number of the credential.";
    Profile, "profile", "The name of the profile.";
    Scope, "scope", "The granted scopes, separated by spaces.";
    Scopes, "scopes", "The granted scopes as a list.";
}

impl MirrorValue {
    /// Its name in the configuration.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, value)| *value == self).map_or("", |(name, _)| name)
    }
}
