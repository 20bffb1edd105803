//! TLS before a server that speaks plain HTTP, with a certificate of a private authority.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::PATIENCE;

/// The name that the certificate is made out to, beside those of loopback.
pub const NAME: &str = "login.acme.example";

pub struct TlsTerminator {
    dir: tempfile::TempDir,
    address: SocketAddr,
    stop: Arc<AtomicBool>,
}

impl TlsTerminator {
    /// Puts TLS before the server at `url`.
    pub fn in_front_of(url: &str) -> Self {
        Self::with_names(url, &[NAME])
    }

    /// As `in_front_of`, with a certificate that is made out to these names.
    pub fn with_names(url: &str, names: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let make = |arguments: &str| {
            let common = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30";
            let made = Command::new("openssl")
                .args(common.split(' ').chain(arguments.split(' ')))
                .current_dir(dir.path())
                .output()
                .expect("openssl is needed: contrib/test installs it");
            assert!(made.status.success(), "openssl: {}", String::from_utf8_lossy(&made.stderr));
        };
        let authority = "-addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign";
        make(&format!("-subj /CN=test-authority -keyout ca.key -out ca.pem {authority}"));
        let names: String = names.iter().map(|name| format!("DNS:{name},")).collect();
        let names = format!("subjectAltName={names}DNS:localhost,IP:127.0.0.1");
        let server =
            format!("-addext basicConstraints=critical,CA:FALSE -addext extendedKeyUsage=serverAuth -addext {names}");
        make(&format!("-subj /CN=server -CA ca.pem -CAkey ca.key -keyout srv.key -out srv.pem {server}"));
        let certificate = CertificateDer::from_pem_file(dir.path().join("srv.pem")).unwrap();
        let key = PrivateKeyDer::from_pem_file(dir.path().join("srv.key")).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let (config, behind, is_over) =
            (Arc::new(config), url.trim_start_matches("http://").to_owned(), Arc::clone(&stop));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if is_over.load(Ordering::SeqCst) {
                    return;
                }
                let (config, behind) = (Arc::clone(&config), behind.clone());
                // A client that does not trust the certificate ends the connection.
                std::thread::spawn(move || drop(serve_connection(stream, config, &behind)));
            }
        });
        Self { dir, address, stop }
    }

    /// The certificate of the authority.
    pub fn ca(&self) -> PathBuf {
        self.dir.path().join("ca.pem")
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for TlsTerminator {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        // Wakes the accept loop.
        drop(TcpStream::connect(self.address));
    }
}

/// One request and its answer.
fn serve_connection(stream: TcpStream, config: Arc<ServerConfig>, behind: &str) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut tls = StreamOwned::new(ServerConnection::new(config).map_err(io::Error::other)?, stream);
    let mut request = Vec::new();
    let mut server = TcpStream::connect(behind)?;
    while !is_whole(&request) {
        let mut part = [0; 4096];
        let n = tls.read(&mut part)?;
        if n == 0 {
            return Ok(());
        }
        request.extend_from_slice(&part[..n]);
    }
    server.write_all(&request)?;
    let mut answer = Vec::new();
    server.read_to_end(&mut answer)?;
    tls.write_all(&answer)?;
    tls.conn.send_close_notify();
    tls.flush()
}

/// Whether the request is there up to the end that its head announces.
fn is_whole(request: &[u8]) -> bool {
    let text = String::from_utf8_lossy(request).to_ascii_lowercase();
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    body.len() >= length.map_or(0, |n| n.parse().unwrap())
}
