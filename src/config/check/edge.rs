//! Sockets: listeners, the admin listener, trusted proxies.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

use super::{duplicate, tls};
use crate::config::decode::Reader;
use crate::config::diagnostic::Code;
use crate::config::schema::{ADMIN, LISTENER};
use crate::config::secrets::secret;
use crate::config::settings::{Admin, Listener};
use crate::config::source::Span;
use crate::config::values;
use crate::config::yaml::Node;

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
        let tls = fields.maybe(reader, "tls", tls::certificates);
        Some(Listener { address: address?, tls: tls? })
    })
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

fn is_local(ip: IpAddr) -> bool {
    ip.to_canonical().is_loopback()
}
