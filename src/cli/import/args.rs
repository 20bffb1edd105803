//! The arguments of `keepalive import`.

use std::path::PathBuf;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, ValueHint};
use clap_complete::ArgValueCandidates;

use crate::cli::completion;
use crate::credential::external::ImportSource;
use crate::import_sources::tools::{TOOLS, Tool};
use crate::profile::ProfileName;

/// Import a credential from a token response or another tool
///
/// Reads the JSON of a token response (RFC 6749 §5.1) from FILE or standard input; it needs at least a refresh token. With
/// --from, reads the store of that tool instead, and never writes to it. From then on, only keepalive may use the refresh
/// token: at most providers, a refresh by any other program revokes it. So remove the credential from that tool as
/// instructed; do not use its own logout if that revokes the token. `keepalive doctor` warns as long as the tool has a
/// copy. If the tool has to stay signed in, see follow in keepalive.toml(5).
///
/// A token response or store that does not say when it was issued, or when its access token ends, counts as due: the token
/// is refreshed before it is handed out. If that fails for a reason that passes, the token is handed out as `assumed`.
///
/// oidc-agent's credential is read with oidc-gen, which asks you for its password; OpenClaw's database with sqlite3;
/// pizauth's tokens with pizauth dump.
#[derive(Debug, Args)]
pub struct ImportArgs {
    /// Profile to import into
    #[arg(value_name = "PROFILE", value_parser = crate::cli::profile_name, add = ArgValueCandidates::new(completion::profiles))]
    pub(super) profile: ProfileName,
    /// Provider that issued it; required if the profile is not configured
    #[arg(long, value_name = "P", add = ArgValueCandidates::new(completion::providers))]
    pub(super) provider: Option<String>,
    /// Read the store of this tool
    #[arg(long, value_name = "TOOL", value_parser = tool_names())]
    pub(super) from: Option<Tool>,
    /// Account in that store, by its name there or its email address; required if there are several
    #[arg(long, value_name = "ID", requires = "from")]
    pub(super) account: Option<String>,
    /// Replace the stored credential even if it is newer or belongs to another account
    ///
    /// A refresh token that the server rejected is taken as well, to be sent once more, at most once a minute. One that is
    /// consumed or in doubt is not.
    #[arg(long)]
    pub(super) replace: bool,
    /// Token response to import; standard input if not given. With --from: the tool's store, if it is not in its usual
    /// location; - for standard input
    #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(super) file: Option<PathBuf>,
    /// The tool will be fed, so no one need sign out of it.
    #[arg(skip)]
    pub(super) is_for_feed: bool,
}

impl ImportArgs {
    /// The import of a sign-in whose tool is fed from then on.
    pub(in crate::cli) fn for_feed(profile: &ProfileName, tool: Tool, origin: &ImportSource, replace: bool) -> Self {
        Self {
            profile: profile.clone(),
            provider: None,
            from: Some(tool),
            account: origin.account.clone(),
            replace,
            file: origin.location.as_ref().map(PathBuf::from),
            is_for_feed: true,
        }
    }
}

/// Reads `--from`.
fn tool_names() -> impl TypedValueParser<Value = Tool> {
    PossibleValuesParser::new(TOOLS.map(|about| about.name))
        .try_map(|name| Tool::from_name(&name).ok_or("no such tool"))
}
