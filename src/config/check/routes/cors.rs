//! What pages of other origins may do.

use std::time::Duration;

use http::Method;
use http::header::{HeaderName, HeaderValue};
use url::Url;

use super::when::method;
use crate::config::decode::Reader;
use crate::config::diagnostic::Code;
use crate::config::schema::CORS;
use crate::config::settings::{Cors, CorsOrigins};
use crate::config::values::{self, DAY, SECOND};
use crate::config::yaml::{Kind, Node};

/// Reads `cors`.
pub(super) fn cors(reader: &mut Reader<'_>, node: &Node) -> Option<Cors> {
    let fields = reader.fields(node, &CORS)?;
    let origins = fields.required(reader, "origins", "[https://app.example.com]", origins);
    let methods = vec![Method::GET, Method::HEAD, Method::POST];
    let methods = fields.optional(reader, "methods", methods, |r, n| r.list_of_some(n, method));
    let headers = fields.optional(reader, "headers", Vec::new(), |r, n| r.list(n, name));
    let expose = fields.optional(reader, "expose", Vec::new(), |r, n| r.list(n, name));
    let max_age = fields.optional(reader, "max_age", 600 * SECOND, |r, n| values::duration(r, n, Duration::ZERO, DAY));
    let credentials = fields.optional(reader, "credentials", false, |r, n| r.boolean(n));
    if let (Some(CorsOrigins::Any), Some(true), Some(at)) = (&origins, credentials, fields.get("credentials")) {
        let help = "list the origins that may use the session; every page would be one of them";
        reader.note(Code::Contradiction, at, "credentials go with `*` in no browser", help);
    }
    Some(Cors {
        origins: origins?,
        methods: methods?,
        headers: headers?,
        expose: expose?,
        max_age: max_age?,
        credentials: credentials?,
    })
}

/// `"*"` or a list of origins.
fn origins(reader: &mut Reader<'_>, node: &Node) -> Option<CorsOrigins> {
    if let Kind::Text(_) = node.kind {
        return reader.choice(node, &[("*", ())]).map(|()| CorsOrigins::Any);
    }
    reader.list_of_some(node, origin).map(CorsOrigins::List)
}

/// An origin as a browser writes it in `Origin`: lower case, default port left out.
pub(in crate::config::check) fn origin(reader: &mut Reader<'_>, node: &Node) -> Option<HeaderValue> {
    let text = reader.word(node)?;
    let url = Url::parse(&text).ok().filter(|url| {
        matches!(url.scheme(), "http" | "https")
            && url.has_host()
            && url.path() == "/"
            && url.query().is_none()
            && url.fragment().is_none()
            && !text.contains(['@', '*'])
    });
    let Some(url) = url else {
        let help = "write scheme, host and, if it is not the default, port: `https://app.example.com`";
        reader.note(Code::BadUrl, node, format!("`{text}` is no origin"), help);
        return None;
    };
    HeaderValue::from_str(&url.origin().ascii_serialization()).ok()
}

fn name(reader: &mut Reader<'_>, node: &Node) -> Option<HeaderName> {
    let text = reader.word(node)?;
    let name = HeaderName::from_bytes(text.as_bytes()).ok().filter(|_| text != "*");
    if name.is_none() {
        let help = "write the name of one header, for example `Content-Type`; with credentials `*` stands for none";
        reader.note(Code::BadHeader, node, format!("`{text}` is no header name"), help);
    }
    name
}
