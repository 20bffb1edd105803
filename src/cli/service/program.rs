//! The program that a service runs: this one, where it is, with the places that it uses now.

use std::path::PathBuf;

use crate::cli::service::failure;
use crate::credential::external::shell_quoted;
use crate::outcome::Failure;
use crate::sys::paths::Environment;

/// The first line of what `keepalive service install` writes.
pub(super) const MARK: &str = "# Written by keepalive service install; keepalive service uninstall removes it.";

pub(super) struct Program {
    path: String,
    /// Variables without which it would use other places.
    variables: Vec<(&'static str, String)>,
}

impl Program {
    pub(super) fn find(places: &Environment) -> Result<Self, Failure> {
        let path = std::env::current_exe().map_err(|e| failure(format!("cannot find this program: {e}")))?;
        if !path.is_file() {
            let message = format!("this program is no longer at {}", path.display());
            return Err(failure(message).with_hint("run the installed one"));
        }
        let path = plain_text(path)?;
        let texts = places.own_places.iter().map(|(name, path)| Ok((*name, plain_text(path.clone())?)));
        Ok(Self { path, variables: texts.collect::<Result<_, _>>()? })
    }

    /// The path, if it is where cargo builds.
    pub(super) fn temporary_place(&self) -> Option<&str> {
        ["/target/release/", "/target/debug/"].iter().any(|part| self.path.contains(part)).then_some(&self.path)
    }

    /// A unit of contrib/systemd that starts this program.
    pub(super) fn unit(&self, template: &str) -> String {
        let body = template.find("[Unit]").map_or(template, |at| &template[at..]);
        let variables: String = self.variables.iter().map(|(name, value)| environment_line(name, value)).collect();
        let body = body.replace("[Service]\n", &format!("[Service]\n{variables}"));
        let start = format!("ExecStart=\"{}\" ", unit_escaped(&self.path).replace('$', "$$"));
        format!("{MARK}\n{}", body.replace("ExecStart=keepalive ", &start))
    }

    /// The line of contrib/crontab, for this program.
    pub(super) fn cron_line(&self, template: &str) -> Option<String> {
        let line = template.lines().find(|line| line.starts_with("*/"))?;
        let (when, arguments) = line.split_once(" keepalive ")?;
        let variables: String =
            self.variables.iter().map(|(name, value)| format!("{name}={} ", shell_quoted(value))).collect();
        // cron ends the command at a percent sign.
        let command = format!("{variables}{} {arguments}", shell_quoted(&self.path)).replace('%', "\\%");
        Some(format!("{when} {command}"))
    }
}

/// A path that fits into a line.
fn plain_text(path: PathBuf) -> Result<String, Failure> {
    match path.to_str().filter(|text| !text.contains(char::is_control)) {
        Some(text) => Ok(text.to_owned()),
        None => Err(failure(format!("{} cannot be written into a unit", path.display()))),
    }
}

fn environment_line(name: &str, value: &str) -> String {
    format!("Environment=\"{name}={}\"\n", unit_escaped(value))
}

/// Inside double quotes of a unit (systemd.syntax(7)); a percent sign begins a specifier.
fn unit_escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('%', "%%")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn odd() -> Program {
        let config = ("KEEPALIVE_CONFIG", "/home/a b/50%.toml".to_owned());
        Program { path: "/opt/a b/$x\"/keepalive".into(), variables: vec![config] }
    }

    #[test]
    fn unit_names_program_and_places_with_any_character() {
        let unit = odd().unit("# For people.\n[Unit]\nA=b\n\n[Service]\nExecStart=keepalive daemon\n");
        let service = "[Service]\nEnvironment=\"KEEPALIVE_CONFIG=/home/a b/50%%.toml\"\n\
                       ExecStart=\"/opt/a b/$$x\\\"/keepalive\" daemon\n";
        assert_eq!(unit, format!("{MARK}\n[Unit]\nA=b\n\n{service}"));
    }

    #[test]
    fn cron_line_is_quoted_for_shell_and_cron() {
        let line = odd().cron_line("# x\nPATH=/bin\n*/10 * * * * keepalive --quiet refresh\n").unwrap();
        let places = "KEEPALIVE_CONFIG='/home/a b/50\\%.toml' '/opt/a b/$x\"/keepalive'";
        assert_eq!(line, format!("*/10 * * * * {places} --quiet refresh"));
    }
}
