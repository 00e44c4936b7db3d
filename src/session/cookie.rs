//! Our cookies: found in a request, kept from the upstream, written to the browser.

use cookie::{Cookie, SameSite as CookieSameSite};
use http::HeaderMap;
use http::header::{COOKIE, HeaderValue, SET_COOKIE};

use super::ticket::SessionId;
use crate::config::settings::{SameSite, Session, SessionCookie};

/// Names and attributes of the three cookies that are ours.
#[derive(Clone, Debug)]
pub struct Cookies {
    session: String,
    csrf: String,
    login: &'static str,
    same_site: CookieSameSite,
    secure: bool,
}

/// What the session cookie of a request says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ticket {
    /// There is none.
    Absent,
    /// Something that is no id of ours.
    Malformed,
    /// Two or more: somebody may have tossed one in, so none counts (behaviour S3).
    Doubled,
    /// One well-formed id. Whether it names a session is for the store to say.
    One(SessionId),
}

/// The cookies of a request, sorted into ours and the upstream's.
#[derive(Clone, Debug)]
pub struct Sorted<'h> {
    /// The session cookie.
    pub ticket: Ticket,
    /// Value of the first CSRF cookie.
    pub csrf: Option<&'h [u8]>,
    /// What is left for the upstream, all header fields joined with `; ` (behaviour S4, S5).
    pub foreign: Foreign,
}

/// The `Cookie` header as the upstream gets it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Foreign {
    /// As it came: nothing of ours in it, one field.
    Unchanged,
    /// None at all.
    Nothing,
    /// This one field.
    Field(HeaderValue),
}

impl Cookies {
    /// From the settings.
    #[must_use]
    pub fn new(settings: &Session) -> Self {
        let secure = settings.cookie.secure;
        Self {
            session: settings.cookie.name.clone(),
            csrf: settings.csrf.cookie.clone(),
            login: SessionCookie::login_cookie(secure),
            same_site: match settings.cookie.same_site {
                SameSite::Strict => CookieSameSite::Strict,
                SameSite::Lax => CookieSameSite::Lax,
            },
            secure,
        }
    }

    /// Whether browsers hold the session cookie back on every navigation that another site began.
    #[must_use]
    pub fn are_strict(&self) -> bool {
        self.same_site == CookieSameSite::Strict
    }

    /// Whether a cookie name is one of ours.
    #[must_use]
    pub fn owns(&self, name: &[u8]) -> bool {
        name == self.session.as_bytes() || name == self.csrf.as_bytes() || name == self.login.as_bytes()
    }

