//! `helper`: the programs themselves ask it for a credential, and only the servers of a profile get one.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use super::support::auth_server::{AuthServer, Fault};
use super::support::guarded_files::GuardedFiles;
use super::support::root;
use super::support::sandbox::{PROGRAM, Run, Sandbox};
use super::support::token_family::RotationMode;

/// The files that a server has, below the sandbox.
fn web(sandbox: &Sandbox) -> PathBuf {
    let dir = sandbox.path("web");
    std::fs::create_dir_all(&dir).unwrap();
    dir
}

fn run(command: &mut Command) -> Run {
    let out = command.output().unwrap_or_else(|e| panic!("{command:?} is needed ({e}): contrib/test installs it"));
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    Run { status: out.status.code().unwrap_or(-1), stdout: text(&out.stdout), stderr: text(&out.stderr) }
}

/// Writes the profile `demo` with these keys.
fn profile(sandbox: &Sandbox, server: &AuthServer, keys: &str) {
    sandbox.file_store(&format!("{}[profile.demo]\nprovider = \"acme\"\n{keys}\n", server.provider("")));
}

/// The token as the profile has it now.
fn token(sandbox: &Sandbox) -> String {
    sandbox.keepalive(&["token", "demo"]).exits(0).stdout.trim().to_owned()
}

fn helper(sandbox: &Sandbox, words: &[&str], input: &str) -> Run {
    sandbox.keepalive_with_input(&[&["helper"], words].concat(), input)
}

/// A `git` that asks no person, and no helper but the given one.
fn git(sandbox: &Sandbox, helper: &str) -> Command {
    let mut git = sandbox.command(Path::new("git"));
    git.envs([("GIT_CONFIG_NOSYSTEM", "1"), ("GIT_TERMINAL_PROMPT", "0"), ("GIT_ALLOW_PROTOCOL", "http:file")]);
    git.args(["-c", &format!("credential.helper={helper}"), "-c", "user.name=t", "-c", "user.email=t@acme.example"]);
    git
}

/// A repository with a file `README`, as plain files, at `web/NAME.git`.
fn repository(sandbox: &Sandbox, name: &str, submodule: Option<&str>) {
    let work = sandbox.path(&format!("work-{name}"));
    std::fs::create_dir_all(&work).unwrap();
    let in_work = |words: &[&str]| run(git(sandbox, "").current_dir(&work).args(words)).exits(0);
    in_work(&["init", "-q", "-b", "main"]);
    std::fs::write(work.join("README"), "hello\n").unwrap();
    in_work(&["add", "README"]);
    in_work(&["commit", "-q", "-m", "first"]);
    if let Some(url) = submodule {
        std::fs::write(work.join(".gitmodules"), format!("[submodule \"sub\"]\n\tpath = sub\n\turl = {url}\n"))
            .unwrap();
        let commit = in_work(&["rev-parse", "HEAD"]).stdout.trim().to_owned();
        in_work(&["add", ".gitmodules"]);
        in_work(&["update-index", "--add", "--cacheinfo", &format!("160000,{commit},sub")]);
        in_work(&["commit", "-q", "-m", "a submodule"]);
    }
    let bare = web(sandbox).join(format!("{name}.git"));
    run(git(sandbox, "").args(["clone", "-q", "--bare"]).arg(&work).arg(&bare)).exits(0);
    run(git(sandbox, "").current_dir(&bare).arg("update-server-info")).exits(0);
}

fn git_clone(sandbox: &Sandbox, helper: &str, url: &str) -> Run {
    let into = sandbox.path("clone");
    let _none = std::fs::remove_dir_all(&into);
    run(git(sandbox, helper).args(["clone", "-q", "--recurse-submodules", url]).arg(&into))
}

