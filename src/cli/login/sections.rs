//! A login without a configuration: the sections for a provider named on the command line, and one question about them.

use crate::access::setup::Setup;
use crate::cli::login::{LoginArgs, LoginFailure, config_failure};
use crate::cli::output::{CommandStatus, Output};
use crate::cli::store_choice::{self, NewFileStore};
use crate::config::Config;
use crate::config::addition::Addition;
use crate::outcome::{ErrorKind, Failure};
use crate::profile::{Profile, Provider};
use crate::signin::SignInError;

/// The provider and the profile that the command line describes, as far as the configuration lacks them.
pub(super) struct NewSections {
    /// The name of the provider, new or not.
    pub provider: String,
    issuer: Option<String>,
    client_id: String,
    has_provider: bool,
    /// The profile, if it needs a section.
    profile: Option<String>,
    /// What is kept there of `--scope`: a provider that is there keeps its own scopes.
    profile_scopes: Vec<String>,
    empty: Addition,
}

/// What was agreed on: sections that are written once the credential is stored.
pub(super) struct Agreed {
    addition: Option<Addition>,
    /// The provider for which it has a section.
    new_provider: Option<String>,
    pub has_new_store: bool,
}

impl NewSections {
    /// `None`: the command line names no client.
    pub(super) fn plan(args: &LoginArgs, setup: &Setup) -> Result<Option<Self>, Failure> {
        let Some(client_id) = &args.client_id else { return Ok(None) };
        let config = &setup.config;
        let same = |p: &&std::sync::Arc<Provider>| is_same(p, args.issuer.as_deref(), client_id);
        let known = config.providers.values().find(|p| config.has_provider_section(&p.name) && same(p));
        let known = known.filter(|p| args.provider.as_ref().is_none_or(|given| *given == p.name));
        let provider = match (&args.provider, known) {
            (Some(given), _) => given.clone(),
            (None, Some(known)) => known.name.clone(),
            (None, None) => args.profile.to_string(),
        };
        if known.is_none() {
            check_name(args, config, &provider)?;
        }
        let profile_scopes = known.map_or(Vec::new(), |known| scopes_of_profile(args, known));
        let needs_profile = provider != args.profile.as_str() || !profile_scopes.is_empty();
        let needs_profile = needs_profile && !config.has_profile_section(&args.profile);
        Ok(Some(Self {
            issuer: args.issuer.clone(),
            client_id: client_id.clone(),
            has_provider: known.is_some(),
            profile: needs_profile.then(|| args.profile.to_string()),
            profile_scopes,
            provider,
            empty: Addition::new(&setup.environment.config, setup.environment.home.as_deref()),
        }))
    }

    /// The section that keeps the scopes of the command line for the next login of a profile that has none.
    pub(super) fn for_scopes(args: &LoginArgs, profile: &Profile, setup: &Setup, out: &Output) -> Option<Self> {
        let profile_scopes = scopes_of_profile(args, &profile.provider);
        let can_add = args.yes || out.can_ask();
        if profile_scopes.is_empty() || setup.config.has_profile_section(&args.profile) || !can_add {
            return None;
        }
        Some(Self {
            provider: profile.provider.name.clone(),
            issuer: None,
            client_id: profile.provider.client_id.clone(),
            has_provider: true,
            profile: Some(args.profile.to_string()),
            profile_scopes,
            empty: Addition::new(&setup.environment.config, setup.environment.home.as_deref()),
        })
    }

    /// Whether the scopes of the command line will be in the configuration.
    pub(super) fn keeps_scopes(&self) -> bool {
        !self.has_provider || (self.profile.is_some() && !self.profile_scopes.is_empty())
    }

    fn addition(&self, scopes: &[String]) -> Addition {
        let mut addition = self.empty.clone();
        if !self.has_provider {
            addition.add_provider(&self.provider, self.issuer.as_deref(), &self.client_id, scopes);
        }
        if let Some(profile) = &self.profile {
            addition.add_profile(profile, &self.provider, &self.profile_scopes);
        }
        addition
    }

