//! The three login methods, and the choice among them.

use std::io::BufRead;
use std::sync::mpsc::Sender;
use std::time::Duration;

use tokio::runtime::Handle;
use url::Url;
use zeroize::Zeroizing;

use crate::cli::login::{LoginArgs, qr};
use crate::cli::output::Output;
use crate::cli::signals;
use crate::credential::secret::OneTimeSecret;
use crate::outcome::{ErrorKind, Failure};
use crate::profile::Provider;
use crate::provider::sign_in_server::SignInEndpoints;
use crate::signin::SignInError;
use crate::signin::authorization_request::{AuthorizationRequest, RedirectError};
use crate::signin::device_flow::DeviceAuthorization;
use crate::signin::login_events::LoginEvents;
use crate::signin::loopback;
use crate::signin::loopback::{LoginEvent, PendingBrowser};
use crate::signin::redirect_uri::Redirect;
use crate::signin::token_client::{IssuedTokens, TokenClient};
use crate::store::keys::sealing_key::random_bytes;
use crate::sys::browser;
use crate::sys::paths;
use crate::sys::paths::Desktop;

/// How long a person has, to find a password, a telephone and a second factor. Device codes have a lifetime of their
/// own.
const SIGN_IN_TIMEOUT: Duration = Duration::from_secs(10 * 60);
/// The size limit of a pasted line.
const MAX_LINE_BYTES: u64 = 64 * 1024;

/// A login method, with what it needs.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum LoginMethod {
    Browser { endpoint: Url, redirect: Redirect },
    Device { endpoint: Url, why: Option<&'static str> },
    Paste { endpoint: Url, redirect: Redirect, opens: bool, why: Option<&'static str> },
}

/// The method that was asked for, or else the easiest that this machine and the provider allow.
pub(super) fn choose_method(
    args: &LoginArgs,
    provider: &Provider,
    sites: &SignInEndpoints,
    desktop: &Desktop,
) -> Result<LoginMethod, Failure> {
    let redirect = Redirect::of(provider.redirect_uri.as_ref());
    let has_browser = browser::is_available(desktop);
    let lacks = |key: &str, hint: &str| {
        Failure::new(ErrorKind::Config, format!("provider {} has no {key}", provider.name))
            .with_hint(format!("{hint}, or set {key} in [provider.{}]", provider.name))
    };
    let device = |why| sites.device.clone().map(|endpoint| LoginMethod::Device { endpoint, why });
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
        return Ok(LoginMethod::Paste { endpoint, redirect, opens: false, why: None });
    }
    match (has_browser, &redirect) {
        (true, Redirect::Loopback { .. }) => Ok(LoginMethod::Browser { endpoint, redirect }),
        (true, Redirect::External(_)) => Ok(LoginMethod::Paste { endpoint, redirect, opens: true, why: None }),
        (false, _) => {
            let why = Some("no browser on this machine");
            Ok(device(why).unwrap_or(LoginMethod::Paste { endpoint, redirect, opens: false, why }))
        }
    }
}

/// The parts that every method uses.
pub(super) struct LoginFlow<'a> {
    pub out: &'a Output,
    pub desktop: &'a Desktop,
    pub runtime: &'a Handle,
    pub client: &'a TokenClient<'a>,
    pub events: &'a LoginEvents<'a>,
}

/// The result of a flow, and the browser that waits for a page.
type FlowResult = (Result<IssuedTokens, SignInError>, Option<PendingBrowser>);

