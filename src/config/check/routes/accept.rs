//! By what a request may show whose it is.

use super::when::whole;
use crate::config::decode::Reader;
use crate::config::diagnostic::Code;
use crate::config::settings::{Accept, Access};
use crate::config::yaml::Node;

/// A way to show it.
#[derive(Clone, Copy, PartialEq)]
enum Way {
    Session,
    Bearer,
    ProxyToken,
}

/// Reads `accept`. `bearer`: whether the site says which access tokens it takes; `proxy_tokens`: whether there are any.
pub(super) fn accept(
    reader: &mut Reader<'_>,
    node: &Node,
    access: Option<Access>,
    bearer: bool,
    proxy_tokens: bool,
) -> Option<Accept> {
    let words = [("session", Way::Session), ("bearer", Way::Bearer), ("proxy_token", Way::ProxyToken)];
    let ways = whole(node, reader.list_of_some(node, |reader, item| reader.choice(item, &words))?)?;
    let has = |way| ways.contains(&way);
    let accept = Accept { session: has(Way::Session), bearer: has(Way::Bearer), proxy_token: has(Way::ProxyToken) };
    if access == Some(Access::Public) {
        let help = "write `access: optional`, which lets everyone pass too, or remove it";
        reader.note(Code::Contradiction, node, "a public route looks up no session, so it knows no user", help);
    }
    if accept.bearer && !bearer && access != Some(Access::Public) {
        let help = "write for example `bearer: { audiences: [https://api.example.com] }` beside the site's `routes`";
        reader.note(Code::MissingKey, node, "the site does not say which access tokens it takes", help);
    }
    if accept.bearer && accept.proxy_token {
        let help = "make it two routes, told apart by path or host";
        reader.note(Code::Contradiction, node, "`Authorization` holds one token, and these are of two kinds", help);
    }
    if accept.proxy_token && !proxy_tokens {
        no_proxy_tokens(reader, node);
    }
    Some(accept)
}

/// Something asks for proxy tokens, and the settings know none.
pub(super) fn no_proxy_tokens(reader: &mut Reader<'_>, node: &Node) {
    let help = "add the section `proxy_token` with `issuer`, `audience` and `keys`";
    reader.note(Code::UnknownName, node, "there are no proxy tokens", help);
}
