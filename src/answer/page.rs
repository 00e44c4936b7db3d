//! The pages that a user may meet. They carry no data but what is passed here, and every value is escaped.

use askama::Template;
use http::StatusCode;
use http::header::{CONTENT_SECURITY_POLICY, HeaderValue, REFERRER_POLICY, X_FRAME_OPTIONS};

use super::{Answer, Code};
use crate::primitives::random;

/// A small page with a heading, a sentence and at most one thing to do.
#[derive(Clone, Debug, Default)]
pub struct Page<'a> {
    /// Heading and title.
    pub heading: &'a str,
    /// What happened, in a sentence or two.
    pub text: &'a str,
    /// A link onwards: address and label.
    pub link: Option<(&'a str, &'a str)>,
    /// A button that posts to an address with a CSRF token: address, label, token.
    pub form: Option<(&'a str, &'a str, &'a str)>,
    /// The [`Code`] in small print.
    pub code: Option<Code>,
}

/// A page with several ways onwards.
#[derive(Clone, Debug)]
pub struct Choice<'a> {
    /// Heading and title.
    pub heading: &'a str,
    /// What is to be chosen, in a sentence.
    pub text: &'a str,
    /// The ways: address and label.
    pub links: Vec<(String, String)>,
}

#[derive(Template)]
#[template(path = "choice.html")]
struct ChoiceTemplate<'a> {
    choice: &'a Choice<'a>,
    nonce: &'a str,
}

impl Choice<'_> {
    /// The page as an answer.
    #[must_use]
    pub fn answer(&self) -> Answer {
        html(StatusCode::OK, |nonce| ChoiceTemplate { choice: self, nonce }.render())
    }
}

#[derive(Template)]
#[template(path = "page.html")]
struct PageTemplate<'a> {
    page: &'a Page<'a>,
    nonce: &'a str,
    code: &'a str,
}

#[derive(Template)]
#[template(path = "continue.html")]
struct ContinueTemplate<'a> {
    target: &'a str,
    nonce: &'a str,
}

impl Page<'_> {
    /// The page as an answer; with a [`Code`], under its status.
    #[must_use]
    pub fn answer(&self) -> Answer {
        let status = self.code.map_or(StatusCode::OK, Code::status);
        let code = self.code.map_or("", Code::as_str);
        let mut answer = html(status, |nonce| PageTemplate { page: self, nonce, code }.render());
        if self.form.is_some() {
            // Under `no-referrer` a browser sends a form with `Origin: null`, which no CSRF check can accept.
            answer = answer.header(REFERRER_POLICY, HeaderValue::from_static("same-origin"));
        }
        match self.code {
            Some(code) => answer.error_headers(code),
            None => answer,
        }
    }
}

/// A page that goes on at once. To a path of this site the browser then sends `SameSite=Strict` cookies, which it holds
/// back on a redirect that began at another site (behaviour L15). To another site it leads out of a form, whose page's
/// `form-action` some browsers apply to redirects as well.
#[must_use]
pub fn continue_to(target: &str) -> Answer {
    html(StatusCode::OK, |nonce| ContinueTemplate { target, nonce }.render())
}

/// Renders under a content security policy that lets only this page's own style and script run.
fn html(status: StatusCode, render: impl FnOnce(&str) -> askama::Result<String>) -> Answer {
    let rendered = random::bytes::<16>().map(|bytes| random::base64url(&bytes)).ok().and_then(|nonce| {
        let body = render(&nonce).ok()?;
        let policy = format!(
            "default-src 'none'; style-src 'nonce-{nonce}'; script-src 'nonce-{nonce}'; form-action 'self'; \
             base-uri 'none'; frame-ancestors 'none'"
        );
        Some((body, HeaderValue::from_str(&policy).ok()?))
    });
    let Some((body, policy)) = rendered else {
        // Without randomness there is no nonce; plain text needs none.
        return Answer::new(StatusCode::INTERNAL_SERVER_ERROR, Some("text/plain"), Code::Internal.title())
            .error_headers(Code::Internal);
    };
    Answer::new(status, Some("text/html; charset=utf-8"), body)
        .header(CONTENT_SECURITY_POLICY, policy)
        .header(X_FRAME_OPTIONS, HeaderValue::from_static("DENY"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(answer: Answer) -> String {
        String::from_utf8(answer.into_response().into_body().to_vec()).unwrap()
    }

    #[test]
    fn d4_everything_is_escaped() {
        let evil = "\"><script>alert(1)</script>";
        let page =
            Page { heading: evil, text: evil, link: Some((evil, evil)), form: Some((evil, evil, evil)), code: None };
        let html = body(page.answer());
        assert!(!html.contains("<script>alert"), "{html}");
        assert!(!body(continue_to(evil)).contains("<script>alert"));
        let choice = Choice { heading: evil, text: evil, links: vec![(evil.to_owned(), evil.to_owned())] };
        assert!(!body(choice.answer()).contains("<script>alert"));
    }

    #[test]
    fn c2_a_page_with_a_form_lets_the_browser_name_its_origin() {
        let policy = |form| {
            let page = Page { heading: "h", text: "t", link: None, form, code: None };
            page.answer().into_response().headers()["referrer-policy"].to_str().unwrap().to_owned()
        };
        assert_eq!(policy(Some(("/auth/logout", "Log out", "token"))), "same-origin");
        assert_eq!(policy(None), "no-referrer");
    }

    #[test]
    fn pages_forbid_frames_and_foreign_code() {
        let response = continue_to("/deep?x=1").into_response();
        let policy = response.headers()["content-security-policy"].to_str().unwrap().to_owned();
        assert!(policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'"));
        assert_eq!(response.headers()["cache-control"], "no-store");
        assert!(String::from_utf8_lossy(response.body()).contains("/deep?x=1"));
    }
}