impl LoginFlow<'_> {
    pub(super) fn sign_in(&self, way: &LoginMethod) -> FlowResult {
        match way {
            LoginMethod::Browser { endpoint, redirect } => match self.by_browser(endpoint, redirect) {
                Ok((attempt, browser)) => (self.redeem_redirect(&attempt, browser.query.expose()), Some(browser)),
                Err(e) => (Err(e), None),
            },
            LoginMethod::Device { endpoint, why } => (self.by_device(endpoint, *why), None),
            LoginMethod::Paste { endpoint, redirect, opens, why } => {
                (self.by_pasting(endpoint, redirect, *opens, *why), None)
            }
        }
    }

    fn redeem_redirect(&self, attempt: &AuthorizationRequest, query: &str) -> Result<IssuedTokens, SignInError> {
        let code =
            attempt.parse_redirect(query, self.client.endpoints).map_err(|bad| self.client.redirect_failure(bad))?;
        self.exchange_code(attempt, &code)
    }

    fn exchange_code(&self, attempt: &AuthorizationRequest, code: &OneTimeSecret) -> Result<IssuedTokens, SignInError> {
        self.out.info("exchanging the code for tokens …");
        self.client.redeem_code(attempt, code)
    }

    /// Opens the sign-in page and waits for the redirect. The port is closed when this returns.
    fn by_browser(
        &self,
        endpoint: &Url,
        redirect: &Redirect,
    ) -> Result<(AuthorizationRequest, PendingBrowser), SignInError> {
        let (mut doorstep, redirect_uri) = loopback::listen(redirect, self.runtime).map_err(SignInError::Refused)?;
        let attempt = new_authorization_request(redirect_uri)?;
        doorstep.serve(&attempt, self.events.sender()).map_err(|e| {
            SignInError::Refused(
                Failure::new(ErrorKind::Port, format!("cannot listen on the loopback address: {e}"))
                    .with_hint("use --paste"),
            )
        })?;
        let url = attempt.url(self.client.endpoints, endpoint, &self.client.prepared.provider);
        match self.open_browser(&url) {
            true => self
                .out
                .prompt(&format!("opening your browser to sign in at {}; if it does not open, visit", host(&url))),
            false => self.out.prompt(&format!(
                "cannot start a browser; for a browser on another machine, sign in with --paste; to sign in at {}, visit here",
                host(&url)
            )),
        }
        self.out.prompt(url.as_str());
        self.print_timeout("the browser");
        let deadline = self.events.deadline(SIGN_IN_TIMEOUT);
        loop {
            match self.events.next(&deadline, SIGN_IN_TIMEOUT)? {
                Some(LoginEvent::Redirected(browser)) => return Ok((attempt, browser)),
                Some(LoginEvent::StrayRedirect(what)) => self.out.warn(&format!("ignored a redirect: {what}")),
                Some(LoginEvent::BrowserFailed(why)) => self.warn_browser_failed(
                    &why,
                    ", in a browser on this machine; for a browser on another machine, sign in with --paste",
                ),
                Some(
                    LoginEvent::Pasted(_) | LoginEvent::EmptyLine | LoginEvent::PasteEnded | LoginEvent::Interrupted,
                )
                | None => {}
            }
        }
    }

    fn by_device(&self, endpoint: &Url, why: Option<&str>) -> Result<IssuedTokens, SignInError> {
        // Nothing is granted yet that could be lost.
        let invitation = signals::while_interruptible(|| self.client.authorize_device(endpoint))?;
        self.show_device_code(&invitation, why);
        let tell = |why: &str| self.out.warn(&format!("{why}; still waiting"));
        self.client.poll(&invitation, self.events, &tell)
    }

    fn show_device_code(&self, invitation: &DeviceAuthorization, why: Option<&str>) {
        let DeviceAuthorization {
            user_code,
            verification_uri: uri,
            verification_uri_complete: complete,
            expires_in: lives,
            ..
        } = invitation;
        if let Some(why) = why {
            self.out.info(&format!("{why}; use another device"));
        }
        if self.out.is_terminal()
            && paths::is_unicode_shown(true)
            && let Some(drawn) = qr::draw(complete.as_ref().unwrap_or(uri).as_str())
        {
            self.out.prompt(&drawn);
        }
        self.out.prompt(&format!("on any device, visit {uri} and enter the code {user_code}"));
        if let Some(complete) = complete {
            self.out.prompt(&format!("or visit {complete}"));
        }
        self.out.info(&format!("waiting up to {} …", humantime::format_duration(*lives)));
    }

    fn by_pasting(
        &self,
        endpoint: &Url,
        redirect: &Redirect,
        opens: bool,
        why: Option<&str>,
    ) -> Result<IssuedTokens, SignInError> {
        let attempt = new_authorization_request(redirect.with_port(loopback::unserved_port(random_bytes())))?;
        let url = attempt.url(self.client.endpoints, endpoint, &self.client.prepared.provider);
        if let Some(why) = why {
            self.out.info(&format!("{why}; use a browser on another machine"));
        }
        self.out.prompt(&format!("to sign in at {}, visit", host(&url)));
        self.out.prompt(url.as_str());
        match redirect {
            Redirect::Loopback { .. } => {
                self.out.prompt(
                    "your browser will end on a page that does not load; paste its address (or the code in it) here:",
                );
            }
            Redirect::External(_) => self.out.prompt("paste the code that it shows (or the address you end at) here:"),
        }
        if opens {
            self.open_browser(&url);
        }
        self.print_timeout("your input");
        read_lines(self.events.sender());
        self.redeem_pasted(&attempt)
    }

    /// Takes lines until one of them is a code that the server knows.
    fn redeem_pasted(&self, attempt: &AuthorizationRequest) -> Result<IssuedTokens, SignInError> {
        let deadline = self.events.hidden_deadline(SIGN_IN_TIMEOUT);
        let mut refused = None;
        loop {
            match self.events.next(&deadline, SIGN_IN_TIMEOUT)? {
                Some(LoginEvent::EmptyLine) => {
                    self.out.warn("that line is empty; paste the address, or the code in it")
                }
                Some(LoginEvent::Pasted(line)) => match attempt.parse_pasted(line.as_ref(), self.client.endpoints) {
                    Ok(code) => match self.exchange_code(attempt, &code) {
                        // Of a typing error, or of a code that has ended: the link gives another one.
                        Err(SignInError::Refused(failure))
                            if failure.kind == ErrorKind::of_provider("invalid_grant") =>
                        {
                            let again = "that is no code of this sign-in, or it has ended; paste again, or visit the link again";
                            self.out.warn(&format!("{}; {again}", failure.message));
                            refused = Some(failure);
                        }
                        done => return done,
                    },
                    // A typing error; another line may follow.
                    Err(bad @ (RedirectError::StateMismatch | RedirectError::Unreadable(_))) => {
                        self.warn_bad_paste(bad)
                    }
                    Err(bad) => return Err(self.client.redirect_failure(bad)),
                },
                Some(LoginEvent::PasteEnded) => {
                    if let Some(refused) = refused {
                        return Err(SignInError::Refused(refused));
                    }
                    let failure = Failure::new(ErrorKind::Input, "no usable address or code was entered");
                    return Err(SignInError::Abandoned(failure.with_hint("sign in again")));
                }
                Some(LoginEvent::BrowserFailed(why)) => self.warn_browser_failed(&why, ""),
                Some(LoginEvent::Redirected(_) | LoginEvent::StrayRedirect(_) | LoginEvent::Interrupted) | None => {}
            }
        }
    }

    /// Returns whether a browser was started. That it fails afterwards is an event.
    fn open_browser(&self, url: &Url) -> bool {
        let events = self.events.sender();
        // Once the login is over, there is no receiver.
        let report = move |why| drop(events.send(LoginEvent::BrowserFailed(why)));
        browser::open(self.desktop, url.as_str(), report)
    }

    fn warn_browser_failed(&self, why: &str, place: &str) {
        self.out.warn(&format!("no browser opened: {why}; open the link above by hand{place}"));
    }

    fn warn_bad_paste(&self, bad: RedirectError) {
        if let SignInError::Refused(failure) = self.client.redirect_failure(bad) {
            self.out.warn(&format!("{}; paste again", failure.message));
        }
    }

    fn print_timeout(&self, what: &str) {
        self.out.info(&format!("waiting up to {} for {what} …", humantime::format_duration(SIGN_IN_TIMEOUT)));
    }
}