#[ignore = "needs git; contrib/test runs it"]
#[test]
fn git_clones_with_the_token_as_password_or_bearer() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = Sandbox::signed_in(&server);
    repository(&sandbox, "repo", None);
    let token = token(&sandbox);
    let wanted = token.clone();
    let files = GuardedFiles::serve(&web(&sandbox), "Basic realm=\"git\"", move |request| {
        let given = request.authorization();
        given == Some(("Basic".into(), format!("oauth2:{wanted}"))) || given == Some(("Bearer".into(), wanted.clone()))
    });
    let url = format!("{}/repo.git", files.url());
    let helper = format!("!{PROGRAM} helper git");
    let is_new = {
        let version = run(git(&sandbox, "").arg("version")).stdout;
        let numbers: Vec<u32> = version.split([' ', '.']).filter_map(|part| part.parse().ok()).collect();
        numbers[..2] >= [2, 46][..]
    };
    for (keys, scheme) in [("", "Basic"), ("git_auth = \"bearer\"", if is_new { "Bearer" } else { "Basic" })] {
        profile(&sandbox, &server, &format!("hosts = [\"{}\"]\n{keys}", files.url()));
        let before = files.seen().len();
        git_clone(&sandbox, &helper, &url).exits(0);
        assert_eq!(std::fs::read_to_string(sandbox.path("clone/README")).unwrap(), "hello\n");
        // Of a repository that is plain files, git reads the rest by the password in any case.
        let seen = files.seen();
        let refs = seen[before..].iter().rfind(|seen| seen.path.contains("info/refs")).unwrap();
        let given = refs.authorization().map(|(scheme, _)| scheme);
        assert_eq!(given.as_deref(), Some(scheme));
    }
    assert_eq!(server.counts().refresh_requests, 0);
}

/// Rule 41. As git calls it: the server has said that the password is wrong.
#[test]
fn erased_token_is_refreshed_once_if_it_is_the_newest() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = Sandbox::signed_in(&server);
    profile(&sandbox, &server, "hosts = [\"git.acme.example\"]");
    let erase = |host: &str, password: &str| {
        let request = format!("protocol=https\nhost={host}\nusername=oauth2\npassword={password}\n\n");
        let run = helper(&sandbox, &["git", "erase"], &request).exits(0);
        assert!(run.stdout.is_empty() && run.stderr.is_empty(), "{run:?}");
        server.counts().refresh_requests
    };
    let old = token(&sandbox);
    assert_eq!(erase("git.acme.example", &old), 0, "it is younger than a minute");
    sandbox.age_token("demo", std::time::Duration::from_secs(120));
    assert_eq!((erase("evil.example", &old), erase("git.acme.example", "other")), (0, 0));
    assert_eq!(erase("git.acme.example", &old), 1);
    assert_eq!((erase("git.acme.example", &old), erase("git.acme.example", &token(&sandbox))), (1, 1));
    // A daemon is told.
    let _daemon = sandbox.daemon();
    assert_eq!(erase("git.acme.example", &token(&sandbox)), 1);
}

#[ignore = "needs git; contrib/test runs it"]
#[test]
fn hostile_submodule_gets_no_token() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = Sandbox::signed_in(&server);
    // The other server, of another port, wants whatever it is given.
    let evil = GuardedFiles::serve(&web(&sandbox), "Basic realm=\"git\"", |seen| seen.authorization().is_some());
    repository(&sandbox, "evil", None);
    repository(&sandbox, "repo", Some(&format!("{}/evil.git", evil.url())));
    let ours = GuardedFiles::serve(&web(&sandbox), "Basic realm=\"git\"", |seen| seen.authorization().is_some());
    profile(&sandbox, &server, &format!("hosts = [\"{}\"]", ours.url()));
    // A helper that is set for all servers, by its link.
    let links = sandbox.path("links");
    std::fs::create_dir_all(&links).unwrap();
    sandbox.keepalive(&["helper", "--install-links", links.to_str().unwrap()]).exits(0);
    for helper in [format!("!{PROGRAM} helper git demo"), "keepalive".into(), "keepalive demo".into()] {
        let path = format!("{}:{}", links.display(), std::env::var("PATH").unwrap());
        let into = sandbox.path("clone");
        let _none = std::fs::remove_dir_all(&into);
        let mut clone = git(&sandbox, &helper);
        clone.env("PATH", path).args(["clone", "-q", "--recurse-submodules", &format!("{}/repo.git", ours.url())]);
        let failed = run(clone.arg(&into));
        assert!(failed.status != 0 && into.join("README").exists(), "only the submodule fails: {failed:?}");
    }
    assert!(ours.seen().iter().any(|seen| seen.authorization().is_some()));
    let evil = evil.seen();
    assert!(!evil.is_empty() && evil.iter().all(|seen| seen.authorization().is_none()), "{evil:?}");
}

