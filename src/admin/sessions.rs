//! `/sessions` of the admin listener: which sessions somebody has, and their end (behaviour O11).
//!
//! Nothing that is sealed is shown. There is no way to ask for all sessions, so that none can be ended by mistake.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use http::{Method, StatusCode};
use serde_json::{Value, json};
use url::form_urlencoded;

use crate::primitives::clock::Timestamp;
use crate::revocation::{Revoker, Selector};
use crate::session::manager::SessionError;
use crate::store::record::{Record, SessionKey};
use crate::telemetry::audit::{Actor, Entry, Event};

/// What to add to a request that names nobody.
const USAGE: &str =
    "name one of: user=SUB, provider_session=SID (both may go with provider=NAME), id=KEY; each at most once";

/// Lists and ends sessions.
pub struct SessionPages {
    revoker: Arc<Revoker>,
}

/// Status and JSON document of an answer.
pub(super) type Page = (StatusCode, Value);

impl SessionPages {
    /// Over everything that can be ended.
    #[must_use]
    pub fn new(revoker: Arc<Revoker>) -> Self {
        Self { revoker }
    }

    /// `GET` and `DELETE /sessions`, for somebody who has shown the admin token.
    pub(super) async fn answer(&self, method: &Method, query: Option<&str>, client_ip: IpAddr) -> Page {
        let selector = match self.selector(query.unwrap_or_default()) {
            Ok(selector) => selector,
            Err(why) => return error(StatusCode::BAD_REQUEST, "bad_request", &why),
        };
        let result = if *method == Method::DELETE {
            self.revoke(&selector, client_ip).await
        } else {
            self.revoker.find(&selector).await.map(|found| {
                let found: Vec<_> = found.iter().map(|(key, record)| self.describe(key, record)).collect();
                json!({ "sessions": found })
            })
        };
        match result {
            Ok(document) => (StatusCode::OK, document),
            Err(failure) => {
                tracing::warn!(error = %failure, "the session store failed under an administrator");
                let text = "the session store does not answer; some sessions may have ended. Send the request again";
                error(StatusCode::SERVICE_UNAVAILABLE, "store_unavailable", text)
            }
        }
    }

    async fn revoke(&self, selector: &Selector, client_ip: IpAddr) -> Result<Value, SessionError> {
        let result = self.revoker.revoke(selector, client_ip).await;
        let (provider, subject, session) = match selector {
            Selector::User { subject, provider } => (provider.as_deref(), Some(subject.as_str()), None),
            Selector::ProviderSession { provider, .. } => (provider.as_deref(), None, None),
            Selector::Session(key) => (None, None, Some(key.as_bytes())),
        };
        let entry = Entry {
            actor: Actor::Admin,
            reason: Some(word(selector)),
            failed: result.is_err(),
            provider,
            subject,
            session,
            client_ip: Some(client_ip),
            sessions: result.as_ref().ok().map(Vec::len),
            ..Entry::default()
        };
        self.revoker.sessions().audit().tell(Event::AdminRevoked, &entry);
        let ended: Vec<_> = result?.iter().map(|(key, record, _)| self.describe(key, record)).collect();
        Ok(json!({ "revoked": ended }))
    }

    fn selector(&self, query: &str) -> Result<Selector, String> {
        let mut selectors = Vec::new();
        let mut provider = None;
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            match &*name {
                "user" | "provider_session" | "id" if value.is_empty() => return Err(format!("{name} is empty")),
                "user" | "provider_session" | "id" => selectors.push((name, value.into_owned())),
                "provider" if provider.is_some() => return Err("provider is there twice".to_owned()),
                "provider" => provider = Some(value.into_owned()),
                _ => return Err(format!("an unknown parameter; {USAGE}")),
            }
        }
        let known = self.revoker.providers();
        if provider.as_deref().is_some_and(|name| !known.contains(&name)) {
            return Err(format!("there is no such provider; there are: {}", known.join(", ")));
        }
        let Ok([(name, value)]) = <[_; 1]>::try_from(selectors) else { return Err(USAGE.to_owned()) };
        match &*name {
            "user" => Ok(Selector::User { subject: value, provider }),
            "provider_session" => Ok(Selector::ProviderSession { sid: value, provider }),
            _ if provider.is_some() => Err("provider does not go with id".to_owned()),
            _ => SessionKey::from_text(value.as_bytes())
                .map(Selector::Session)
                .ok_or_else(|| "id is no id of a session: take one from a list of sessions".to_owned()),
        }
    }

    fn describe(&self, key: &SessionKey, record: &Record) -> Value {
        let now = self.revoker.sessions().clock().now();
        let refresh = if record.intent.is_some_and(|intent| now < intent.until) {
            "under_way"
        } else if record.refresh_in_doubt.is_some() {
            "in_doubt"
        } else if record.retry_at.is_some_and(|at| now < at) {
            "waiting"
        } else {
            "idle"
        };
        json!({
            "id": key.to_text(),
            "site": record.site,
            "provider": record.provider,
            "user": record.subject,
            "provider_session": record.provider_session,
            "created": text(record.created),
            "last_seen": text(record.last_seen),
            "idle_ends": text(record.idle_end),
            "ends": text(record.absolute_end),
            "refresh": refresh,
        })
    }
}

/// Without an admin token these pages stay closed: whoever reaches the listener could end everybody's session.
pub(super) fn closed() -> Page {
    let text = "sessions are shown and ended only with an admin token, and none is configured: set `admin.token` in the \
                settings, for example `token: { env: CLOAKROOM_ADMIN_TOKEN }`, and restart";
    error(StatusCode::FORBIDDEN, "admin_token_not_configured", text)
}

/// The token is missing or wrong.
pub(super) fn refused() -> Page {
    error(StatusCode::UNAUTHORIZED, "unauthorized", "the admin token is missing or wrong")
}

fn error(status: StatusCode, code: &str, text: &str) -> Page {
    (status, json!({ "error": code, "message": text }))
}

fn word(selector: &Selector) -> &'static str {
    match selector {
        Selector::User { .. } => "user",
        Selector::ProviderSession { .. } => "provider_session",
        Selector::Session(_) => "id",
    }
}

/// RFC 3339, in UTC.
fn text(time: Timestamp) -> Option<String> {
    let time = UNIX_EPOCH.checked_add(Duration::from_millis(time.as_millis()))?;
    Some(humantime::format_rfc3339_seconds(time).to_string())
}
