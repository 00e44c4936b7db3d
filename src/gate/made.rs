//! Tokens that a provider makes for single upstreams: the user's is exchanged for them (behaviour A6), or they are our own.
//! Without one nothing goes upstream.

use std::sync::Arc;

use http::HeaderValue;

use super::admit::Gate;
use super::answers::refusal;
use super::{Pass, Refusal, Request};
use crate::answer::{Answer, Code};
use crate::config::settings::{Access, Level};
use crate::grants::{NoToken, Whose, Wish};
use crate::primitives::secret::SecretText;
use crate::refresh::{Failure, Refreshed};
use crate::routing::route::is_preflight;
use crate::routing::table::Made;
use crate::session::issued::{Lack, Slot};
use crate::session::open::Open;

impl Gate {
    /// Puts the token in that a route asks for. Nothing is put in where there is no user, or none who is logged on.
    ///
    /// # Errors
    /// The answer to give instead.
    pub(super) async fn make(&self, request: &Request<'_>, pass: &mut Pass, made: Made) -> Result<(), Box<Answer>> {
        match made {
            Made::Exchanged(target) => self.exchange(request, pass, target).await,
            Made::Own(index) => self.own(request, pass, index).await,
        }
    }

    /// One of our own, for a request of nobody's. What the upstream answers to a preflight is for everybody to read.
    async fn own(&self, request: &Request<'_>, pass: &mut Pass, index: usize) -> Result<(), Box<Answer>> {
        let anonymous = pass.session.is_none() && pass.bearer.is_none() || pass.level == Level::Returning;
        if !anonymous || is_preflight(request.method, request.headers) {
            return Ok(());
        }
        let place = self.client_tokens.get(pass.site.index).and_then(|places| places.get(index));
        if let Some(token) = place.and_then(|slot| self.grants.own(slot, || self.own_wish(pass, index))) {
            pass.minted = Some(token);
            return Ok(());
        }
        // On the heap: it is rare, and would make this future large for all others.
        match Box::pin(self.ask(self.own_wish(pass, index))).await {
            Ok(token) => {
                pass.minted = Some(token);
                Ok(())
            }
            Err(lack) => Err(Box::new(self.no_token(request, pass, lack))),
        }
    }

    async fn exchange(&self, request: &Request<'_>, pass: &mut Pass, target: usize) -> Result<(), Box<Answer>> {
        if pass.level == Level::Returning || (pass.session.is_none() && pass.bearer.is_none()) {
            return Ok(());
        }
        if let Some(token) = place(pass, target).and_then(|slot| self.grants.fresh(slot)) {
            pass.minted = Some(token);
            return Ok(());
        }
        // On the heap: it is rare, and would make this future large for all others.
        Box::pin(self.exchange_now(request, pass, target)).await
    }

    async fn exchange_now(&self, request: &Request<'_>, pass: &mut Pass, target: usize) -> Result<(), Box<Answer>> {
        let mut result = self.ask(self.wish(pass, target)).await;
        // The provider knows the token no more: perhaps it has ended the session, perhaps there is a newer one to be had.
        if let (Err((lack, _)), Some(open)) = (&result, pass.session.clone())
            && let Some(wanted) = pass.site.exchanges.get(target).cloned()
            && self.grants.blames_token(open.key(), &wanted, *lack)
        {
            match self.refresher.replace(&open).await {
                Refreshed::Renewed(newer) if newer.authorization() != open.authorization() => {
                    self.take_newer(request, pass, &open, newer).await?;
                    result = self.ask(self.wish(pass, target)).await;
                    self.grants.note_newer(open.key(), &wanted, &result);
                }
                Refreshed::Ended => return self.over(request, pass, Code::RefreshRejected),
                Refreshed::Failed(Failure::Provider(pause)) => result = Err((Lack::Unavailable, pause)),
                Refreshed::Renewed(_) | Refreshed::Failed(_) => {}
            }
        }
        // A logout that came while the provider was asked wins.
        if pass.session.as_ref().is_some_and(|open| open.was_ended()) {
            return self.over(request, pass, Code::SessionExpired);
        }
        match result {
            Ok(token) => {
                pass.minted = Some(token);
                Ok(())
            }
            Err(lack) => Err(Box::new(self.no_token(request, pass, lack))),
        }
    }

    /// What an upstream gets in place of a token that it has refused.
    pub(super) async fn made_anew(&self, pass: &Pass, made: Made, refused: &HeaderValue) -> Refusal {
        let wish = match made {
            Made::Exchanged(target) => self.wish(pass, target),
            Made::Own(index) => self.own_wish(pass, index),
        };
        let Some(wish) = wish else { return Refusal::PassOn };
        match self.grants.another(wish, refused).await {
            Some(_) if pass.session.as_ref().is_some_and(|open| open.was_ended()) => Refusal::PassOn,
            Some(token) => Refusal::AgainWith(token),
            None => Refusal::PassOn,
        }
    }