    /// The configuration as it would be, if it can be written.
    pub(super) fn writable_preview(&self, scopes: &[String]) -> Result<Config, Failure> {
        let addition = self.addition(scopes);
        let config = addition.preview().map_err(|e| e.to_failure())?;
        if !addition.is_empty() {
            addition.check_writable().map_err(|e| e.to_failure())?;
        }
        Ok(config)
    }

    /// Asks for the sections, and for a store where there is no keyring, with one question.
    pub(super) fn agree(
        &self,
        is_agreed: bool,
        scopes: &[String],
        setup: &mut Setup,
        out: &Output,
    ) -> Result<Agreed, LoginFailure> {
        let addition = self.addition(scopes);
        if addition.is_empty() {
            return agree_on_store(setup, out);
        }
        let path = addition.path().display().to_string();
        let config = addition.preview().map_err(|e| config_failure(e.to_failure()))?;
        addition.check_writable().map_err(|e| config_failure(e.to_failure()))?;
        setup.use_config(config);
        if is_agreed {
            let store = agree_on_store(setup, out)?;
            return Ok(self.agreed(addition, store.has_new_store));
        }
        if !out.can_ask() {
            let lines = addition.text().trim_end();
            let message = format!("the configuration lacks {}", Self::headers(&addition));
            let hint = format!("add --yes to add these lines to {path} once you are signed in:\n{lines}");
            return Err(config_failure(Failure::new(ErrorKind::Config, message).with_hint(hint)));
        }
        let Some(reason) = store_choice::reason_for_file_store(setup) else {
            out.prompt(&format!("once you are signed in, this is added to {path}:\n"));
            out.prompt_lines(&store_choice::indented(addition.text()));
            ask(out, "Sign in and add it?")?;
            return Ok(self.agreed(addition, false));
        };
        let store = NewFileStore::plan(addition.path()).map_err(config_failure)?;
        let mut store_section = self.empty.clone();
        store_section.add_file_store(store.key());
        store_choice::show_offer(&reason, &store, &store_section, out);
        out.prompt("and, once you are signed in:\n");
        out.prompt_lines(&store_choice::indented(addition.text()));
        ask(out, "Use the files, sign in and add it?")?;
        store.create(&store_section, &store_choice::config_lock(setup), out).map_err(config_failure)?;
        setup.use_config(addition.preview().map_err(|e| config_failure(e.to_failure()))?);
        Ok(self.agreed(addition, true))
    }

    fn agreed(&self, addition: Addition, has_new_store: bool) -> Agreed {
        let new_provider = (!self.has_provider).then(|| self.provider.clone());
        Agreed { addition: Some(addition), new_provider, has_new_store }
    }

    /// The headers of what the configuration lacks, for a person.
    fn headers(addition: &Addition) -> String {
        let headers: Vec<_> = addition.text().lines().filter(|line| line.starts_with('[')).collect();
        headers.join(" and ")
    }

    /// The failure of a store that has to be chosen first, with all else that this login will ask for.
    pub(super) fn told_with_store(&self, args: &LoginArgs, failure: Failure, out: &Output) -> Failure {
        let addition = self.addition(&args.scopes);
        if args.yes || out.can_ask() || addition.is_empty() {
            return failure;
        }
        let more = format!(
            "then repeat the login with --yes, which adds {} to {} once you are signed in",
            Self::headers(&addition),
            addition.path().display()
        );
        let hint = failure.hint.as_ref().map_or(more.clone(), |hint| format!("{hint}; {more}"));
        failure.with_hint(hint)
    }
}

/// Without new sections: only the store may need a choice.
pub(super) fn agree_on_store(setup: &mut Setup, out: &Output) -> Result<Agreed, LoginFailure> {
    let before = setup.store.kind();
    store_choice::offer_file_store(setup, out).map_err(|f| match f.kind {
        ErrorKind::Declined => (CommandStatus::Failed, Some(f)),
        _ => config_failure(f),
    })?;
    Ok(Agreed { addition: None, new_provider: None, has_new_store: setup.store.kind() != before })
}

fn ask(out: &Output, question: &str) -> Result<(), LoginFailure> {
    match out.ask(question) {
        Some(true) => Ok(()),
        Some(false) | None => Err((CommandStatus::Failed, Some(store_choice::declined()))),
    }
}

