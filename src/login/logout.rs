//! Logout: the session first, then the provider (behaviour O1–O3).

use std::sync::Arc;

use bytes::Bytes;
use http::Method;
use serde_json::json;
use url::Url;

use super::query::single;
use super::{Logins, Visit, error_answer, navigation, record, store_failed};
use crate::answer::{Answer, Code, Page, continue_to};
use crate::primitives::random;
use crate::session::cookie::Ticket;
use crate::session::csrf::{self, Refusal};
use crate::session::manager::{SessionError, entry_of};
use crate::session::open::Open;
use crate::telemetry::audit::{Actor, Entry, Event};

/// Form field of the confirmation page.
const FORM_FIELD: &str = "csrf_token";

impl Logins {
    /// `POST /auth/logout` with the CSRF token, or `GET` from a page of this site. Whatever else comes changes nothing,
    /// not even without a session: the browser may merely have held its cookies back, and an answer that clears them
    /// would be a logout.
    pub(super) async fn logout(&self, visit: Visit<'_>, body: &Bytes) -> Answer {
        let open = match self.session_to_end(&visit).await {
            Ok(open) => open,
            Err(error) => return store_failed(&visit, &error),
        };
        if *visit.method == Method::GET {
            // What our own page fetches ahead, or shows as a picture, is no click of the user.
            let clicked = navigation::may_navigate(visit.method, visit.headers);
            if !clicked || !csrf::is_same_origin(visit.headers) {
                return confirm(&visit, open.as_deref());
            }
        } else if let Err(refusal) = self.check(&visit, open.as_deref(), body) {
            if open.is_none() && navigation::is_cross_site(visit.headers) {
                return confirm(&visit, None);
            }
            self.metrics.csrf_rejections_total.with_label_values(&[refusal.as_str(), "enforce"]).inc();
            let entry = Entry { reason: Some(refusal.as_str()), failed: true, ..self.entry(&visit) };
            self.sessions.audit().tell(Event::CsrfRejected, &entry);
            return error_answer(&visit, Code::CsrfFailed, "Please log out from a page of this site.");
        }
        // Only with the CSRF token, or without a session: a link must not end what it does not show.
        let everywhere = *visit.method == Method::POST
            && single(visit.query.map(str::as_bytes), "everywhere").ok().flatten().as_deref() == Some("true");
        match open {
            // Who sits at a browser whose user has long gone ends what is there, and nothing elsewhere.
            Some(open) => {
                let everywhere = everywhere && !open.is_over(self.sessions.clock().now());
                self.log_out(&visit, &open, everywhere).await
            }
            None => self.left(&visit, None, None),
        }
    }

    /// One that is over and still tells who its user is has a user to forget, and tokens that are good; one whose provider
    /// has left the site would live again if that came back.
    async fn session_to_end(&self, visit: &Visit<'_>) -> Result<Option<Arc<Open>>, SessionError> {
        match (self.known_session_of(visit).await?, visit.ticket) {
            (None, Ticket::One(id)) => self.sessions.left_behind(&id, &visit.site.profile).await,
            (found, _) => Ok(found),
        }
    }

    /// A logout is always checked, whatever `csrf.mode` says of the routes.
    fn check(&self, visit: &Visit<'_>, open: Option<&Open>, body: &Bytes) -> Result<(), Refusal> {
        csrf::check_origin(visit.headers, visit.site.trusted_origins(visit.origin))?;
        let Some(open) = open else { return Ok(()) };
        let field = single(Some(body), FORM_FIELD).ok().flatten();
        let echo = match visit.headers.get(self.sessions.csrf_header()) {
            Some(header) => Some(header.as_bytes()),
            None => field.as_deref().map(str::as_bytes),
        };
        let cookie = echo.is_some_and(|echo| self.sessions.cookies().csrf_matches(visit.headers, echo));
        csrf::check_token(echo, cookie, open.csrf_token())
    }

    async fn log_out(&self, visit: &Visit<'_>, open: &Arc<Open>, everywhere: bool) -> Answer {
        // The others first: if the store fails over them, the user is still here and can try again.
        if everywhere && let Err(error) = self.log_out_elsewhere(visit, open).await {
            return store_failed(visit, &error);
        }
        // The store gives the session's newest tokens with its end; if it fails, everything stays as it is.
        let ended = match self.sessions.end_one(open.key()).await {
            Ok(ended) => ended,
            Err(error) => return store_failed(visit, &error),
        };
        if let Some((key, record, _)) = &ended {
            let entry = entry_of(key, record, "user");
            let entry = Entry { actor: Actor::User, client_ip: Some(visit.client_ip), ..entry };
            self.sessions.audit().tell(Event::Logout, &entry);
            self.sessions.audit().tell(Event::SessionEnded, &entry);
            self.metrics.logouts_total.with_label_values(&[open.provider(), "user"]).inc();
            tracing::info!(provider = open.provider(), "a user logged out");
        }
        let secrets = ended.and_then(|(_, _, secrets)| secrets);
        let tokens = secrets.map(|secrets| {
            (
                secrets.refresh_token,
                secrets.id_token,
                Some(secrets.access_token).filter(|token| !token.expose().is_empty()),
            )
        });
        let (refresh_token, id_token, access_token) = tokens.unwrap_or_default();
        let provider = visit.site.named(open.provider());
        if let (Some(provider), Some(token)) = (provider, refresh_token) {
            tokio::spawn(provider.clone().revoke_patiently(token));
        }
        if let (Some(provider), Some(token)) = (provider.filter(|one| one.revokes_access_tokens()), access_token) {
            tokio::spawn(provider.clone().revoke_access_token(token));
        }
        let Some(provider) = provider else { return self.left(visit, None, None) };
        let departure = self.depart(visit).await;
        let state = departure.as_ref().map(|departure| departure.state.as_str());
        let page = visit.site.path_of("logged-out");
        let back = Url::parse(&format!("{}{page}", visit.site.public_origin(visit.origin))).ok();
        let onward = back.and_then(|back| provider.end_session_url(id_token.as_ref(), &back, state));
        let onward = onward.map(String::from).or_else(|| Some(format!("{page}?state={}", state?)));
        self.left(visit, onward, departure.and_then(|departure| departure.new_binding))
    }