    async fn ask(&self, wish: Option<Wish>) -> Result<HeaderValue, NoToken> {
        match wish {
            Some(wish) => self.grants.token(wish).await,
            // A session without an access token, or of a provider that exchanges none; `check` lets no such route through.
            None => Err((Lack::Refused, std::time::Duration::ZERO)),
        }
    }

    fn wish(&self, pass: &Pass, target: usize) -> Option<Wish> {
        let (provider, subject) = match (&pass.session, &pass.bearer) {
            (Some(open), _) => (open.provider(), open.authorization()?),
            (None, Some(bearer)) => (&**bearer.provider(), bearer.authorization()),
            (None, None) => return None,
        };
        let provider = self.auth.get(pass.site.index)?.named(provider)?.oidc()?.clone();
        // Behind its scheme.
        let (_, subject) = subject.to_str().ok()?.split_once(' ')?;
        Some(Wish {
            slot: place(pass, target)?.clone(),
            provider,
            subject: Some(SecretText::new(subject.to_owned())),
            target: pass.site.exchanges.get(target)?.clone(),
            whose: Some(Whose {
                site: pass.site.name.clone(),
                session: pass.session.as_ref().map(|open| *open.key()),
                subject: pass.bearer.as_ref().map(|bearer| bearer.subject().to_owned()),
                client_ip: pass.client.ip,
            }),
        })
    }

    fn own_wish(&self, pass: &Pass, index: usize) -> Option<Wish> {
        let token = pass.site.client_tokens.get(index)?;
        Some(Wish {
            slot: self.client_tokens.get(pass.site.index)?.get(index)?.clone(),
            provider: self.auth.get(pass.site.index)?.named(&token.provider)?.oidc()?.clone(),
            subject: None,
            target: token.target.clone(),
            whose: Some(Whose {
                site: pass.site.name.clone(),
                session: None,
                subject: None,
                client_ip: pass.client.ip,
            }),
        })
    }

    /// With the new token the user may have other claims.
    async fn take_newer(
        &self,
        request: &Request<'_>,
        pass: &mut Pass,
        open: &Arc<Open>,
        newer: Arc<Open>,
    ) -> Result<(), Box<Answer>> {
        let newer = if Arc::ptr_eq(newer.profile(), open.profile()) {
            newer
        } else {
            // The settings have changed meanwhile: what is prepared for others has its claims and places elsewhere.
            match self.sessions.prepare(&newer, open.profile(), pass.level).await {
                Ok(Some(same)) => same,
                Ok(None) => return self.over(request, pass, Code::SessionExpired),
                Err(_) => return Err(Box::new(refusal(request, Code::StoreUnavailable, LATER))),
            }
        };
        if let Some(answer) = self.kept_out(request, pass, &newer) {
            return Err(Box::new(answer));
        }
        pass.session = Some(newer);
        Ok(())
    }

    /// The session is over: its request is one without a session.
    fn over(&self, request: &Request<'_>, pass: &mut Pass, code: Code) -> Result<(), Box<Answer>> {
        if pass.route.access == Access::Optional {
            (pass.session, pass.minted, pass.needs_ticket, pass.needs_csrf_cookie) = (None, None, false, false);
            return Ok(());
        }
        let answer = self.ended(*request, pass, code);
        Err(Box::new(answer.unwrap_or_else(|| Answer::problem(code, None, None))))
    }

    /// Named, so that nobody takes it for an answer of the upstream.
    fn no_token(&self, request: &Request<'_>, pass: &Pass, (lack, pause): NoToken) -> Answer {
        let answer = match lack {
            Lack::Denied => {
                let text = "The login service does not let you use the service behind this address.";
                refusal(request, Code::UpstreamTokenDenied, text)
            }
            Lack::Refused | Lack::Stale | Lack::Unclear => {
                let text = "The login service gives no token for the service behind this address.";
                refusal(request, Code::UpstreamTokenRefused, text)
            }
            Lack::Unavailable => refusal(request, Code::ProviderUnavailable, LATER).retry_after(pause.as_secs().max(1)),
        };
        // A new ticket must not get lost with a refusal.
        answer.cookies(self.own_cookies(pass))
    }
}

const LATER: &str = "Please try again in a moment.";

/// Where the token lies: with the user's own, so that it is gone when that one is.
fn place(pass: &Pass, target: usize) -> Option<&Arc<Slot>> {
    match (&pass.session, &pass.bearer) {
        (Some(open), _) => open.exchanged(target),
        (None, Some(bearer)) => bearer.exchanged(target),
        (None, None) => None,
    }
}
