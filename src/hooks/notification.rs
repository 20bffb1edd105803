//! What a person is told on the desktop, by `notify-send`. (pure)

use std::path::Path;

use crate::profile::{HookEvent, ProfileName};

/// The program that shows notifications.
pub(super) const PROGRAM: &str = "notify-send";

/// The command that shows it; `None`: it is nothing for the desktop. A profile's name has no character that a notification
/// could take for markup.
pub(super) fn command(program: &Path, event: HookEvent, profile: &ProfileName) -> Option<Vec<String>> {
    let (title, text) = match event {
        HookEvent::NeedsLogin => (
            format!("keepalive: {profile} needs a login"),
            format!("Its access token is not refreshed any more. Sign in: keepalive login {profile}"),
        ),
        HookEvent::Recovered => {
            (format!("keepalive: {profile} is signed in again"), "Its access token is refreshed.".to_owned())
        }
        HookEvent::Deferred | HookEvent::LoginDue | HookEvent::Refreshed => return None,
    };
    let program = program.display().to_string();
    Some([&program, "-u", "critical", "-a", "keepalive", &title, &text].map(str::to_owned).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_login_is_worth_a_notification() {
        let shown = |event| command(Path::new("/bin/notify-send"), event, &"work".parse().unwrap());
        let needed = shown(HookEvent::NeedsLogin).unwrap();
        assert_eq!(needed[..5], ["/bin/notify-send", "-u", "critical", "-a", "keepalive"]);
        assert!(needed[6].ends_with("Sign in: keepalive login work"));
        assert_eq!(HookEvent::ALL.map(|event| shown(event).is_some()), [true, false, true, false, false]);
    }
}
