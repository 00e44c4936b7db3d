//! The beginning of a login: state, nonce and verifier are made and kept, the browser goes to the provider.

use http::HeaderValue;
use url::Url;

use super::query::single;
use super::record::LoginRecord;
use super::return_to::ReturnTo;
use super::{LOGIN_LIFE, LOOP_LOGINS, Logins, Visit, error_answer, navigation, store_failed};
use crate::answer::{Answer, Choice, Code, Page, continue_to};
use crate::config::rules;
use crate::config::settings::LoginParameter;
use crate::oidc::{self, AuthorizationRequest, OidcError};
use crate::primitives::random::{self, NoEntropy};
use crate::primitives::tally::Key;
use crate::provider::Provider;
use crate::session::manager::SessionError;

/// What a page asks of a provider for its login. Which one that is may still be open.
#[derive(Clone, Debug, Default)]
pub struct Wishes {
    /// As the page asked, each fit for a request; no name twice. Which of them count is up to the provider.
    pub(super) asked: Vec<(LoginParameter, String)>,
    /// Whether `acr_values` and `max_age` are demands: a login that does not meet them is none (behaviour L16).
    pub(super) step_up: bool,
}

/// Longest value of a parameter.
const LONGEST_WISH: usize = 256;
/// The same of `claims`, which is JSON.
const LONGEST_CLAIMS: usize = 1024;

impl Wishes {
    fn parse(query: Option<&[u8]>) -> Self {
        let wish = |name: &LoginParameter| {
            let value = single(query, name.as_str()).ok().flatten()?.into_owned();
            is_fit(*name, &value).then_some((*name, value))
        };
        let asked = LoginParameter::ALL.iter().filter_map(wish).collect();
        Self { asked, step_up: single(query, "step_up").ok().flatten().as_deref() == Some("1") }
    }

    /// What of them a provider of this allow list is told; `None` if they are demands and not all of those are.
    fn heeded(&self, allowed: &[LoginParameter]) -> Option<Vec<(LoginParameter, String)>> {
        let heeds = |(name, _): &&(LoginParameter, String)| allowed.contains(name);
        let demand = |name| matches!(name, LoginParameter::AcrValues | LoginParameter::MaxAge);
        let unheeded = self.asked.iter().any(|one| demand(one.0) && !heeds(&one));
        (!self.step_up || !unheeded).then(|| self.asked.iter().filter(heeds).cloned().collect())
    }
}

/// Whether the user is not to be asked anything.
fn is_silent(asked: &[(LoginParameter, String)]) -> bool {
    asked.iter().any(|(name, value)| *name == LoginParameter::Prompt && value == "none")
}

fn is_fit(name: LoginParameter, value: &str) -> bool {
    let longest = if name == LoginParameter::Claims { LONGEST_CLAIMS } else { LONGEST_WISH };
    (1..=longest).contains(&value.len())
        && !value.chars().any(char::is_control)
        && match name {
            LoginParameter::Prompt => matches!(value, "none" | "login" | "consent" | "select_account" | "create"),
            LoginParameter::MaxAge => rules::max_age(value).is_some(),
            LoginParameter::Claims => rules::claims(value).is_some(),
            _ => true,
        }
}

/// The secrets of one login.
struct Fresh {
    binding: String,
    state: String,
    nonce: String,
    pkce_verifier: String,
}