fn new_authorization_request(redirect_uri: Url) -> Result<AuthorizationRequest, SignInError> {
    AuthorizationRequest::new(random_bytes(), random_bytes(), redirect_uri)
        .ok_or_else(|| SignInError::Refused(Failure::new(ErrorKind::Random, "cannot get random numbers")))
}

fn host(url: &Url) -> &str {
    url.host_str().unwrap_or_default()
}

/// Reads standard input on a thread. A read cannot be cancelled, so the thread is left behind if no line comes.
fn read_lines(events: Sender<LoginEvent>) {
    let ended = events.clone();
    let spawned = std::thread::Builder::new().name("terminal".into()).spawn(move || {
        let stdin = std::io::stdin().lock();
        for line in std::io::Read::take(stdin, MAX_LINE_BYTES).lines().map_while(Result::ok) {
            let line = Zeroizing::new(line);
            let event = match line.trim() {
                "" => LoginEvent::EmptyLine,
                text => LoginEvent::Pasted(OneTimeSecret::new(text)),
            };
            if events.send(event).is_err() {
                return;
            }
        }
        // This fails if the login is already over.
        let _over = events.send(LoginEvent::PasteEnded);
    });
    if spawned.is_err() {
        let _over = ended.send(LoginEvent::PasteEnded);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    const NO_SCREEN: Desktop = Desktop { browsers: Vec::new(), is_graphical: false };
    const SCREEN: Desktop = Desktop { browsers: Vec::new(), is_graphical: true };

    fn args(device: bool, paste: bool) -> LoginArgs {
        LoginArgs {
            profile: "p".parse().unwrap(),
            provider: None,
            issuer: None,
            client_id: None,
            scopes: Vec::new(),
            yes: false,
            device,
            paste,
        }
    }

    fn way(args: &LoginArgs, redirect: &str, device: bool, desktop: &Desktop) -> String {
        let text = format!("[provider.a]\nissuer = \"https://a.example\"\nclient_id = \"me\"\n{redirect}");
        let config = Config::parse(&text, std::path::Path::new("c"), None).unwrap();
        let sites = SignInEndpoints {
            authorization: Some("https://a.example/auth".parse().unwrap()),
            device: device.then(|| "https://a.example/device".parse().unwrap()),
            ..SignInEndpoints::default()
        };
        match choose_method(args, &config.providers["a"], &sites, desktop) {
            Ok(LoginMethod::Browser { .. }) => "browser".into(),
            Ok(LoginMethod::Device { why, .. }) => format!("device {}", why.is_some()),
            Ok(LoginMethod::Paste { opens, .. }) => format!("paste {opens}"),
            Err(failure) => failure.message,
        }
    }

    #[test]
    fn login_method_follows_flags_desktop_and_provider() {
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
