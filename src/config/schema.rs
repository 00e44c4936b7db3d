//! Every key this version knows. What is not here is a mistake, and what is here is in `docs/reference/settings.md`
//! (a test compares the two).

/// The keys of one mapping.
#[derive(Debug)]
pub struct Section {
    /// Where it lies; `[]` stands for the items of a list, the root is empty.
    pub path: &'static str,
    /// Its keys, in the order of the documentation.
    pub keys: &'static [&'static str],
}

macro_rules! sections {
    ($($name:ident $path:literal: $($key:literal)*;)*) => {
        $(pub(super) const $name: Section = Section { path: $path, keys: &[$($key),*] };)*

        /// All of them.
        pub const ALL: &[Section] = &[$($name),*];
    };
}

sections! {
    ROOT "": "listeners" "threads" "trusted_proxies" "limits" "admin" "keys" "proxy_token" "store" "session" "refresh" "providers" "upstreams" "idle_connections" "sites" "shutdown" "telemetry";
    LISTENER "listeners[]": "address" "tls" "redirect_to_https" "proxy_protocol" "forward_auth";
    TLS "listeners[].tls": "certificates" "min_version" "client_ca" "client_certificate";
    CERTIFICATE "listeners[].tls.certificates[]": "certificate" "key";
    LIMITS "limits": "header_timeout" "handshake_timeout" "keepalive_timeout" "body_timeout" "body_rate" "write_timeout" "header_size" "header_fields" "uri_length" "requests_per_connection" "connections" "connections_per_address" "memory" "http2";
    HTTP2 "limits.http2": "streams" "header_list" "window" "idle";
    ADMIN "admin": "address" "token";
    KEY "keys[]": "id" "secret";
    PROXY_TOKEN "proxy_token": "issuer" "audience" "lifetime" "keys";
    PROXY_KEY "proxy_token.keys[]": "id" "secret";
    STORE "store": "kind" "url" "prefix" "schema" "command_timeout" "ca" "connections" "path";
    SESSION "session": "idle_timeout" "absolute_timeout" "returning_timeout" "returning_tokens" "rotate_every" "rotation_grace" "cookie" "csrf" "cache";
    COOKIE "session.cookie": "name" "same_site" "secure";
    CSRF "session.csrf": "cookie" "header" "mode";
    CACHE "session.cache": "ttl" "capacity" "memory";
    REFRESH "refresh": "ahead" "minimum_lifetime" "active_within" "concurrency" "per_second";
    PROVIDER "providers[]": "name" "title" "kind" "issuer" "client_id" "client_auth" "dpop" "ca" "pushed_authorization" "response_mode" "login_parameters" "userinfo" "scopes" "refresh_token_grace" "revoke_access_tokens" "backchannel_logout" "frontchannel_logout" "introspection" "authorization_params";
    BACKCHANNEL_LOGOUT "providers[].backchannel_logout": "scope" "require_exp";
    INTROSPECTION "providers[].introspection": "url" "cache" "jwts" "phantom" "phantom_claim";
    CLIENT_AUTH "providers[].client_auth": "method" "secret" "keys" "certificate" "key";
    CLIENT_KEY "providers[].client_auth.keys[]": "key" "id" "algorithm";
    DPOP "providers[].dpop": "key";
    CREDENTIALS "providers[] (credentials)": "name" "title" "kind" "login_url" "login_page" "account" "fields" "default_lifetime" "refresh" "refresh_token_grace" "logout_url" "limits";
    ANSWER_FIELDS "providers[].fields": "access_token" "refresh_token" "expires_in" "refresh_expires_in" "user" "subject";
    CREDENTIALS_REFRESH "providers[].refresh": "url" "send" "field" "refused";
    LOGIN_LIMITS "providers[].limits": "account" "address" "per";
    UPSTREAM "upstreams[]": "name" "endpoints" "balance" "hash_on" "hash_header" "protocol" "tls" "health_check" "ejection" "max_requests" "timeouts" "retries";
    ENDPOINT "upstreams[].endpoints[]": "address" "weight";
    UPSTREAM_TLS "upstreams[].tls": "ca" "server_name" "client_certificate";
    CLIENT_CERTIFICATE "upstreams[].tls.client_certificate": "certificate" "key";
    HEALTH_CHECK "upstreams[].health_check": "path" "interval" "timeout" "healthy_after" "unhealthy_after" "expect";
    EJECTION "upstreams[].ejection": "after" "on_5xx" "pause" "longest_pause";
    TIMEOUTS "upstreams[].timeouts": "connect" "read" "write" "idle";
    RETRIES "upstreams[].retries": "attempts" "budget";
    SITE "sites[]": "hosts" "provider" "providers" "auth_path" "aliases" "user_context" "origins" "bearer" "security_headers" "routes";
    BEARER "sites[].bearer": "audiences" "types";
    SECURITY_HEADERS "sites[].security_headers": "hsts" "hsts_subdomains" "nosniff" "referrer_policy" "frame_ancestors";
    ALIASES "sites[].aliases": "login" "logout" "userinfo";
    USER_CONTEXT "sites[].user_context": "claims";
    ROUTE "sites[].routes[]": "path" "when" "upstream" "redirect" "respond" "files" "strip_prefix" "replace_prefix" "host" "access" "accept" "scopes" "level" "level_header" "allow" "provider" "on_missing" "token" "identity_headers" "context" "request_headers" "response_headers" "cors" "compress" "max_body" "csrf" "retry_unauthorized" "step_up" "timeouts" "rate_limits";
    ALLOW "sites[].routes[].allow[]": "name" "claim" "any_of" "all_of" "equals" "matches";
    ROUTE_TIMEOUTS "sites[].routes[].timeouts": "connect" "read" "write" "request";
    RATE_LIMIT "sites[].routes[].rate_limits[]": "by" "requests" "per";
    WHEN "sites[].routes[].when": "hosts" "methods" "headers";
    REDIRECT "sites[].routes[].redirect": "to" "status" "path";
    RESPOND "sites[].routes[].respond": "status" "body" "content_type";
    FILES "sites[].routes[].files": "root" "fallback" "precompressed" "fingerprinted" "max_age";
    TOKEN "sites[].routes[].token": "kind" "audience" "resource" "scope" "provider";
    REQUEST_HEADERS "sites[].routes[].request_headers": "set" "add" "remove";
    RESPONSE_HEADERS "sites[].routes[].response_headers": "set" "add" "remove";
    CORS "sites[].routes[].cors": "origins" "methods" "headers" "expose" "max_age" "credentials";
    SHUTDOWN "shutdown": "lame_duck" "grace" "upgrade_socket";
    TELEMETRY "telemetry": "access_log" "traces";
    ACCESS_LOG "telemetry.access_log": "enabled" "omit";
    TRACES "telemetry.traces": "endpoint" "sample" "trust" "service_name";
    SECRET "(secret)": "env" "file";
}

/// Where a key is known, if there is exactly one such place: for a key that stands one level too high or too low.
pub(super) fn home_of(key: &str) -> Option<String> {
    let mut homes = ALL.iter().filter(|section| section.keys.contains(&key));
    match (homes.next(), homes.next()) {
        (Some(Section { path: "", .. }), None) => Some("the top level".to_owned()),
        (Some(home), None) => Some(format!("`{}`", home.path)),
        _ => None,
    }
}
