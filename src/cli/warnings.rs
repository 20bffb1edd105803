//! Prints what is not as it seems, and fails nothing: settings of the configuration, and mirrors.

use super::output::Output;
use crate::access::setup::Setup;
use crate::config::Config;
use crate::profile::ProfileName;

/// Prints the settings that have another effect than they seem to.
pub(super) fn report_warnings(config: &Config, out: &Output) {
    for warning in &config.warnings {
        let hint = warning.hint.as_ref().map_or(String::new(), |hint| format!("; {hint}"));
        out.warn(&format!("{warning}{hint}"));
    }
}

/// Says what is new about the mirrors.
pub(super) fn tell_mirror_news(setup: &Setup, out: &Output) {
    setup.mirrors().take_news().iter().for_each(|line| out.warn(line));
}

/// Brings the mirrors of a profile up to date that got a credential otherwise than by a refresh.
pub(super) fn update_mirrors(setup: &Setup, name: &ProfileName, out: &Output) {
    if let Ok(profile) = setup.profile(name) {
        setup.mirrors().update(&profile);
    }
    tell_mirror_news(setup, out);
}
