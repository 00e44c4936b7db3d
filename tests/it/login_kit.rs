//! What the login tests share: callback addresses bent out of shape, and a browser that holds Strict cookies back.

use std::collections::BTreeMap;

use cloakroom::demo::provider::Endpoint;
use reqwest::{Method, StatusCode, Url};

use crate::harness::{Browser, Draft, LOGIN, SESSION, Seen, World, XSRF};

/// Header fields of a table of cases.
pub(crate) type Fields<'t> = &'t [(&'t str, &'t str)];

/// The parameters of an address.
pub(crate) fn query(address: &str) -> BTreeMap<String, String> {
    url(address).query_pairs().into_owned().collect()
}

/// The address with one parameter set to `value`.
pub(crate) fn with(address: &str, name: &str, value: &str) -> String {
    let mut url = url(&without(address, name));
    url.query_pairs_mut().append_pair(name, value);
    url.into()
}

/// The address without a parameter.
pub(crate) fn without(address: &str, name: &str) -> String {
    let mut url = url(address);
    let rest: Vec<_> = url.query_pairs().into_owned().filter(|(key, _)| key != name).collect();
    url.query_pairs_mut().clear().extend_pairs(rest);
    url.into()
}

pub(crate) fn url(address: &str) -> Url {
    address.parse().unwrap_or_else(|error| panic!("{address}: {error}"))
}

/// How often the provider's token endpoint was called.
pub(crate) fn token_calls(world: &World) -> usize {
    world.demo.provider.ledger().count(Endpoint::Token)
}

/// How many sessions were put into the store.
pub(crate) async fn sessions_begun(world: &World) -> f64 {
    world.metric("cloakroom_store_operations_total{op=\"create\",result=\"ok\"}").await
}

/// How many logins were put into the store. A login that succeeds puts in one thing more: the browser's latest session.
pub(crate) async fn logins_begun(world: &World) -> f64 {
    let all = world.metric("cloakroom_store_operations_total{op=\"put_login\",result=\"ok\"}").await;
    all - sessions_begun(world).await
}

/// A second browser with the same cookies: another tab, for requests at the same time.
pub(crate) fn tab(browser: &Browser) -> Browser {
    let mut tab = Browser::new(browser.home);
    tab.jars = browser.jars.clone();
    tab
}

/// What a browser sends when a page of another site, the provider's among them, sends it to us.
pub(crate) fn from_another_site(draft: Draft) -> Draft {
    draft
        .header("sec-fetch-mode", "navigate")
        .header("sec-fetch-dest", "document")
        .header("sec-fetch-site", "cross-site")
        .header("accept", "text/html,application/xhtml+xml")
}

/// A navigation that began at another site: Strict cookies stay in the jar, and come back after it unless the answer
/// changed them.
pub(crate) async fn arrive(browser: &mut Browser, method: Method, target: &str) -> Seen {
    let home = browser.home.to_string();
    let jar = browser.jars.entry(home.clone()).or_default();
    let held: Vec<_> = [SESSION, XSRF].iter().filter_map(|name| jar.remove_entry(*name)).collect();
    let draft = from_another_site(browser.draft(method, target));
    let seen = browser.send(draft).await;
    let touched: Vec<_> = seen.set_cookies().iter().filter_map(|c| Some(c.split_once('=')?.0.to_owned())).collect();
    let jar = browser.jars.entry(home).or_default();
    jar.extend(held.into_iter().filter(|(name, _)| !touched.contains(name)));
    seen
}

/// Where a page goes on to, as a browser reads it: the target of its one link.
pub(crate) fn onward(page: &Seen) -> String {
    assert_eq!(page.status, StatusCode::OK, "{page:?}");
    let (_, rest) = page.body.split_once("id=\"onward\"").unwrap_or_else(|| panic!("no continue page: {page:?}"));
    let (_, rest) = rest.split_once("href=\"").expect("a link");
    unescaped(rest.split_once('"').expect("an end").0)
}

pub(crate) fn unescaped(html: &str) -> String {
    let mut text = html.to_owned();
    for (entity, sign) in [("&#60;", "<"), ("&#62;", ">"), ("&#34;", "\""), ("&#39;", "'"), ("&#38;", "&")] {
        text = text.replace(entity, sign);
    }
    text
}

/// A login that failed: an error page of ours, no session cookie, nothing of the parameters or the provider in it.
pub(crate) fn refused(browser: &Browser, page: &Seen, callback: &str, what: &str) {
    assert!(page.status.is_client_error() || page.status.is_server_error(), "{what}: {page:?}");
    assert!(!page.code().is_empty(), "{what}: {page:?}");
    assert!(page.header("content-type").starts_with("text/html"), "{what}: {page:?}");
    assert!(browser.cookie(SESSION).is_none(), "{what}: {page:?}");
    assert!(page.set_cookies().iter().all(|cookie| cookie.starts_with(LOGIN)), "{what}: {page:?}");
    uncached(page);
    for (name, value) in query(callback) {
        let secret = matches!(name.as_str(), "code" | "state") && value.len() >= 8;
        assert!(!secret || !page.body.contains(&value), "{what}: the page shows {name}: {page:?}");
    }
}

/// Behaviour L12: no answer on the way of a login is kept or tells its address to others.
pub(crate) fn uncached(answer: &Seen) {
    assert_eq!(answer.header("cache-control"), "no-store", "{answer:?}");
    // A form under `no-referrer` would be sent with `Origin: null`.
    let policy = if answer.body.contains("<form") { "same-origin" } else { "no-referrer" };
    assert_eq!(answer.header("referrer-policy"), policy, "{answer:?}");
}

/// A page of ours cannot be framed and runs only what carries its nonce.
pub(crate) fn guarded(page: &Seen) {
    let policy = page.header("content-security-policy");
    let directive =
        |name: &str| policy.split(';').map(str::trim).find_map(|part| part.strip_prefix(name)).unwrap_or("");
    assert_eq!(directive("default-src ").trim(), "'none'", "{page:?}");
    assert_eq!(directive("frame-ancestors ").trim(), "'none'", "{page:?}");
    assert_eq!(page.header("x-frame-options"), "DENY", "{page:?}");
    let script = directive("script-src ").trim();
    let nonce = script.strip_prefix("'nonce-").and_then(|s| s.strip_suffix('\'')).expect("a nonce and nothing else");
    assert!(nonce.len() >= 22, "{page:?}");
    for (at, _) in page.body.match_indices("<script") {
        assert!(page.body[at..].starts_with(&format!("<script nonce=\"{nonce}\">")), "{page:?}");
    }
}

/// The fields of the form in which the provider answers, and where it goes.
pub(crate) fn posted_answer(page: &Seen) -> (String, String) {
    let part =
        |text: &str, from: &str| text.split_once(from).expect("it is there").1.split('"').next().unwrap().to_owned();
    let mut fields = url::form_urlencoded::Serializer::new(String::new());
    for input in page.body.split("<input type=\"hidden\"").skip(1) {
        fields.append_pair(&unescaped(&part(input, "name=\"")), &unescaped(&part(input, "value=\"")));
    }
    (part(&page.body, "<form method=\"post\" action=\""), fields.finish())
}

/// What a browser posts for the provider.
pub(crate) fn posted(browser: &Browser, target: &str, body: &str) -> Draft {
    let draft = browser.draft(Method::POST, target).body(body);
    from_another_site(draft).header("content-type", "application/x-www-form-urlencoded").header("origin", "null")
}
