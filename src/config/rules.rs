//! Rules for values that `check` applies and that the rooms which use the values rely on. They stand in one place, so
//! that settings called good always start.

pub mod postgres;

use std::time::Duration;

use percent_encoding::percent_decode_str;
use url::{Host, Url};

/// What the login itself puts into an authorization request; `authorization_params` may not.
pub const RESERVED_PARAMETERS: [&str; 13] = [
    "client_id",
    "client_secret",
    "code_challenge",
    "code_challenge_method",
    "nonce",
    "redirect_uri",
    "registration",
    "request",
    "request_uri",
    "response_mode",
    "response_type",
    "scope",
    "state",
];

/// `max_age` of an authorization request (Core §3.1.2.1): whole seconds, at most 4294967295; `None` for anything else.
#[must_use]
pub fn max_age(text: &str) -> Option<Duration> {
    let seconds: u32 = text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten()?;
    Some(Duration::from_secs(seconds.into()))
}

/// `http` on this very machine, where no wire is to be listened on. Names below `localhost` are not among it: which
/// machine they mean is up to the resolver.
#[must_use]
pub fn is_loopback_http(url: &Url) -> bool {
    url.scheme() == "http"
        && match url.host() {
            Some(Host::Domain(name)) => name == "localhost",
            Some(Host::Ipv4(ip)) => ip.is_loopback(),
            Some(Host::Ipv6(ip)) => ip.is_loopback(),
            None => false,
        }
}

/// What is wrong with the URL of a Redis. Never shows any of it: there may be a password in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RedisUrlError {
    /// No URL at all.
    #[error("this is no URL")]
    Syntax,
    /// The scheme decides how to connect.
    #[error("this is no Redis URL: it begins neither with `redis://` nor, for TLS, with `rediss://`")]
    Scheme,
    /// `redis:///0` and the like.
    #[error("this Redis URL names no host")]
    NoHost,
    /// Nothing listens there.
    #[error("port 0 of this Redis URL is no port")]
    Port,
    /// The path is the number of the database.
    #[error("the path of this Redis URL is not the number of a database (0 to 255)")]
    Database,
    /// Escapes that make no text.
    #[error("user or password of this Redis URL are no UTF-8 text")]
    Credentials,
    /// They would go unheeded.
    #[error("parameters of a Redis URL (`?` or `#` and what follows) mean nothing here")]
    Parameters,
}

/// Reads `redis[s]://[[user:]password@]host[:port][/database]`.
///
/// # Errors
/// [`RedisUrlError`]
pub fn redis_url(text: &str) -> Result<Url, RedisUrlError> {
    let url = Url::parse(text).map_err(|_| RedisUrlError::Syntax)?;
    if !matches!(url.scheme(), "redis" | "rediss") {
        return Err(RedisUrlError::Scheme);
    }
    if url.host_str().is_none_or(str::is_empty) {
        return Err(RedisUrlError::NoHost);
    }
    if url.port() == Some(0) {
        return Err(RedisUrlError::Port);
    }
    let database = url.path().strip_prefix('/').unwrap_or_default();
    if !database.is_empty() && database.parse::<u8>().is_err() {
        return Err(RedisUrlError::Database);
    }
    let is_text = |part: &str| percent_decode_str(part).decode_utf8().is_ok();
    if !is_text(url.username()) || !url.password().is_none_or(is_text) {
        return Err(RedisUrlError::Credentials);
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(RedisUrlError::Parameters);
    }
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_whole_seconds_within_reason() {
        assert_eq!(max_age("0"), Some(Duration::ZERO));
        assert_eq!(max_age("4294967295"), Some(Duration::from_secs(u32::MAX.into())));
        for text in ["", "+5", "-1", "1.5", "5m", " 5", "4294967296", "18446744073709551615"] {
            assert_eq!(max_age(text), None, "{text:?}");
        }
    }

    #[test]
    fn d3_mistakes_in_a_redis_url_are_named_without_the_password() {
        for (text, expected) in [
            ("hunter2", RedisUrlError::Syntax),
            ("redis://:hunter2@cache:port", RedisUrlError::Syntax),
            ("hunter2://cache", RedisUrlError::Scheme),
            ("http://:hunter2@cache", RedisUrlError::Scheme),
            ("redis-cluster://:hunter2@cache", RedisUrlError::Scheme),
            ("redis:///1", RedisUrlError::NoHost),
            ("redis://:hunter2@cache:0", RedisUrlError::Port),
            ("redis://:hunter2@cache/sessions", RedisUrlError::Database),
            ("redis://:hunter2@cache/256", RedisUrlError::Database),
            ("redis://:hunter2@cache//3", RedisUrlError::Database),
            ("redis://:hunter2%ff@cache", RedisUrlError::Credentials),
            ("redis://:hunter2@cache?db=3", RedisUrlError::Parameters),
        ] {
            let error = redis_url(text).unwrap_err();
            assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
            assert_eq!(error, expected, "{text}");
        }
    }
}