    async fn log_out_elsewhere(&self, visit: &Visit<'_>, open: &Arc<Open>) -> Result<(), SessionError> {
        let Some((record, _)) = self.sessions.read(open.key()).await? else { return Ok(()) };
        let (provider, subject) = (&record.provider, &record.subject);
        let others = self.revoker.log_out_elsewhere(provider, subject, open.key(), visit.client_ip).await?;
        tracing::info!(provider, others, "a user logs out everywhere");
        Ok(())
    }

    /// Remembers that this browser logs out, on its way to the page that says so (behaviour O2). A store that fails, or
    /// no randomness, must not keep the user here: the page then merely says less.
    async fn depart(&self, visit: &Visit<'_>) -> Option<Departure> {
        let state = random::token().ok()?;
        let shown = self.sessions.cookies().login_binding(visit.headers);
        let binding = shown.clone().map_or_else(random::token, Ok).ok()?;
        match record::log_out(&self.sessions, &binding, &state).await {
            Ok(()) => Some(Departure { state, new_binding: shown.is_none().then_some(binding) }),
            Err(error) => {
                tracing::debug!(%error, "a logout goes on without a state");
                None
            }
        }
    }

    /// `GET /auth/logged-out`, where a logout leads, by way of the provider if that has a page for it. Anybody may link
    /// here, so it speaks of a logout only if this browser brings the `state` of one (behaviour O2).
    pub(super) async fn logged_out(&self, visit: Visit<'_>) -> Answer {
        match self.comes_back(&visit).await {
            Ok(true) => {
                after_logout(&visit, "You are logged out", "Your session here has ended. You may close this page.")
            }
            Ok(false) => arrived(&visit),
            Err(error) => {
                tracing::debug!(%error, "the state of a logout could not be looked up");
                arrived(&visit)
            }
        }
    }

    async fn comes_back(&self, visit: &Visit<'_>) -> Result<bool, SessionError> {
        let state = single(visit.query.map(str::as_bytes), "state").ok().flatten();
        // What is no `state` of ours is not worth asking the store; a HEAD must not use one up.
        let state = state.filter(|state| random::from_base64url::<32>(state.as_bytes()).is_some());
        let state = state.filter(|_| *visit.method == Method::GET);
        let binding = self.sessions.cookies().login_binding(visit.headers);
        let (Some(state), Some(binding)) = (state, binding) else { return Ok(false) };
        record::has_logged_out(&self.sessions, &binding, &state).await
    }

    /// No session here any more: cookies go, the browser goes on.
    fn left(&self, visit: &Visit<'_>, onward: Option<String>, binding: Option<String>) -> Answer {
        let onward = onward.unwrap_or_else(|| visit.site.path_of("logged-out"));
        let answer = if *visit.method == Method::POST && navigation::wants_json(visit.headers) {
            Answer::json(&json!({ "redirect": onward }))
        } else if *visit.method == Method::POST && !visit.headers.contains_key(self.sessions.csrf_header()) {
            continue_to(&onward)
        } else {
            Answer::redirect(&onward).unwrap_or_else(|| arrived(visit))
        };
        let cookies = self.sessions.cookies();
        answer
            .cookies(cookies.clear())
            .cookie(binding.and_then(|binding| cookies.set_login(&binding, visit.site.takes_posted_answers())))
    }
}

/// A browser on its way out.
struct Departure {
    /// What it brings to the page after a logout.
    state: String,
    /// The login cookie, if it had none.
    new_binding: Option<String>,
}

/// The page after a logout that nothing is known of.
fn arrived(visit: &Visit<'_>) -> Answer {
    after_logout(visit, "Logout", "This is the page that follows a logout. You may close it.")
}

fn after_logout(visit: &Visit<'_>, heading: &str, text: &str) -> Answer {
    let login = visit.site.login_url();
    Page { heading, text, link: Some((&login, "Log in again")), form: None, code: None }.answer()
}

/// A logout that no page of ours began is not done without asking. Where no session is seen there is no token for a
/// form; a click on a link of our own page is an answer as well.
fn confirm(visit: &Visit<'_>, open: Option<&Open>) -> Answer {
    let action = visit.site.path_of("logout");
    Page {
        heading: "Log out?",
        text: "You came here from outside. Please confirm that you want to log out.",
        link: open.is_none().then_some((action.as_str(), "Log out")),
        form: open.map(|open| (action.as_str(), "Log out", open.csrf_token())),
        code: None,
    }
    .answer()
    .cookie(open.and_then(Open::csrf_cookie).cloned())
}
