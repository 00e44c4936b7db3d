//! The pages of the admin listener.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use async_trait::async_trait;
use http::header::{ALLOW, AUTHORIZATION, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, WWW_AUTHENTICATE};
use http::{HeaderValue, Method, Response, StatusCode};
use pingora::apps::http_app::{HttpServer, ServeHttp};
use pingora::protocols::http::ServerSession;
use pingora::services::listening::Service;
use subtle::ConstantTimeEq as _;

use super::readiness::Readiness;
use super::sessions::{self, SessionPages};
use crate::config::settings;
use crate::primitives::secret::SecretText;
use crate::revocation::Revoker;
use crate::telemetry::metrics::{self, Metrics};

/// Probes and metrics.
pub struct AdminPages {
    token: Option<SecretText>,
    readiness: Readiness,
    metrics: Arc<Metrics>,
    sessions: Option<SessionPages>,
}

/// The service of the admin listener, to be added to the server.
#[must_use]
pub fn service(
    settings: &settings::Admin,
    readiness: Readiness,
    metrics: Arc<Metrics>,
    revoker: Arc<Revoker>,
) -> Service<HttpServer<AdminPages>> {
    let pages = AdminPages::new(settings.token.clone(), readiness, metrics).with_sessions(SessionPages::new(revoker));
    let mut service = Service::new("admin listener".to_owned(), HttpServer::new_app(pages));
    service.add_tcp(&settings.address.to_string());
    service.threads = Some(1);
    service
}

impl AdminPages {
    /// With a token, everything but the probes asks for it.
    #[must_use]
    pub fn new(token: Option<SecretText>, readiness: Readiness, metrics: Arc<Metrics>) -> Self {
        Self { token, readiness, metrics, sessions: None }
    }

    /// The same with `/sessions`.
    #[must_use]
    pub fn with_sessions(self, sessions: SessionPages) -> Self {
        Self { sessions: Some(sessions), ..self }
    }

    /// `/sessions`: never without a token, not even where the metrics are open.
    async fn session_page(
        &self,
        pages: &SessionPages,
        method: &Method,
        query: Option<&str>,
        credentials: Option<&HeaderValue>,
        peer: IpAddr,
    ) -> Answer {
        if self.token.is_none() {
            return Answer::json(sessions::closed());
        }
        if !self.admits(credentials) {
            return challenged(Answer::json(sessions::refused()));
        }
        if !matches!(*method, Method::GET | Method::HEAD | Method::DELETE) {
            return wrong_method("GET, HEAD, DELETE");
        }
        Answer::json(pages.answer(method, query, peer).await)
    }

    /// The answer to one request.
    fn answer(&self, method: &Method, path: &str, query: Option<&str>, credentials: Option<&HeaderValue>) -> Answer {
        let page = match path {
            "/livez" | "/healthz" => Page::Live,
            "/readyz" => Page::Ready,
            "/metrics" => Page::Metrics,
            _ => return Answer::new(StatusCode::NOT_FOUND, "not found\n"),
        };
        if !matches!(*method, Method::GET | Method::HEAD) {
            return wrong_method("GET, HEAD");
        }
        match page {
            Page::Live => Answer::new(StatusCode::OK, "alive\n"),
            Page::Ready => self.ready(query),
            Page::Metrics if self.admits(credentials) => {
                let mut answer = Answer::new(StatusCode::OK, self.metrics.render());
                answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(metrics::CONTENT_TYPE));
                answer
            }
            Page::Metrics => challenged(Answer::new(StatusCode::UNAUTHORIZED, "the admin token is missing or wrong\n")),
        }
    }

    fn ready(&self, query: Option<&str>) -> Answer {
        let verbose = query.unwrap_or_default().split('&').any(|one| one.split('=').next() == Some("verbose"));
        let ready = self.readiness.is_ready();
        let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        match (verbose, ready) {
            (true, _) => Answer::new(status, self.readiness.describe()),
            (false, true) => Answer::new(status, "ready\n"),
            (false, false) => Answer::new(status, "not ready\n"),
        }
    }

    /// Whether the request shows the token, compared in constant time.
    fn admits(&self, credentials: Option<&HeaderValue>) -> bool {
        let Some(token) = &self.token else { return true };
        credentials
            .and_then(|value| value.as_bytes().split_at_checked(7))
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case(b"bearer "))
            .is_some_and(|(_, shown)| shown.ct_eq(token.expose().as_bytes()).into())
    }
}

fn wrong_method(allowed: &'static str) -> Answer {
    let mut answer = Answer::new(StatusCode::METHOD_NOT_ALLOWED, "method not allowed\n");
    answer.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
    answer
}

fn challenged(mut answer: Answer) -> Answer {
    let scheme = HeaderValue::from_static("Bearer realm=\"cloakroom admin\"");
    answer.headers_mut().insert(WWW_AUTHENTICATE, scheme);
    answer
}

enum Page {
    Live,
    Ready,
    Metrics,
}

/// An answer of a few lines of text.
struct Answer(Response<Vec<u8>>);

impl Answer {
    fn new(status: StatusCode, text: impl Into<String>) -> Self {
        let text: String = text.into();
        let mut response = Response::new(Vec::new());
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        headers.insert(CONTENT_LENGTH, HeaderValue::from(text.len()));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        *response.body_mut() = text.into_bytes();
        Self(response)
    }

    fn json((status, document): sessions::Page) -> Self {
        let mut answer = Self::new(status, format!("{document}\n"));
        answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        answer
    }

    fn headers_mut(&mut self) -> &mut http::HeaderMap {
        self.0.headers_mut()
    }
}

