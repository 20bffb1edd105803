//! The tools that a credential can be taken over from: what each is called, where it keeps its store, and how a person
//! signs out of it without ending the session at the provider. A table.

use std::path::Path;

use crate::credential::foreign::Origin;

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
pub struct About {
    pub tool: Tool,
    /// As `--from` has it.
    pub name: &'static str,
    /// The provider that its credential is for, unless the store or the person says otherwise.
    pub provider: Option<&'static str>,
    /// Whether its store can be looked into without a person. One that cannot is neither followed nor watched.
    pub is_open: bool,
    /// How to sign out on this machine alone; `PLACE` and `ACCOUNT` stand for what was read.
    pub sign_out: &'static str,
    /// The command that looks like it but revokes the token at the provider, and so ours; how sure that is.
    pub never: &'static str,
}

pub const TOOLS: [About; 7] = [
    About {
        tool: Tool::Codex,
        name: "codex",
        provider: Some("openai"),
        is_open: true,
        sign_out: "rm PLACE",
        // Seen to (0.169.0).
        never: "codex logout, which revokes it for both",
    },
    About {
        tool: Tool::Claude,
        name: "claude",
        provider: Some("anthropic"),
        is_open: true,
        // The logins of MCP servers stand beside it.
        sign_out: "remove the member \"claudeAiOauth\" from PLACE",
        never: "claude auth logout, which may revoke it for both",
    },
    About {
        tool: Tool::Grok,
        name: "grok",
        provider: Some("xai"),
        is_open: true,
        sign_out: "remove the entry \"ACCOUNT\" from PLACE",
        never: "",
    },
    About {
        tool: Tool::Gemini,
        name: "gemini",
        provider: Some("google"),
        is_open: true,
        sign_out: "rm PLACE",
        never: "",
    },
    About {
        tool: Tool::OpenClaw,
        name: "openclaw",
        provider: None,
        is_open: true,
        // Seen to make no request (2026.9.6).
        sign_out: "openclaw models auth logout ACCOUNT",
        never: "",
    },
    About {
        tool: Tool::OidcAgent,
        name: "oidc-agent",
        provider: None,
        is_open: false,
        sign_out: "oidc-add --remove ACCOUNT, then rm its file in ~/.config/oidc-agent or ~/.oidc-agent",
        // Seen to (4.2.6).
        never: "oidc-gen --delete, which revokes it for both",
    },
    About {
        tool: Tool::Pizauth,
        name: "pizauth",
        provider: None,
        is_open: true,
        // Despite its name it asks nobody (1.1.0).
        sign_out: "pizauth revoke ACCOUNT",
        never: "",
    },
];

impl About {
    /// How to sign out of the store that `origin` names on this machine, and how not to.
    pub fn way_out(&self, origin: &Origin) -> String {
        let never = if self.never.is_empty() { String::new() } else { format!(" (do not use {})", self.never) };
        format!("{}{never}", self.sign_out(origin))
    }

    fn sign_out(&self, origin: &Origin) -> String {
        let is_no_file = origin.place.as_ref().is_some_and(|place| !Path::new(place).exists());
        if self.tool == Tool::Codex && is_no_file {
            return "remove the item \"Codex Auth\" from the keyring".into();
        }
        let place = origin.place.as_deref().unwrap_or("its store");
        self.sign_out.replace("PLACE", place).replace("ACCOUNT", origin.account.as_deref().unwrap_or("it"))
    }
}

impl Tool {
    pub fn about(self) -> &'static About {
        TOOLS.iter().find(|about| about.tool == self).unwrap_or(&TOOLS[0])
    }

    pub fn named(name: &str) -> Option<Self> {
        TOOLS.iter().find(|about| about.name == name).map(|about| about.tool)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_tool_is_in_the_table_once() {
        for about in &TOOLS {
            assert_eq!(Tool::named(about.name), Some(about.tool));
            assert_eq!(about.tool.about().name, about.name);
        }
        assert_eq!(Tool::named("emacs"), None);
    }
}
