//! The local socket between `token` and the daemon: private, and with a check of the peer's user.

#[cfg(unix)]
pub use unix::*;

#[cfg(unix)]
mod unix {
    use std::io;
    use std::os::fd::AsFd;
    use std::os::unix::fs::{FileTypeExt, PermissionsExt};
    use std::os::unix::net::{UnixListener, UnixStream};
    use std::path::Path;
    use std::time::Duration;

    use crate::sys::durable;

    /// Listens on `path`, in a private directory, and replaces what a dead daemon left. The caller holds the daemon
    /// lock, so no other daemon is listening there.
    pub fn listen(path: &Path) -> io::Result<UnixListener> {
        if let Some(dir) = path.parent() {
            durable::create_dir(dir)?;
        }
        match std::fs::symlink_metadata(path) {
            Ok(about) if about.file_type().is_socket() => std::fs::remove_file(path)?,
            // A file of the user's, which a variable names by mistake.
            Ok(_) => return Err(io::Error::new(io::ErrorKind::AlreadyExists, "it is no socket, and is left as it is")),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(e),
        }
        let listener = UnixListener::bind(path)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
        Ok(listener)
    }

    /// Connects to a daemon of the same user. `None`: no daemon is listening there. A daemon that is stopped and whose
    /// queue is full is waited for until the limit; only Linux waits there.
    pub fn connect(path: &Path, limit: Duration) -> io::Result<Option<UnixStream>> {
        let stream = match connect_within(path, limit) {
            Ok(stream) => stream,
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
                return Ok(None);
            }
            Err(e) => return Err(e),
        };
        if is_same_user(&stream)? { Ok(Some(stream)) } else { Err(other_user_error()) }
    }

    #[cfg(target_os = "linux")]
    fn connect_within(path: &Path, limit: Duration) -> io::Result<UnixStream> {
        use rustix::net::sockopt::{Timeout, set_socket_timeout};
        use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
        let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        set_socket_timeout(&socket, Timeout::Send, Some(limit))?;
        connect(&socket, &SocketAddrUnix::new(path)?)?;
        Ok(UnixStream::from(socket))
    }

    #[cfg(not(target_os = "linux"))]
    fn connect_within(path: &Path, _limit: Duration) -> io::Result<UnixStream> {
        UnixStream::connect(path)
    }

    /// Whether the process at the other end runs as this user.
    pub fn is_same_user(stream: &impl AsFd) -> io::Result<bool> {
        #[cfg(target_os = "linux")]
        {
            let peer = rustix::net::sockopt::socket_peercred(stream)?;
            Ok(peer.uid == rustix::process::geteuid())
        }
        // The directory is 0700, which keeps other users out where the peer cannot be asked for its uid.
        #[cfg(not(target_os = "linux"))]
        {
            let _unused = stream;
            Ok(true)
        }
    }

    fn other_user_error() -> io::Error {
        io::Error::new(io::ErrorKind::PermissionDenied, "another user is listening on the daemon's socket")
    }
}
