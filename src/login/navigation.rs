//! What kind of request a browser makes, by Fetch Metadata where it sends it (behaviour L11).

use http::Method;
use http::header::{ACCEPT, HeaderMap, UPGRADE};

/// Whether the user goes to a page, so that a login may start. Frames, prefetches, scripts, event streams and WebSockets
/// are no navigation.
#[must_use]
pub fn is_navigation(method: &Method, headers: &HeaderMap) -> bool {
    if *method != Method::GET || headers.contains_key(UPGRADE) || is_prefetch(headers) {
        return false;
    }
    match (text(headers, "sec-fetch-mode"), text(headers, "sec-fetch-dest")) {
        (None, None) => accepts_html(headers) && !headers.contains_key("x-requested-with"),
        (mode, dest) => mode == Some("navigate") && dest == Some("document"),
    }
}

/// Whether a request to the login's own address may start one: a navigation, or a client that says nothing of itself.
#[must_use]
pub fn may_log_in(method: &Method, headers: &HeaderMap) -> bool {
    let silent = !headers.contains_key("sec-fetch-mode") && !headers.contains_key("sec-fetch-dest");
    is_navigation(method, headers) || (silent && !is_prefetch(headers))
}

/// Whether the browser says that a page of another site began the request.
#[must_use]
pub fn is_cross_site(headers: &HeaderMap) -> bool {
    text(headers, "sec-fetch-site") == Some("cross-site")
}

/// Whether an error is better shown as a page than as JSON.
#[must_use]
pub fn wants_page(headers: &HeaderMap) -> bool {
    match text(headers, "sec-fetch-mode") {
        Some(mode) => mode == "navigate",
        None => accepts_html(headers) && !headers.contains_key("x-requested-with"),
    }
}

/// Whether a script asked, so that it gets JSON rather than a redirect.
#[must_use]
pub fn wants_json(headers: &HeaderMap) -> bool {
    headers.get(ACCEPT).is_some_and(|accept| contains(accept.as_bytes(), b"application/json"))
}

fn is_prefetch(headers: &HeaderMap) -> bool {
    ["sec-purpose", "purpose"].iter().any(|name| text(headers, name).is_some_and(|v| v.contains("prefetch")))
}

fn accepts_html(headers: &HeaderMap) -> bool {
    headers.get_all(ACCEPT).iter().any(|accept| contains(accept.as_bytes(), b"text/html"))
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window.eq_ignore_ascii_case(needle))
}

fn text<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name)?.to_str().ok()
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn check(method: Method, pairs: &[(&'static str, &'static str)]) -> bool {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, HeaderValue::from_static(value));
        }
        is_navigation(&method, &headers)
    }

    #[test]
    fn l11_only_a_top_level_navigation_starts_a_login() {
        let page = [("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "document")];
        assert!(check(Method::GET, &page));
        assert!(check(Method::GET, &[("accept", "text/html,application/xhtml+xml")]));
        assert!(!check(Method::POST, &page));
        assert!(!check(Method::HEAD, &page));
        assert!(!check(Method::GET, &[]));
        assert!(!check(Method::GET, &[("accept", "application/json")]));
        assert!(!check(Method::GET, &[("accept", "text/html"), ("x-requested-with", "XMLHttpRequest")]));
        assert!(!check(Method::GET, &[("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "iframe")]));
        assert!(!check(
            Method::GET,
            &[("sec-fetch-mode", "cors"), ("sec-fetch-dest", "empty"), ("accept", "text/html")]
        ));
        assert!(!check(Method::GET, &[page[0], page[1], ("sec-purpose", "prefetch;prerender")]));
        assert!(!check(Method::GET, &[page[0], page[1], ("upgrade", "websocket")]));
        assert!(!check(Method::GET, &[("accept", "text/event-stream")]));
    }
}
