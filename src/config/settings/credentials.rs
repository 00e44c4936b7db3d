//! A backend that logs users in with what they type into a form of the app.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use url::Url;

use super::ClaimPath;
use crate::primitives::path::PathPrefix;

/// A backend with a login of its own, which speaks JSON.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// Name that sites refer to.
    pub name: Arc<str>,
    /// What users are told that it is, where they choose; default the name.
    pub title: Arc<str>,
    /// Where the form is posted to, as it came. `http` or `https`.
    pub login_url: Url,
    /// Page of the app with the form: a path of the site that needs no session. `None` = navigations without a session get
    /// an error page.
    pub login_page: Option<PathPrefix>,
    /// Where in the form the name of the account stands; default `username`.
    pub account: ClaimPath,
    /// Where in the backend's answers the tokens stand, and what belongs to them.
    pub fields: AnswerFields,
    /// How long an access token is used of which nobody says how long it lives; default 5 min.
    pub default_lifetime: Duration,
    /// How new tokens are got; `None` = a session ends with its access token.
    pub refresh: Option<CredentialsRefresh>,
    /// How long the backend still answers to a refresh token that it has exchanged already; default 0: never.
    pub refresh_token_grace: Duration,
    /// Told of the refresh token when a session ends, in the way of `refresh`; `None` = nobody.
    pub logout_url: Option<Url>,
    /// How often logins may be tried.
    pub limits: LoginLimits,
}

/// Dotted paths into the backend's JSON answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AnswerFields {
    /// Default `accessToken`.
    pub access_token: ClaimPath,
    /// Default `refreshToken`.
    pub refresh_token: ClaimPath,
    /// Life of the access token in seconds; default `accessTokenExpiresIn`.
    pub expires_in: ClaimPath,
    /// Life of the refresh token in seconds; default `refreshTokenExpiresIn`.
    pub refresh_expires_in: ClaimPath,
    /// What is known of the user, an object; default `user`.
    pub user: ClaimPath,
    /// What names the user for good; default `user.id`.
    pub subject: ClaimPath,
}

impl Default for AnswerFields {
    fn default() -> Self {
        let path = |names: &[&str]| ClaimPath(names.iter().copied().map(str::to_owned).collect());
        Self {
            access_token: path(&["accessToken"]),
            refresh_token: path(&["refreshToken"]),
            expires_in: path(&["accessTokenExpiresIn"]),
            refresh_expires_in: path(&["refreshTokenExpiresIn"]),
            user: path(&["user"]),
            subject: path(&["user", "id"]),
        }
    }
}

/// How new tokens are got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CredentialsRefresh {
    /// Where, by POST. `http` or `https`.
    pub url: Url,
    /// How the refresh token is sent; default in the body, as `refreshToken`.
    pub send: SendToken,
    /// Answers that say that the refresh token is worth nothing; default 401.
    pub refused: Vec<StatusCode>,
}

/// How a refresh token is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SendToken {
    /// In a JSON object, under this name.
    Body(String),
    /// As `Authorization: Bearer`, with an empty body.
    Header,
}

/// How often logins may be tried, good ones counted too; more get 429.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoginLimits {
    /// For one account; default 10, 1 to 1,000,000.
    pub account: u32,
    /// From one client address, or one IPv6 /64; default 100, 1 to 1,000,000.
    pub address: u32,
    /// In any time of this length; default 5 min, 1 s to 1 d.
    pub per: Duration,
}

impl Default for LoginLimits {
    fn default() -> Self {
        Self { account: 10, address: 100, per: Duration::from_secs(300) }
    }
}
