//! The pages people see at the provider: login, errors, logout. No script; everything foreign is escaped.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use url::Url;

use super::config::User;
use super::state::{BASE_PATH, Shared};

const SKELETON: &str = include_str!("login.html");
const STYLE: &str = include_str!("login.css");

/// `GET /oauth/login.css`
pub(super) async fn style() -> Response {
    ([(header::CONTENT_TYPE, "text/css; charset=utf-8")], STYLE).into_response()
}

/// The login page: a button for each user, and one to cancel. It posts to its own address.
pub(super) fn login(shared: &Shared, query: &str, redirect_uri: &str, hint: Option<&str>) -> Response {
    let action = escaped(&format!("{BASE_PATH}/authorize?{query}"));
    let target = Url::parse(redirect_uri).map(|uri| uri.origin().ascii_serialization()).unwrap_or_default();
    let hinted = |user: &User| hint.is_some_and(|hint| hint == user.login || hint == user.email);
    let nobody_hinted = !shared.config.users.iter().any(hinted);
    let buttons: String = shared
        .config
        .users
        .iter()
        .enumerate()
        .map(|(index, user)| user_button(user, hinted(user) || (nobody_hinted && index == 0)))
        .collect();
    let content = format!(
        r#"<h1>Who are you?</h1>
<p class="lead">Log in to continue to <strong>{target}</strong>.</p>
<form method="post" action="{action}">
<ul class="people">{buttons}</ul>
<button class="quiet" type="submit">Cancel</button>
</form>
<p class="note">This provider is part of the demo. There are no passwords: one click logs you in.</p>"#,
        target = escaped(&target),
    );
    // Browsers apply form-action to the redirect that follows a form as well, so the way back is named.
    page(StatusCode::OK, "Log in", &content, &target)
}

/// A form that takes the answer of a login back to the client (OAuth 2.0 Form Post Response Mode).
pub(super) fn send_back(redirect_uri: &str, pairs: &[(&str, &str)]) -> Response {
    let target = Url::parse(redirect_uri).map(|uri| uri.origin().ascii_serialization()).unwrap_or_default();
    let field = |(name, value): &(&str, &str)| {
        format!(r#"<input type="hidden" name="{}" value="{}">"#, escaped(name), escaped(value))
    };
    let fields: String = pairs.iter().map(field).collect();
    let content = format!(
        r#"<h1>Logged in</h1>
<form method="post" action="{action}">{fields}<button type="submit">Continue</button></form>"#,
        action = escaped(redirect_uri),
    );
    page(StatusCode::OK, "Continue", &content, &target)
}

fn user_button(user: &User, focus: bool) -> String {
    let roles: String =
        user.roles.iter().map(|role| format!("<span class=\"role\">{}</span>", escaped(role))).collect();
    format!(
        r#"<li><button class="person" type="submit" name="login" value="{login}"{focus}>
<span class="face" aria-hidden="true">{initial}</span>
<span class="who"><span class="name">{name}</span><span class="mail">{email}</span></span>
<span class="roles">{roles}</span></button></li>"#,
        login = escaped(&user.login),
        focus = if focus { " autofocus" } else { "" },
        initial = escaped(&user.name.chars().take(1).collect::<String>()),
        name = escaped(&user.name),
        email = escaped(&user.email),
    )
}

/// A request that cannot be sent back to its client.
pub(super) fn problem(status: StatusCode, sentence: &str) -> Response {
    let content = format!("<h1>This cannot work</h1><p class=\"lead\">{}</p>", escaped(sentence));
    page(status, "Error", &content, "")
}

/// The question before a logout that nobody vouches for.
pub(super) fn confirm_logout(login: &str) -> Response {
    let content = format!(
        r#"<h1>Log out?</h1><p class="lead">You are logged in as <strong>{login}</strong>.</p>
<form method="post" action="{BASE_PATH}/end-session"><button class="loud" type="submit">Log out</button></form>"#,
        login = escaped(login),
    );
    page(StatusCode::OK, "Log out", &content, "")
}

/// The end of a logout that leads nowhere else.
pub(super) fn logged_out() -> Response {
    page(StatusCode::OK, "Logged out", "<h1>You are logged out</h1><p class=\"lead\">You can close this tab.</p>", "")
}

fn page(status: StatusCode, title: &str, content: &str, form_target: &str) -> Response {
    let policy = format!(
        "default-src 'none'; style-src 'self'; img-src data:; base-uri 'none'; frame-ancestors 'none'; \
         form-action 'self' {form_target}"
    );
    let body = SKELETON.replacen("{title}", title, 1).replacen("{content}", content, 1);
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8")),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (
            header::CONTENT_SECURITY_POLICY,
            HeaderValue::from_str(policy.trim()).unwrap_or(HeaderValue::from_static("default-src 'none'")),
        ),
    ];
    (status, headers, body).into_response()
}

/// Text for element content and for quoted attributes.
fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            other => safe.push(other),
        }
    }
    safe
}
