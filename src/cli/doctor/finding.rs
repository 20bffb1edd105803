//! One finding of a check: its level, its text, and a hint.

use std::collections::HashSet;

use serde_json::{Value, json};

use super::super::output::{BAD, CommandStatus, GOOD, Output, WARN, excerpt_lines};
use crate::outcome::{Diagnostic, ErrorKind, Failure, Outcome};
use crate::profile::ProfileName;
use crate::store::StoreError;

/// The result of one check.
pub(super) struct Finding {
    subject: &'static str,
    severity: Severity,
    text: String,
    hint: Option<String>,
    status: CommandStatus,
    /// The mistake in the configuration that it is about.
    mistake: Option<Diagnostic>,
}

/// Where the text of a finding begins.
const INDENT: usize = 7;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Severity {
    /// What was asked for, and done: always shown.
    Done,
    Good,
    Warning,
    Bad,
}

impl Finding {
    pub(super) fn good(what: &'static str, text: impl Into<String>) -> Self {
        Self {
            subject: what,
            severity: Severity::Good,
            text: text.into(),
            hint: None,
            status: CommandStatus::Ok,
            mistake: None,
        }
    }

    pub(super) fn done(what: &'static str, text: impl Into<String>) -> Self {
        Self { severity: Severity::Done, ..Self::good(what, text) }
    }

    pub(super) fn warning(what: &'static str, text: impl Into<String>, hint: &str) -> Self {
        Self {
            subject: what,
            severity: Severity::Warning,
            text: text.into(),
            hint: Some(hint.into()),
            status: CommandStatus::Ok,
            mistake: None,
        }
    }

    pub(super) fn bad(what: &'static str, failure: Failure, status: CommandStatus) -> Self {
        Self {
            subject: what,
            severity: Severity::Bad,
            text: failure.message,
            hint: failure.hint,
            status,
            mistake: failure.mistakes.into_iter().next(),
        }
    }

    pub(super) fn from_store_error(what: &'static str, error: &StoreError) -> Self {
        Self::from_outcome(what, &error.outcome())
    }

    /// The exit status that it gives, if that of its severity is not enough.
    pub(super) fn with_status(self, status: CommandStatus) -> Self {
        Self { status, ..self }
    }

    /// Says which profile it is about.
    pub(super) fn for_profile(mut self, name: &ProfileName) -> Self {
        self.text = format!("{name}: {}", self.text);
        self
    }

    /// The mistakes of a configuration, each as a finding.
    pub(super) fn from_configuration(failure: Failure) -> Vec<Self> {
        if failure.mistakes.is_empty() {
            return vec![Self::bad("configuration", failure, CommandStatus::Config)];
        }
        let finding = |mistake: Diagnostic| Self {
            hint: mistake.hint.clone(),
            text: mistake.to_string(),
            mistake: Some(mistake),
            ..Self::bad("configuration", Failure::new(ErrorKind::Config, ""), CommandStatus::Config)
        };
        failure.mistakes.into_iter().map(finding).collect()
    }

    fn to_json(&self) -> Value {
        let level = match self.severity {
            Severity::Done | Severity::Good => "good",
            Severity::Warning => "warning",
            Severity::Bad => "bad",
        };
        let mut row = json!({"what": self.subject, "level": level, "message": self.text, "hint": self.hint});
        if let (Some(row), Some(at)) = (row.as_object_mut(), self.mistake.as_ref().and_then(|m| m.position)) {
            row.insert("line".into(), json!(at.line));
            row.insert("column".into(), json!(at.column));
        }
        row
    }

    fn print(&self, out: &Output) {
        let (style, mark) = match self.severity {
            Severity::Done => (GOOD, "done"),
            Severity::Good => (GOOD, "good"),
            Severity::Warning => (WARN, "warn"),
            Severity::Bad => (BAD, "error"),
        };
        out.paragraph(&format!("{style}{mark:>5}{style:#}  {}: {}", self.subject, self.text), INDENT);
        if let Some(excerpt) = self.mistake.as_ref().and_then(excerpt_lines) {
            excerpt.lines().for_each(|line| out.line(&format!("     {line}")));
        }
        if let Some(hint) = &self.hint {
            out.hint_line(INDENT, hint);
        }
    }

    pub(super) fn from_outcome(what: &'static str, outcome: &Outcome) -> Self {
        let failure = outcome.error.clone().unwrap_or_else(|| Failure::new(ErrorKind::Store, "the store failed"));
        Self::bad(what, failure, CommandStatus::from_outcome(outcome))
    }
}

/// Shows the findings, after what was done the problems; the status is that of the worst.
pub(super) fn print_findings(findings: Vec<Finding>, out: &Output) -> CommandStatus {
    let status = findings.iter().map(|f| f.status).max().unwrap_or(CommandStatus::Ok);
    if out.is_json {
        let rows: Vec<_> = findings.iter().map(Finding::to_json).collect();
        out.json(&json!({ "findings": rows }));
        return status;
    }
    let findings = without_repetitions(findings);
    let of = |severity| findings.iter().filter(move |f| f.severity == severity);
    of(Severity::Done).chain(of(Severity::Bad)).chain(of(Severity::Warning)).for_each(|finding| finding.print(out));
    if out.verbosity > 0 {
        of(Severity::Good).for_each(|finding| finding.print(out));
    }
    out.paragraph(&summary(of(Severity::Bad).count(), of(Severity::Warning).count(), of(Severity::Good).count()), 0);
    status
}

/// A cause that stops several checks is told once.
fn without_repetitions(findings: Vec<Finding>) -> Vec<Finding> {
    let mut told = HashSet::new();
    let is_new = |f: &Finding| {
        matches!(f.severity, Severity::Done | Severity::Good) || told.insert((f.text.clone(), f.hint.clone()))
    };
    findings.into_iter().filter(is_new).collect()
}

/// The last sentence.
fn summary(problems: usize, warnings: usize, good: usize) -> String {
    let count = |n: usize, what: &str| if n == 1 { format!("1 {what}") } else { format!("{n} {what}s") };
    let passed = format!("{} passed", count(good, "check"));
    let found: Vec<String> = [(problems, "problem"), (warnings, "warning")]
        .into_iter()
        .filter(|(n, _)| *n > 0)
        .map(|(n, what)| count(n, what))
        .collect();
    match found.is_empty() {
        true => format!("no problems found: {passed}"),
        false => format!("{}; {passed}", found.join(" and ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn summary_counts_problems_warnings_and_passed_checks() {
        assert_eq!(summary(0, 0, 9), "no problems found: 9 checks passed");
        assert_eq!(summary(1, 2, 1), "1 problem and 2 warnings; 1 check passed");
        assert_eq!(summary(0, 1, 0), "1 warning; 0 checks passed");
    }

    #[test]
    fn one_cause_is_told_once() {
        let bad = |what| {
            Finding::bad(what, Failure::new(ErrorKind::KeyringLocked, "locked"), CommandStatus::StoreUnavailable)
        };
        let kept = without_repetitions(vec![
            bad("keyring"),
            bad("sealing key"),
            Finding::good("a", "ok"),
            Finding::good("b", "ok"),
        ]);
        assert_eq!(kept.iter().map(|f| f.subject).collect::<Vec<_>>(), ["keyring", "a", "b"]);
    }
}
