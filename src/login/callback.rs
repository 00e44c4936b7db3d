//! The end of a login: the provider has sent the browser back.
//!
//! In this order: the browser's binding and `state` take the login's record out of the store in one step, the issuer is
//! compared, an error is shown, the code is redeemed and the ID token verified, a session begins under a new id
//! (behaviour L3–L6, S7).

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderValue, Method};

use super::begin::Arrival;
use super::query::{Doubled, is_form, single};
use super::record::LoginRecord;
use super::return_to::ReturnTo;
use super::{Logins, Visit, Wishes};
use crate::answer::{Answer, Code, Page, continue_to};
use crate::oidc::step_up::Lacking;
use crate::oidc::{self, IdTokenError, OidcError};
use crate::primitives::tally::Key;
use crate::provider::{Provider, Unclaimed};
use crate::revocation;
use crate::session::manager::SessionError;
use crate::session::open::Open;
use crate::telemetry::audit::{Entry, Event};

/// Why a login was not finished.
enum Failed {
    /// The request itself is wrong; a word for metrics.
    Request(&'static str),
    /// There is no such login (any more) in this browser.
    Unknown,
    /// The provider says no; its error code.
    Provider(String),
    /// The provider's answer cannot be trusted.
    Untrusted(OidcError),
    /// The provider cannot be reached.
    Unreachable(OidcError),
    /// It was to be done without asking the user, and could not.
    NotSilently,
    /// The user has not authenticated as it was asked for.
    TooWeak(Lacking),
    /// The user has logged out at the provider meanwhile.
    LoggedOut,
    /// The session store failed.
    Session(SessionError),
}

impl Failed {
    fn of(error: OidcError) -> Self {
        match error {
            OidcError::IdToken(IdTokenError::AuthClass) => Self::TooWeak(Lacking::Context),
            OidcError::IdToken(IdTokenError::AuthTime) => Self::TooWeak(Lacking::Age),
            error if error.is_transient() => Self::Unreachable(error),
            error => Self::Untrusted(error),
        }
    }
}

impl From<Doubled> for Failed {
    fn from(_: Doubled) -> Self {
        Self::Request("doubled_parameter")
    }
}

impl From<SessionError> for Failed {
    fn from(error: SessionError) -> Self {
        Self::Session(error)
    }
}

impl Logins {
    /// `GET /auth/callback`; `POST` where the provider's answer is posted. The method has been looked at.
    pub(super) async fn callback(&self, visit: Visit<'_>, body: &Bytes) -> Answer {
        let Some((provider, oidc)) = visit.site.called_back(visit.path) else {
            return failure_page(Code::NotFound, "This site has no logins.", "/", "");
        };
        let posted = *visit.method == Method::POST;
        let response = if posted { Some(&body[..]) } else { visit.query.map(str::as_bytes) };
        let mut return_to = ReturnTo::root();
        match self.finish(&visit, response, provider, oidc, &mut return_to).await {
            Ok(open) => {
                self.count_login(provider.name(), "success", "ok");
                let cookies = self.sessions.cookies();
                continue_to(return_to.as_str())
                    .cookie(cookies.set_session(open.id()))
                    .cookie(open.csrf_cookie().cloned())
            }
            Err(failed) => self.failed(&visit, provider, &return_to, failed).await,
        }
    }

