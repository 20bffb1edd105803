//! Every way in which the network between us and a real authorization server can fail, one by one: what the next runs do,
//! and what the server's log says.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::Extent;
use super::support::oidc_provider::OidcProvider;
use super::support::sandbox::Sandbox;

/// What is done to one exchange.
#[derive(Clone, Copy, Debug)]
enum NetworkFault {
    Pass,
    /// The request is read and never forwarded; the connection is reset (else closed).
    SwallowRequest {
        reset: bool,
    },
    /// Never forwarded, and nothing more is said.
    HangRequest,
    /// Never forwarded: this answer instead.
    Instead(&'static str),
    /// Forwarded, and this answer instead of the server's.
    InsteadAfter(&'static str),
    /// Forwarded; of the answer this many thousandths arrive, then the connection is reset (else closed).
    Cut {
        permille: usize,
        reset: bool,
    },
    /// Forwarded, and the answer is never passed on.
    HangAnswer,
    /// Whole, but late by this many milliseconds.
    Late(u64),
    /// Whole, one byte at a time.
    Bytewise,
    /// Forwarded twice; the first answer is passed on (else the second).
    Twice {
        first: bool,
    },
    /// Forwarded, and the answer's body in another shape.
    Reshaped(fn(&[u8]) -> Vec<u8>),
}

/// Name, fault, the exit status of that run, and of the next one.
type NetworkCase = (&'static str, NetworkFault, i32, i32);

const PORTAL: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 21\r\n\r\n<html>Sign in</html>\n";
const CASES: &[NetworkCase] = &[
    ("pass", NetworkFault::Pass, 0, 0),
    ("close after the request", NetworkFault::SwallowRequest { reset: false }, 75, 75),
    ("reset after the request", NetworkFault::SwallowRequest { reset: true }, 75, 75),
    ("hang after the request", NetworkFault::HangRequest, 75, 75),
    ("429", NetworkFault::Instead("HTTP/1.1 429 Too Many Requests\r\ncontent-length: 0\r\n\r\n"), 75, 75),
    (
        "429, Retry-After: 0",
        NetworkFault::Instead("HTTP/1.1 429 X\r\nretry-after: 0\r\ncontent-length: 0\r\n\r\n"),
        75,
        75,
    ),
    (
        "429, Retry-After: a week",
        NetworkFault::Instead("HTTP/1.1 429 X\r\nretry-after: 604800\r\ncontent-length: 0\r\n\r\n"),
        75,
        75,
    ),
    ("500", NetworkFault::Instead("HTTP/1.1 500 X\r\ncontent-length: 0\r\n\r\n"), 75, 75),
    ("502", NetworkFault::Instead("HTTP/1.1 502 X\r\ncontent-length: 0\r\n\r\n"), 75, 75),
    (
        "429, Retry-After: a date",
        NetworkFault::Instead(
            "HTTP/1.1 429 X\r\nretry-after: Fri, 01 Jan 2100 00:00:00 GMT\r\ncontent-length: 0\r\n\r\n",
        ),
        75,
        75,
    ),
    (
        "503, Retry-After: 7",
        NetworkFault::Instead("HTTP/1.1 503 X\r\nretry-after: 7\r\ncontent-length: 0\r\n\r\n"),
        75,
        75,
    ),
    ("504", NetworkFault::Instead("HTTP/1.1 504 X\r\ncontent-length: 0\r\n\r\n"), 75, 75),
    ("captive portal", NetworkFault::Instead(PORTAL), 75, 75),
    (
        "307 elsewhere",
        NetworkFault::Instead("HTTP/1.1 307 X\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n"),
        78,
        0,
    ),
    ("303 elsewhere", NetworkFault::Instead("HTTP/1.1 303 X\r\nlocation: /y\r\ncontent-length: 0\r\n\r\n"), 78, 0),
    ("garbage", NetworkFault::Instead("\x01\x02\x03 this is no HTTP\r\n\r\n"), 75, 75),
    ("nothing for an answer", NetworkFault::Cut { permille: 0, reset: false }, 75, 75),
    ("reset for an answer", NetworkFault::Cut { permille: 0, reset: true }, 75, 75),
    ("half of the head", NetworkFault::Cut { permille: 150, reset: false }, 75, 75),
    ("half of the body", NetworkFault::Cut { permille: 800, reset: false }, 75, 75),
    ("half of the body, reset", NetworkFault::Cut { permille: 800, reset: true }, 75, 75),
    ("all but the last bytes", NetworkFault::Cut { permille: 999, reset: false }, 0, 0),
    ("hang for an answer", NetworkFault::HangAnswer, 75, 75),
    ("500 after the rotation", NetworkFault::InsteadAfter("HTTP/1.1 500 X\r\ncontent-length: 0\r\n\r\n"), 75, 75),
    ("502 after the rotation", NetworkFault::InsteadAfter("HTTP/1.1 502 X\r\ncontent-length: 0\r\n\r\n"), 75, 75),
    (
        "503 after the rotation",
        NetworkFault::InsteadAfter("HTTP/1.1 503 X\r\nretry-after: 2\r\ncontent-length: 0\r\n\r\n"),
        75,
        75,
    ),
    ("504 after the rotation", NetworkFault::InsteadAfter("HTTP/1.1 504 X\r\ncontent-length: 0\r\n\r\n"), 75, 75),
    (
        "200 and no body after the rotation",
        NetworkFault::InsteadAfter("HTTP/1.1 200 X\r\ncontent-length: 0\r\n\r\n"),
        75,
        75,
    ),
    ("portal after the rotation", NetworkFault::InsteadAfter(PORTAL), 75, 75),
    ("delivered twice, first answer", NetworkFault::Twice { first: true }, 0, 77),
    ("delivered twice, second answer", NetworkFault::Twice { first: false }, 77, 77),
    ("100 MiB of blanks before the answer", NetworkFault::Reshaped(|body| with_blanks(100, body)), 75, 75),
    (
        "100 MiB of blanks in chunks",
        NetworkFault::Reshaped(|body| in_chunks(&[&vec![b' '; 100 << 20], body].concat(), 1 << 16)),
        75,
        75,
    ),
    ("half of the JSON, whole for HTTP", NetworkFault::Reshaped(|body| plain("", &body[..body.len() / 2])), 75, 75),
    (
        "a head of 256 KiB",
        NetworkFault::Reshaped(|body| plain(&format!("x-padding: {}\r\n", "x".repeat(256 << 10)), body)),
        0,
        0,
    ),
    ("256 headers of a KiB", NetworkFault::Reshaped(|body| plain(&many_headers(256), body)), 0, 0),
    (
        "gzip that nobody asked for",
        NetworkFault::Reshaped(|body| plain("content-encoding: gzip\r\n", &gzip(body))),
        0,
        0,
    ),
    (
        "keep-alive promised, then closed",
        NetworkFault::Reshaped(|body| plain("connection: keep-alive\r\nkeep-alive: timeout=60\r\n", body)),
        0,
        0,
    ),
    ("late by half a second", NetworkFault::Late(500), 0, 0),
    ("byte by byte", NetworkFault::Bytewise, 0, 0),
    ("chunked", NetworkFault::Reshaped(|body| in_chunks(body, 7)), 0, 0),
    ("100 and 103 first", NetworkFault::Reshaped(after_interim_answers), 0, 0),
    ("HTTP/1.0, ended by the close", NetworkFault::Reshaped(|body| [b"HTTP/1.0 200 OK\r\n\r\n", body].concat()), 0, 0),
];

pub fn run(_extent: Extent) -> bool {
    let server = OidcProvider::start(600, 0);
    let sandbox = Sandbox::new();
    let proxy = FaultProxy::start(server.address());
    let issuer = server.issuer();
    sandbox.file_store(&format!(
        "[provider.real]\nissuer = \"{issuer}\"\ntoken_endpoint = \"http://{}/token\"\nclient_id = \"public\"\ntimeout = \"2s\"\n",
        proxy.address
    ));
    let mut is_good = true;
    println!("{:<36} {:>5} {:>5} {:>9} {:>7}", "between us and oidc-provider", "exit", "next", "presented", "family");
    println!("{:<36} {:>5} {:>5} {:>9} {:>7}", "", "", "", "again", "");
    for (i, (name, fault, first, next)) in CASES.iter().enumerate() {
        let profile = format!("p{i}");
        let import = ["import", profile.as_str(), "--provider", "real"];
        sandbox.keepalive_with_input(&import, &server.mint().to_string()).exits(0);
        let before = server.counts();
        let refresh = ["--json", "refresh", "-p", profile.as_str(), "--force"];
        proxy.next(*fault);
        let struck = sandbox.keepalive(&refresh);
        proxy.next(NetworkFault::Pass);
        // A person may have a rejected token sent once more by --force; a run by itself never does.
        let after = sandbox.keepalive(if struck.status == 77 { &refresh[..4] } else { &refresh });
        let counts = server.counts();
        let again = counts.presented_again - before.presented_again;
        let family = if counts.families_revoked > before.families_revoked { "revoked" } else { "alive" };
        println!("{name:<36} {:>5} {:>5} {again:>9} {family:>7}", struck.status, after.status);
        // What the network itself delivers twice is none of our doing.
        let allowed = usize::from(matches!(fault, NetworkFault::Twice { .. }));
        if (struck.status, after.status) != (*first, *next) || again > allowed {
            println!("  FAULT   expected exit {first}, then {next}: {} {}", struck.stdout.trim(), after.stdout.trim());
            is_good = false;
        }
    }
    is_good
}

struct FaultProxy {
    address: String,
    fault: Arc<Mutex<NetworkFault>>,
}

impl FaultProxy {
    fn start(upstream: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let fault = Arc::new(Mutex::new(NetworkFault::Pass));
        let current = Arc::clone(&fault);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let (fault, upstream) = (*current.lock().unwrap(), upstream.clone());
                std::thread::spawn(move || serve_connection(client, &upstream, fault));
            }
        });
        Self { address, fault }
    }

