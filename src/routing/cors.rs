//! Cross-origin requests, answered at the edge as Fetch §3.2 and §4.9 want it.
//!
//! On a route with `cors` nothing of this is the upstream's: a preflight is answered here, before any session is looked
//! up, and what an upstream says in `Access-Control-*` is replaced. An origin that is not allowed gets no such field, and
//! the browser keeps the answer from its page. Where origins are listed, answers differ by `Origin`, and each of them says
//! so in `Vary`, also to who sent none.

use http::HeaderMap;
use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, HeaderName, HeaderValue,
    ORIGIN,
};

use crate::config::settings::{self, CorsOrigins};

/// What the answer to a preflight depends on.
const VARY_PREFLIGHT: HeaderValue =
    HeaderValue::from_static("Origin, Access-Control-Request-Method, Access-Control-Request-Headers");
const ANY: HeaderValue = HeaderValue::from_static("*");
const TRUE: HeaderValue = HeaderValue::from_static("true");

/// What pages of other origins may do, compiled.
#[derive(Debug)]
pub struct Cors {
    origins: CorsOrigins,
    credentials: bool,
    expose: Option<HeaderValue>,
    /// What a preflight of an allowed origin is told beside it.
    preflight: Vec<(HeaderName, HeaderValue)>,
}

/// An origin that is allowed, as it stands in the answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant(HeaderValue);

impl Cors {
    /// Prepares all that can be said without knowing the request.
    #[must_use]
    pub fn new(settings: &settings::Cors) -> Self {
        let mut preflight = vec![
            (ACCESS_CONTROL_ALLOW_METHODS, list(settings.methods.iter().map(http::Method::as_str))),
            (ACCESS_CONTROL_MAX_AGE, Some(HeaderValue::from(settings.max_age.as_secs()))),
        ];
        if !settings.headers.is_empty() {
            preflight.push((ACCESS_CONTROL_ALLOW_HEADERS, list(settings.headers.iter().map(HeaderName::as_str))));
        }
        Self {
            origins: settings.origins.clone(),
            credentials: settings.credentials,
            expose: list(settings.expose.iter().map(HeaderName::as_str)).filter(|_| !settings.expose.is_empty()),
            preflight: preflight.into_iter().filter_map(|(name, value)| Some((name, value?))).collect(),
        }
    }

    /// Whether cookies of allowed origins come along.
    #[must_use]
    pub fn has_credentials(&self) -> bool {
        self.credentials
    }

    /// What is granted to the origin that asks; two `Origin` fields are none.
    #[must_use]
    pub fn grant(&self, headers: &HeaderMap) -> Option<Grant> {
        let CorsOrigins::List(origins) = &self.origins else { return Some(Grant(ANY)) };
        let mut asking = headers.get_all(ORIGIN).iter();
        let origin = asking.next().filter(|_| asking.next().is_none())?;
        origins.iter().find(|allowed| *allowed == origin).cloned().map(Grant)
    }

    /// Whether answers differ by `Origin`.
    #[must_use]
    pub fn varies(&self) -> bool {
        matches!(self.origins, CorsOrigins::List(_))
    }

    /// The fields of an answer to a request.
    pub fn of_answer<'c>(&'c self, grant: Option<&'c Grant>) -> impl Iterator<Item = (HeaderName, HeaderValue)> + 'c {
        grant.into_iter().flat_map(|Grant(origin)| {
            let expose = self.expose.clone().map(|names| (ACCESS_CONTROL_EXPOSE_HEADERS, names));
            [Some((ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone())), self.allow_credentials(), expose]
                .into_iter()
                .flatten()
        })
    }

    /// The fields of the answer to a preflight beside those of any answer.
    pub fn of_preflight<'c>(&'c self, grant: Option<&Grant>) -> impl Iterator<Item = (HeaderName, HeaderValue)> + 'c {
        let told = if grant.is_some() { self.preflight.as_slice() } else { &[] };
        told.iter().cloned().chain([(http::header::VARY, VARY_PREFLIGHT)])
    }

    fn allow_credentials(&self) -> Option<(HeaderName, HeaderValue)> {
        self.credentials.then_some((ACCESS_CONTROL_ALLOW_CREDENTIALS, TRUE))
    }
}

/// Whether a field is one that a server answers a cross-origin request with.
#[must_use]
pub fn is_answer_field(name: &HeaderName) -> bool {
    name.as_str().starts_with("access-control-")
}

fn list<'n>(names: impl Iterator<Item = &'n str>) -> Option<HeaderValue> {
    HeaderValue::from_str(&names.collect::<Vec<_>>().join(", ")).ok()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::Method;

    use super::*;

    fn cors(origins: CorsOrigins, credentials: bool) -> Cors {
        Cors::new(&settings::Cors {
            origins,
            methods: vec![Method::GET, Method::PUT],
            headers: vec![HeaderName::from_static("x-a"), HeaderName::from_static("content-type")],
            expose: vec![HeaderName::from_static("x-total")],
            max_age: Duration::from_secs(600),
            credentials,
        })
    }

    fn listed(credentials: bool) -> Cors {
        cors(CorsOrigins::List(vec![HeaderValue::from_static("https://a.example")]), credentials)
    }

    fn asking(origins: &[&'static str]) -> HeaderMap {
        origins.iter().map(|origin| (ORIGIN, HeaderValue::from_static(origin))).collect()
    }

    #[test]
    fn c6_only_a_listed_origin_is_granted_anything() {
        let cors = listed(true);
        for strangers in [
            &[][..],
            &["null"],
            &["https://a.example.evil"],
            &["https://a.example:8443"],
            &["http://a.example"],
            &["https://A.example"],
            &["https://b.a.example"],
            &["https://a.example/"],
            &["https://a.example", "https://a.example"],
            &["https://a.example, https://b.example"],
            &["*"],
        ] {
            let grant = cors.grant(&asking(strangers));
            assert_eq!(grant, None, "{strangers:?}");
            assert_eq!(cors.of_answer(grant.as_ref()).count(), 0);
            let preflight: Vec<_> = cors.of_preflight(grant.as_ref()).map(|(name, _)| name).collect();
            assert_eq!(preflight, [http::header::VARY]);
        }
        let grant = cors.grant(&asking(&["https://a.example"]));
        let answer: HeaderMap = cors.of_answer(grant.as_ref()).collect();
        assert_eq!(answer["access-control-allow-origin"], "https://a.example");
        assert_eq!(answer["access-control-allow-credentials"], "true");
        assert_eq!(answer["access-control-expose-headers"], "x-total");
        let preflight: HeaderMap = cors.of_preflight(grant.as_ref()).collect();
        assert_eq!(preflight["access-control-allow-methods"], "GET, PUT");
        assert_eq!(preflight["access-control-allow-headers"], "x-a, content-type");
        assert_eq!(preflight["access-control-max-age"], "600");
        assert!(cors.varies());
    }

    #[test]
    fn everybody_gets_a_star_and_never_credentials() {
        let cors = cors(CorsOrigins::Any, false);
        for origin in [&[][..], &["null"], &["https://a.example"]] {
            let grant = cors.grant(&asking(origin));
            let answer: HeaderMap = cors.of_answer(grant.as_ref()).collect();
            assert_eq!(answer["access-control-allow-origin"], "*");
            assert!(!answer.contains_key("access-control-allow-credentials"));
        }
        assert!(!cors.varies());
        assert!(!listed(false).of_answer(Some(&Grant(ANY))).any(|(name, _)| name == ACCESS_CONTROL_ALLOW_CREDENTIALS));
    }
}
