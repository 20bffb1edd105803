//! Mail programs sign in with the token that `keepalive token` prints, by XOAUTH2.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::Stdio;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::support::PATIENCE;
use super::support::auth_server::AuthServer;
use super::support::sandbox::{PROGRAM, Sandbox};
use super::support::token_family::RotationMode;

fn token(sandbox: &Sandbox) -> String {
    sandbox.keepalive(&["token", "demo"]).exits(0).stdout.trim().to_owned()
}

/// What XOAUTH2 sends.
fn xoauth2(token: &str) -> String {
    format!("user=me@acme.example\x01auth=Bearer {token}\x01\x01")
}

/// What a mail server answers to each command.
fn smtp_answer(line: &str, is_data: &mut bool) -> Option<&'static str> {
    let word = line.split(' ').next().unwrap_or_default();
    match word {
        "." if *is_data => {
            *is_data = false;
            Some("250 taken")
        }
        _ if *is_data => None,
        "EHLO" => Some("250-localhost\r\n250 AUTH XOAUTH2"),
        "AUTH" => Some("334 "),
        "DATA" => {
            *is_data = true;
            Some("354 go on")
        }
        "QUIT" => Some("221 bye"),
        _ => Some("250 ok"),
    }
}

/// Serves one sender; the credential that it gave.
fn mail_server(listener: TcpListener) -> String {
    let mut stream = listener.accept().unwrap().0;
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(b"220 localhost\r\n").unwrap();
    let (mut given, mut is_data, mut is_asked) = (String::new(), false, false);
    for line in BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok) {
        if is_asked {
            given = String::from_utf8(STANDARD.decode(&line).unwrap()).unwrap();
        }
        let answer = if is_asked { Some("235 welcome") } else { smtp_answer(&line, &mut is_data) };
        is_asked = line == "AUTH XOAUTH2";
        if let Some(answer) = answer {
            stream.write_all(format!("{answer}\r\n").as_bytes()).unwrap();
        }
    }
    given
}

#[ignore = "needs msmtp; contrib/test runs it"]
#[test]
fn msmtp_signs_in_with_the_raw_token() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = Sandbox::signed_in(&server);
    let token = token(&sandbox);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let mail = std::thread::spawn(move || mail_server(listener));
    let config = sandbox.path("home/msmtprc");
    let command = format!("passwordeval {PROGRAM} token demo");
    let text = format!(
        "account default\nhost 127.0.0.1\nport {port}\ntls off\nauth xoauth2\nuser me@acme.example\nfrom me@acme.example\n{command}\n"
    );
    std::fs::write(&config, text).unwrap();
    std::fs::set_permissions(&config, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let mut msmtp = sandbox.command(Path::new("msmtp"));
    msmtp.arg("-C").arg(&config).arg("you@acme.example").stdin(Stdio::piped());
    let mut child = msmtp.spawn().expect("msmtp is needed: contrib/test installs it");
    child.stdin.take().unwrap().write_all(b"Subject: hello\n\nhello\n").unwrap();
    let out = child.wait_with_output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    assert_eq!(mail.join().unwrap(), xoauth2(&token));
}

/// What an IMAP server with one message says to each command, before the line that ends it.
fn imap_response(command: &str, message: &str) -> String {
    let words: Vec<&str> = command.split(' ').collect();
    match words[..] {
        ["CAPABILITY"] => format!("* CAPABILITY {IMAP_CAPABILITY}\r\n"),
        ["LIST", ..] => "* LIST () \"/\" INBOX\r\n".to_owned(),
        ["SELECT" | "EXAMINE", ..] => "* 1 EXISTS\r\n* OK [UIDVALIDITY 1] x\r\n* OK [UIDNEXT 2] x\r\n".to_owned(),
        ["UID", "FETCH", ..] if command.contains("BODY") => {
            format!("* 1 FETCH (UID 1 FLAGS () BODY[] {{{}}}\r\n{message})\r\n", message.len())
        }
        ["UID", "FETCH", ..] => "* 1 FETCH (UID 1 FLAGS ())\r\n".to_owned(),
        ["LOGOUT"] => "* BYE\r\n".to_owned(),
        _ => String::new(),
    }
}

const IMAP_CAPABILITY: &str = "IMAP4rev1 AUTH=XOAUTH2 SASL-IR";

/// Serves one reader, who must show this credential first.
fn imap_server(listener: &TcpListener, wanted: &str, message: &str) {
    let mut stream = listener.accept().unwrap().0;
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(stream, "* OK [CAPABILITY {IMAP_CAPABILITY}] ready\r\n").unwrap();
    let mut is_signed_in = false;
    for line in BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok) {
        let (tag, command) = line.split_once(' ').unwrap();
        if let Some(given) = command.strip_prefix("AUTHENTICATE XOAUTH2 ") {
            is_signed_in = STANDARD.decode(given).unwrap() == wanted.as_bytes();
        }
        let response = if is_signed_in { imap_response(command, message) } else { String::new() };
        let verdict = if is_signed_in { "OK done" } else { "NO who is it" };
        write!(stream, "{response}{tag} {verdict}\r\n").unwrap();
    }
}

#[ignore = "needs mbsync; contrib/test runs it"]
#[test]
fn mbsync_fetches_mail_with_the_raw_token() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = Sandbox::signed_in(&server);
    let wanted = xoauth2(&token(&sandbox));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let imap = std::thread::spawn(move || imap_server(&listener, &wanted, "Subject: hello\r\n\r\nhello\r\n"));
    let mail = sandbox.path("home/mail");
    std::fs::create_dir_all(&mail).unwrap();
    let (config, mail) = (sandbox.path("home/mbsyncrc"), mail.display());
    let text = format!(
        "IMAPAccount acme\nHost 127.0.0.1\nPort {port}\nUser me@acme.example\nSSLType None\n\
         AuthMechs XOAUTH2\nPassCmd \"{PROGRAM} token demo\"\n\n\
         IMAPStore far\nAccount acme\n\nMaildirStore near\nPath {mail}/\nInbox {mail}/inbox\n\n\
         Channel inbox\nFar :far:\nNear :near:\nSync Pull\nCreate Near\n"
    );
    std::fs::write(&config, text).unwrap();
    let mut mbsync = sandbox.command(Path::new("mbsync"));
    let out = mbsync.arg("-c").arg(&config).arg("inbox").output().expect("mbsync is needed: contrib/test installs it");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    imap.join().unwrap();
    let new: Vec<_> = std::fs::read_dir(sandbox.path("home/mail/inbox/new")).unwrap().map(Result::unwrap).collect();
    assert!(new.len() == 1 && std::fs::read_to_string(new[0].path()).unwrap().starts_with("Subject: hello"), "{new:?}");
}