impl Agreed {
    /// The failure of a sign-in, and what it changed where a person may wonder. The hint for a refused client names no section that is not written.
    pub(super) fn sign_in_failure(&self, error: SignInError) -> LoginFailure {
        let unchanged = if self.has_new_store { "nothing else was changed" } else { "nothing was changed" };
        let with_unchanged = |f: Failure| {
            let hint = f.hint.as_ref().map_or(unchanged.to_owned(), |hint| format!("{unchanged}; {hint}"));
            Some(f.with_hint(hint))
        };
        match error {
            SignInError::Client(f) => {
                let f = match &self.new_provider {
                    Some(provider) => f.with_hint(client_hint(provider)),
                    None => f,
                };
                (CommandStatus::Config, Some(f))
            }
            SignInError::Config(f) => (CommandStatus::Config, Some(f)),
            SignInError::Unreachable(f) => (CommandStatus::TryAgain, with_unchanged(f)),
            SignInError::Refused(f) => (CommandStatus::Failed, Some(f)),
            SignInError::Abandoned(f) => (CommandStatus::Failed, with_unchanged(f)),
        }
    }

    /// Says what a failed login added to the configuration.
    pub(super) fn say_what_stays(&self, setup: &Setup, out: &Output) {
        let path = setup.environment.config.display();
        if self.has_new_store {
            out.info(&format!("[store] in {path} and its key stay; nothing else was added there"));
        } else if self.addition.is_some() {
            out.info(&format!("nothing was added to {path}"));
        }
    }

    /// Adds the sections to the configuration of a profile whose credential is stored.
    pub(super) fn write(&self, setup: &Setup, out: &Output) -> Result<(), Failure> {
        let Some(addition) = &self.addition else { return Ok(()) };
        addition.write(&store_choice::config_lock(setup)).map_err(|e| {
            let failure = e.to_failure();
            Failure { message: format!("you are signed in, but {}", failure.message), ..failure }
        })?;
        out.info(&format!("added {} to {}", NewSections::headers(addition), addition.path().display()));
        Ok(())
    }
}

/// The scopes of the command line, if they are others than those of the provider.
fn scopes_of_profile(args: &LoginArgs, provider: &Provider) -> Vec<String> {
    if args.scopes == provider.scopes { Vec::new() } else { args.scopes.clone() }
}

/// What to do when the server rejects the client of the command line.
fn client_hint(provider: &str) -> String {
    format!(
        "check --client-id; a client with a secret needs a section of your own: [provider.{provider}] with issuer, client_id, \
         client_auth and client_secret, see keepalive.toml(5); if it does not support the device flow, use --paste"
    )
}

fn is_same(provider: &Provider, issuer: Option<&str>, client_id: &str) -> bool {
    let plain = |text: &str| text.trim_end_matches('/').to_owned();
    let is_same_issuer = match (issuer, &provider.issuer) {
        (Some(given), Some(there)) => plain(given) == plain(there.as_str()),
        (None, _) => true,
        (Some(_), None) => false,
    };
    provider.client_id == client_id && is_same_issuer
}

/// Whether a section of this name can be added: a section that is there is never changed, and a built-in provider is only
/// given another server if the person names it.
fn check_name(args: &LoginArgs, config: &Config, name: &str) -> Result<(), Failure> {
    let other_name = "choose another name for the new one: --provider NAME";
    let refuse = |message: String, hint: String| Err(Failure::new(ErrorKind::Config, message).with_hint(hint));
    if config.has_provider_section(name) {
        let message = format!("provider {name} is configured with another issuer or client_id, and is not changed");
        return refuse(message, format!("leave out --issuer and --client-id to use it; or {other_name}"));
    }
    let built_in = config.providers.get(name);
    if args.issuer.is_none() && built_in.is_none() {
        return refuse(format!("provider {name} is not known, so --issuer is needed"), "add --issuer URL".into());
    }
    let has_server = built_in.is_some_and(|p| p.issuer.is_some() || p.token_endpoint.is_some());
    if args.issuer.is_some() && args.provider.is_none() && has_server {
        return refuse(format!("{name} is a built-in provider at another server"), other_name.into());
    }
    Ok(())
}
