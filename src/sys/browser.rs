//! Opens a page in the person's browser, as `BROWSER` or the system says.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::clock::SystemClock;
use super::paths::Desktop;
use crate::clock::{Clock, Moment};

/// A browser that fails does so within this time; `xdg-open` tries several one after the other.
const EARLY: Duration = Duration::from_secs(10);

/// The system's own way.
#[cfg(target_os = "macos")]
const SYSTEM: &[&[&str]] = &[&["open"]];
#[cfg(windows)]
const SYSTEM: &[&[&str]] = &[&["rundll32", "url.dll,FileProtocolHandler"]];
#[cfg(not(any(target_os = "macos", windows)))]
const SYSTEM: &[&[&str]] = &[&["xdg-open"], &["gio", "open"], &["wslview"]];

/// Whether a page can be opened where the person sees it.
pub fn is_available(desktop: &Desktop) -> bool {
    desktop.is_graphical || !desktop.browsers.is_empty()
}

/// Starts the first browser that can be started, and watches it on a thread: if it fails early, the next one is started.
/// `on_failure` gets the reasons once none is left. Returns whether one was started.
pub fn open(desktop: &Desktop, url: &str, on_failure: impl FnOnce(String) + Send + 'static) -> bool {
    let mut commands = commands(desktop, url);
    let Some(first) = commands.find_map(Browser::start) else { return false };
    // Without a thread it is not watched, as if it went on; it is reaped when we end.
    let _unwatched = std::thread::Builder::new().name("browser".into()).spawn(move || {
        let mut reasons = Vec::new();
        let mut started = Some(first);
        while let Some(browser) = started {
            match browser.wait_for_failure() {
                Some(reason) => reasons.push(reason),
                None => return,
            }
            started = commands.find_map(Browser::start);
        }
        on_failure(reasons.join(", "));
    });
    true
}

/// How a page can be opened, the best way first.
fn commands(desktop: &Desktop, url: &str) -> std::vec::IntoIter<Vec<String>> {
    let named = desktop.browsers.iter().map(|browser| command_for(browser, url));
    let system = SYSTEM.iter().filter(|_| desktop.is_graphical);
    let system = system.map(|argv| argv.iter().map(|a| (*a).to_owned()).chain([url.to_owned()]).collect());
    named.chain(system).collect::<Vec<_>>().into_iter()
}

/// An entry of `BROWSER`: words, with `%s` for the URL, which is else the last word. No shell sees it.
fn command_for(browser: &str, url: &str) -> Vec<String> {
    let mut argv: Vec<String> = browser.split_whitespace().map(str::to_owned).collect();
    match argv.iter_mut().find(|word| word.contains("%s")) {
        Some(word) => *word = word.replace("%s", url),
        None => argv.push(url.to_owned()),
    }
    argv
}

/// A browser that was started.
struct Browser {
    program: String,
    child: Child,
    started: Moment,
}

impl Browser {
    fn start(argv: Vec<String>) -> Option<Self> {
        let [program, arguments @ ..] = argv.as_slice() else { return None };
        let mut command = Command::new(program);
        // What browsers say on their way up is nothing for our terminal; and Ctrl-C is for us, not for them.
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let started = SystemClock.now();
        Some(Self { program: program.clone(), child: command.spawn().ok()?, started })
    }

    /// Waits until it ends, which one in the foreground does when the person closes it. `None`: it did not fail.
    fn wait_for_failure(mut self) -> Option<String> {
        let status = self.child.wait().ok()?;
        let ran_for = SystemClock.now().time_since(&self.started);
        is_failure(status.success(), ran_for).then(|| format!("`{}` failed with {status}", self.program))
    }
}

/// Whether a browser that ended has shown no page: one that ran for longer was closed by the person. (pure)
fn is_failure(is_success: bool, ran_for: Duration) -> bool {
    !is_success && ran_for < EARLY
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn browser_variable_decides_where_the_url_goes() {
        assert_eq!(command_for("firefox --new-window", "u"), ["firefox", "--new-window", "u"]);
        assert_eq!(command_for("lynx %s -nopause", "u"), ["lynx", "u", "-nopause"]);
    }

    fn desktop(browsers: &[&str]) -> Desktop {
        Desktop { browsers: browsers.iter().map(|b| (*b).to_owned()).collect(), is_graphical: false }
    }

    /// The reasons of the failure; `None`: there was none.
    fn failure(browsers: &[&str]) -> Option<String> {
        let (sender, reasons) = std::sync::mpsc::channel();
        assert!(open(&desktop(browsers), "https://a.example", move |reason| sender.send(reason).unwrap()));
        reasons.recv().ok()
    }

    #[test]
    fn first_browser_that_starts_is_enough() {
        assert_eq!(failure(&["/nonexistent/browser", "true"]), None);
        assert!(!open(&desktop(&["/nonexistent/browser"]), "https://a.example", |_| {}));
        assert!(!is_available(&desktop(&[])) && is_available(&desktop(&["w3m"])));
    }

    #[test]
    fn browser_that_fails_early_gives_way_or_is_told() {
        assert_eq!(failure(&["false", "true"]), None);
        let told = failure(&["false", "/nonexistent/browser", "sh -c false"]).unwrap();
        assert!(told.starts_with("`false` failed with exit status: 1, `sh` failed with"), "{told}");
    }

    #[test]
    fn browser_that_stayed_open_has_not_failed() {
        assert!(is_failure(false, Duration::from_secs(9)));
        assert!(!is_failure(false, EARLY) && !is_failure(true, Duration::ZERO));
    }
}
