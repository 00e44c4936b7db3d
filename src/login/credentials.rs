//! A login with what the user types: a page of the app posts it, the backend judges it (behaviour C7).
//!
//! The answer to the page holds what is known of the user and no token. Nobody is logged in by another site: the form is
//! JSON, which no form of another site can post without asking, and comes from a page of this one.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue};
use serde_json::json;

use super::begin::Arrival;
use super::query::single;
use super::return_to::ReturnTo;
use super::{Logins, Visit, error_answer, store_failed};
use crate::answer::{Answer, Code};
use crate::credentials::{self, Backend, Form, Granted, LoginError};
use crate::primitives::random;
use crate::provider::{Provider, Unclaimed};
use crate::session::csrf;
use crate::telemetry::audit::{Entry, Event};

/// How long a user is told to wait by a backend that names no time.
const PAUSE: Duration = Duration::from_secs(10);

impl Logins {
    /// `POST /auth/login`.
    pub(super) async fn post_login(&self, visit: Visit<'_>, body: &Bytes) -> Answer {
        // Before there is a session there is no token to ask for, so nothing else tells our page from another's.
        if let Err(refusal) = csrf::check_origin(visit.headers, visit.site.trusted_origins(visit.origin)) {
            self.metrics.csrf_rejections_total.with_label_values(&[refusal.as_str(), "enforce"]).inc();
            let entry = Entry { reason: Some(refusal.as_str()), failed: true, ..self.entry(&visit) };
            self.sessions.audit().tell(Event::CsrfRejected, &entry);
            return Answer::problem(Code::CsrfFailed, Some("Please log in on a page of this site."), None);
        }
        if !is_json(visit.headers) {
            return Answer::problem(Code::UnsupportedMediaType, Some("Send the form as application/json."), None);
        }
        let named = single(visit.query.map(str::as_bytes), "provider").ok().flatten();
        let Some((provider, backend)) = visit.site.backend(named.as_deref()) else {
            let text = "Name the login service in the query: ?provider=…";
            return Answer::problem(Code::BadRequest, Some(text), None);
        };
        match self.judge(&visit, provider, backend, body).await {
            Ok(answer) => answer,
            Err((reason, answer)) => {
                self.count_login(backend.name(), "failure", reason);
                let entry = Entry { reason: Some(reason), ..self.entry_at(&visit, Some(provider)) };
                self.sessions.audit().tell(Event::LoginFailure, &entry);
                answer
            }
        }
    }

    async fn judge(
        &self,
        visit: &Visit<'_>,
        provider: &Arc<Provider>,
        backend: &Arc<Backend>,
        body: &Bytes,
    ) -> Result<Answer, (&'static str, Answer)> {
        let form = backend.form(body.clone());
        let form = form.map_err(|e| ("form", Answer::problem(Code::BadRequest, Some(&e.to_string()), None)))?;
        backend.admit(&form, visit.client_ip).map_err(|many| (many.reason(), too_many(many.wait())))?;
        let (unclaimed, granted) = match ask(provider, backend, form).await {
            Ok(granted) => granted,
            Err(error) => {
                if matches!(error, LoginError::Unavailable { .. } | LoginError::Odd(_)) {
                    tracing::warn!(provider = %backend.name(), %error, "a login failed");
                }
                return Err((error.reason(), refusal(&error)));
            }
        };
        let Granted { tokens, subject, token_subject, user } = granted;
        // Never the account as it was typed: the backend may read another field of the form than we do, or the same one in
        // another way, and one user would get the name of another.
        let Some(subject) = subject.or(token_subject) else {
            let error = LoginError::Odd("it does not say who the user is: see `fields.subject`".to_owned());
            tracing::warn!(provider = %backend.name(), %error, "a login failed");
            return Err((error.reason(), refusal(&error)));
        };
        let claims = credentials::claims(user.unwrap_or_default(), &subject);
        let shown = json!({ "user": claims, "return_to": return_to(visit).as_str() });
        let refresh_token = tokens.refresh_token.clone();
        let arrival = Arrival {
            tokens,
            unclaimed,
            subject: subject.clone(),
            provider_session: None,
            offline: false,
            id_token: None,
            max_age: None,
            claims,
        };
        let begun = self.begin(visit, provider, arrival, None).await;
        let open = begun.map_err(|error| ("store", store_failed(visit, &error)))?;
        let entry = self.entry_at(visit, Some(provider));
        let entry = Entry { subject: Some(&subject), session: Some(open.key().as_bytes()), ..entry };
        self.sessions.audit().tell(Event::LoginSuccess, &entry);
        self.sessions.audit().tell(Event::SessionCreated, &entry);
        let cookies = self.sessions.cookies();
        let (binding, fresh) = self.binding(visit);
        self.end_former(visit, binding.as_deref(), None, &open, refresh_token.as_ref()).await;
        self.count_login(backend.name(), "success", "ok");
        let answer = Answer::json(&shown).cookie(cookies.set_session(open.id())).cookie(open.csrf_cookie().cloned());
        Ok(answer.cookie(fresh))
    }

    /// What ties the tabs of a browser together, so that two that log in at once leave one session; and the cookie for it,
    /// if the browser has none yet. Without randomness there is neither.
    fn binding(&self, visit: &Visit<'_>) -> (Option<String>, Option<HeaderValue>) {
        let cookies = self.sessions.cookies();
        if let Some(binding) = cookies.login_binding(visit.headers) {
            return (Some(binding), None);
        }
        let fresh = random::token().ok();
        let cookie = fresh.as_deref().and_then(|fresh| cookies.set_login(fresh, false));
        (fresh, cookie)
    }

