//! What the database or the disk below it has to say.

use std::io;

/// Something did not work.
#[derive(Clone, Debug)]
pub(super) enum Fault {
    /// The disk refused; the database must be opened anew.
    Disk(String),
    /// The disk gave back something that was not written so.
    Damaged(String),
}

impl Fault {
    pub(super) fn text(&self) -> &str {
        match self {
            Self::Disk(text) | Self::Damaged(text) => text,
        }
    }
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        if matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof) {
            return Self::Damaged(error.to_string());
        }
        Self::Disk(match error.kind() {
            io::ErrorKind::StorageFull => "the disk is full".to_owned(),
            io::ErrorKind::QuotaExceeded => "the quota of the disk is used up".to_owned(),
            io::ErrorKind::ReadOnlyFilesystem => "the file system is read-only".to_owned(),
            _ => error.to_string(),
        })
    }
}

impl From<redb::Error> for Fault {
    fn from(error: redb::Error) -> Self {
        match error {
            redb::Error::Io(error) => error.into(),
            redb::Error::PreviousIo | redb::Error::LockPoisoned(_) => Self::Disk(error.to_string()),
            other => Self::Damaged(other.to_string()),
        }
    }
}

macro_rules! from {
    ($($error:ty)*) => {
        $(impl From<$error> for Fault {
            fn from(error: $error) -> Self {
                redb::Error::from(error).into()
            }
        })*
    };
}
from!(redb::StorageError redb::TableError redb::TransactionError redb::CommitError redb::DatabaseError);
