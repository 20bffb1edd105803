//! The names by which programs call a helper: each is a link to this program, and stands for `keepalive helper KIND`.

use std::ffi::OsString;
use std::path::Path;

use crate::outcome::{ErrorKind, Failure};

/// A link, and the kind of helper that it is.
pub(super) const LINKS: [(&str, &str); 2] =
    [("git-credential-keepalive", "git"), ("docker-credential-keepalive", "docker")];

/// What cargo calls a credential provider with; what its configuration says comes in the requests.
const CARGO_FLAG: &str = "--cargo-plugin";

/// The command line as if it had been written out. (pure)
pub(in crate::cli) fn written_out(arguments: Vec<OsString>) -> Vec<OsString> {
    let called = arguments.first().and_then(|name| Path::new(name).file_stem()?.to_str());
    let link = LINKS.iter().find(|(name, _)| called == Some(name));
    let is_cargo = arguments.len() == 2 && arguments.get(1).is_some_and(|word| word == CARGO_FLAG);
    let (kind, rest) = match link {
        Some((_, kind)) => (*kind, 1),
        None if is_cargo => ("cargo", 2),
        None => return arguments,
    };
    let words = ["keepalive", "helper", kind].map(OsString::from);
    words.into_iter().chain(arguments.into_iter().skip(rest)).collect()
}

/// Makes the links in a directory, and says what was made. One that is there already stays; another file is not replaced.
pub(super) fn install(dir: &Path) -> Result<Vec<String>, Failure> {
    let failed = |message: String| Failure::new(ErrorKind::Io, message);
    let program = std::env::current_exe().map_err(|e| failed(format!("cannot find this program: {e}")))?;
    let mut made = Vec::new();
    for (name, _) in LINKS {
        let link = dir.join(name);
        if std::fs::canonicalize(&link).is_ok_and(|target| Some(target) == std::fs::canonicalize(&program).ok()) {
            made.push(format!("{} is there", link.display()));
            continue;
        }
        std::os::unix::fs::symlink(&program, &link).map_err(|e| {
            let hint = if e.kind() == std::io::ErrorKind::AlreadyExists {
                format!("remove {}, or name another directory", link.display())
            } else {
                "name a directory in your PATH that you may write, such as ~/.local/bin".to_owned()
            };
            failed(format!("cannot make the link {}: {e}", link.display())).with_hint(hint)
        })?;
        made.push(format!("{} -> {}", link.display(), program.display()));
    }
    Ok(made)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_and_the_flag_of_cargo_stand_for_a_helper() {
        let written = |line: &str| {
            let words = written_out(line.split(' ').map(OsString::from).collect());
            words.iter().map(|word| word.to_str().unwrap()).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(written("/usr/bin/git-credential-keepalive work get"), "keepalive helper git work get");
        assert_eq!(written("docker-credential-keepalive list"), "keepalive helper docker list");
        assert_eq!(written("keepalive --cargo-plugin"), "keepalive helper cargo");
        for as_is in ["keepalive token work", "keepalive", "keepalive --cargo-plugin x", "git-credential-other get"] {
            assert_eq!(written(as_is), as_is);
        }
    }
}
