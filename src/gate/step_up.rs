//! An upstream wants its user to authenticate better than he has (RFC 9470; behaviour L16).

use std::time::Duration;

use http::HeaderMap;

use super::admit::Gate;
use super::{Pass, Request};
use crate::answer::{Answer, Code};
use crate::config::settings::{Level, LoginParameter, Token};
use crate::login::navigation::is_navigation;
use crate::oidc::step_up::StepUp;
use crate::session::open::Open;

/// A login that was finished so short a time ago is as fresh as any can be: whoever still finds it too old would send the
/// user round and round.
const JUST_NOW: Duration = Duration::from_secs(10);

/// What an upstream's refusal asks of the user's authentication, where the route heeds it.
#[must_use]
pub fn asks_to_step_up(answer: &HeaderMap, pass: &Pass) -> Option<StepUp> {
    let heeds = pass.route.step_up && pass.level == Level::LoggedOn && pass.route.token != Token::None;
    heeds.then(|| StepUp::of_challenge(answer)).flatten()
}

impl Gate {
    /// The way to a better login: a navigation is sent there, a script is told. `None` if the user has authenticated like
    /// that already, nobody can say, or his provider knows of one way to log in alone or may not be asked for another: then
    /// the upstream's own answer stands, for another login would change nothing.
    pub async fn step_up(&self, request: Request<'_>, pass: &Pass, open: &Open, asked: &StepUp) -> Option<Answer> {
        let (_, secrets) = self.sessions.read(open.key()).await.ok().flatten()?;
        if asked.check(&secrets.claims, self.sessions.clock().now(), JUST_NOW).is_ok() {
            return None;
        }
        let auth = self.auth.get(pass.site.index)?;
        let provider = auth.named(open.provider())?;
        let allowed = provider.oidc()?.login_parameters();
        let needed = [
            asked.acr_values.as_ref().map(|_| LoginParameter::AcrValues),
            asked.max_age.map(|_| LoginParameter::MaxAge),
        ];
        if !needed.iter().flatten().all(|name| allowed.contains(name)) {
            return None;
        }
        let navigation = is_navigation(request.method, request.headers);
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        if navigation {
            let target = request.uri.path_and_query().map_or("/", |target| target.as_str());
            query.append_pair("return_to", target);
        }
        if auth.providers.len() > 1 {
            query.append_pair("provider", provider.name());
        }
        if let Some(contexts) = &asked.acr_values {
            query.append_pair("acr_values", contexts);
        }
        if let Some(age) = asked.max_age {
            query.append_pair("max_age", &age.as_secs().to_string());
        }
        let login = format!("{}?{}", auth.login_url(), query.append_pair("step_up", "1").finish());
        self.count_unauthenticated(if navigation { "redirect" } else { "401" });
        if navigation {
            return Answer::redirect(&login);
        }
        let detail = "The service behind this address asks for a stronger or more recent login.";
        Some(Answer::problem(Code::StepUpRequired, Some(detail), Some(&login)))
    }
}
