//! What `keepalive import` can be told.

use std::path::PathBuf;

use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};

use crate::adopt::tools::{TOOLS, Tool};
use crate::profile::ProfileName;

/// Take over a credential from a token response, or from another tool
///
/// Reads the JSON of a token response (RFC 6749 §5.1) from FILE or standard input. A refresh token is enough. With --from it
/// reads the store of that tool instead, and writes nothing there. From then on keepalive must be its only user: a refresh
/// by anybody else revokes it at most providers. So sign out of the tool on this machine, as it is told, and never by the
/// tool's own logout where that revokes the token. `keepalive doctor` warns as long as the tool holds a copy. A tool that
/// cannot be signed out can be followed: see follow in keepalive.toml(5).
///
/// oidc-agent is asked by its program, oidc-gen, which asks you for the password; OpenClaw's database is read by sqlite3;
/// pizauth prints its tokens by pizauth dump.
#[derive(Debug, Args)]
pub struct ImportArgs {
    /// The profile to import into
    #[arg(value_name = "PROFILE", value_parser = crate::cli::profile_name)]
    pub(super) profile: ProfileName,
    /// The provider that issued it; needed if the profile is not configured
    #[arg(long, value_name = "P")]
    pub(super) provider: Option<String>,
    /// Read the store of this tool
    #[arg(long, value_name = "TOOL", value_parser = tool_names())]
    pub(super) from: Option<Tool>,
    /// Which account in that store, by its name there or by its address; needed if there are several
    #[arg(long, value_name = "ID", requires = "from")]
    pub(super) account: Option<String>,
    /// Replace a credential that is newer, or not known to be older, or of another account
    #[arg(long)]
    pub(super) replace: bool,
    /// The token response; standard input if not given. With --from: the tool's store, if it is not in its usual place; -
    /// is standard input
    #[arg(value_name = "FILE")]
    pub(super) file: Option<PathBuf>,
}

/// Reads `--from`.
fn tool_names() -> impl TypedValueParser<Value = Tool> {
    PossibleValuesParser::new(TOOLS.map(|about| about.name)).try_map(|name| Tool::named(&name).ok_or("no such tool"))
}
