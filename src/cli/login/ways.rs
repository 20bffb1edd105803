//! The three ways to sign in, and which one to take.

use std::io::BufRead;
use std::sync::mpsc::Sender;
use std::time::Duration;

use tokio::runtime::Handle;
use url::Url;
use zeroize::Zeroizing;

use super::super::output::Output;
use super::{LoginArgs, qr};
use crate::credential::secret::OneTime;
use crate::outcome::{ErrorKind, Failure};
use crate::profile::Provider;
use crate::provider::signin::Sites;
use crate::signin::SignInError;
use crate::signin::authorization::{Attempt, BadRedirect};
use crate::signin::code::{Counter, Signed};
use crate::signin::device::Invitation;
use crate::signin::loopback::{self, Visitor};
use crate::signin::redirect::Redirect;
use crate::signin::wait::{Event, Wait};
use crate::store::key::random;
use crate::sys::browser;
use crate::sys::paths::Desktop;

/// How long a person has: to find a password, a telephone and a second factor. Codes of devices have their own life.
const PATIENCE: Duration = Duration::from_secs(10 * 60);
/// No redirected URL is longer.
const LONGEST_LINE: u64 = 64 * 1024;

/// A way to sign in, with what it needs.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Way {
    Browser { endpoint: Url, redirect: Redirect },
    Device { endpoint: Url, why: Option<&'static str> },
    Paste { endpoint: Url, redirect: Redirect, opens: bool, why: Option<&'static str> },
}

/// The way that was asked for; else the easiest that this machine and the provider allow.
pub(super) fn choose(args: &LoginArgs, provider: &Provider, sites: &Sites, desktop: &Desktop) -> Result<Way, Failure> {
    let redirect = Redirect::of(provider.redirect_uri.as_ref());
    let has_browser = browser::is_there(desktop);
    let lacks = |key: &str, hint: &str| {
        Failure::new(ErrorKind::Config, format!("provider {} has no {key}", provider.name))
            .hint(format!("{hint}, or set {key} in [provider.{}]", provider.name))
    };
    let device = |why| sites.device.clone().map(|endpoint| Way::Device { endpoint, why });
    if args.device {
        return device(None).ok_or_else(|| lacks("device_authorization_endpoint", "leave out --device"));
    }
    let Some(endpoint) = sites.authorization.clone() else {
        let why = "this provider has no login by browser";
        return device(Some(why))
            .filter(|_| !args.paste)
            .ok_or_else(|| lacks("authorization_endpoint", "import a token response instead"));
    };
    if args.paste {
        return Ok(Way::Paste { endpoint, redirect, opens: false, why: None });
    }
    match (has_browser, &redirect) {
        (true, Redirect::Loopback { .. }) => Ok(Way::Browser { endpoint, redirect }),
        (true, Redirect::Elsewhere(_)) => Ok(Way::Paste { endpoint, redirect, opens: true, why: None }),
        (false, _) => {
            let why = Some("no browser on this machine");
            Ok(device(why).unwrap_or(Way::Paste { endpoint, redirect, opens: false, why }))
        }
    }
}

/// What every way works with.
pub(super) struct Desk<'a> {
    pub out: &'a Output,
    pub desktop: &'a Desktop,
    pub runtime: &'a Handle,
    pub counter: &'a Counter<'a>,
    pub wait: &'a Wait<'a>,
}

/// What came of it, and the browser that waits to be told.
type Came = (Result<Signed, SignInError>, Option<Visitor>);