    async fn finish(
        &self,
        visit: &Visit<'_>,
        response: Option<&[u8]>,
        provider: &Arc<Provider>,
        oidc: &Arc<oidc::Provider>,
        return_to: &mut ReturnTo,
    ) -> Result<Arc<Open>, Failed> {
        if *visit.method == Method::POST && !is_form(visit.headers) {
            return Err(Failed::Request("no_form"));
        }
        let query = response;
        let state = single(query, "state")?;
        let code = single(query, "code")?;
        let error = single(query, "error")?;
        let issuer = single(query, "iss")?;

        let state = state.filter(|s| (1..=128).contains(&s.len())).ok_or(Failed::Request("state_missing"))?;
        let binding = self.sessions.cookies().login_binding(visit.headers).ok_or(Failed::Unknown)?;
        let record = LoginRecord::take(&self.sessions, provider.name(), &binding, &state).await?;
        let record = record.filter(|r| *r.site == *visit.site.profile.site && r.issuer == oidc.issuer());
        let record = record.ok_or(Failed::Unknown)?;
        let age = self.sessions.clock().now().since(record.started);
        if age > super::LOGIN_LIFE {
            return Err(Failed::Unknown);
        }
        // Checked when it was stored; checked again where it is used.
        *return_to = ReturnTo::parse(&record.return_to, visit.site);

        oidc.check_response_issuer(issuer.as_deref()).map_err(Failed::of)?;
        if let Some(error) = error {
            if record.silent && needs_user(&error) {
                // Counted as finished ones are: a page that tries again and again is stopped as they are.
                self.finished.add(Key::of(&binding), self.sessions.clock().now());
                return Err(Failed::NotSilently);
            }
            return Err(Failed::Provider(error.into_owned()));
        }
        // RFC 6749 appendix A.11.
        let code = code.filter(|code| !code.is_empty() && code.bytes().all(|byte| (0x20..=0x7e).contains(&byte)));
        let code = code.ok_or(Failed::Request("code_missing"))?;
        let redirect_uri = url::Url::parse(&record.redirect_uri).map_err(|_| Failed::Unknown)?;
        let (nonce, demands, has_former) = (&record.nonce, &record.demands, record.former().is_some());
        let redeemed = oidc.redeem(&code, &record.pkce_verifier, &redirect_uri, nonce, demands, has_former).await;
        let oidc::Login { tokens, id_token } = redeemed.map_err(Failed::of)?;

        let oidc::IdToken { issued, subject, provider_session, text, claims, .. } = id_token;
        let unclaimed = Unclaimed::new(provider.clone(), &tokens);
        let unclaimed = if has_former { unclaimed.left_alone() } else { unclaimed };
        let arrival = Arrival {
            offline: tokens.offline.unwrap_or_else(|| oidc.asks_offline()),
            unclaimed,
            tokens,
            subject: subject.clone(),
            provider_session: provider_session.clone(),
            id_token: Some(text),
            max_age: record.demands.max_age_seconds(),
            claims,
        };
        let open = self.begin(visit, provider, arrival, record.former()).await?;
        // After the session is there, or a logout could come in between and be seen by neither (behaviour O7).
        let finished = revocation::Login {
            provider: provider.name(),
            subject: &subject,
            sid: provider_session.as_deref(),
            started: record.started,
            issued,
        };
        let overtaken = self.revoker.has_overtaken(&finished).await;
        if !matches!(overtaken, Ok(false)) {
            self.take_back(provider, &open).await;
            return Err(overtaken.map_or_else(Failed::Session, |_| Failed::LoggedOut));
        }
        let entry = Entry {
            subject: Some(&subject),
            session: Some(open.key().as_bytes()),
            ..self.entry_at(visit, Some(provider))
        };
        self.sessions.audit().tell(Event::LoginSuccess, &entry);
        self.sessions.audit().tell(Event::SessionCreated, &entry);
        self.end_former(visit, Some(&binding), record.former(), &open, None).await;
        self.finished.add(Key::of(&binding), self.sessions.clock().now());
        self.metrics.login_duration_seconds.with_label_values(&[provider.name()]).observe(age.as_secs_f64());
        Ok(open)
    }