#[ignore = "needs git; contrib/test runs it"]
#[test]
fn git_stops_and_shows_the_remedy_when_there_is_no_token() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = Sandbox::new();
    repository(&sandbox, "repo", None);
    let files = GuardedFiles::serve(&web(&sandbox), "Basic realm=\"git\"", |seen| seen.authorization().is_some());
    profile(&sandbox, &server, &format!("hosts = [\"{}\"]", files.url()));
    let run = git_clone(&sandbox, &format!("!{PROGRAM} helper git"), &format!("{}/repo.git", files.url()));
    assert!(run.status != 0 && run.stderr.contains("keepalive login demo") && run.stderr.contains("quit"), "{run:?}");
    assert!(files.seen().iter().all(|seen| seen.authorization().is_none()));
}

#[test]
fn helper_answers_only_for_hosts_of_the_profile() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = Sandbox::signed_in(&server);
    profile(&sandbox, &server, "hosts = [\"git.acme.example\", \"*.pkg.acme.example\"]\ngit_username = \"me\"");
    let token = token(&sandbox);
    let ask = |words: &[&str], scheme: &str, host: &str| {
        helper(&sandbox, &[&["git"], words].concat(), &format!("protocol={scheme}\nhost={host}\n\n"))
    };
    let wanted = format!("username=me\npassword={token}\npassword_expiry_utc=");
    for words in [&["get"][..], &["demo", "get"]] {
        let run = ask(words, "https", "git.acme.example").exits(0);
        assert!(run.stdout.starts_with(&wanted) && run.stderr.is_empty(), "{run:?}");
        for (scheme, host) in [
            ("https", "evil.example"),
            ("http", "git.acme.example"),
            ("https", "git.acme.example:8443"),
            ("https", "git.acme.example@evil.example"),
            ("https", "a.b.pkg.acme.example"),
            ("ssh", "git.acme.example"),
        ] {
            let run = ask(words, scheme, host).exits(0);
            assert!(run.stdout.is_empty() && run.stderr.is_empty(), "{scheme}://{host}: {run:?}");
        }
    }
    for verb in ["store", "erase", "capability"] {
        let run = ask(&[verb], "https", "git.acme.example").exits(0);
        assert!(run.stdout.is_empty() && run.stderr.is_empty(), "{run:?}");
    }
    assert!(ask(&["get"], "https", "eu.pkg.acme.example").exits(0).stdout.contains(&token));
    // Another profile would serve it, and a named one does not step in for it.
    profile(
        &sandbox,
        &server,
        "hosts = [\"git.acme.example\"]\n[profile.other]\nprovider = \"acme\"\nhosts = [\"git.other.example\"]",
    );
    assert_eq!(ask(&["other", "get"], "https", "git.acme.example").exits(0).stdout, "");
    let ambiguous =
        "hosts = [\"git.acme.example\"]\n[profile.other]\nprovider = \"acme\"\nhosts = [\"git.acme.example\"]";
    profile(&sandbox, &server, ambiguous);
    let run = ask(&["get"], "https", "git.acme.example").exits(78).says("the profiles demo and other both serve");
    assert_eq!((run.stdout.as_str(), run.stderr.lines().count()), ("quit=1\n", 1), "{run:?}");
    profile(&sandbox, &server, "");
    ask(&["demo", "get"], "https", "git.acme.example").exits(0).says("in [profile.demo], write hosts = [\"HOST\"]");
}

