//! Opens a page in the person's browser, as `BROWSER` or the system says.

use std::process::{Command, Stdio};

use super::paths::Desktop;

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

/// Starts the first browser that starts. It is left to itself: whether a page appears, only the person knows.
pub fn open(desktop: &Desktop, url: &str) -> bool {
    let named = desktop.browsers.iter().map(|browser| command_for(browser, url));
    let system = SYSTEM.iter().filter(|_| desktop.is_graphical);
    let system = system.map(|argv| argv.iter().map(|a| (*a).to_owned()).chain([url.to_owned()]).collect());
    named.chain(system).any(|argv: Vec<String>| spawn_detached(&argv))
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

fn spawn_detached(argv: &[String]) -> bool {
    let [program, arguments @ ..] = argv else { return false };
    let mut command = Command::new(program);
    // What browsers say on their way up is nothing for our terminal; and Ctrl-C is for us, not for them.
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    #[cfg(unix)]
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    let Ok(mut child) = command.spawn() else { return false };
    // Reaped when it ends; if we end first, that is init's work.
    let _unreaped = std::thread::Builder::new().spawn(move || child.wait()).is_err();
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn browser_variable_decides_where_the_url_goes() {
        assert_eq!(command_for("firefox --new-window", "u"), ["firefox", "--new-window", "u"]);
        assert_eq!(command_for("lynx %s -nopause", "u"), ["lynx", "u", "-nopause"]);
    }

    #[test]
    fn first_browser_that_starts_is_enough() {
        let desktop = |browsers: &[&str]| Desktop {
            browsers: browsers.iter().map(|b| (*b).to_owned()).collect(),
            is_graphical: false,
        };
        assert!(open(&desktop(&["/nonexistent/browser", "true"]), "https://a.example"));
        assert!(!open(&desktop(&["/nonexistent/browser"]), "https://a.example"));
        assert!(!is_available(&desktop(&[])) && is_available(&desktop(&["w3m"])));
    }
}