    async fn failed(
        &self,
        visit: &Visit<'_>,
        provider: &Arc<Provider>,
        return_to: &ReturnTo,
        failed: Failed,
    ) -> Answer {
        let again = visit.site.login_with(Some(provider.name()), return_to, &Wishes::default());
        let (reason, answer) = match failed {
            Failed::Request(reason) => {
                let text = "The address that the login service sent you to is incomplete or was changed on the way.";
                (reason, failure_page(Code::LoginFailed, text, &again, ""))
            }
            Failed::Unknown => {
                // A stale tab: whoever is logged in by now simply goes on (behaviour L13). The provider's redirect came
                // without Strict cookies, so the browser is asked to come once more from our own page.
                if self.is_held_back(visit) {
                    if *visit.method != Method::POST {
                        return continue_to(&visit.target());
                    }
                    // A browser that keeps no login cookie would go round and round from there; who has one is counted
                    // (behaviour L4, L14).
                    if let Some(binding) = self.sessions.cookies().login_binding(visit.headers) {
                        self.finished.add(Key::of(&binding), self.sessions.clock().now());
                        return continue_to("/");
                    }
                }
                if let Ok(Some(_)) = self.session_of(visit).await {
                    return continue_to("/");
                }
                let text = "This login is not under way in this browser: it took too long, was already finished, or \
                            began in another browser. Please start again.";
                ("unknown_state", failure_page(Code::LoginFailed, text, &again, ""))
            }
            Failed::Provider(error) => {
                let error = error_word(&error);
                tracing::info!(provider = %provider.name(), error, "the provider ended a login with an error");
                let text = match error {
                    "access_denied" => "The login was cancelled, or the login service did not let you in.",
                    "temporarily_unavailable" | "server_error" => "The login service has a problem. Please try again.",
                    _ => "The login service refused the login.",
                };
                ("provider_error", failure_page(Code::LoginFailed, text, &again, error))
            }
            // No other login: whoever asked silently knows what to do, and a page that needs a session asks for one itself.
            Failed::NotSilently => {
                self.count_login(provider.name(), "failure", "not_silent");
                return if super::navigation::wants_page(visit.headers) {
                    continue_to(return_to.as_str())
                } else {
                    Answer::problem(Code::SessionMissing, None, Some(&visit.site.login_url()))
                };
            }
            Failed::Untrusted(error) => {
                tracing::warn!(provider = %provider.name(), %error, "a login was refused");
                let text = "The answer of the login service could not be verified, so you were not logged in.";
                (error.reason(), failure_page(Code::LoginFailed, text, &again, ""))
            }
            Failed::Unreachable(error) => {
                tracing::warn!(provider = %provider.name(), %error, "a login failed");
                let text = "The login service did not answer. Please try again in a moment.";
                (error.reason(), failure_page(Code::ProviderUnavailable, text, &again, ""))
            }
            Failed::TooWeak(lacking) => {
                let (reason, text) = match lacking {
                    Lacking::Context => ("acr", "The login service did not authenticate you as strongly as is needed."),
                    Lacking::Age => ("auth_time", "The login service did not ask you to log in anew, which is needed."),
                };
                // Not the same login again: it would end here once more.
                (reason, failure_page(Code::LoginFailed, text, &again, ""))
            }
            Failed::LoggedOut => {
                let text =
                    "You were logged out at the login service before the login was finished. Please start again.";
                ("logged_out", failure_page(Code::LoginFailed, text, &again, ""))
            }
            Failed::Session(error) => {
                tracing::warn!(%error, "a login failed: the session store failed");
                let text = "You could not be logged in, because sessions cannot be stored for the moment.";
                ("store", failure_page(Code::StoreUnavailable, text, &again, ""))
            }
        };
        self.count_login(provider.name(), "failure", reason);
        let entry = Entry { reason: Some(reason), ..self.entry_at(visit, Some(provider)) };
        self.sessions.audit().tell(Event::LoginFailure, &entry);
        answer
    }
}

/// Errors that say: the user would have to be asked something (Core §3.1.2.6).
fn needs_user(error: &str) -> bool {
    matches!(error, "login_required" | "interaction_required" | "consent_required" | "account_selection_required")
}

fn failure_page(code: Code, text: &str, again: &str, provider_error: &str) -> Answer {
    let text = if provider_error.is_empty() { text.to_owned() } else { format!("{text} ({provider_error})") };
    let page =
        Page { heading: code.title(), text: &text, link: Some((again, "Log in again")), form: None, code: Some(code) };
    page.answer().header(http::header::VARY, HeaderValue::from_static("Cookie"))
}

/// The provider's error code, if it is one of RFC 6749's alphabet and short; it is shown and logged.
fn error_word(error: &str) -> &str {
    let plain = error.len() <= 48 && error.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
    if plain { error } else { "error" }
}