impl Logins {
    /// `GET /auth/login`.
    pub(super) async fn login(&self, visit: Visit<'_>) -> Answer {
        let query = visit.query.map(str::as_bytes);
        if !navigation::may_navigate(visit.method, visit.headers) {
            let text = "A login starts with a navigation, not with a script, a frame or a prefetch.";
            return error_answer(&visit, Code::SessionMissing, text);
        }
        // The session that may be there must be seen, for it ends with the new login (behaviour S7, L15).
        if self.is_held_back(&visit) {
            return continue_to(&visit.target());
        }
        let wish = single(query, "return_to").ok().flatten();
        let return_to = wish.map_or_else(ReturnTo::root, |wish| ReturnTo::parse(&wish, visit.site));
        let wishes = Wishes::parse(query);
        let is_lost = |name: LoginParameter| {
            !matches!(single(query, name.as_str()), Ok(None)) && !wishes.asked.iter().any(|(known, _)| *known == name)
        };
        if wishes.step_up && (is_lost(LoginParameter::AcrValues) || is_lost(LoginParameter::MaxAge)) {
            return error_answer(&visit, Code::BadRequest, "The login that is asked for cannot be read.");
        }
        match single(query, "provider") {
            Ok(None) if visit.site.providers.len() > 1 => choice(&visit, &return_to, &wishes),
            Ok(named) => self.start(&visit, named.as_deref(), return_to, wishes).await,
            Err(_) => error_answer(&visit, Code::BadRequest, "More than one login service was named."),
        }
    }

    /// Sends the browser to a provider of the site, to come back to `return_to`. Where there are several, and none is
    /// named, to the page with the choice.
    pub async fn start(
        &self,
        visit: &Visit<'_>,
        provider: Option<&str>,
        return_to: ReturnTo,
        wishes: Wishes,
    ) -> Answer {
        let provider = match (provider, visit.site.providers.as_slice()) {
            (_, []) => return error_answer(visit, Code::NotFound, "This site has no logins."),
            (None, [only]) => only,
            (None, _) => {
                let page = visit.site.login_with(None, &return_to, &wishes);
                return Answer::redirect(&page).unwrap_or_else(|| internal(visit, "the address is no header value"));
            }
            (Some(name), _) => match visit.site.named(name) {
                Some(provider) => provider,
                None => return error_answer(visit, Code::BadRequest, "This site has no such login service."),
            },
        };
        let allowed = provider.oidc().map_or(&[][..], |oidc| oidc.login_parameters());
        let Some(asked) = wishes.heeded(allowed) else {
            let text = "This login service is not asked for a stronger or more recent login.";
            return error_answer(visit, Code::BadRequest, text);
        };
        match &**provider {
            Provider::Oidc(oidc) => {
                let asked = oidc.counting(asked, wishes.step_up);
                self.to_provider(visit, oidc, return_to, &asked, wishes.step_up).await
            }
            Provider::Credentials(backend) => self.to_login_page(visit, backend, &return_to),
        }
    }

    async fn to_provider(
        &self,
        visit: &Visit<'_>,
        provider: &oidc::Provider,
        return_to: ReturnTo,
        asked: &[(LoginParameter, String)],
        step_up: bool,
    ) -> Answer {
        let binding = visit_binding(self, visit);
        if let Some(binding) = &binding
            && self.finished.wait(Key::of(binding), LOOP_LOGINS, self.sessions.clock().now()).is_some()
        {
            self.count_login(provider.name(), "failure", "loop");
            return looping(&return_to, visit);
        }
        let fresh = match Fresh::new(binding) {
            Ok(fresh) => fresh,
            Err(error) => return internal(visit, &error.to_string()),
        };
        match self.redirect(visit, provider, &return_to, (asked, step_up), &fresh).await {
            Ok(location) => {
                // One cookie for logins at all providers of the site, under way at the same time.
                let cookie = self.sessions.cookies().set_login(&fresh.binding, visit.site.takes_posted_answers());
                Answer::redirect(location.as_str()).map_or_else(
                    || internal(visit, "the authorization address is no header value"),
                    |a| a.cookie(cookie),
                )
            }
            Err(StartError::NotReady) => {
                self.count_login(provider.name(), "failure", "provider_unavailable");
                error_answer(visit, Code::ProviderUnavailable, "Please try again in a moment.")
            }
            Err(StartError::Refused(error)) => {
                tracing::warn!(provider = %provider.name(), %error, "a login cannot be started");
                self.count_login(provider.name(), "failure", error.reason());
                error_answer(visit, Code::LoginFailed, "The login service does not take logins from here.")
            }
            Err(StartError::Session(error)) => store_failed(visit, &error),
            Err(StartError::Address) => internal(visit, "the redirect URI cannot be built"),
        }
    }

