//! Sockets: listeners, the admin listener, trusted proxies.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

use super::{duplicate, tls};
use crate::config::decode::Reader;
use crate::config::diagnostic::Code;
use crate::config::schema::{ADMIN, LISTENER, SHUTDOWN};
use crate::config::secrets::secret;
use crate::config::settings::{Admin, ForwardAuth, Listener, Settings, Shutdown};
use crate::config::source::Span;
use crate::config::values::{self, HOUR};
use crate::config::yaml::{Kind, Node};

/// Sockets that are taken, and where in the file.
type Sockets = Vec<(SocketAddr, Span)>;

/// At least one; no two on one socket.
pub(super) fn listeners(reader: &mut Reader<'_>, node: &Node, taken: &mut Sockets) -> Option<Vec<Listener>> {
    reader.list_of_some(node, |reader, item| {
        let fields = reader.fields(item, &LISTENER)?;
        let address = fields.required(reader, "address", "\"0.0.0.0:8080\"", |reader, node| {
            let address = values::socket_address(reader, node)?;
            note_taken(reader, node, address, taken);
            taken.push((address, node.label()));
            Some(address)
        });
        let tls = fields.maybe(reader, "tls", tls::listener_tls);
        let redirect = fields.optional(reader, "redirect_to_https", None, redirect);
        if let (Some(tls), Some(Some(_)), Some(at)) = (fields.get("tls"), redirect, fields.get("redirect_to_https")) {
            let help = format!("remove it, or remove `tls` in line {}", tls.label().line);
            reader.note(Code::Contradiction, at, "a listener with TLS has nothing to redirect", help);
        }
        let proxy_protocol = fields.optional(reader, "proxy_protocol", false, |reader, node| reader.boolean(node));
        let forward_auth = fields.optional(reader, "forward_auth", None, |reader, node| {
            let words = [
                ("x_forwarded", ForwardAuth::XForwarded),
                ("x_original", ForwardAuth::XOriginal),
                ("ext_authz", ForwardAuth::ExtAuthz),
            ];
            reader.choice(node, &words).map(Some)
        });
        if let (Some(Some(_)), Some(at)) = (forward_auth, fields.get("forward_auth")) {
            note_no_question(reader, at, redirect.flatten().is_some(), "redirect_to_https");
            note_no_question(reader, at, proxy_protocol == Some(true), "proxy_protocol");
        }
        Some(Listener {
            address: address?,
            tls: tls?,
            redirect_to_https: redirect?,
            proxy_protocol: proxy_protocol?,
            forward_auth: forward_auth?,
        })
    })
}

/// `true`, `false`, or the port that clients reach TLS at.
fn redirect(reader: &mut Reader<'_>, node: &Node) -> Option<Option<u16>> {
    if let Kind::Integer(_) = node.kind {
        return u16::try_from(reader.integer(node, 1, 65_535)?).ok().map(Some);
    }
    Some(reader.boolean(node)?.then_some(443))
}

/// Another setting of a listener for questions that has no meaning there.
fn note_no_question(reader: &mut Reader<'_>, at: &Node, set: bool, other: &str) {
    if set {
        let message =
            format!("a listener with `forward_auth` takes questions of proxies, and `{other}` is for browsers");
        reader.note(Code::Contradiction, at, message, "give the questions a listener of their own");
    }
}

/// A listener that takes connections from trusted proxies only, and there are none.
pub(super) fn note_nobody_trusted(reader: &mut Reader<'_>, listeners: Option<&Node>, settings: &Settings) {
    let Some(at) = listeners.filter(|_| settings.trusted_proxies.is_empty()) else { return };
    if settings.listeners.iter().any(|listener| listener.proxy_protocol) {
        let help = "name the networks of your load balancers in `trusted_proxies`";
        let message = "with `proxy_protocol` only trusted proxies may connect, and there are none";
        reader.note(Code::Contradiction, at, message, help);
    }
    if settings.listeners.iter().any(|listener| listener.forward_auth.is_some()) {
        let help = "name the addresses of the proxies that ask in `trusted_proxies`";
        let message = "with `forward_auth` only trusted proxies may ask, and there are none";
        reader.note(Code::Contradiction, at, message, help);
    }
}

