//! A proxy on loopback that makes tunnels (RFC 9110 §9.3.6), all to one place, and remembers where they were meant to lead.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use super::PATIENCE;

pub struct TunnelProxy {
    address: SocketAddr,
    requests: Arc<Mutex<Vec<String>>>,
    stop: Arc<AtomicBool>,
}

impl TunnelProxy {
    /// All tunnels lead to `to`; without one, none is made.
    pub fn start(to: Option<SocketAddr>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (asked, stop) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let (noted, is_over) = (Arc::clone(&asked), Arc::clone(&stop));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if is_over.load(Ordering::SeqCst) {
                    return;
                }
                let noted = Arc::clone(&noted);
                std::thread::spawn(move || drop(serve_connection(stream, to, &noted)));
            }
        });
        Self { address, requests: asked, stop }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// This proxy, spoken to in SOCKS 5 (RFC 1928).
    pub fn socks_url(&self) -> String {
        format!("socks5h://{}", self.address)
    }

    /// The first lines of all requests.
    pub fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

impl Drop for TunnelProxy {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        drop(TcpStream::connect(self.address));
    }
}

fn serve_connection(stream: TcpStream, to: Option<SocketAddr>, noted: &Mutex<Vec<String>>) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut reader = BufReader::new(stream.try_clone()?);
    if reader.fill_buf()?.first() == Some(&5) {
        return serve_socks(reader, stream, to, noted);
    }
    let mut first = String::new();
    reader.read_line(&mut first)?;
    noted.lock().unwrap().push(first.trim_end().to_owned());
    let mut line = String::new();
    while reader.read_line(&mut line)? > 2 {
        line.clear();
    }
    let mut stream = stream;
    let Some(to) = to else {
        return stream.write_all(b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\n\r\n");
    };
    let server = TcpStream::connect(to)?;
    stream.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n")?;
    relay(reader, &stream, server)
}

/// RFC 1928, for a request with a host name and without authentication.
fn serve_socks(
    mut reader: BufReader<TcpStream>,
    mut stream: TcpStream,
    to: Option<SocketAddr>,
    noted: &Mutex<Vec<String>>,
) -> io::Result<()> {
    let mut read = |n: usize| {
        let mut bytes = vec![0; n];
        reader.read_exact(&mut bytes).map(|()| bytes)
    };
    let methods = read(2)?[1];
    read(usize::from(methods))?;
    stream.write_all(&[5, 0])?;
    let length = read(5)?[4];
    let (host, port) = (read(usize::from(length))?, read(2)?);
    let port = u16::from_be_bytes([port[0], port[1]]);
    noted.lock().unwrap().push(format!("SOCKS {}:{port}", String::from_utf8_lossy(&host)));
    let Some(to) = to else { return stream.write_all(&[5, 2, 0, 1, 0, 0, 0, 0, 0, 0]) };
    let server = TcpStream::connect(to)?;
    stream.write_all(&[5, 0, 0, 1, 0, 0, 0, 0, 0, 0])?;
    relay(reader, &stream, server)
}

fn relay(mut reader: BufReader<TcpStream>, stream: &TcpStream, server: TcpStream) -> io::Result<()> {
    let (mut back, mut client) = (server.try_clone()?, stream.try_clone()?);
    let answers = std::thread::spawn(move || {
        let _over = io::copy(&mut back, &mut client);
        let _gone = client.shutdown(Shutdown::Write);
    });
    let mut server = server;
    let _over = io::copy(&mut reader, &mut server);
    let _gone = server.shutdown(Shutdown::Write);
    answers.join().map_err(|_| io::Error::other("a thread panicked"))
}
