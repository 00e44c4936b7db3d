//! What every answer of a site wears on its way to the browser, whoever wrote it: what the route changes of its header,
//! what pages of other origins may do, what protects it there. In this order: the route's own word on a security header
//! counts, and none on who may read the answer does but `cors`.

use std::sync::Arc;

use http::HeaderMap;
use http::header::{CONTENT_SECURITY_POLICY, HeaderValue, ORIGIN, VARY, X_FRAME_OPTIONS};

use crate::config::settings::HeaderChanges;
use crate::routing::cors::{Grant, is_answer_field};
use crate::routing::table::{Route, Site};

/// Changes a header as a route says.
pub fn change(headers: &mut HeaderMap, changes: &HeaderChanges) {
    for name in &changes.remove {
        headers.remove(name);
    }
    for (name, value) in &changes.set {
        headers.insert(name.clone(), value.clone());
    }
    for (name, value) in &changes.add {
        headers.append(name.clone(), value.clone());
    }
}

/// What an answer wears; as much of it as was found out about the request.
#[derive(Clone, Debug)]
pub struct Dress {
    /// The site.
    pub site: Arc<Site>,
    /// The route, if it is one's answer.
    pub route: Option<Arc<Route>>,
    /// What `cors` grants to the page that asks.
    pub grant: Option<Grant>,
    /// Whether the browser speaks TLS.
    pub tls: bool,
}

impl Dress {
    /// Puts it on.
    pub fn put_on(&self, headers: &mut HeaderMap) {
        put_on(headers, &self.site, self.route.as_deref(), self.grant.as_ref(), self.tls);
    }
}

/// Takes away what an upstream says about other origins where that is not its business.
pub fn silence(headers: &mut HeaderMap, route: &Route) {
    if route.cors.is_none() {
        return;
    }
    let theirs: Vec<_> = headers.keys().filter(|name| is_answer_field(name)).cloned().collect();
    for name in &theirs {
        headers.remove(name);
    }
}

/// As [`Dress::put_on`], from its parts.
pub fn put_on(headers: &mut HeaderMap, site: &Site, route: Option<&Route>, grant: Option<&Grant>, tls: bool) {
    if let Some(route) = route {
        if let Some(changes) = &route.response_headers {
            change(headers, changes);
        }
        if let Some(cors) = &route.cors {
            for (name, value) in cors.of_answer(grant) {
                headers.insert(name, value);
            }
            if cors.varies() && !varies_by_origin(headers) {
                headers.append(VARY, HeaderValue::from_static("Origin"));
            }
        }
    }
    for (name, value) in site.security_headers.plain(tls) {
        headers.entry(name).or_insert_with(|| value.clone());
    }
    if let Some((name, value)) = &site.security_headers.frames
        && !speaks_of_frames(headers)
    {
        // A second policy narrows the first and takes nothing from it (CSP §4.2).
        headers.append(name.clone(), value.clone());
    }
}

fn varies_by_origin(headers: &HeaderMap) -> bool {
    let lines = headers.get_all(VARY).iter().filter_map(|line| line.to_str().ok());
    lines
        .flat_map(|line| line.split(','))
        .map(str::trim)
        .any(|name| name == "*" || name.eq_ignore_ascii_case(ORIGIN.as_str()))
}

fn speaks_of_frames(headers: &HeaderMap) -> bool {
    headers.contains_key(X_FRAME_OPTIONS)
        || headers.get_all(CONTENT_SECURITY_POLICY).iter().any(|policy| {
            let text = policy.to_str().unwrap_or_default();
            text.split([';', ',']).any(|directive| {
                directive
                    .split_ascii_whitespace()
                    .next()
                    .is_some_and(|name| name.eq_ignore_ascii_case("frame-ancestors"))
            })
        })
}

#[cfg(test)]
mod tests {
    use http::header::HeaderName;

    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn changes_come_in_their_order() {
        let (a, b, c) = (HeaderName::from_static("a"), HeaderName::from_static("b"), HeaderName::from_static("c"));
        let value = HeaderValue::from_static;
        let mut fields = headers(&[("a", "1"), ("b", "1"), ("c", "1")]);
        let changes = HeaderChanges {
            remove: vec![a.clone()],
            set: vec![(b, value("2"))],
            add: vec![(c, value("2")), (a, value("2"))],
        };
        change(&mut fields, &changes);
        assert_eq!(fields, headers(&[("b", "2"), ("c", "1"), ("c", "2"), ("a", "2")]));
    }

    #[test]
    fn an_answer_has_its_own_word_on_frames_in_either_field() {
        for (pairs, speaks) in [
            (&[][..], false),
            (&[("x-frame-options", "DENY")], true),
            (&[("content-security-policy", "default-src 'self'; Frame-Ancestors 'none'")], true),
            (&[("content-security-policy", "default-src 'self', frame-ancestors 'none'")], true),
            (&[("content-security-policy", "default-src frame-ancestors")], false),
        ] {
            assert_eq!(speaks_of_frames(&headers(pairs)), speaks, "{pairs:?}");
        }
    }

    #[test]
    fn vary_is_said_once() {
        assert!(varies_by_origin(&headers(&[("vary", "Accept-Encoding, ORIGIN")])));
        assert!(varies_by_origin(&headers(&[("vary", "*")])));
        assert!(!varies_by_origin(&headers(&[("vary", "Accept-Encoding")])));
    }
}