impl Desk<'_> {
    pub fn sign_in(&self, way: &Way) -> Came {
        match way {
            Way::Browser { endpoint, redirect } => match self.by_browser(endpoint, redirect) {
                Ok((attempt, visitor)) => (self.redeem(&attempt, visitor.query.expose()), Some(visitor)),
                Err(e) => (Err(e), None),
            },
            Way::Device { endpoint, why } => (self.by_device(endpoint, *why), None),
            Way::Paste { endpoint, redirect, opens, why } => (self.by_pasting(endpoint, redirect, *opens, *why), None),
        }
    }

    fn redeem(&self, attempt: &Attempt, query: &str) -> Result<Signed, SignInError> {
        let code = attempt.read(query, self.counter.sites).map_err(|bad| self.counter.explain(bad))?;
        self.exchange(attempt, &code)
    }

    fn exchange(&self, attempt: &Attempt, code: &OneTime) -> Result<Signed, SignInError> {
        self.out.say("exchanging the code for tokens …");
        self.counter.redeem(attempt, code)
    }

    /// Sends the browser away and waits until it is back. The port is closed when this returns.
    fn by_browser(&self, endpoint: &Url, redirect: &Redirect) -> Result<(Attempt, Visitor), SignInError> {
        let (mut doorstep, redirect_uri) = loopback::open(redirect, self.runtime).map_err(SignInError::Refused)?;
        let attempt = attempt(redirect_uri)?;
        doorstep.serve(&attempt, self.wait.sender()).map_err(|e| {
            SignInError::Refused(
                Failure::new(ErrorKind::Port, format!("cannot listen on the loopback address: {e}"))
                    .hint("use --paste"),
            )
        })?;
        let url = attempt.url(self.counter.sites, endpoint, &self.counter.prepared.provider);
        let has_opened = browser::open(self.desktop, url.as_str());
        match has_opened {
            true => {
                self.out.ask(&format!("opening your browser to sign in at {}; if it does not open, visit", host(&url)))
            }
            false => self.out.ask(&format!("cannot start a browser; to sign in at {}, visit", host(&url))),
        }
        self.out.ask(url.as_str());
        self.say_patience("the browser");
        let deadline = self.wait.deadline(PATIENCE);
        loop {
            match self.wait.next(&deadline, PATIENCE)? {
                Some(Event::Redirected(visitor)) => return Ok((attempt, visitor)),
                Some(Event::Stray(what)) => self.out.warn(&format!("ignored a redirect: {what}")),
                Some(Event::Pasted(_) | Event::PasteEnded | Event::Interrupted) | None => {}
            }
        }
    }

    fn by_device(&self, endpoint: &Url, why: Option<&str>) -> Result<Signed, SignInError> {
        let invitation = self.counter.invite(endpoint)?;
        self.show(&invitation, why);
        let tell = |why: &str| self.out.warn(&format!("{why}; still waiting"));
        self.counter.poll(&invitation, self.wait, &tell)
    }

    fn show(&self, invitation: &Invitation, why: Option<&str>) {
        let Invitation { user_code, uri, complete, lives, .. } = invitation;
        if let Some(why) = why {
            self.out.say(&format!("{why}; use another device"));
        }
        if self.out.is_terminal()
            && let Some(drawn) = qr::draw(complete.as_ref().unwrap_or(uri).as_str())
        {
            self.out.ask(&drawn);
        }
        self.out.ask(&format!("on any device, visit {uri} and enter the code {user_code}"));
        if let Some(complete) = complete {
            self.out.ask(&format!("or visit {complete}"));
        }
        self.out.say(&format!("waiting up to {} …", humantime::format_duration(*lives)));
    }

    fn by_pasting(
        &self,
        endpoint: &Url,
        redirect: &Redirect,
        opens: bool,
        why: Option<&str>,
    ) -> Result<Signed, SignInError> {
        let attempt = attempt(redirect.with_port(loopback::unserved_port(random())))?;
        let url = attempt.url(self.counter.sites, endpoint, &self.counter.prepared.provider);
        if let Some(why) = why {
            self.out.say(&format!("{why}; use a browser on another machine"));
        }
        self.out.ask(&format!("to sign in at {}, visit", host(&url)));
        self.out.ask(url.as_str());
        match redirect {
            Redirect::Loopback { .. } => {
                self.out.ask(
                    "your browser will end on a page that does not load; paste its address (or the code in it) here:",
                );
            }
            Redirect::Elsewhere(_) => self.out.ask("paste the code that it shows (or the address you end at) here:"),
        }
        if opens {
            browser::open(self.desktop, url.as_str());
        }
        self.say_patience("your input");
        read_lines(self.wait.sender());
        let deadline = self.wait.silent_deadline(PATIENCE);
        loop {
            match self.wait.next(&deadline, PATIENCE)? {
                Some(Event::Pasted(line)) => match attempt.read_pasted(line.as_ref(), self.counter.sites) {
                    Ok(code) => return self.exchange(&attempt, &code),
                    // A slip of the hand: there may be another line.
                    Err(bad @ (BadRedirect::State | BadRedirect::Unreadable(_))) => self.complain(bad),
                    Err(bad) => return Err(self.counter.explain(bad)),
                },
                Some(Event::PasteEnded) => {
                    let failure = Failure::new(ErrorKind::Input, "no usable address or code was entered");
                    return Err(SignInError::Abandoned(failure.hint("nothing was changed; sign in again")));
                }
                Some(Event::Redirected(_) | Event::Stray(_) | Event::Interrupted) | None => {}
            }
        }
    }

    fn complain(&self, bad: BadRedirect) {
        if let SignInError::Refused(failure) = self.counter.explain(bad) {
            self.out.warn(&format!("{}; paste again", failure.message));
        }
    }

    fn say_patience(&self, what: &str) {
        self.out.say(&format!("waiting up to {} for {what} …", humantime::format_duration(PATIENCE)));
    }
}

