//! The tools that a credential can be taken over from: what each is called, where it keeps its store, and how a person
//! signs out of it without ending the session at the provider. A table.

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
}

/// What is known of a tool.
pub struct ToolInfo {
    pub tool: Tool,
    /// As `--from` has it.
    pub name: &'static str,
    /// The provider that its credential is for, unless the store or the person says otherwise.
    pub provider: Option<&'static str>,
    /// Whether its store can be looked into without a person. One that cannot is neither followed nor watched.
    pub is_readable_unattended: bool,
    /// How to sign out on this machine alone; `PLACE` and `ACCOUNT` stand for what was read.
    pub sign_out: &'static str,
    /// The command that looks like it but revokes the token at the provider, and so ours; how sure that is.
    pub do_not_use: &'static str,
}

pub const TOOLS: [ToolInfo; 7] = [
    ToolInfo {
        tool: Tool::Codex,
        name: "codex",
        provider: Some("openai"),
        is_readable_unattended: true,
        sign_out: "rm PLACE",
        // Seen to (0.169.0).
        do_not_use: "codex logout, which revokes it for both",
    },
    ToolInfo {
        tool: Tool::Claude,
        name: "claude",
        provider: Some("anthropic"),
        is_readable_unattended: true,
        // The logins of MCP servers stand beside it.
        sign_out: "remove the member \"claudeAiOauth\" from PLACE",
        do_not_use: "claude auth logout, which may revoke it for both",
    },
    ToolInfo {
        tool: Tool::Grok,
        name: "grok",
        provider: Some("xai"),
        is_readable_unattended: true,
        sign_out: "remove the entry \"ACCOUNT\" from PLACE",
        do_not_use: "",
    },
    ToolInfo {
        tool: Tool::Gemini,
        name: "gemini",
        provider: Some("google"),
        is_readable_unattended: true,
        sign_out: "rm PLACE",
        do_not_use: "",
    },
    ToolInfo {
        tool: Tool::OpenClaw,
        name: "openclaw",
        provider: None,
        is_readable_unattended: true,
        // Seen to make no request (2026.9.6).
        sign_out: "openclaw models auth logout ACCOUNT",
        do_not_use: "",
    },
    ToolInfo {
        tool: Tool::OidcAgent,
        name: "oidc-agent",
        provider: None,
        is_readable_unattended: false,
        sign_out: "oidc-add --remove ACCOUNT, then rm its file in ~/.config/oidc-agent or ~/.oidc-agent",
        // Seen to (4.2.6).
        do_not_use: "oidc-gen --delete, which revokes it for both",
    },
    ToolInfo {
        tool: Tool::Pizauth,
        name: "pizauth",
        provider: None,
        is_readable_unattended: true,
        // Despite its name it asks nobody (1.1.0).
        sign_out: "pizauth revoke ACCOUNT",
        do_not_use: "",
    },
];

impl ToolInfo {
    /// How to sign out of the store that `origin` names on this machine, and how not to.
    pub fn sign_out_hint(&self, origin: &ImportSource) -> String {
        let never =
            if self.do_not_use.is_empty() { String::new() } else { format!(" (do not use {})", self.do_not_use) };
        format!("{}{never}", self.sign_out_command(origin))
    }

    fn sign_out_command(&self, origin: &ImportSource) -> String {
        let is_no_file = origin.location.as_ref().is_some_and(|place| !Path::new(place).exists());
        if self.tool == Tool::Codex && is_no_file {
            return "remove the item \"Codex Auth\" from the keyring".into();
        }
        let place = origin.location.as_deref().unwrap_or("its store");
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
