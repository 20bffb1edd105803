//! Which user made the other end of a TCP connection on this machine: Linux tells it for one connection by NETLINK_SOCK_DIAG.

use std::net::SocketAddr;

/// Whether the client's end was made by this user. What is not told counts as another user: the client is in another network
/// namespace, or gone.
#[cfg(target_os = "linux")]
pub fn is_ours(client: SocketAddr, server: SocketAddr) -> bool {
    linux::owner(client, server).is_ok_and(|owner| owner == Some(rustix::process::geteuid().as_raw()))
}

/// Elsewhere no system tells it without looking at all processes, so what the client presents is all that protects.
#[cfg(not(target_os = "linux"))]
pub fn is_ours(_client: SocketAddr, _server: SocketAddr) -> bool {
    true
}

/// Whether this system tells it: asked for a connection of this process with itself.
#[cfg(target_os = "linux")]
pub fn is_told() -> bool {
    let told = || -> std::io::Result<bool> {
        let listener = std::net::TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0))?;
        let client = std::net::TcpStream::connect(listener.local_addr()?)?;
        Ok(is_ours(client.local_addr()?, client.peer_addr()?))
    };
    told().unwrap_or(false)
}

/// Elsewhere than on Linux it is not asked.
#[cfg(not(target_os = "linux"))]
pub fn is_told() -> bool {
    false
}

#[cfg(target_os = "linux")]
mod linux {
    use std::io;
    use std::net::{IpAddr, SocketAddr};
    use std::time::Duration;

    use rustix::net::sockopt::{Timeout, set_socket_timeout};
    use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, recv, send, socket_with};

    /// `SOCK_DIAG_BY_FAMILY` and `NLM_F_REQUEST`, of linux/sock_diag.h and linux/netlink.h.
    const SOCK_DIAG_BY_FAMILY: u16 = 20;
    const NLM_F_REQUEST: u16 = 1;
    const HEADER_BYTES: usize = 16;
    /// `struct inet_diag_req_v2` of linux/inet_diag.h: five fields, and the connection's two ends.
    const REQUEST_BYTES: usize = HEADER_BYTES + 8 + 48;
    /// Where `struct inet_diag_msg` has what is asked for.
    const STATE_AT: usize = HEADER_BYTES + 1;
    const PORTS_AT: usize = HEADER_BYTES + 4;
    const UID_AT: usize = HEADER_BYTES + 64;
    const INODE_AT: usize = HEADER_BYTES + 68;
    const ANSWER_BYTES: usize = HEADER_BYTES + 72;
    const ESTABLISHED: u8 = 1;
    const IPPROTO_TCP: u8 = 6;
    /// The kernel answers at once.
    const PATIENCE: Duration = Duration::from_secs(1);

    /// The user whose socket has `client` as its own address and `server` as the other. `None`: there is none, or it is not
    /// connected any more, and then the kernel names root.
    pub(super) fn owner(client: SocketAddr, server: SocketAddr) -> io::Result<Option<u32>> {
        let socket =
            socket_with(AddressFamily::NETLINK, SocketType::DGRAM, SocketFlags::CLOEXEC, Some(netlink::SOCK_DIAG))?;
        set_socket_timeout(&socket, Timeout::Recv, Some(PATIENCE))?;
        send(&socket, &request(client, server), SendFlags::empty())?;
        let mut answer = [0_u8; 512];
        let (length, _) = recv(&socket, &mut answer, RecvFlags::empty())?;
        Ok(read(&answer[..length], client, server))
    }

    /// One exact query. (pure)
    fn request(client: SocketAddr, server: SocketAddr) -> Vec<u8> {
        let family = if client.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let mut bytes = Vec::with_capacity(REQUEST_BYTES);
        bytes.extend((REQUEST_BYTES as u32).to_ne_bytes());
        bytes.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
        bytes.extend(NLM_F_REQUEST.to_ne_bytes());
        bytes.extend([0; 8]);
        bytes.extend([family.as_raw() as u8, IPPROTO_TCP, 0, 0]);
        // Every state, no cookie: it is not known.
        bytes.extend([0xff; 4]);
        bytes.extend(client.port().to_be_bytes());
        bytes.extend(server.port().to_be_bytes());
        bytes.extend(padded(client.ip()));
        bytes.extend(padded(server.ip()));
        bytes.extend([0; 4]);
        bytes.extend([0xff; 8]);
        bytes
    }

    fn padded(ip: IpAddr) -> [u8; 16] {
        let mut bytes = [0; 16];
        match ip {
            IpAddr::V4(ip) => bytes[..4].copy_from_slice(&ip.octets()),
            IpAddr::V6(ip) => bytes = ip.octets(),
        }
        bytes
    }

    /// The owner, if the answer is about this connection. For one that is gone the kernel may answer with a listener on the
    /// client's port; one that its process has closed belongs to no inode. (pure)
    fn read(answer: &[u8], client: SocketAddr, server: SocketAddr) -> Option<u32> {
        let number = |at: usize| Some(u32::from_ne_bytes(answer.get(at..at + 4)?.try_into().ok()?));
        let port = |at: usize| Some(u16::from_be_bytes(answer.get(at..at + 2)?.try_into().ok()?));
        let kind = u16::from_ne_bytes(answer.get(4..6)?.try_into().ok()?);
        let is_answer = kind == SOCK_DIAG_BY_FAMILY && answer.len() >= ANSWER_BYTES;
        let is_connected = answer.get(STATE_AT) == Some(&ESTABLISHED) && number(INODE_AT)? != 0;
        let is_same = port(PORTS_AT)? == client.port() && port(PORTS_AT + 2)? == server.port();
        if is_answer && is_connected && is_same { number(UID_AT) } else { None }
    }

    #[cfg(test)]
    mod tests {
        use std::net::{TcpListener, TcpStream};

        use super::*;

        fn connected(address: &str) -> Option<(TcpStream, TcpStream)> {
            let listener = TcpListener::bind(address).ok()?;
            let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            Some((client, listener.accept().unwrap().0))
        }

        #[test]
        fn kernel_names_the_user_of_a_connection() {
            let own = rustix::process::geteuid().as_raw();
            for address in ["127.0.0.1:0", "[::1]:0"] {
                // There may be no IPv6.
                let Some((client, server)) = connected(address) else { continue };
                let (ours, theirs) = (server.peer_addr().unwrap(), server.local_addr().unwrap());
                assert_eq!(owner(ours, theirs).unwrap(), Some(own), "{address}");
                assert!(super::super::is_ours(ours, theirs) && super::super::is_told());
                drop(client);
                assert_eq!(owner(ours, theirs).unwrap(), None, "it is closed");
            }
        }

        #[test]
        fn listener_on_the_port_of_a_client_is_not_taken_for_it() {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let (asked, server) = (listener.local_addr().unwrap(), "127.0.0.1:9".parse().unwrap());
            assert_eq!(owner(asked, server).unwrap(), None);
        }
    }
}