#[test]
fn failing_helper_obeys_its_protocol() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = Sandbox::new();
    profile(&sandbox, &server, "hosts = [\"git.acme.example\"]");
    let one_line = |run: &Run| assert_eq!(run.stderr.lines().count(), 1, "{run:?}");
    let run = helper(&sandbox, &["git", "get"], "protocol=https\nhost=git.acme.example\n").exits(77);
    assert_eq!(run.stdout, "quit=1\n");
    one_line(&run);
    let run = helper(&sandbox, &["docker", "get"], "git.acme.example").exits(1);
    assert!(run.stdout.contains("keepalive login demo") && run.stderr.contains("keepalive login demo"), "{run:?}");
    one_line(&run);
    let run = helper(&sandbox, &["docker", "get"], "other.example").exits(1);
    assert_eq!((run.stdout.trim(), run.stderr.as_str()), ("credentials not found in native keychain", ""));
    let run = helper(&sandbox, &["docker", "store"], "{}").exits(1);
    assert!(run.stdout.contains("keepalive stores nothing"), "{run:?}");
    let run = helper(&sandbox, &["docker", "erase"], "git.acme.example").exits(0);
    assert!(run.stdout.is_empty() && run.stderr.is_empty());
    let run = helper(&sandbox, &["bazel", "get"], r#"{"uri":"https://git.acme.example/x"}"#).exits(1);
    assert_eq!(run.stdout, "");
    one_line(&run);
    let ids = r#"{"protocolVersion":1,"provider":"k","ids":["demo","nobody"]}"#;
    let answer = helper(&sandbox, &["openclaw"], ids).exits(0).json();
    let code = |id: &str| answer["errors"][id]["code"].clone();
    assert_eq!((code("demo"), code("nobody")), (json!("NEEDS_LOGIN"), json!("NOT_FOUND")));
}

/// What was lost: every other helper of git and its prompt, for servers that keepalive never served.
#[test]
fn broken_configuration_stops_git_only_where_it_serves() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = Sandbox::new();
    let ask = |words: &[&str], host: &str| helper(&sandbox, words, &format!("protocol=https\nhost={host}\n"));
    for mistake in ["margin = 5", "margin ="] {
        sandbox.file_store(&format!(
            "{}{mistake}\n[profile.demo]\nprovider = \"acme\"\nhosts = [\"git.acme.example\"]\n",
            server.provider("")
        ));
        let run = ask(&["git", "get"], "git.acme.example").exits(78);
        assert_eq!((run.stdout.as_str(), run.stderr.lines().count()), ("quit=1\n", 1), "{run:?}");
        let run = ask(&["git", "get"], "github.com").exits(78);
        assert_eq!((run.stdout.as_str(), run.stderr.lines().count()), ("", 1), "{run:?}");
    }
    profile(&sandbox, &server, "hosts = [\"git.acme.example\"]");
    let run = ask(&["git", "nobody", "get"], "github.com").exits(77);
    assert_eq!(run.stdout, "");
}

/// What was lost: the answer to OpenClaw, which came when it had killed the helper.
#[test]
fn openclaw_is_answered_in_its_time_whatever_a_refresh_takes() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = Sandbox::signed_in(&server);
    sandbox.age_token("demo", std::time::Duration::from_secs(3600));
    server.set_response_delay(std::time::Duration::from_secs(7));
    let ids = r#"{"protocolVersion":1,"provider":"k","ids":["demo","nobody"]}"#;
    let answer = helper(&sandbox, &["openclaw"], ids).exits(0).json();
    let code = |id: &str| answer["errors"][id]["code"].clone();
    assert_eq!((code("demo"), code("nobody")), (json!("TRY_AGAIN"), json!("NOT_FOUND")), "{answer}");
    // The refresh that was begun is completed.
    let answer = helper(&sandbox, &["openclaw"], ids).exits(0).json();
    assert_eq!(
        (answer["values"]["demo"].as_str(), server.counts().refresh_requests),
        (Some(token(&sandbox).as_str()), 1)
    );
}

