//! What protects a site's answers in the browser, ready made.

use http::header::{
    CONTENT_SECURITY_POLICY, HeaderName, HeaderValue, REFERRER_POLICY, STRICT_TRANSPORT_SECURITY,
    X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};

use crate::config::settings::{self, Frames};

/// What protects a site's answers in the browser. An answer that speaks of a matter itself keeps its own word.
#[derive(Debug)]
pub struct SecurityHeaders {
    /// `Strict-Transport-Security`, for answers over TLS: in the clear a browser has to ignore it (RFC 6797 §7.2).
    pub hsts: Option<HeaderValue>,
    /// `X-Content-Type-Options`.
    pub nosniff: Option<HeaderValue>,
    /// `Referrer-Policy`.
    pub referrer_policy: Option<HeaderValue>,
    /// Who may show a page in a frame; an answer has its own word on it in either of two fields.
    pub frames: Option<(HeaderName, HeaderValue)>,
}

impl SecurityHeaders {
    /// Writes the values out.
    #[must_use]
    pub fn new(settings: &settings::SecurityHeaders) -> Self {
        let subdomains = if settings.hsts_subdomains { "; includeSubDomains" } else { "" };
        let hsts = format!("max-age={}{subdomains}", settings.hsts.as_secs());
        Self {
            hsts: HeaderValue::from_str(&hsts).ok().filter(|_| !settings.hsts.is_zero()),
            nosniff: settings.nosniff.then_some(HeaderValue::from_static("nosniff")),
            referrer_policy: settings.referrer_policy.clone(),
            frames: match &settings.frames {
                Frames::Any => None,
                Frames::Nobody => Some((X_FRAME_OPTIONS, HeaderValue::from_static("DENY"))),
                Frames::SameOrigin => Some((X_FRAME_OPTIONS, HeaderValue::from_static("SAMEORIGIN"))),
                Frames::Policy(policy) => Some((CONTENT_SECURITY_POLICY, policy.clone())),
            },
        }
    }

    /// The fields that one answer may lack, each with its name, but for the one on frames.
    pub fn plain(&self, tls: bool) -> impl Iterator<Item = (HeaderName, &HeaderValue)> {
        let hsts = self.hsts.as_ref().filter(|_| tls).map(|value| (STRICT_TRANSPORT_SECURITY, value));
        let nosniff = self.nosniff.as_ref().map(|value| (X_CONTENT_TYPE_OPTIONS, value));
        let referrer = self.referrer_policy.as_ref().map(|value| (REFERRER_POLICY, value));
        [hsts, nosniff, referrer].into_iter().flatten()
    }
}
