//! A table of the tools to import from: name, place of the store, and how to sign out without ending the session at the
//! provider.

use std::path::Path;

use crate::credential::external::ImportSource;

/// A tool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tool {
    Codex,
    Claude,
    Grok,
    Gemini,
    OpenClaw,
    OidcAgent,
    Pizauth,
    Opencode,
    Pi,
    Hermes,
    LiteLlm,
    CliProxy,
    McpRemote,
    Rclone,
    GhHosts,
}

/// The facts about a tool.
pub struct ToolInfo {
    pub tool: Tool,
    /// Its name in `--from`.
    pub name: &'static str,
    /// The provider of its credential, unless the store or the person says otherwise.
    pub provider: Option<&'static str>,
    /// Whether its store can be read without a person. A store that cannot is neither followed nor watched.
    pub is_readable_unattended: bool,
    /// Whether the tool refreshes its tokens. Following one that does not would be a wait without an end.
    pub is_refreshing: bool,
    /// How to sign out on this machine only; `PLACE` and `ACCOUNT` stand for what was read.
    pub sign_out: &'static str,
    /// The tool's own command for that, which revokes the token at the provider, and so ours too.
    pub do_not_use: &'static str,
}

pub const TOOLS: [ToolInfo; 15] = [
    ToolInfo {
        tool: Tool::Codex,
        name: "codex",
        provider: Some("openai"),
        is_readable_unattended: true,
        is_refreshing: true,
        sign_out: "rm PLACE",
        // Tested with 0.169.0.
        do_not_use: "codex logout, which revokes it for both",
    },
    ToolInfo {
        tool: Tool::Claude,
        name: "claude",
        provider: Some("anthropic"),
        is_readable_unattended: true,
        is_refreshing: true,
        // The file also has the logins of MCP servers.
        sign_out: "remove the member \"claudeAiOauth\" from PLACE",
        do_not_use: "claude auth logout, which may revoke it for both",
    },
    ToolInfo {
        tool: Tool::Grok,
        name: "grok",
        provider: Some("xai"),
        is_readable_unattended: true,
        is_refreshing: true,
        sign_out: "remove the entry \"ACCOUNT\" from PLACE",
        do_not_use: "",
    },
    ToolInfo {
        tool: Tool::Gemini,
        name: "gemini",
        provider: Some("google"),
        is_readable_unattended: true,
        is_refreshing: true,
        sign_out: "rm PLACE",
        do_not_use: "",
    },
    ToolInfo {
        tool: Tool::OpenClaw,
        name: "openclaw",
        provider: None,
        is_readable_unattended: true,
        is_refreshing: true,
        // Tested: it makes no request (2026.9.6).
        sign_out: "openclaw models auth logout ACCOUNT",
        do_not_use: "",
    },
    ToolInfo {
        tool: Tool::OidcAgent,
        name: "oidc-agent",
        provider: None,
        is_readable_unattended: false,
        is_refreshing: true,
        sign_out: "oidc-add --remove ACCOUNT, then rm its file in ~/.config/oidc-agent or ~/.oidc-agent",
        // Tested with 4.2.6.
        do_not_use: "oidc-gen --delete, which revokes it for both",
    },
    ToolInfo {
        tool: Tool::Pizauth,
        name: "pizauth",
        provider: None,
        is_readable_unattended: true,
        is_refreshing: true,
        // Despite its name it makes no request (1.1.0).
        sign_out: "pizauth revoke ACCOUNT",
        do_not_use: "",
    },
    ToolInfo {
        tool: Tool::Opencode,
        name: "opencode",
        provider: None,
        is_readable_unattended: true,
        is_refreshing: true,
        sign_out: "remove the member \"ACCOUNT\" from PLACE",
        do_not_use: "",
    },
    ToolInfo {
        tool: Tool::Pi,
        name: "pi",
        provider: None,
        is_readable_unattended: true,
        is_refreshing: true,
        sign_out: "remove the member \"ACCOUNT\" from PLACE",
        do_not_use: "",
    },
    ToolInfo {
        tool: Tool::Hermes,
        name: "hermes",
        provider: None,
        is_readable_unattended: true,
        is_refreshing: true,
        sign_out: "remove the tokens of \"ACCOUNT\" from PLACE, in providers and in credential_pool",
        do_not_use: "",
    },
    ToolInfo {
        tool: Tool::LiteLlm,
        name: "litellm",
        provider: Some("openai"),
        is_readable_unattended: true,
        is_refreshing: true,
        sign_out: "rm PLACE",
        do_not_use: "",
    },
    ToolInfo {
        tool: Tool::CliProxy,
        name: "cliproxy",
        provider: None,
        is_readable_unattended: true,
        is_refreshing: true,
        sign_out: "rm PLACE/ACCOUNT.json",
        do_not_use: "",
    },
    ToolInfo {
        tool: Tool::McpRemote,
        name: "mcp-remote",
        provider: None,
        is_readable_unattended: true,
        is_refreshing: true,
        sign_out: "rm PLACE/ACCOUNT_tokens.json",
        do_not_use: "",
    },
    ToolInfo {
        tool: Tool::Rclone,
        name: "rclone",
        provider: None,
        is_readable_unattended: true,
        is_refreshing: true,
        sign_out: "remove the line \"token\" of [ACCOUNT] from PLACE",
        do_not_use: "rclone config disconnect, which revokes it for both at some providers",
    },
    ToolInfo {
        tool: Tool::GhHosts,
        name: "gh-hosts",
        provider: Some("github"),
        is_readable_unattended: true,
        // It gets none that end.
        is_refreshing: false,
        sign_out: "remove the host ACCOUNT from PLACE",
        do_not_use: "",
    },
];

impl ToolInfo {
    /// How to sign out, on this machine only, of the store that `origin` names, and what to avoid.
    pub fn sign_out_hint(&self, origin: &ImportSource) -> String {
        let never =
            if self.do_not_use.is_empty() { String::new() } else { format!(" (do not use {})", self.do_not_use) };
        format!("{}{never}", self.sign_out_command(origin))
    }

    fn sign_out_command(&self, origin: &ImportSource) -> String {
        if self.tool == Tool::Codex && origin.is_in_keyring {
            return "remove the item \"Codex Auth\" from the keyring".into();
        }
        let place = origin.location.as_deref().unwrap_or("its store");
        if matches!(self.tool, Tool::CliProxy | Tool::McpRemote) && Path::new(place).is_file() {
            return format!("rm {place}");
        }
        self.sign_out.replace("PLACE", place).replace("ACCOUNT", origin.account.as_deref().unwrap_or("it"))
    }
}

impl Tool {
    pub fn info(self) -> &'static ToolInfo {
        TOOLS.iter().find(|about| about.tool == self).unwrap_or(&TOOLS[0])
    }

    pub fn from_name(name: &str) -> Option<Self> {
        TOOLS.iter().find(|about| about.name == name).map(|about| about.tool)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_tool_is_in_the_table_once() {
        for about in &TOOLS {
            assert_eq!(Tool::from_name(about.name), Some(about.tool));
            assert_eq!(about.tool.info().name, about.name);
        }
        assert_eq!(Tool::from_name("emacs"), None);
    }
}
