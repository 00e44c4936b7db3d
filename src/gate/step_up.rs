//! An upstream wants its user to authenticate better than he has (RFC 9470; behaviour L16).

use std::time::Duration;

use http::HeaderMap;
use http::header::{HeaderValue, WWW_AUTHENTICATE};

use super::admit::Gate;
use super::answers::goes_to_login;
use super::{Pass, Request};
use crate::answer::{Answer, Code};
use crate::config::settings::{Level, LoginParameter, Token};
use crate::oidc::step_up::StepUp;
use crate::primitives::clock::Timestamp;
use crate::session::model::Secrets;
use crate::session::open::Open;

/// Who has authenticated so short a time ago has done it as lately as anybody can: whoever still finds it too long ago would
/// send the user round and round.
const JUST_NOW: Duration = Duration::from_secs(10);
/// The same from the end of a login that was begun for this very demand: a second factor or a page of the provider may have
/// come between the password and it, and the way back to the page after it.
const JUST_BACK: Duration = Duration::from_secs(30);

/// What an upstream's refusal asks of the user's authentication, where the route heeds it.
#[must_use]
pub fn asks_to_step_up(answer: &HeaderMap, pass: &Pass) -> Option<StepUp> {
    let heeds = pass.route.step_up && pass.level == Level::LoggedOn && pass.route.token != Token::None;
    heeds.then(|| StepUp::of_challenge(answer)).flatten()
}

impl Gate {
    /// The way to a better login: a navigation is sent there, a script is told, and so is an application that calls with a
    /// proxy token. `None` if the user has authenticated like that already, nobody can say, or his provider knows of one way
    /// to log in alone or may not be asked for another: then the upstream's own answer stands, for another login would change
    /// nothing.
    pub async fn step_up(&self, request: Request<'_>, pass: &Pass, open: &Open, asked: &StepUp) -> Option<Answer> {
        let (record, secrets) = self.sessions.read(open.key()).await.ok().flatten()?;
        if has_done(asked, &secrets, record.created, self.sessions.clock().now()) {
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
        let to_login = pass.by_cookie && goes_to_login(&request, pass.route.on_missing);
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        if to_login {
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
        self.count_unauthenticated(if to_login { "redirect" } else { "401" });
        if to_login {
            // A new ticket must not get lost on the way.
            return Answer::redirect(&login).map(|answer| answer.cookies(self.own_cookies(pass)));
        }
        let detail = "The service behind this address asks for a stronger or more recent login.";
        let answer = Answer::problem(Code::StepUpRequired, Some(detail), Some(&login));
        if pass.by_cookie {
            return Some(answer.cookies(self.own_cookies(pass)));
        }
        // What it calls us with is a token, so it is told as the service has told us.
        let challenge = HeaderValue::from_str(&asked.challenge()).ok();
        Some(challenge.into_iter().fold(answer, |answer, value| answer.header(WWW_AUTHENTICATE, value)))
    }
}

/// Whether the user of a session has authenticated as asked: by its claims, or by a login that was begun for it and has only
/// just ended at `created`.
fn has_done(asked: &StepUp, secrets: &Secrets, created: Timestamp, now: Timestamp) -> bool {
    if asked.check(&secrets.claims, now, JUST_NOW).is_ok() {
        return true;
    }
    let begun_for_it = asked.max_age.zip(secrets.max_age).is_some_and(|(most, own)| u64::from(own) <= most.as_secs());
    let contexts = StepUp { max_age: None, ..asked.clone() };
    begun_for_it && now.since(created) <= JUST_BACK && contexts.check(&secrets.claims, now, Duration::ZERO).is_ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::primitives::secret::SecretText;
    use crate::session::ticket::TicketSeed;

    fn secrets(max_age: Option<u32>, auth_time: u64) -> Secrets {
        Secrets {
            access_token: SecretText::new("at".into()),
            bound: false,
            access_issued: Timestamp::from_secs(1_000),
            access_expires: None,
            forced: None,
            refresh_token: None,
            refresh_expires: None,
            offline: false,
            id_token: None,
            max_age,
            claims: json!({"acr": "gold", "auth_time": auth_time}).as_object().unwrap().clone(),
            context: serde_json::Map::new(),
            csrf_token: SecretText::new("csrf".into()),
            tickets: TicketSeed::generate().unwrap(),
        }
    }

    #[test]
    fn l16_a_login_counts_from_its_end_where_it_was_begun_for_what_is_asked() {
        let done = |begun_for: Option<u32>, acr: Option<&str>, most: u64, auth_time: u64, now: u64| {
            let asked = StepUp { acr_values: acr.map(str::to_owned), max_age: Some(Duration::from_secs(most)) };
            has_done(&asked, &secrets(begun_for, auth_time), Timestamp::from_secs(1_000), Timestamp::from_secs(now))
        };
        for (begun_for, acr, most, auth_time, now, expected) in [
            // By its claims, whatever the login was begun for.
            (None, None, 0, 1_000, 1_010, true),
            (None, None, 0, 1_000, 1_011, false),
            (None, None, 300, 1_000, 1_310, true),
            (None, None, 300, 1_000, 1_311, false),
            // The provider has had its user for a minute before it sent him back.
            (Some(0), None, 0, 940, 1_000, true),
            (Some(0), None, 0, 940, 1_030, true),
            (Some(0), None, 0, 940, 1_031, false),
            (Some(0), Some("gold silver"), 0, 940, 1_030, true),
            (Some(0), Some("silver"), 0, 940, 1_000, false),
            (Some(300), None, 300, 660, 1_030, true),
            (Some(60), None, 300, 660, 1_030, true),
            // A login that was begun for less shows less.
            (None, None, 0, 940, 1_000, false),
            (Some(60), None, 0, 940, 1_000, false),
        ] {
            let told = (begun_for, acr, most, auth_time, now);
            assert_eq!(done(begun_for, acr, most, auth_time, now), expected, "{told:?}");
        }
    }
}
