//! A web server that gives the files of a folder to those that authenticate: a git repository, an index of cargo, a registry.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::PATIENCE;

/// A request, as it came.
#[derive(Clone, Debug)]
pub struct SeenRequest {
    pub path: String,
    /// Headers by their names in lower case.
    pub headers: BTreeMap<String, String>,
}

impl SeenRequest {
    /// Scheme and value of the Authorization header; Basic decoded.
    pub fn authorization(&self) -> Option<(String, String)> {
        let (scheme, value) = self.headers.get("authorization")?.split_once(' ')?;
        let plain = match scheme {
            "Basic" => String::from_utf8(STANDARD.decode(value).unwrap()).unwrap(),
            _ => value.to_owned(),
        };
        Some((scheme.to_owned(), plain))
    }
}

/// Says whether a request may be answered.
type Guard = dyn Fn(&SeenRequest) -> bool + Send + Sync;

pub struct GuardedFiles {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<SeenRequest>>>,
    stop: Arc<AtomicBool>,
}

impl GuardedFiles {
    /// `challenge`: what is answered to others, as `Basic realm="x"`.
    pub fn serve(
        dir: &Path,
        challenge: &'static str,
        guard: impl Fn(&SeenRequest) -> bool + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (seen, stop) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let (dir, guard): (PathBuf, Arc<Guard>) = (dir.to_owned(), Arc::new(guard));
        let (log, is_over) = (Arc::clone(&seen), Arc::clone(&stop));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if is_over.load(Ordering::SeqCst) {
                    return;
                }
                let (dir, guard, log) = (dir.clone(), Arc::clone(&guard), Arc::clone(&log));
                std::thread::spawn(move || drop(answer(stream, &dir, challenge, &*guard, &log)));
            }
        });
        Self { address, seen, stop }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Host and port.
    pub fn authority(&self) -> String {
        self.address.to_string()
    }

    pub fn seen(&self) -> Vec<SeenRequest> {
        self.seen.lock().unwrap().clone()
    }
}

impl Drop for GuardedFiles {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        // Wakes the accept loop.
        drop(TcpStream::connect(self.address));
    }
}

fn answer(
    stream: TcpStream,
    dir: &Path,
    challenge: &str,
    guard: &Guard,
    log: &Mutex<Vec<SeenRequest>>,
) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let first = lines.next().ok_or(io::ErrorKind::UnexpectedEof)??;
    let target = first.split(' ').nth(1).unwrap_or("/").to_owned();
    let mut headers = BTreeMap::new();
    for line in lines {
        let line = line?;
        let Some((name, value)) = line.split_once(':') else { break };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let request = SeenRequest { path: target, headers };
    let is_allowed = guard(&request);
    let file = dir.join(request.path.split('?').next().unwrap_or("").trim_start_matches('/'));
    log.lock().unwrap().push(request);
    let (status, more, body) = match (is_allowed, std::fs::read(&file)) {
        (false, _) => ("401 Unauthorized", format!("www-authenticate: {challenge}\r\n"), b"sign in".to_vec()),
        (true, Ok(body)) => ("200 OK", String::new(), body),
        // A registry of containers wants its own root.
        (true, Err(_)) if file.is_dir() => ("200 OK", "content-type: application/json\r\n".to_owned(), b"{}".to_vec()),
        (true, Err(_)) => ("404 Not Found", String::new(), Vec::new()),
    };
    let head = format!("HTTP/1.1 {status}\r\n{more}content-length: {}\r\nconnection: close\r\n\r\n", body.len());
    let mut stream = stream;
    stream.write_all(head.as_bytes())?;
    if !first.starts_with("HEAD ") {
        stream.write_all(&body)?;
    }
    stream.flush()
}
