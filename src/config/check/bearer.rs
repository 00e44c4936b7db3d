//! Access tokens that clients bring themselves: which ones a site takes.

use crate::config::decode::Reader;
use crate::config::diagnostic::Code;
use crate::config::schema::BEARER;
use crate::config::settings::{Bearer, Provider, Site};
use crate::config::yaml::Node;

/// Reads `bearer` of a site.
pub(super) fn bearer(reader: &mut Reader<'_>, node: &Node) -> Option<Bearer> {
    let fields = reader.fields(node, &BEARER)?;
    let audiences = fields.required(reader, "audiences", "[https://api.example.com]", |reader, node| {
        reader.list_of_some(node, |reader, item| reader.word(item))
    });
    let types = fields.optional(reader, "types", vec![false], |reader, node| {
        reader.list_of_some(node, |reader, item| reader.choice(item, &[("at+jwt", false), ("jwt", true)]))
    });
    Some(Bearer { audiences: audiences?, untyped: types?.contains(&true) })
}

/// An ID token is made for the client, so a client id that counts as an audience would let one pass for an access token
/// where nothing else tells them apart (behaviour T7).
pub(super) fn audiences(reader: &mut Reader<'_>, nodes: &Node, sites: &[Site], providers: &[Provider]) {
    for site in sites {
        let Some(bearer) = site.bearer.as_ref().filter(|bearer| bearer.untyped) else { continue };
        let provider = providers.iter().find(|provider| Some(&provider.name) == site.provider.as_ref());
        if let Some(provider) = provider.filter(|provider| bearer.audiences.contains(&provider.client_id)) {
            let message = format!(
                "site `{}`: `{}` is the client id of `{}`, for which its ID tokens are made",
                site.name, provider.client_id, provider.name
            );
            let help = "give the API an audience of its own, or remove `jwt` from `types`";
            reader.note(Code::Contradiction, nodes, message, help);
        }
    }
}