fn note_taken(reader: &mut Reader<'_>, node: &Node, address: SocketAddr, taken: &Sockets) {
    if let Some((other, first)) = taken.iter().find(|(other, _)| collide(*other, address)) {
        let message = format!("`{address}` and `{other}` cannot both be listened on");
        duplicate(reader, node, &message, *first);
    }
}

/// Whether two addresses cannot be bound side by side.
fn collide(a: SocketAddr, b: SocketAddr) -> bool {
    a.port() == b.port()
        && a.is_ipv4() == b.is_ipv4()
        && (a.ip() == b.ip() || a.ip().is_unspecified() || b.ip().is_unspecified())
}

/// Networks; one that holds everybody is warned of.
pub(super) fn trusted_proxies(reader: &mut Reader<'_>, node: &Node) -> Option<Vec<IpNet>> {
    reader.list(node, |reader, item| {
        let network = values::network(reader, item)?;
        if network.prefix_len() == 0 {
            let help = "name the networks of your own proxies";
            reader.note(Code::TrustsEveryone, item, "every peer may claim any client address", help);
        }
        Some(network)
    })
}

/// The admin listener, on a socket of its own.
pub(super) fn admin(reader: &mut Reader<'_>, node: &Node, taken: &Sockets) -> Option<Admin> {
    let fields = reader.fields(node, &ADMIN)?;
    let address = fields.required(reader, "address", "\"127.0.0.1:9090\"", |reader, node| {
        let address = values::socket_address(reader, node)?;
        note_taken(reader, node, address, taken);
        Some(address)
    });
    let token = fields.maybe(reader, "token", secret);
    if let (Some(address), Some(None)) = (address, &token)
        && !is_local(address.ip())
    {
        let help = "add `token: { env: CLOAKROOM_ADMIN_TOKEN }`, or listen on 127.0.0.1";
        let at = fields.get("address").unwrap_or(node);
        reader.note(Code::AdminOpen, at, "everyone who reaches this address sees metrics and sessions", help);
    }
    Some(Admin { address: address?, token: token? })
}

/// How the process stops.
pub(super) fn shutdown(reader: &mut Reader<'_>, node: &Node) -> Option<Shutdown> {
    let fields = reader.fields(node, &SHUTDOWN)?;
    let default = Shutdown::default();
    let mut time = |key: &str, default: Duration| {
        fields.optional(reader, key, default, |reader, node| values::duration(reader, node, Duration::ZERO, HOUR))
    };
    let (lame_duck, grace) = (time("lame_duck", default.lame_duck), time("grace", default.grace));
    let upgrade_socket = fields.optional(reader, "upgrade_socket", default.upgrade_socket, socket_path);
    Some(Shutdown { lame_duck: lame_duck?, grace: grace?, upgrade_socket: upgrade_socket? })
}

/// Where a socket can be made: `sun_path` of unix(7) has 108 bytes, the last of them zero.
fn socket_path(reader: &mut Reader<'_>, node: &Node) -> Option<PathBuf> {
    let path = reader.base.join(reader.word(node)?);
    let text = path.to_string_lossy();
    if path.as_os_str().len() > 107 || text.contains(char::is_whitespace) {
        let message = format!("`{text}` is too long for a socket, or has blanks");
        reader.note(
            Code::BadValue,
            node,
            message,
            "choose a path of at most 107 bytes, such as `/run/cloakroom/upgrade.sock`",
        );
        return None;
    }
    Some(path)
}

fn is_local(ip: IpAddr) -> bool {
    ip.to_canonical().is_loopback()
}
