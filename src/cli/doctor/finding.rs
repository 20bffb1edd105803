//! What a check finds: how bad it is, what it is, and what to do about it.

use serde_json::json;

use super::super::output::{BAD, DIM, GOOD, Output, Status, WARN};
use crate::outcome::{ErrorKind, Failure, Outcome};
use crate::profile::ProfileName;
use crate::store::StoreError;

/// One thing looked at.
pub struct Finding {
    what: &'static str,
    level: Level,
    text: String,
    hint: Option<String>,
    status: Status,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Level {
    Good,
    Warning,
    Bad,
}

impl Finding {
    pub fn good(what: &'static str, text: impl Into<String>) -> Self {
        Self { what, level: Level::Good, text: text.into(), hint: None, status: Status::Ok }
    }

    pub fn warning(what: &'static str, text: impl Into<String>, hint: &str) -> Self {
        Self { what, level: Level::Warning, text: text.into(), hint: Some(hint.into()), status: Status::Ok }
    }

    pub fn bad(what: &'static str, failure: Failure, status: Status) -> Self {
        Self { what, level: Level::Bad, text: failure.message, hint: failure.hint, status }
    }

    pub fn of_store(what: &'static str, error: &StoreError) -> Self {
        Self::of_outcome(what, &error.outcome())
    }

    /// Says which profile it is about.
    pub fn about(mut self, name: &ProfileName) -> Self {
        self.text = format!("{name}: {}", self.text);
        self
    }

    pub fn of_outcome(what: &'static str, outcome: &Outcome) -> Self {
        let failure = outcome.error.clone().unwrap_or_else(|| Failure::new(ErrorKind::Store, "the store failed"));
        Self::bad(what, failure, Status::of_outcome(outcome))
    }
}

/// Shows all findings; the status is that of the worst.
pub fn show(findings: &[Finding], out: &Output) -> Status {
    if out.is_json {
        let level = |l: Level| match l {
            Level::Good => "good",
            Level::Warning => "warning",
            Level::Bad => "bad",
        };
        let rows: Vec<_> = findings
            .iter()
            .map(|f| json!({"what": f.what, "level": level(f.level), "message": f.text, "hint": f.hint}))
            .collect();
        out.json(&json!({ "findings": rows }));
    } else {
        for finding in findings {
            let (style, mark) = match finding.level {
                Level::Good => (GOOD, "good"),
                Level::Warning => (WARN, "warn"),
                Level::Bad => (BAD, "error"),
            };
            out.line(&format!("{style}{mark:>5}{style:#}  {}: {}", finding.what, finding.text));
            if let Some(hint) = &finding.hint {
                out.line(&format!("       {DIM}{hint}{DIM:#}"));
            }
        }
    }
    findings.iter().map(|f| f.status).max().unwrap_or(Status::Ok)
}
