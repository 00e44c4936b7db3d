//! What a request must be beside its path.

use http::Method;
use http::header::HeaderName;

use crate::config::check::sites::{covers, display};
use crate::config::decode::Reader;
use crate::config::diagnostic::Code;
use crate::config::schema::WHEN;
use crate::config::settings::{Conditions, HeaderMatch, HostPattern};
use crate::config::values;
use crate::config::yaml::{Kind, Node};

/// Methods that never pass.
const REFUSED: [&str; 3] = ["TRACE", "TRACK", "CONNECT"];

/// Reads `when`. `hosts` are those of the site.
pub(super) fn conditions(reader: &mut Reader<'_>, node: &Node, hosts: Option<&[HostPattern]>) -> Option<Conditions> {
    let fields = reader.fields(node, &WHEN)?;
    let hosts = fields.optional(reader, "hosts", Vec::new(), |reader, node| {
        whole(node, reader.list_of_some(node, |reader, item| host(reader, item, hosts))?)
    });
    let methods = fields.optional(reader, "methods", Vec::new(), |reader, node| {
        let mut methods = whole(node, reader.list_of_some(node, method)?)?;
        if methods.contains(&Method::GET) && !methods.contains(&Method::HEAD) {
            // Who may get it may ask what it would get (RFC 9110 §9.3.2).
            methods.push(Method::HEAD);
        }
        Some(methods)
    });
    let headers = fields.optional(reader, "headers", Vec::new(), headers);
    Some(Conditions { hosts: hosts?, methods: methods?, headers: headers? })
}

/// A list of which a part could not be read says less than it was meant to.
pub(super) fn whole<T>(node: &Node, read: Vec<T>) -> Option<Vec<T>> {
    let written = match &node.kind {
        Kind::List(items) => items.len(),
        Kind::Map(entries) => entries.len(),
        _ => 0,
    };
    (read.len() == written).then_some(read)
}

/// Whether some request would fit both and neither of them counts more.
pub(super) fn fit_alike(one: &Conditions, other: &Conditions) -> bool {
    let hosts = one.hosts.is_empty() && other.hosts.is_empty() || one.hosts.iter().any(|h| other.hosts.contains(h));
    let methods =
        one.methods.is_empty() && other.methods.is_empty() || one.methods.iter().any(|m| other.methods.contains(m));
    let headers = one.headers.len() == other.headers.len() && one.headers.iter().all(|h| other.headers.contains(h));
    hosts && methods && headers
}

fn host(reader: &mut Reader<'_>, node: &Node, served: Option<&[HostPattern]>) -> Option<HostPattern> {
    let host = values::host_pattern(reader, node)?;
    let is_served = |pattern: &HostPattern| match &host {
        HostPattern::Exact(name) => covers(pattern, name),
        HostPattern::Wildcard(_) => *pattern == HostPattern::Any || *pattern == host,
        HostPattern::Any => *pattern == host,
    };
    if served.is_some_and(|served| !served.iter().any(is_served)) {
        let message = format!("this site does not serve `{}`", display(&host));
        reader.note(Code::BadHost, node, message, "add it to the `hosts` of the site, or choose one of them");
    }
    Some(host)
}

/// A method that is ever passed on.
pub(super) fn method(reader: &mut Reader<'_>, node: &Node) -> Option<Method> {
    let text = reader.word(node)?;
    let method = Method::from_bytes(text.as_bytes())
        .ok()
        .filter(|_| !REFUSED.contains(&&*text) && text == text.to_ascii_uppercase());
    if method.is_none() {
        let help = match text.to_ascii_uppercase() {
            upper if upper != text => format!("methods are written in capitals: `{upper}`"),
            _ => "write for example `GET` or `POST`; TRACE, TRACK and CONNECT are always refused".to_owned(),
        };
        reader.note(Code::BadValue, node, format!("`{text}` is no method that comes here"), help);
    }
    method
}

fn headers(reader: &mut Reader<'_>, node: &Node) -> Option<Vec<(HeaderName, HeaderMatch)>> {
    let mut out: Vec<(HeaderName, HeaderMatch)> = Vec::new();
    for entry in reader.free_map(node)? {
        let setting = &entry.value.setting;
        let Ok(name) = HeaderName::from_bytes(entry.name.as_bytes()) else {
            let message = format!("`{}` is no valid header name", entry.name);
            reader.note_at(Code::BadHeader, entry.at, setting, message, "write for example `X-Api-Version`");
            continue;
        };
        if out.iter().any(|(other, _)| *other == name) {
            let message = format!("the header `{name}` is asked for twice (case makes no difference)");
            reader.note_at(Code::Duplicate, entry.at, setting, message, "remove one of them");
            continue;
        }
        let wanted = match &entry.value.kind {
            Kind::Bool(true) => {
                reader.show(&entry.value);
                Some(HeaderMatch::Present)
            }
            Kind::Text(_) => super::headers::value(reader, &entry.value).map(HeaderMatch::Exact),
            _ => {
                let help = "`true` asks that it is there, a text in quotes what it is exactly";
                reader.wrong_type(&entry.value, "`true` or a text", help);
                None
            }
        };
        out.extend(wanted.map(|wanted| (name, wanted)));
    }
    whole(node, out)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn conditions(hosts: &[&str], methods: &[Method], headers: &[(&'static str, Option<&'static str>)]) -> Conditions {
        let matched = |value: &Option<&'static str>| match value {
            Some(value) => HeaderMatch::Exact(HeaderValue::from_static(value)),
            None => HeaderMatch::Present,
        };
        Conditions {
            hosts: hosts.iter().map(|host| HostPattern::Exact((*host).to_owned())).collect(),
            methods: methods.to_vec(),
            headers: headers.iter().map(|(n, v)| (HeaderName::from_static(n), matched(v))).collect(),
        }
    }

    #[test]
    fn only_routes_that_nothing_tells_apart_fit_alike() {
        let plain = conditions(&[], &[], &[]);
        assert!(fit_alike(&plain, &plain));
        let get = conditions(&[], &[Method::GET], &[]);
        assert!(!fit_alike(&plain, &get) && fit_alike(&get, &conditions(&[], &[Method::POST, Method::GET], &[])));
        let host = conditions(&["a", "b"], &[], &[]);
        assert!(fit_alike(&host, &conditions(&["b"], &[], &[])) && !fit_alike(&host, &conditions(&["c"], &[], &[])));
        let header = conditions(&[], &[], &[("x-a", None)]);
        assert!(!fit_alike(&header, &plain) && !fit_alike(&header, &conditions(&[], &[], &[("x-a", Some("1"))])));
    }
}
