//! Who am I: the user's claims and the state of the session. Neither counts as activity (behaviour S9).

use serde_json::{Value, json};

use super::{Logins, Visit, store_failed};
use crate::answer::{Answer, Code};
use crate::session::cookie::Ticket;
use crate::session::manager::SessionError;
use crate::session::model::Secrets;
use crate::session::open::Open;

/// What a script gets that asks without a session.
pub(super) fn no_session(visit: &Visit<'_>) -> Answer {
    let code = if visit.ticket == Ticket::Absent { Code::SessionMissing } else { Code::SessionExpired };
    Answer::problem(code, None, Some(&visit.site.login_url()))
}

/// Claims that `/auth/session` shows; `/auth/userinfo` has all.
const PROFILE_CLAIMS: [&str; 9] =
    ["sub", "name", "preferred_username", "given_name", "family_name", "email", "email_verified", "picture", "locale"];

impl Logins {
    /// `GET /auth/userinfo`.
    pub(super) async fn user_info(&self, visit: Visit<'_>) -> Answer {
        match self.read(&visit).await {
            Ok(Some((open, secrets))) => {
                self.with_csrf(&visit, &open, Answer::json(&Value::Object(secrets.claims.clone())))
            }
            Ok(None) => no_session(&visit),
            Err(error) => store_failed(&visit, &error),
        }
    }

    /// `GET /auth/session`.
    pub(super) async fn session(&self, visit: Visit<'_>) -> Answer {
        match self.read(&visit).await {
            Ok(Some((open, secrets))) => {
                let body = json!({
                    "authenticated": true,
                    "level": "logged_on",
                    "expires_at": open.absolute_end().as_secs(),
                    "idle_expires_at": open.idle_end().as_secs(),
                    "token_expires_at": secrets.access_expires.map(|end| end.as_secs()),
                    "user": profile(&secrets),
                });
                self.with_csrf(&visit, &open, Answer::json(&body))
            }
            Ok(None) => self.nobody(&visit).await,
            Err(error) => store_failed(&visit, &error),
        }
    }

    /// Nobody is logged on; who it was may still be known.
    async fn nobody(&self, visit: &Visit<'_>) -> Answer {
        let login_url = visit.site.login_url();
        match self.returning(visit).await {
            Ok(Some(secrets)) => Answer::json(&json!({
                "authenticated": false,
                "level": "returning",
                "user": profile(&secrets),
                "login_url": login_url,
            })),
            Ok(None) => Answer::json(&json!({
                "authenticated": false,
                "level": "anonymous",
                "login_url": login_url,
            })),
            Err(error) => store_failed(visit, &error),
        }
    }

    async fn returning(&self, visit: &Visit<'_>) -> Result<Option<Secrets>, SessionError> {
        let Ticket::One(id) = visit.ticket else { return Ok(None) };
        let Some(open) = self.sessions.recognise(&id, &visit.site.profile).await? else { return Ok(None) };
        self.part_with_tokens(visit.site, &open);
        Ok(self.sessions.read(open.key()).await?.map(|(_, secrets)| secrets))
    }

    async fn read(&self, visit: &Visit<'_>) -> Result<Option<(std::sync::Arc<Open>, Secrets)>, SessionError> {
        let Some(open) = self.session_of(visit).await? else { return Ok(None) };
        Ok(self.sessions.read(open.key()).await?.map(|(_, secrets)| (open, secrets)))
    }

    /// A page's first call gives it the CSRF cookie if it lacks the right one.
    fn with_csrf(&self, visit: &Visit<'_>, open: &Open, answer: Answer) -> Answer {
        if self.sessions.cookies().csrf_matches(visit.headers, open.csrf_token().as_bytes()) {
            return answer;
        }
        answer.cookie(open.csrf_cookie().cloned())
    }
}

fn profile(secrets: &Secrets) -> Value {
    let shown = secrets.claims.iter().filter(|(name, _)| PROFILE_CLAIMS.contains(&name.as_str()));
    Value::Object(shown.map(|(name, value)| (name.clone(), value.clone())).collect())
}
