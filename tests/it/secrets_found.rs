//! Searches texts for secrets in every form they could take.

use cloakroom::demo::provider::{Endpoint, Issued, canary_traces};

use crate::harness::World;

/// What is searched for: each secret under the name of its kind.
#[derive(Default)]
pub(crate) struct Secrets(Vec<(&'static str, Vec<String>)>);

impl Secrets {
    /// A secret as it is, inside base64 and base64url at each alignment, as hexadecimal digits, and in a URL.
    pub(crate) fn add(&mut self, kind: &'static str, secret: &str) {
        assert!(secret.len() >= 12, "{kind} is too short to be searched for");
        let mut forms = canary_traces(secret);
        let hex: String = secret.bytes().map(|byte| format!("{byte:02x}")).collect();
        forms.extend([hex.to_uppercase(), hex, url::form_urlencoded::byte_serialize(secret.as_bytes()).collect()]);
        self.0.push((kind, forms));
    }

    /// Tokens as a whole and by their last part, which alone would be enough to know them again.
    pub(crate) fn add_tokens(&mut self, issued: &Issued) {
        let tokens = [("access token", Some(&issued.access_token)), ("ID token", issued.id_token.as_ref())];
        for (kind, token) in tokens.into_iter().chain([("refresh token", issued.refresh_token.as_ref())]) {
            let Some(token) = token else { continue };
            self.add(kind, token);
            self.add(kind, token.rsplit('.').next().expect("a last part"));
        }
    }

    /// All that the provider was shown and gave out.
    pub(crate) fn add_all_of(&mut self, world: &World) {
        let ledger = world.demo.provider.ledger();
        for issued in ledger.issued() {
            self.add_tokens(&issued);
        }
        for request in ledger.requests(Endpoint::Token) {
            for (kind, name) in [("code", "code"), ("verifier", "code_verifier")] {
                if let Some(value) = request.parameter(name) {
                    self.add(kind, value);
                }
            }
            if let Some(credentials) = request.header("authorization") {
                self.add("client secret", credentials.trim_start_matches("Basic "));
            }
        }
        for request in ledger.requests(Endpoint::Authorize) {
            for (kind, name) in [("state", "state"), ("nonce", "nonce")] {
                if let Some(value) = request.parameter(name) {
                    self.add(kind, value);
                }
            }
        }
    }

    /// Kinds of the secrets in a text.
    pub(crate) fn found_in(&self, text: &str) -> Vec<&'static str> {
        let found = self.0.iter().filter(|(_, forms)| forms.iter().any(|form| text.contains(form.as_str())));
        let mut kinds: Vec<_> = found.map(|(kind, _)| *kind).collect();
        kinds.sort_unstable();
        kinds.dedup();
        kinds
    }

    /// The text holds none but those `allowed`.
    pub(crate) fn assert_none_in(&self, place: &str, text: &str, allowed: &[&str]) {
        let found: Vec<_> = self.found_in(text).into_iter().filter(|kind| !allowed.contains(kind)).collect();
        if !found.is_empty() {
            let guilty = text.lines().find(|line| self.found_in(line).iter().any(|kind| found.contains(kind)));
            panic!("{place} shows {found:?}: {}", guilty.unwrap_or("over several lines"));
        }
    }
}