    fn next(&self, fault: NetworkFault) {
        *self.fault.lock().unwrap() = fault;
    }
}

/// One exchange. Errors end it: the client has gone.
fn serve_connection(mut client: TcpStream, upstream: &str, fault: NetworkFault) {
    let Ok(request) = read_request(&client) else { return };
    let forward = || exchange(upstream, &request).unwrap();
    let _gone = match fault {
        NetworkFault::Pass => client.write_all(&forward()),
        NetworkFault::SwallowRequest { reset } => end(&client, reset),
        NetworkFault::HangRequest => hang(&mut client),
        NetworkFault::Instead(answer) => client.write_all(answer.as_bytes()),
        NetworkFault::InsteadAfter(answer) => {
            forward();
            client.write_all(answer.as_bytes())
        }
        NetworkFault::Cut { permille, reset } => {
            let answer = forward();
            client.write_all(&answer[..answer.len() * permille / 1000]).and_then(|()| end(&client, reset))
        }
        NetworkFault::HangAnswer => {
            forward();
            hang(&mut client)
        }
        NetworkFault::Late(ms) => {
            let answer = forward();
            std::thread::sleep(Duration::from_millis(ms));
            client.write_all(&answer)
        }
        NetworkFault::Bytewise => {
            client.set_nodelay(true).unwrap();
            forward().chunks(1).try_for_each(|byte| client.write_all(byte))
        }
        NetworkFault::Twice { first } => {
            let answers = [forward(), forward()];
            client.write_all(&answers[usize::from(!first)])
        }
        NetworkFault::Reshaped(shape) => {
            let answer = forward();
            let end = answer.windows(4).position(|w| w == b"\r\n\r\n").unwrap() + 4;
            client.write_all(&shape(&answer[end..]))
        }
    };
}