    /// Sorts the cookies of a request.
    #[must_use]
    pub fn sort<'h>(&self, headers: &'h HeaderMap) -> Sorted<'h> {
        let mut sorted = Sorted { ticket: Ticket::Absent, csrf: None, foreign: Foreign::Unchanged };
        let mut rest = Vec::new();
        let (mut fields, mut ours) = (0_usize, false);
        for field in headers.get_all(COOKIE) {
            fields += 1;
            for (name, value, pair) in pairs(field.as_bytes()) {
                if name == self.session.as_bytes() {
                    sorted.ticket = match sorted.ticket {
                        Ticket::Absent => SessionId::parse(value).map_or(Ticket::Malformed, Ticket::One),
                        _ => Ticket::Doubled,
                    };
                } else if name == self.csrf.as_bytes() {
                    sorted.csrf = sorted.csrf.or(Some(value));
                } else if !self.owns(name) {
                    if !rest.is_empty() {
                        rest.extend_from_slice(b"; ");
                    }
                    rest.extend_from_slice(pair);
                    continue;
                }
                ours = true;
            }
        }
        if ours || fields > 1 {
            sorted.foreign = match HeaderValue::from_maybe_shared(bytes::Bytes::from(rest)) {
                Ok(value) if !value.is_empty() => Foreign::Field(value),
                _ => Foreign::Nothing,
            };
        }
        sorted
    }

    /// Whether one of the request's CSRF cookies is exactly `token`.
    #[must_use]
    pub fn csrf_matches(&self, headers: &HeaderMap, token: &[u8]) -> bool {
        values(headers, self.csrf.as_bytes()).any(|value| super::csrf::same(value, token))
    }

    /// The browser's login binding, if exactly one well-formed value came.
    #[must_use]
    pub fn login_binding(&self, headers: &HeaderMap) -> Option<String> {
        let mut found = values(headers, self.login.as_bytes());
        let first = found.next()?;
        if found.next().is_some() || crate::primitives::random::from_base64url::<32>(first).is_none() {
            return None;
        }
        String::from_utf8(first.to_vec()).ok()
    }

    /// `Set-Cookie` for a session id.
    #[must_use]
    pub fn set_session(&self, id: &SessionId) -> Option<HeaderValue> {
        self.write(&self.session, &id.expose(), self.same_site, true, None)
    }

    /// `Set-Cookie` for a CSRF token: readable by scripts, or they could not echo it.
    #[must_use]
    pub fn set_csrf(&self, token: &str) -> Option<HeaderValue> {
        self.write(&self.csrf, token, self.same_site, false, None)
    }

    /// `Set-Cookie` for a login binding. Lax, because the provider's redirect back is a cross-site navigation. It lasts
    /// until the browser is closed, so that all tabs that wake up after a session share one binding (behaviour L13); it
    /// says nothing but "the same browser as before". A provider that has the browser post its answer gets it only with
    /// `None` (behaviour L3).
    #[must_use]
    pub fn set_login(&self, binding: &str, posted: bool) -> Option<HeaderValue> {
        let same_site = if posted { CookieSameSite::None } else { CookieSameSite::Lax };
        self.write(self.login, binding, same_site, true, None)
    }

    /// `Set-Cookie` fields that remove the session and CSRF cookies: same name, path and flags (behaviour S10).
    #[must_use]
    pub fn clear(&self) -> Vec<HeaderValue> {
        let now = Some(std::time::Duration::ZERO);
        [
            self.write(&self.session, "", self.same_site, true, now),
            self.write(&self.csrf, "", self.same_site, false, now),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    /// Whether an upstream's `Set-Cookie` field tries to set a cookie of ours (behaviour S6). A cookie without a name
    /// (`=XSRF-TOKEN=x`) comes back from the browser as its bare value, and so as one of that name.
    #[must_use]
    pub fn is_set_by(&self, set_cookie: &HeaderValue) -> bool {
        let Some((_, _, mut pair)) = pairs(set_cookie.as_bytes()).next() else { return false };
        while let Some(value) = pair.strip_prefix(b"=") {
            pair = value.trim_ascii_start();
        }
        pairs(pair).next().is_some_and(|(name, ..)| self.owns(name))
    }

    fn write(
        &self,
        name: &str,
        value: &str,
        same_site: CookieSameSite,
        http_only: bool,
        max_age: Option<std::time::Duration>,
    ) -> Option<HeaderValue> {
        let mut cookie = Cookie::build((name, value)).path("/").same_site(same_site).secure(self.secure);
        if http_only {
            cookie = cookie.http_only(true);
        }
        if let Some(age) = max_age {
            cookie = cookie.max_age(cookie::time::Duration::try_from(age).ok()?);
        }
        let mut header = HeaderValue::from_str(&cookie.build().to_string()).ok()?;
        header.set_sensitive(true);
        Some(header)
    }
}

/// Removes every `Set-Cookie` with one of our names from an upstream's response; the others stay in order.
pub fn drop_ours(cookies: &Cookies, headers: &HeaderMap) -> Option<Vec<HeaderValue>> {
    let all = headers.get_all(SET_COOKIE);
    if !all.iter().any(|field| cookies.is_set_by(field)) {
        return None;
    }
    Some(all.iter().filter(|field| !cookies.is_set_by(field)).cloned().collect())
}

/// Name, value and whole pair (RFC 6265 §4.2.1), surrounding white space removed. Values are opaque bytes: what is not
/// ours must reach the upstream as it came.
fn pairs(field: &[u8]) -> impl Iterator<Item = (&[u8], &[u8], &[u8])> {
    let mut rest = Some(field);
    let pieces = std::iter::from_fn(move || {
        let (piece, behind) = cut(rest?, b';');
        rest = behind;
        Some(piece.trim_ascii())
    });
    pieces.filter(|pair| !pair.is_empty()).map(|pair| {
        let (name, value) = cut(pair, b'=');
        (name.trim_ascii(), value.unwrap_or_default().trim_ascii(), pair)
    })
}

/// What stands before the first `sign`, and what behind it if it is there.
fn cut(bytes: &[u8], sign: u8) -> (&[u8], Option<&[u8]>) {
    match memchr::memchr(sign, bytes).and_then(|at| bytes.split_at_checked(at)) {
        Some((before, behind)) => (before, behind.get(1..)),
        None => (bytes, None),
    }
}

fn values<'h>(headers: &'h HeaderMap, name: &'h [u8]) -> impl Iterator<Item = &'h [u8]> {
    headers
        .get_all(COOKIE)
        .into_iter()
        .flat_map(|field| pairs(field.as_bytes()))
        .filter(move |(n, ..)| *n == name)
        .map(|(_, value, _)| value)
}

#[cfg(test)]
mod tests {

    use proptest::prelude::*;

    use super::*;
    use crate::session::ticket::TicketSeed;

    fn cookies() -> Cookies {
        Cookies::new(&Session::default())
    }

    fn ticket() -> SessionId {
        TicketSeed::generate().unwrap().ticket(0)
    }

    fn headers(fields: &[&str]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for field in fields {
            map.append(COOKIE, HeaderValue::from_str(field).unwrap());
        }
        map
    }

    fn field(text: &str) -> Foreign {
        Foreign::Field(HeaderValue::from_str(text).unwrap())
    }

    #[test]
    fn s5_ours_are_taken_out_and_the_rest_stays() {
        let id = ticket();
        let line = format!("a=1; __Host-session={}; b=\"x y\";XSRF-TOKEN=t; odd; __Host-login=z", id.expose());
        let (cookies, headers) = (cookies(), headers(&[&line]));
        let sorted = cookies.sort(&headers);
        assert_eq!(sorted.ticket, Ticket::One(id));
        assert_eq!(sorted.foreign, field("a=1; b=\"x y\"; odd"));
    }

    #[test]
    fn s4_split_fields_are_joined() {
        let id = ticket();
        let session = format!("__Host-session={}", id.expose());
        let (cookies, split) = (cookies(), headers(&["a=1", &session, "b=2"]));
        let sorted = cookies.sort(&split);
        assert_eq!(sorted.ticket, Ticket::One(id));
        assert_eq!(sorted.foreign, field("a=1; b=2"));
        assert_eq!(cookies.sort(&headers(&["a=1", "b=2"])).foreign, field("a=1; b=2"));
    }

    #[test]
    fn nothing_of_ours_means_nothing_changes() {
        assert_eq!(cookies().sort(&headers(&["a=1;b=2"])).foreign, Foreign::Unchanged);
        assert_eq!(cookies().sort(&HeaderMap::new()).foreign, Foreign::Unchanged);
        assert_eq!(cookies().sort(&headers(&["XSRF-TOKEN=t"])).foreign, Foreign::Nothing);
    }

    #[test]
    fn s3_two_tickets_are_none() {
        let one = format!("__Host-session={}", ticket().expose());
        assert_eq!(cookies().sort(&headers(&[&format!("{one}; {one}")])).ticket, Ticket::Doubled);
        assert_eq!(cookies().sort(&headers(&[&one, "__Host-session=x"])).ticket, Ticket::Doubled);
    }

    #[test]
    fn s12_garbage_is_no_ticket() {
        for value in ["", "short", "=", &"A".repeat(42), &"A".repeat(44), &"A".repeat(9000), "\"quoted\""] {
            let line = format!("__Host-session={value}");
            assert_eq!(cookies().sort(&headers(&[&line])).ticket, Ticket::Malformed, "{value}");
        }
    }

    #[test]
    fn s2_attributes_are_exact() {
        let id = ticket();
        let text = |v: Option<HeaderValue>| v.unwrap().to_str().unwrap().to_owned();
        assert_eq!(
            text(cookies().set_session(&id)),
            format!("__Host-session={}; HttpOnly; SameSite=Strict; Secure; Path=/", id.expose())
        );
        assert_eq!(text(cookies().set_csrf("t")), "XSRF-TOKEN=t; SameSite=Strict; Secure; Path=/");
        assert_eq!(text(cookies().set_login("b", false)), "__Host-login=b; HttpOnly; SameSite=Lax; Secure; Path=/");
        assert_eq!(text(cookies().set_login("b", true)), "__Host-login=b; HttpOnly; SameSite=None; Secure; Path=/");
        let cleared: Vec<_> = cookies().clear().into_iter().map(|v| text(Some(v))).collect();
        assert_eq!(cleared[0], "__Host-session=; HttpOnly; SameSite=Strict; Secure; Path=/; Max-Age=0");
        assert_eq!(cleared[1], "XSRF-TOKEN=; SameSite=Strict; Secure; Path=/; Max-Age=0");
    }

    #[test]
    fn s6_upstream_cannot_set_ours() {
        let mut map = HeaderMap::new();
        let evil = [" __Host-session =evil; Path=/", "XSRF-TOKEN=evil", "=XSRF-TOKEN=evil", "= =__Host-login"];
        for value in ["a=1; Path=/"].into_iter().chain(evil).chain(["b=__Host-session"]) {
            map.append(SET_COOKIE, HeaderValue::from_static(value));
        }
        let kept = drop_ours(&cookies(), &map).unwrap();
        assert_eq!(kept, ["a=1; Path=/", "b=__Host-session"]);
    }

    proptest! {
        #[test]
        fn foreign_cookies_survive_and_ours_never_pass(
            names in proptest::collection::vec("[a-zA-Z_-]{1,12}", 0..6),
            place in 0_usize..6,
        ) {
            let id = ticket();
            let mut parts: Vec<String> = names.iter().map(|n| format!("{n}=v")).collect();
            parts.insert(place.min(parts.len()), format!("__Host-session={}", id.expose()));
            let headers = headers(&[&parts.join("; ")]);
            let sorted = cookies().sort(&headers);
            prop_assert_eq!(sorted.ticket, Ticket::One(id));
            let expected = names.iter().map(|n| format!("{n}=v")).collect::<Vec<_>>().join("; ");
            match sorted.foreign {
                Foreign::Field(value) => prop_assert_eq!(value.to_str().unwrap(), expected),
                Foreign::Nothing => prop_assert!(expected.is_empty()),
                Foreign::Unchanged => prop_assert!(false, "ours went through"),
            }
        }

        #[test]
        fn any_bytes_are_sorted_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(value) = HeaderValue::from_bytes(&bytes) {
                let mut map = HeaderMap::new();
                map.append(COOKIE, value);
                let _ = cookies().sort(&map);
                let _ = cookies().login_binding(&map);
            }
        }
    }
}
