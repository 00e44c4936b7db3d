//! Each line is a text that a page or an error is made with. It stands there as it was, and as text only.

#![no_main]

use std::sync::LazyLock;

use cloakroom::answer::{Answer, Code, Page, continue_to};
use cloakroom_fuzz::lines;
use http::{HeaderMap, StatusCode};
use libfuzzer_sys::fuzz_target;

const CODES: [Code; 4] = [Code::SessionMissing, Code::BadRequest, Code::StoreUnavailable, Code::LoginFailed];
/// Stands in the places for texts; letters only, so that no escaping changes it.
const MARK: &str = "MARKMARKMARK";

/// The pages with marks in the places of the texts, cut at them: what must stand there whatever the texts are.
static PAGE: LazyLock<Vec<String>> = LazyLock::new(|| cut(&page(&[MARK; 7])));
static CONTINUE: LazyLock<Vec<String>> = LazyLock::new(|| cut(&html(continue_to(MARK)).0));

fuzz_target!(|input: &[u8]| {
    let mut texts: Vec<String> = lines(input, 7).map(|line| String::from_utf8_lossy(line).into_owned()).collect();
    texts.resize(7, String::new());
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    // In the order of the page: title, heading, text, form, link.
    let [heading, text, action, label, token, href, link] = texts[..] else { unreachable!() };
    is_made_of(&page(&texts), &PAGE, &[heading, heading, text, action, token, label, href, link]);
    is_made_of(&html(continue_to(href)).0, &CONTINUE, &[href, href]);
    let code = CODES[input.len() % CODES.len()];
    a_problem(code, heading, href);
    a_redirect(href);
});

fn page(texts: &[&str]) -> String {
    let [heading, text, action, label, token, href, link] = *texts else { unreachable!() };
    let page = Page { heading, text, link: Some((href, link)), form: Some((action, label, token)), code: None };
    html(page.answer()).0
}

/// The document with its nonce replaced, and the header.
fn html(answer: Answer) -> (String, HeaderMap) {
    let response = answer.into_response();
    let headers = response.headers().clone();
    assert_eq!(headers["content-type"], "text/html; charset=utf-8");
    assert_eq!(headers["cache-control"], "no-store");
    let policy = headers["content-security-policy"].to_str().expect("a text");
    let nonce = policy.split("'nonce-").nth(1).and_then(|rest| rest.split('\'').next()).expect("a nonce");
    let text = String::from_utf8(response.body().to_vec()).expect("UTF-8");
    (text.replace(&format!("nonce=\"{nonce}\""), "nonce=\"\""), headers.clone())
}

fn cut(page: &str) -> Vec<String> {
    page.split(MARK).map(str::to_owned).collect()
}

/// The page is its fixed parts with these texts in between, each escaped.
fn is_made_of(page: &str, fixed: &[String], texts: &[&str]) {
    assert_eq!(fixed.len(), texts.len() + 1);
    let mut rest = page.strip_prefix(&*fixed[0]).expect("the page begins as always");
    for (text, fixed) in texts.iter().zip(&fixed[1..]) {
        // A fixed part begins with a sign that no escaped text has, so the first one is the right one.
        assert!(fixed.starts_with(['<', '"']), "{fixed:?}");
        let at = rest.find(&**fixed).unwrap_or_else(|| panic!("{fixed:?} is not in {rest:?}"));
        let (escaped, behind) = rest.split_at(at);
        assert!(!escaped.contains(['<', '>', '"', '\'']), "{escaped:?}");
        assert_eq!(unescaped(escaped), *text);
        rest = &behind[fixed.len()..];
    }
    assert_eq!(rest, "");
}

/// The text that a browser sees.
fn unescaped(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, behind)) = rest.split_once('&') {
        let (name, behind) = behind.split_once(';').expect("a reference ends");
        out.push_str(before);
        out.push(match name {
            "lt" => '<',
            "gt" => '>',
            "amp" => '&',
            "quot" => '"',
            "apos" => '\'',
            _ => {
                let number = name.strip_prefix('#').expect("a reference by name or number");
                let code = match number.strip_prefix(['x', 'X']) {
                    Some(digits) => u32::from_str_radix(digits, 16),
                    None => number.parse(),
                };
                code.ok().and_then(char::from_u32).expect("a character")
            }
        });
        rest = behind;
    }
    out + rest
}

fn a_problem(code: Code, detail: &str, login_url: &str) {
    let response = Answer::problem(code, Some(detail), Some(login_url)).into_response();
    assert_eq!(response.headers()["content-type"], "application/problem+json");
    assert_eq!(response.headers()["x-content-type-options"], "nosniff");
    let body: serde_json::Value = serde_json::from_slice(response.body()).expect("JSON");
    assert_eq!(body.as_object().map(serde_json::Map::len), Some(6));
    assert_eq!((body["detail"].as_str(), body["login_url"].as_str()), (Some(detail), Some(login_url)));
    assert_eq!(
        (body["status"].as_u64(), body["code"].as_str()),
        (Some(code.status().as_u16().into()), Some(code.as_str()))
    );
    let grpc = Answer::problem(code, Some(detail), Some(login_url)).for_grpc("application/grpc").into_response();
    assert!(grpc.status() == StatusCode::OK && grpc.body().is_empty());
    assert!(grpc.headers().iter().all(|(name, value)| name != "location" && value.as_bytes().is_ascii()));
}

fn a_redirect(location: &str) {
    let Some(answer) = Answer::redirect(location) else { return };
    let response = answer.into_response();
    let value = response.headers()["location"].as_bytes();
    assert_eq!(value, location.as_bytes());
    assert!(!value.iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0)));
}