#[async_trait]
impl ServeHttp for AdminPages {
    async fn response(&self, session: &mut ServerSession) -> Response<Vec<u8>> {
        let peer = session.client_addr().and_then(|address| Some(address.as_inet()?.ip()));
        let request = session.req_header();
        let credentials = request.headers.get(AUTHORIZATION);
        let (method, query) = (&request.method, request.uri.query());
        let Answer(mut response) = match &self.sessions {
            Some(pages) if request.uri.path() == "/sessions" => {
                let peer = peer.unwrap_or(Ipv4Addr::UNSPECIFIED.into());
                self.session_page(pages, method, query, credentials, peer).await
            }
            _ => self.answer(method, request.uri.path(), query, credentials),
        };
        if request.method == Method::HEAD {
            response.body_mut().clear();
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use std::net::{SocketAddr, TcpListener};
    use std::time::Duration;

    use pingora::services::Service as _;
    use tokio::sync::watch;

    use super::*;

    /// Over no providers and an empty store.
    fn nobody() -> Arc<Revoker> {
        let clock = crate::primitives::clock::Clock::system();
        let metrics = Arc::new(Metrics::new().unwrap());
        let key = settings::SealingKey { id: "k".into(), secret: crate::primitives::secret::Key256::new([1; 32]) };
        let ring = crate::session::key_ring::KeyRing::new(&[key]).unwrap();
        let store = Arc::new(crate::store::memory::MemoryStore::new(clock.clone()));
        let (session, refresh) = (settings::Session::default(), settings::Refresh::default());
        let (sessions, _) =
            crate::session::manager::Sessions::new(&session, &refresh, store, ring, clock, metrics.clone());
        Arc::new(Revoker::new(Arc::new(sessions), Default::default(), metrics))
    }

    fn pages(token: Option<&str>) -> AdminPages {
        let token = token.map(|token| SecretText::new(token.to_owned()));
        AdminPages::new(token, Readiness::new(), Arc::new(Metrics::new().unwrap()))
    }

    fn get(pages: &AdminPages, path: &str, credentials: Option<&'static str>) -> (u16, String) {
        let (path, query) = path.split_once('?').map_or((path, None), |(path, query)| (path, Some(query)));
        let credentials = credentials.map(HeaderValue::from_static);
        let Answer(response) = pages.answer(&Method::GET, path, query, credentials.as_ref());
        (response.status().as_u16(), String::from_utf8(response.into_body()).unwrap())
    }

    #[test]
    fn the_metrics_page_asks_for_the_token_and_the_probes_do_not() {
        let pages = pages(Some("s3cret"));
        for wrong in
            [None, Some("Bearer s3cre"), Some("Bearer s3cret "), Some("Basic s3cret"), Some("s3cret"), Some("")]
        {
            assert_eq!(get(&pages, "/metrics", wrong).0, 401, "{wrong:?}");
        }
        let Answer(refused) = pages.answer(&Method::GET, "/metrics", None, None);
        assert!(refused.headers()[WWW_AUTHENTICATE].to_str().unwrap().starts_with("Bearer "));
        for right in ["Bearer s3cret", "bearer s3cret"] {
            assert_eq!(get(&pages, "/metrics", Some(right)).0, 200);
        }
        for probe in ["/livez", "/healthz", "/readyz", "/readyz?verbose"] {
            assert_eq!(get(&pages, probe, None).0, 200, "{probe}");
        }
    }

    #[test]
    fn readiness_follows_latches_and_draining_and_liveness_does_not() {
        let pages = pages(None);
        let latch = pages.readiness.latch("listeners");
        pages.readiness.inform("provider keycloak", || (false, "no answer yet".to_owned()));
        assert_eq!(get(&pages, "/readyz", None), (503, "not ready\n".to_owned()));
        latch.release();
        assert_eq!(get(&pages, "/readyz", None), (200, "ready\n".to_owned()));
        let (status, text) = get(&pages, "/readyz?verbose=1", None);
        assert_eq!(status, 200);
        assert!(text.contains("provider keycloak: not ready (no answer yet)"), "{text}");
        pages.readiness.drain();
        assert_eq!(get(&pages, "/readyz", None).0, 503);
        assert_eq!(get(&pages, "/livez", None).0, 200);
    }

    #[test]
    fn unknown_pages_and_methods_are_told_apart() {
        let pages = pages(None);
        assert_eq!(get(&pages, "/", None).0, 404);
        assert_eq!(get(&pages, "/metrics/", None).0, 404);
        let Answer(refused) = pages.answer(&Method::POST, "/livez", None, None);
        assert_eq!(refused.status(), 405);
        assert_eq!(refused.headers()[ALLOW], "GET, HEAD");
    }

    #[tokio::test]
    async fn the_listener_answers() {
        crate::listener::tls::install_crypto_provider();
        let address: SocketAddr = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let settings = settings::Admin { address, token: None };
        let mut service = service(&settings, Readiness::new(), Arc::new(Metrics::new().unwrap()), nobody());
        let (_stop, stopped) = watch::channel(false);
        let task = tokio::spawn(async move { service.start_service(None, stopped, 1).await });
        let listener = settings::Listener {
            address,
            tls: None,
            redirect_to_https: None,
            proxy_protocol: false,
            forward_auth: None,
        };
        let listening = crate::listener::until_listening(std::slice::from_ref(&listener));
        tokio::time::timeout(Duration::from_secs(10), listening).await.unwrap();
        let client = reqwest::Client::new();
        let page = client.get(format!("http://{address}/metrics")).send().await.unwrap();
        assert_eq!(page.headers()["content-type"], metrics::CONTENT_TYPE);
        assert!(page.text().await.unwrap().contains("cloakroom_build_info"));
        let head = client.head(format!("http://{address}/livez")).send().await.unwrap();
        assert_eq!((head.status().as_u16(), head.text().await.unwrap().as_str()), (200, ""));
        task.abort();
    }
}
