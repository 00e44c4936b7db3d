//! Options of oauth2-proxy that nothing was made of, and what to do about them.

use super::draft::Draft;
use super::source::Source;

/// Options that need no counterpart: what they ask for is so in any case, or is nobody's business here.
const NEEDLESS: [&str; 32] = [
    "api_routes",
    "approval_prompt",
    "code_challenge_method",
    "cookie_csrf_expire",
    "cookie_csrf_per_request",
    "cookie_csrf_per_request_limit",
    "cookie_httponly",
    "cookie_path",
    "cookie_refresh",
    "cookie_secret",
    "cookie_secret_file",
    "disable_keep_alives",
    "encode_state",
    "errors_to_info_log",
    "flush_interval",
    "force_json_errors",
    "insecure_oidc_skip_nonce",
    "pass_user_headers",
    "prefer_email_to_user",
    "provider_display_name",
    "proxy_websockets",
    "ping_path",
    "ready_path",
    "request_logging",
    "scope",
    "session_cookie_minimal",
    "show_debug_on_error",
    "silence_ping_logging",
    "skip_auth_strip_headers",
    "skip_provider_button",
    "standard_logging",
    "auth_logging",
];

/// Options that have a counterpart which only the operator can choose.
const ADVICE: [(&str, &str); 23] = [
    ("htpasswd_file", "there is no login by password file: move these users to the provider"),
    ("display_htpasswd_form", "there is no login by password file"),
    ("basic_auth_password", "there is no Basic authentication towards upstreams: let them read the token"),
    ("pass_basic_auth", "there is no Basic authentication towards upstreams: let them read the token"),
    ("set_basic_auth", "there is no Basic authentication towards upstreams: let them read the token"),
    ("banner", "there is no sign-in page: the browser goes to the provider at once"),
    ("footer", "there is no sign-in page: the browser goes to the provider at once"),
    ("custom_sign_in_logo", "there is no sign-in page: the browser goes to the provider at once"),
    ("custom_templates_dir", "there is no sign-in page: the browser goes to the provider at once"),
    (
        "cookie_domains",
        "the cookie is good for one host alone: several hosts need a login each, silent at the provider",
    ),
    ("cookie_samesite", "the cookie is `SameSite=Strict`; see `session.cookie.same_site` before you change it"),
    ("whitelist_domains", "`return_to` leads to paths of the same site only"),
    (
        "skip_jwt_bearer_tokens",
        "write `accept: [session, bearer]` on routes and `sites[].bearer`; see docs/how-to/bearer-clients.md",
    ),
    (
        "extra_jwt_issuers",
        "write these issuers as `providers`, and `sites[].bearer`; see docs/how-to/bearer-clients.md",
    ),
    (
        "skip_auth_preflight",
        "a preflight passes on routes with `cors`, and goes to the upstream without a session elsewhere",
    ),
    (
        "set_xauthrequest",
        "for a proxy in front that asks: a listener with `forward_auth`; see docs/how-to/forward-auth.md",
    ),
    (
        "set_authorization_header",
        "for a proxy in front that asks: a listener with `forward_auth`; see docs/how-to/forward-auth.md",
    ),
    ("ssl_insecure_skip_verify", "certificates are always verified: give your authority in `providers[].ca`"),
    (
        "ssl_upstream_insecure_skip_verify",
        "certificates are always verified: give your authority in `upstreams[].tls.ca`",
    ),
    ("provider_ca_files", "write the file as `providers[].ca`"),
    ("skip_oidc_discovery", "the provider's metadata is always read from its `/.well-known/openid-configuration`"),
    (
        "insecure_oidc_skip_issuer_verification",
        "the issuer is always compared: write it exactly as the provider states it",
    ),
    ("signature_key", "requests to upstreams are not signed: let them read a token, see docs/how-to/proxy-token.md"),
];

/// Notes what nobody asked for.
pub(super) fn leave(draft: &mut Draft, source: Source) {
    for (option, value) in source.rest() {
        if NEEDLESS.contains(&option.as_str()) || value == false {
            continue;
        }
        match ADVICE.iter().find(|(name, _)| *name == option) {
            Some((_, advice)) => draft.leave(format!("`{option}`: {advice}")),
            // Its value may be a secret.
            None => draft.leave(format!("`{option}` has no counterpart that this command knows")),
        }
    }
}
