//! `kind: file`.

use std::path::PathBuf;

use crate::config::decode::{Fields, Reader};
use crate::config::settings::FileStore;

pub(super) fn store(reader: &mut Reader<'_>, fields: &Fields<'_>) -> Option<FileStore> {
    let path = fields.required(reader, "path", "/var/lib/cloakroom/sessions.redb", |reader, node| {
        // A relative path is one beside the settings file, wherever the program was started.
        Some(reader.base.join(PathBuf::from(reader.word(node)?)))
    });
    Some(FileStore { path: path? })
}