/// An answer with a length, and `headers` besides.
fn plain(headers: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let head =
        format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n{headers}content-length: {length}\r\n\r\n");
    [head.as_bytes(), body].concat()
}

fn with_blanks(mib: usize, body: &[u8]) -> Vec<u8> {
    plain("", &[&vec![b' '; mib << 20], body].concat())
}

fn many_headers(n: usize) -> String {
    (0..n).map(|i| format!("x-padding-{i}: {}\r\n", "x".repeat(1000))).collect()
}

fn gzip(body: &[u8]) -> Vec<u8> {
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    packed.write_all(body).unwrap();
    packed.finish().unwrap()
}

fn in_chunks(body: &[u8], size: usize) -> Vec<u8> {
    let mut whole = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
    for chunk in body.chunks(size) {
        whole.extend(format!("{:x}\r\n", chunk.len()).bytes());
        whole.extend(chunk);
        whole.extend(b"\r\n");
    }
    whole.extend(b"0\r\n\r\n");
    whole
}

fn after_interim_answers(body: &[u8]) -> Vec<u8> {
    let interim = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n";
    [&interim[..], &plain("", body)].concat()
}

/// FIN, or RST: the latter by closing with data still unread, or with no time to linger.
fn end(client: &TcpStream, reset: bool) -> std::io::Result<()> {
    if reset {
        rustix::net::sockopt::set_socket_linger(client, Some(Duration::ZERO))?;
    }
    Ok(())
}

/// Until the client gives up.
fn hang(client: &mut TcpStream) -> std::io::Result<()> {
    client.read(&mut [0]).map(|_| ())
}

fn read_request(client: &TcpStream) -> std::io::Result<Vec<u8>> {
    let mut reader = BufReader::new(client);
    let mut request = Vec::new();
    let mut length = 0;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        if let Some(n) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = n.trim().parse().unwrap();
        }
        // One exchange per connection, whatever the client hopes for.
        if !line.to_ascii_lowercase().starts_with("connection:") {
            if line == "\r\n" {
                request.extend(b"connection: close\r\n");
            }
            request.extend(line.bytes());
        }
        if line == "\r\n" {
            break;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    request.extend(body);
    Ok(request)
}

/// The answer, with a length: the server may have sent it in chunks.
fn exchange(upstream: &str, request: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut server = TcpStream::connect(upstream)?;
    server.write_all(request)?;
    let mut answer = Vec::new();
    server.read_to_end(&mut answer)?;
    assert!(!answer.windows(7).any(|w| w.eq_ignore_ascii_case(b"chunked")), "this server sends lengths");
    Ok(answer)
}
