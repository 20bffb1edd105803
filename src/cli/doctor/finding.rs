//! One finding of a check: its level, its text, and a hint.

use serde_json::json;

use super::super::output::{BAD, CommandStatus, DIM, GOOD, Output, WARN};
use crate::outcome::{ErrorKind, Failure, Outcome};
use crate::profile::ProfileName;
use crate::store::StoreError;

/// The result of one check.
pub struct Finding {
    subject: &'static str,
    severity: Severity,
    text: String,
    hint: Option<String>,
    status: CommandStatus,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Severity {
    Good,
    Warning,
    Bad,
}

impl Finding {
    pub fn good(what: &'static str, text: impl Into<String>) -> Self {
        Self { subject: what, severity: Severity::Good, text: text.into(), hint: None, status: CommandStatus::Ok }
    }

    pub fn warning(what: &'static str, text: impl Into<String>, hint: &str) -> Self {
        Self {
            subject: what,
            severity: Severity::Warning,
            text: text.into(),
            hint: Some(hint.into()),
            status: CommandStatus::Ok,
        }
    }

    pub fn bad(what: &'static str, failure: Failure, status: CommandStatus) -> Self {
        Self { subject: what, severity: Severity::Bad, text: failure.message, hint: failure.hint, status }
    }

    pub fn from_store_error(what: &'static str, error: &StoreError) -> Self {
        Self::from_outcome(what, &error.outcome())
    }

    /// The exit status that it gives, if that of its severity is not enough.
    pub fn with_status(self, status: CommandStatus) -> Self {
        Self { status, ..self }
    }

    /// Says which profile it is about.
    pub fn for_profile(mut self, name: &ProfileName) -> Self {
        self.text = format!("{name}: {}", self.text);
        self
    }

    pub fn from_outcome(what: &'static str, outcome: &Outcome) -> Self {
        let failure = outcome.error.clone().unwrap_or_else(|| Failure::new(ErrorKind::Store, "the store failed"));
        Self::bad(what, failure, CommandStatus::from_outcome(outcome))
    }
}

/// Shows all findings; the status is that of the worst.
pub fn print_findings(findings: &[Finding], out: &Output) -> CommandStatus {
    if out.is_json {
        let level = |l: Severity| match l {
            Severity::Good => "good",
            Severity::Warning => "warning",
            Severity::Bad => "bad",
        };
        let rows: Vec<_> = findings
            .iter()
            .map(|f| json!({"what": f.subject, "level": level(f.severity), "message": f.text, "hint": f.hint}))
            .collect();
        out.json(&json!({ "findings": rows }));
    } else {
        for finding in findings {
            let (style, mark) = match finding.severity {
                Severity::Good => (GOOD, "good"),
                Severity::Warning => (WARN, "warn"),
                Severity::Bad => (BAD, "error"),
            };
            out.line(&format!("{style}{mark:>5}{style:#}  {}: {}", finding.subject, finding.text));
            if let Some(hint) = &finding.hint {
                out.line(&format!("       {DIM}{hint}{DIM:#}"));
            }
        }
    }
    findings.iter().map(|f| f.status).max().unwrap_or(CommandStatus::Ok)
}