    async fn redirect(
        &self,
        visit: &Visit<'_>,
        provider: &oidc::Provider,
        return_to: &ReturnTo,
        (asked, step_up): (&[(LoginParameter, String)], bool),
        fresh: &Fresh,
    ) -> Result<Url, StartError> {
        let origin = visit.site.public_origin(visit.origin);
        let redirect_uri = format!("{origin}{}", visit.site.callback_path(provider.name()));
        let redirect_uri = Url::parse(&redirect_uri).map_err(|_| StartError::Address)?;
        let location = provider
            .begin(&AuthorizationRequest {
                redirect_uri: &redirect_uri,
                state: &fresh.state,
                nonce: &fresh.nonce,
                pkce_verifier: &fresh.pkce_verifier,
                asked,
            })
            .await
            .map_err(StartError::of)?;
        let now = self.sessions.clock().now();
        let former = self.session_to_succeed(visit).await.map_err(StartError::Session)?;
        let former = former.map(|open| open.id().expose());
        let record = LoginRecord {
            site: visit.site.profile.site.to_string(),
            issuer: provider.issuer().to_owned(),
            nonce: fresh.nonce.clone(),
            pkce_verifier: fresh.pkce_verifier.clone(),
            redirect_uri: redirect_uri.to_string(),
            return_to: return_to.as_str().to_owned(),
            started: now,
            former,
            demands: provider.demands(asked, step_up),
            silent: is_silent(asked),
        };
        let expires = now.plus(LOGIN_LIFE);
        record
            .put(&self.sessions, provider.name(), &fresh.binding, &fresh.state, expires)
            .await
            .map_err(StartError::Session)?;
        Ok(location)
    }
}

enum StartError {
    NotReady,
    /// The provider answers, but not with a login.
    Refused(OidcError),
    Address,
    Session(SessionError),
}

impl StartError {
    fn of(error: OidcError) -> Self {
        if error.is_transient() { Self::NotReady } else { Self::Refused(error) }
    }
}

impl Fresh {
    fn new(binding: Option<String>) -> Result<Self, NoEntropy> {
        Ok(Self {
            binding: binding.map_or_else(random::token, Ok)?,
            state: random::token()?,
            nonce: random::token()?,
            pkce_verifier: random::token()?,
        })
    }
}

fn visit_binding(logins: &Logins, visit: &Visit<'_>) -> Option<String> {
    logins.sessions.cookies().login_binding(visit.headers)
}

fn internal(visit: &Visit<'_>, why: &str) -> Answer {
    tracing::error!(why, "a login could not be started");
    error_answer(visit, Code::Internal, "Please try again in a moment.")
}

/// The page on which a user chooses where to log in.
fn choice(visit: &Visit<'_>, return_to: &ReturnTo, wishes: &Wishes) -> Answer {
    let site = visit.site;
    let links = site.providers.iter().map(|provider| {
        let address = site.login_with(Some(provider.name()), return_to, wishes);
        (address, provider.title().to_owned())
    });
    Choice { heading: "Log in", text: "Where do you want to log in?", links: links.collect() }.answer()
}

/// A browser that finishes logins and at once begins new ones would go on for ever (behaviour L14).
fn looping(return_to: &ReturnTo, visit: &Visit<'_>) -> Answer {
    if !navigation::wants_page(visit.headers) {
        return error_answer(visit, Code::TooManyLogins, "Please wait a moment.");
    }
    let text = "This browser has logged in several times within a few seconds and was asked to log in again each time. \
                Perhaps it does not keep our cookie. Please wait a moment, then try again.";
    let page = Page {
        heading: Code::TooManyLogins.title(),
        text,
        link: Some((return_to.as_str(), "Try again")),
        form: None,
        code: Some(Code::TooManyLogins),
    };
    page.answer().header(http::header::RETRY_AFTER, HeaderValue::from_static("10"))
}
