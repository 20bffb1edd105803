//! Which profile serves a server. (pure)

use crate::hosts::ServerName;
use crate::profile::{ConsumerSettings, ProfileName};

/// A profile, with the servers that it serves and how.
#[derive(Clone, Debug)]
pub(super) struct Candidate {
    pub name: ProfileName,
    pub settings: ConsumerSettings,
}

#[derive(Debug)]
pub(super) enum Choice<'a> {
    /// No profile has that server among its hosts.
    None,
    One(&'a Candidate),
    /// Which of these accounts is meant is not for a program to guess.
    Several(Vec<&'a ProfileName>),
}

/// Chooses among the profiles by their hosts. `servers`: what the name in a request can mean.
pub(super) fn choose<'a>(candidates: &'a [Candidate], servers: &[ServerName]) -> Choice<'a> {
    let serves = |candidate: &&Candidate| {
        let hosts = candidate.settings.hosts();
        servers.iter().any(|server| hosts.iter().any(|host| host.matches(server)))
    };
    let matching: Vec<&Candidate> = candidates.iter().filter(serves).collect();
    match &matching[..] {
        [] => Choice::None,
        [one] => Choice::One(one),
        several => Choice::Several(several.iter().map(|candidate| &candidate.name).collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(name: &str, hosts: &[&str]) -> Candidate {
        let hosts = Some(hosts.iter().map(|host| host.parse().unwrap()).collect());
        Candidate { name: name.parse().unwrap(), settings: ConsumerSettings { hosts, ..ConsumerSettings::default() } }
    }

    fn chosen(candidates: &[Candidate], url: &str) -> String {
        match choose(candidates, &[ServerName::of_url(url).unwrap()]) {
            Choice::None => "none".into(),
            Choice::One(candidate) => candidate.name.to_string(),
            Choice::Several(names) => names.iter().map(|name| name.as_str()).collect::<Vec<_>>().join("+"),
        }
    }

    #[test]
    fn profile_serves_only_the_hosts_that_it_names() {
        let all = [
            candidate("work", &["git.acme.example", "*.pkg.acme.example"]),
            candidate("home", &["git.home.example"]),
            candidate("mail", &[]),
        ];
        assert_eq!(chosen(&all, "https://git.acme.example/"), "work");
        assert_eq!(chosen(&all, "https://eu.pkg.acme.example/"), "work");
        assert_eq!(chosen(&all, "https://git.home.example/"), "home");
        assert_eq!(chosen(&all, "https://evil.example/"), "none");
        // A named profile is a list of one.
        assert_eq!(chosen(&all[..1], "https://git.home.example/"), "none");
    }

    #[test]
    fn two_profiles_for_one_host_are_both_named() {
        let all = [candidate("a", &["git.acme.example"]), candidate("b", &["git.acme.example"])];
        assert_eq!(chosen(&all, "https://git.acme.example/"), "a+b");
        assert_eq!(chosen(&all[1..], "https://git.acme.example/"), "b");
    }
}