fn attempt(redirect_uri: Url) -> Result<Attempt, SignInError> {
    Attempt::new(random(), random(), redirect_uri)
        .ok_or_else(|| SignInError::Refused(Failure::new(ErrorKind::Random, "cannot get random numbers")))
}

fn host(url: &Url) -> &str {
    url.host_str().unwrap_or_default()
}

/// Reads standard input on a thread, which is left behind if nobody types: a read cannot be cancelled.
fn read_lines(events: Sender<Event>) {
    std::thread::spawn(move || {
        let stdin = std::io::stdin().lock();
        for line in std::io::Read::take(stdin, LONGEST_LINE).lines().map_while(Result::ok) {
            let line = Zeroizing::new(line);
            if !line.trim().is_empty() && events.send(Event::Pasted(OneTime::new(line.trim()))).is_err() {
                return;
            }
        }
        // Whoever waited has gone if this fails.
        let _over = events.send(Event::PasteEnded);
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    const NO_SCREEN: Desktop = Desktop { browsers: Vec::new(), is_graphical: false };
    const SCREEN: Desktop = Desktop { browsers: Vec::new(), is_graphical: true };

    fn args(device: bool, paste: bool) -> LoginArgs {
        LoginArgs { profile: "p".parse().unwrap(), provider: None, device, paste }
    }

    fn way(args: &LoginArgs, redirect: &str, device: bool, desktop: &Desktop) -> String {
        let text = format!("[provider.a]\nissuer = \"https://a.example\"\nclient_id = \"me\"\n{redirect}");
        let config = Config::parse(&text, std::path::Path::new("c"), None).unwrap();
        let sites = Sites {
            authorization: Some("https://a.example/auth".parse().unwrap()),
            device: device.then(|| "https://a.example/device".parse().unwrap()),
            ..Sites::default()
        };
        match choose(args, &config.providers["a"], &sites, desktop) {
            Ok(Way::Browser { .. }) => "browser".into(),
            Ok(Way::Device { why, .. }) => format!("device {}", why.is_some()),
            Ok(Way::Paste { opens, .. }) => format!("paste {opens}"),
            Err(failure) => failure.message,
        }
    }

    #[test]
    fn the_machine_and_the_provider_decide_unless_told() {
        let elsewhere = "redirect_uri = \"https://a.example/code\"\n";
        let none = args(false, false);
        assert_eq!(way(&none, "", true, &SCREEN), "browser");
        assert_eq!(way(&none, "", true, &NO_SCREEN), "device true");
        assert_eq!(way(&none, "", false, &NO_SCREEN), "paste false");
        assert_eq!(way(&none, elsewhere, true, &SCREEN), "paste true");
        assert_eq!(way(&args(true, false), "", true, &SCREEN), "device false");
        assert_eq!(way(&args(false, true), "", true, &SCREEN), "paste false");
        assert_eq!(way(&args(true, false), "", false, &SCREEN), "provider a has no device_authorization_endpoint");
    }
}
