//! Prints what is not as it seems, and fails nothing: settings of the configuration, mirrors, and hooks.

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

/// Says what is new about mirrors and hooks.
pub(super) fn tell_news(setup: &Setup, out: &Output) {
    let news = [setup.mirrors().take_news(), setup.hooks().take_news()];
    news.iter().flatten().for_each(|line| out.warn(line));
}

/// What follows for a profile that got a credential otherwise than by a refresh: its mirrors and its hooks.
pub(super) fn follow_new_credential(setup: &Setup, name: &ProfileName, out: &Output) {
    if let Ok(profile) = setup.profile(name) {
        setup.mirrors().update(&profile);
        setup.hooks().look(&profile, None);
    }
    tell_news(setup, out);
}
