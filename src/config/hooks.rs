//! `[hooks]` and `[profile.NAME.hooks]`: what is run when something happens to a profile.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::duration;
use super::error::ConfigError;
use super::keys;
use super::section::{Entry, Section};
use super::values;
use crate::profile::{DesktopNotices, HookEvent, HookSettings};

const NOTICES: &[(&str, DesktopNotices)] = &[("auto", DesktopNotices::Auto), ("off", DesktopNotices::Off)];
/// A reminder each second is a mistake; one in a year is none.
const REMIND_LIMITS: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(365 * 24 * 3600);

/// The keys as written. What is absent is taken from the section above.
#[derive(Clone, Debug, Default)]
pub(super) struct HookKeys {
    /// An empty list: no hook, whatever the section above has.
    commands: BTreeMap<HookEvent, Vec<String>>,
    timeout: Option<Duration>,
    remind: Option<Duration>,
    gives_token: Option<bool>,
    notices: Option<DesktopNotices>,
}

/// Reads the section below `above`, if it is there; mistakes are noted.
pub(super) fn read(above: &Section<'_>) -> HookKeys {
    let Some(section) = above.read("hooks", Entry::section) else { return HookKeys::default() };
    section.reject_unknown(&[keys::HOOKS]);
    let command = |event: HookEvent| Some((event, section.read(event.key(), program)?));
    HookKeys {
        commands: HookEvent::ALL.into_iter().filter_map(command).collect(),
        timeout: section.read("timeout", |e| e.parse(|text| duration::parse_within(duration::WAIT_LIMITS, text))),
        remind: section.read("remind", |e| e.parse(|text| duration::parse_within(REMIND_LIMITS, text))),
        gives_token: section.read("token", Entry::flag),
        notices: section.read("notify", |e| e.choice(NOTICES)),
    }
}

/// A program with its arguments. Hooks run in the root directory, so a path is made whole.
fn program(entry: &Entry<'_>) -> Result<Vec<String>, ConfigError> {
    if entry.list(|_| Ok(()))?.is_empty() {
        return Ok(Vec::new());
    }
    let mut command = entry.command()?;
    if let Some(program) = command.first_mut().filter(|program| program.contains('/')) {
        let document = entry.document();
        let path = values::path(program, document.path, document.home).map_err(|problem| entry.value_error(problem))?;
        *program = path.into_os_string().into_string().unwrap_or_else(|_| program.clone());
    }
    Ok(command)
}

impl HookKeys {
    /// These keys, and those of `above` for what they leave open.
    pub(super) fn settings(&self, above: &Self) -> HookSettings {
        let usual = HookSettings::default();
        let mut commands = above.commands.clone();
        commands.extend(self.commands.clone());
        commands.retain(|_, command| !command.is_empty());
        HookSettings {
            commands,
            timeout: self.timeout.or(above.timeout).unwrap_or(usual.timeout),
            remind: self.remind.or(above.remind).unwrap_or(usual.remind),
            gives_token: self.gives_token.or(above.gives_token).unwrap_or(usual.gives_token),
            notices: self.notices.or(above.notices).unwrap_or(usual.notices),
        }
    }
}