#[test]
fn openclaw_and_bazel_get_tokens_in_their_documents() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = Sandbox::signed_in(&server);
    profile(&sandbox, &server, "hosts = [\"cache.acme.example\"]");
    let token = token(&sandbox);
    let bazel = helper(&sandbox, &["bazel", "get"], r#"{"uri":"https://cache.acme.example/cas"}"#).exits(0).json();
    assert_eq!(bazel["headers"], json!({"Authorization": [format!("Bearer {token}")]}));
    assert!(bazel["expires"].as_str().unwrap().ends_with('Z'));
    let evil = helper(&sandbox, &["bazel", "get"], r#"{"uri":"https://evil.example/cas"}"#).exits(0).json();
    assert_eq!(evil, json!({"headers": {}}));
    let ids = r#"{"protocolVersion":1,"provider":"k","ids":["demo"]}"#;
    let answer = helper(&sandbox, &["openclaw"], ids).exits(0).json();
    assert_eq!(answer, json!({"protocolVersion": 1, "values": {"demo": token}}));
    let answer = helper(&sandbox, &["openclaw", "other"], ids).exits(0).json();
    assert_eq!(answer["errors"]["demo"]["code"], "NOT_FOUND");
}

#[test]
fn token_with_a_line_break_reaches_no_helper() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = Sandbox::signed_in(&server);
    profile(&sandbox, &server, "hosts = [\"git.acme.example\"]");
    for hostile in ["at\npassword=x", "at x", "at\u{e9}"] {
        server.script([Fault::ReplaceMembers(json!({"access_token": hostile}))]);
        sandbox.refresh(&["--force"]);
        let run = helper(&sandbox, &["git", "get"], "protocol=https\nhost=git.acme.example\n");
        assert!(!run.stdout.contains("password=x") && !run.stdout.contains(hostile), "{run:?}");
        for format in ["raw", "header", "curl", "env", "kubectl", "grok"] {
            let run = sandbox.keepalive(&["token", "demo", "--format", format]);
            assert!(!run.stdout.contains(hostile) && !run.stderr.contains(hostile), "{run:?}");
        }
    }
}

#[ignore = "needs skopeo; contrib/test runs it"]
#[test]
fn skopeo_lists_the_tags_of_a_registry() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = Sandbox::signed_in(&server);
    std::fs::create_dir_all(web(&sandbox).join("v2/app/tags")).unwrap();
    std::fs::write(web(&sandbox).join("v2/app/tags/list"), r#"{"name":"app","tags":["one"]}"#).unwrap();
    let wanted = format!("oauth2accesstoken:{}", token(&sandbox));
    let files = GuardedFiles::serve(&web(&sandbox), "Basic realm=\"registry\"", move |request| {
        request.authorization() == Some(("Basic".into(), wanted.clone()))
    });
    let links = sandbox.path("links");
    std::fs::create_dir_all(&links).unwrap();
    sandbox.keepalive(&["helper", "--install-links", links.to_str().unwrap()]).exits(0);
    std::fs::create_dir_all(sandbox.path("home/.docker")).unwrap();
    let config = json!({"credHelpers": {files.authority(): "keepalive"}}).to_string();
    std::fs::write(sandbox.path("home/.docker/config.json"), config).unwrap();
    let list = || {
        let mut skopeo = sandbox.command(Path::new("skopeo"));
        skopeo.env("PATH", format!("{}:{}", links.display(), std::env::var("PATH").unwrap()));
        run(skopeo.args(["list-tags", "--tls-verify=false", &format!("docker://{}/app", files.authority())]))
    };
    profile(&sandbox, &server, &format!("hosts = [\"{}\"]", files.url()));
    let tags: Value = list().exits(0).json();
    assert_eq!(tags["Tags"], json!(["one"]));
    // Another registry's profile: anonymous, so that the registry refuses.
    profile(&sandbox, &server, "hosts = [\"reg.acme.example\"]");
    let before = files.seen().len();
    assert!(list().status != 0);
    let given: Vec<_> = files.seen()[before..].iter().filter_map(|seen| seen.authorization()).collect();
    assert!(given.iter().all(|(_, value)| !value.contains("canary-")), "{given:?}");
}

/// What was lost: the token of a registry, to the profile that the request before had named.
#[test]
fn request_of_cargo_is_for_the_profile_that_it_names() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = Sandbox::signed_in(&server);
    let two = "[profile.two]\nprovider = \"acme\"\nhosts = [\"two.example\"]";
    profile(&sandbox, &server, &format!("hosts = [\"demo.example\"]\n{two}"));
    let get = |named: Value| {
        let registry = json!({"index-url": "sparse+https://demo.example/"});
        json!({"v": 1, "kind": "get", "operation": "read", "registry": registry, "args": named}).to_string() + "\n"
    };
    let run = helper(&sandbox, &["cargo"], &(get(json!(["two"])) + &get(json!([])))).exits(0);
    let answers: Vec<&str> = run.stdout.lines().skip(1).collect();
    assert!(answers[0].contains("url-not-supported") && answers[1].contains("Bearer"), "{answers:?}");
}

