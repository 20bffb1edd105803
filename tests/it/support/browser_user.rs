//! A person with a browser: follows redirects, keeps cookies, fills in forms; and the script that hands them the URL.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;

use url::Url;

use super::sandbox::Sandbox;

pub struct BrowserUser {
    name: &'static str,
    /// Presses "cancel" where they are asked to consent.
    refuses: bool,
    /// Port of the server, name, value.
    cookies: Vec<(u16, String, String)>,
}

pub struct Page {
    pub status: u16,
    pub url: Url,
    pub text: String,
    location: Option<String>,
}

impl BrowserUser {
    pub fn new(name: &'static str) -> Self {
        Self { name, refuses: false, cookies: Vec::new() }
    }

    pub fn refusing(name: &'static str) -> Self {
        Self { refuses: true, ..Self::new(name) }
    }

    /// Goes to a page and does what it asks, until a page asks nothing more.
    pub fn sign_in(&mut self, url: &str) -> Page {
        self.follow_pages(url, |_| false)
    }

    /// As `get`, but stops where the server sends the browser away from itself.
    pub fn sign_in_without_going_back(&mut self, url: &str) -> Url {
        let home = Url::parse(url).unwrap().origin();
        self.follow_pages(url, |next| next.origin() != home).url
    }

    fn follow_pages(&mut self, url: &str, stop: impl Fn(&Url) -> bool) -> Page {
        let mut page = self.get(&url.parse().unwrap());
        for _ in 0..30 {
            let next = match &page.location {
                Some(location) => (page.url.join(location).unwrap(), None),
                None => match self.form(&page) {
                    Some(next) => next,
                    None => return page,
                },
            };
            if stop(&next.0) {
                return Page { url: next.0, ..page };
            }
            page = match next {
                (url, None) => self.get(&url),
                (url, Some(body)) => self.fetch("POST", &url, &body),
            };
        }
        panic!("the server asks without end: {}", page.url);
    }

    pub fn get(&mut self, url: &Url) -> Page {
        self.fetch("GET", url, "")
    }

    fn fetch(&mut self, method: &str, url: &Url, body: &str) -> Page {
        let port = url.port_or_known_default().unwrap();
        let host = url.host_str().unwrap().to_owned();
        let mut stream = TcpStream::connect((host.trim_matches(['[', ']']), port)).unwrap();
        let cookies: Vec<_> = self
            .cookies
            .iter()
            .filter(|(at, ..)| *at == port)
            .map(|(_, name, value)| format!("{name}={value}"))
            .collect();
        let path = &url[url::Position::BeforePath..url::Position::AfterQuery];
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nhost: {host}:{port}\r\ncookie: {}\r\naccept: text/html\r\n\
             content-type: application/x-www-form-urlencoded\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
            cookies.join("; "),
            body.len()
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, text) = answer.split_once("\r\n\r\n").unwrap();
        let mut page = Page {
            status: head.split(' ').nth(1).unwrap().parse().unwrap(),
            url: url.clone(),
            text: text.to_owned(),
            location: None,
        };
        for (name, value) in head.lines().skip(1).filter_map(|line| line.split_once(": ")) {
            match name.to_ascii_lowercase().as_str() {
                "location" if (300..400).contains(&page.status) => page.location = Some(value.to_owned()),
                "set-cookie" => self.store_cookie(port, value),
                _ => {}
            }
        }
        page
    }

    fn store_cookie(&mut self, port: u16, cookie: &str) {
        let (name, value) = cookie.split(';').next().unwrap().split_once('=').unwrap();
        self.cookies.retain(|(at, n, _)| (*at, n.as_str()) != (port, name));
        if !value.is_empty() {
            self.cookies.push((port, name.to_owned(), value.to_owned()));
        }
    }

    /// The first form of a page, filled in; for one who refuses, the link that cancels.
    fn form(&self, page: &Page) -> Option<(Url, Option<String>)> {
        let (_, form) = page.text.split_once("<form")?;
        let form = form.split("</form>").next()?;
        if self.refuses && form.contains("value=\"consent\"") {
            let abort = page.text.split("href=\"").find(|part| part.contains("/abort"))?.split('"').next()?;
            return Some((page.url.join(abort).unwrap(), None));
        }
        let mut body = url::form_urlencoded::Serializer::new(String::new());
        for input in form.split("<input").skip(1).map(|i| i.split('>').next().unwrap()) {
            let Some(name) = attribute(input, "name") else { continue };
            let value = match name.as_str() {
                "login" => self.name.to_owned(),
                "password" => "any".to_owned(),
                _ => attribute(input, "value").unwrap_or_default(),
            };
            body.append_pair(&name, &value);
        }
        let action = page.url.join(&attribute(form, "action").unwrap_or_default()).unwrap();
        Some((action, Some(body.finish())))
    }
}

fn attribute(tag: &str, name: &str) -> Option<String> {
    let (_, rest) = tag.split_once(&format!(" {name}=\""))?;
    Some(rest.split('"').next()?.replace("&amp;", "&"))
}

/// Makes a script the browser of a sandbox; it writes the URL that it is given into a file.
pub fn install_browser(sandbox: &mut Sandbox) -> PathBuf {
    let (script, seen) = (sandbox.path("home/browser"), sandbox.path("home/url"));
    let text = format!("#!/bin/sh\nprintf %s \"$1\" >{0}.new && mv {0}.new {0}\n", seen.display());
    std::fs::write(&script, text).unwrap();
    std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    sandbox.set_env("BROWSER", script.to_str().unwrap());
    seen
}

/// Waits until the browser was sent somewhere.
pub fn wait_for_url(seen: &PathBuf) -> String {
    let url = super::eventually("the browser is started", || std::fs::read_to_string(seen).ok());
    std::fs::remove_file(seen).unwrap();
    url
}