    /// Sends the browser to the page of the app with the form, which comes back to `return_to`.
    pub(super) fn to_login_page(&self, visit: &Visit<'_>, backend: &Backend, return_to: &ReturnTo) -> Answer {
        let page = backend.login_page().map(ToString::to_string).filter(|page| page != visit.path);
        let Some(page) = page else {
            // Or the page asks for a session itself, and the browser would go round in circles.
            return error_answer(visit, Code::SessionMissing, "Please log in on the page of the app.");
        };
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        query.append_pair("return_to", return_to.as_str());
        if visit.site.backends().nth(1).is_some() {
            query.append_pair("provider", backend.name());
        }
        let text = "The address of the login page is unusable.";
        Answer::redirect(&format!("{page}?{}", query.finish()))
            .map_or_else(|| error_answer(visit, Code::Internal, text), |answer| answer.cookie(self.binding(visit).1))
    }
}

/// Asks the backend in a task of its own. A client that goes away cancels nothing, or tokens that it is just being given
/// would be nobody's; then they are revoked.
async fn ask(provider: &Arc<Provider>, backend: &Arc<Backend>, form: Form) -> Result<(Unclaimed, Granted), LoginError> {
    let (provider, backend) = (provider.clone(), backend.clone());
    let asked = tokio::spawn(async move {
        let granted = backend.login(&form).await?;
        Ok((Unclaimed::new(provider, &granted.tokens), granted))
    });
    asked.await.unwrap_or_else(|_| Err(LoginError::Odd("it could not be asked".to_owned())))
}

fn return_to(visit: &Visit<'_>) -> ReturnTo {
    let wish = single(visit.query.map(str::as_bytes), "return_to").ok().flatten();
    wish.map_or_else(ReturnTo::root, |wish| ReturnTo::parse(&wish, visit.site))
}

/// Parameters of the media type say nothing here (RFC 8259 §11).
fn is_json(headers: &HeaderMap) -> bool {
    let mut kinds = headers.get_all(CONTENT_TYPE).into_iter();
    let (Some(kind), None) = (kinds.next(), kinds.next()) else { return false };
    let kind = kind.to_str().ok().and_then(|kind| kind.split(';').next());
    kind.is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json"))
}

fn too_many(wait: Duration) -> Answer {
    let seconds = u64::try_from(wait.as_millis().div_ceil(1000)).unwrap_or(u64::MAX).max(1);
    let text = "There were too many attempts to log in. Please wait a little.";
    Answer::problem(Code::TooManyLogins, Some(text), None).retry_after(seconds)
}

fn refusal(error: &LoginError) -> Answer {
    let problem = |code, text| Answer::problem(code, Some(text), None);
    match error {
        LoginError::Refused => problem(Code::LoginRefused, "Please check what you entered."),
        LoginError::Form => problem(Code::BadRequest, "The login service does not take this form."),
        LoginError::Busy(asked) => too_many(asked.unwrap_or(PAUSE)),
        LoginError::Unavailable { .. } => problem(Code::ProviderUnavailable, "Please try again in a moment."),
        LoginError::Odd(_) => problem(Code::ProviderFailed, "Please try again later."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::backend::BackendEndpoint;
    use crate::demo::{Fault, Gate};

    #[tokio::test]
    async fn tokens_of_a_login_that_nobody_waits_for_any_more_are_revoked() {
        let (demo, backend, _) = credentials::tests::backend();
        let provider = Arc::new(Provider::Credentials(backend.clone()));
        // The client goes away after the backend has granted, and before its answer is here; or just after that.
        let gate = Gate::closed();
        demo.faults(BackendEndpoint::Login).add(Fault::hold(&gate).after_work().times(1));
        let form = credentials::tests::form(&backend);
        let client = tokio::spawn({
            let (provider, backend, form) = (provider.clone(), backend.clone(), form.clone());
            async move { ask(&provider, &backend, form).await.map(|_| ()) }
        });
        gate.arrived(1).await;
        client.abort();
        let _ = client.await;
        gate.open();
        credentials::tests::is_revoked(&demo).await;
        let (unclaimed, _) = ask(&provider, &backend, form.clone()).await.unwrap();
        drop(unclaimed);
        credentials::tests::is_revoked(&demo).await;
        let told = demo.posted(BackendEndpoint::Logout).len();
        let (unclaimed, _) = ask(&provider, &backend, form).await.unwrap();
        unclaimed.claim();
        tokio::task::yield_now().await;
        assert_eq!(demo.posted(BackendEndpoint::Logout).len(), told);
    }

    #[test]
    fn c7_only_json_is_taken() {
        let json = |kinds: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for kind in kinds {
                headers.append(CONTENT_TYPE, HeaderValue::from_static(kind));
            }
            is_json(&headers)
        };
        assert!(json(&["application/json"]) && json(&["Application/JSON; charset=utf-8"]));
        // What a form of another site can send without a preflight (Fetch §2.2.2), and its kin.
        for kinds in [
            &[][..],
            &["text/plain"],
            &["application/x-www-form-urlencoded"],
            &["multipart/form-data; boundary=application/json"],
            &["text/plain; application/json"],
            &["text/plain", "application/json"],
            &["application/jsonp"],
        ] {
            assert!(!json(kinds), "{kinds:?}");
        }
    }
}