/// A project that depends on a crate of the registry `acme`, and a cargo that knows that registry.
fn cargo(sandbox: &Sandbox, files: &GuardedFiles, provider: &Value) -> Command {
    let (home, project) = (sandbox.path("cargo-home"), sandbox.path("project"));
    std::fs::create_dir_all(&home).unwrap();
    std::fs::create_dir_all(project.join("src")).unwrap();
    std::fs::write(project.join("src/lib.rs"), "").unwrap();
    let manifest = "[package]\nname = \"p\"\nversion = \"0.1.0\"\nedition = \"2021\"\n[workspace]\n\
                    [dependencies]\ndemo-crate = { version = \"1\", registry = \"acme\" }\n";
    std::fs::write(project.join("Cargo.toml"), manifest).unwrap();
    let _none = std::fs::remove_file(project.join("Cargo.lock"));
    let _none = std::fs::remove_dir_all(home.join("registry"));
    let index = format!("sparse+{}/index/", files.url());
    let config = format!("[registries.acme]\nindex = \"{index}\"\ncredential-provider = {provider}\n");
    std::fs::write(home.join("config.toml"), config).unwrap();
    let program = Path::new(env!("CARGO"));
    let mut cargo = sandbox.command(program);
    cargo.env("CARGO_HOME", &home).env("RUSTC", program.with_file_name("rustc")).current_dir(&project);
    cargo.arg("generate-lockfile");
    cargo
}

#[test]
fn cargo_reads_an_index_that_wants_a_token() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = Sandbox::signed_in(&server);
    let index = web(&sandbox).join("index");
    std::fs::create_dir_all(index.join("de/mo")).unwrap();
    let line = json!({"name": "demo-crate", "vers": "1.0.0", "deps": [], "cksum": "0".repeat(64), "features": {}, "yanked": false});
    std::fs::write(index.join("de/mo/demo-crate"), format!("{line}\n")).unwrap();
    let wanted = token(&sandbox);
    let files = GuardedFiles::serve(&web(&sandbox), "Cargo", move |request| {
        request.authorization() == Some(("Bearer".into(), wanted.clone()))
    });
    let about = json!({"dl": format!("{}/dl", files.url()), "auth-required": true});
    std::fs::write(index.join("config.json"), about.to_string()).unwrap();
    profile(&sandbox, &server, &format!("hosts = [\"{}\"]", files.url()));
    for provider in [json!([PROGRAM, "demo"]), json!([PROGRAM])] {
        run(&mut cargo(&sandbox, &files, &provider)).exits(0);
        let lock = std::fs::read_to_string(sandbox.path("project/Cargo.lock")).unwrap();
        assert!(lock.contains("name = \"demo-crate\""), "{lock}");
    }
    profile(&sandbox, &server, "hosts = [\"reg.acme.example\"]");
    let before = files.seen().len();
    let none = run(&mut cargo(&sandbox, &files, &json!([PROGRAM, "demo"])));
    assert!(none.status != 0 && none.stderr.contains("no credential providers could handle the request"), "{none:?}");
    assert!(files.seen()[before..].iter().all(|seen| seen.authorization().is_none()));
    sandbox.keepalive(&["logout", "demo", "--forget"]);
    profile(&sandbox, &server, &format!("hosts = [\"{}\"]", files.url()));
    let failed = run(&mut cargo(&sandbox, &files, &json!([PROGRAM, "demo"])));
    assert!(failed.status != 0 && failed.stderr.contains("keepalive login demo"), "cargo shows both: {failed:?}");
}

#[test]
fn links_are_made_once_and_replace_no_other_file() {
    let sandbox = Sandbox::new();
    let dir = sandbox.path("links");
    std::fs::create_dir_all(&dir).unwrap();
    let install = || sandbox.keepalive(&["helper", "--install-links", dir.to_str().unwrap()]);
    assert!(install().exits(0).stdout.contains("git-credential-keepalive -> "));
    assert!(install().exits(0).stdout.contains("docker-credential-keepalive is there"));
    let link = dir.join("git-credential-keepalive");
    std::fs::remove_file(&link).unwrap();
    std::fs::write(&link, "another program").unwrap();
    install().exits(1).says("cannot make the link").says("remove ");
    assert_eq!(std::fs::read_to_string(&link).unwrap(), "another program");
    assert!(root().join("man/keepalive-helper.1").exists());
}
