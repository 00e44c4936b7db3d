//! The file below the database.

use std::fs::File;
use std::io;
use std::sync::Arc;
#[cfg(test)]
use std::sync::atomic::{AtomicU64, Ordering};

use redb::StorageBackend;
use redb::backends::FileBackend;

/// The file, locked as long as this or a copy of it lives: also while the database is closed and opened anew.
#[derive(Clone, Debug)]
pub(super) struct Disk {
    file: Arc<FileBackend>,
    /// Tests fill the disk: writes beyond so many bytes fail.
    #[cfg(test)]
    room: Arc<AtomicU64>,
    #[cfg(test)]
    syncs: Arc<AtomicU64>,
}

impl Disk {
    /// Takes the lock.
    pub(super) fn new(file: File) -> Result<Self, redb::DatabaseError> {
        Ok(Self {
            file: Arc::new(FileBackend::new(file)?),
            #[cfg(test)]
            room: Arc::new(AtomicU64::new(u64::MAX)),
            #[cfg(test)]
            syncs: Arc::default(),
        })
    }

    #[cfg(test)]
    pub(super) fn set_room(&self, bytes: u64) {
        self.room.store(bytes, Ordering::SeqCst);
    }

    #[cfg(test)]
    pub(super) fn syncs(&self) -> u64 {
        self.syncs.load(Ordering::SeqCst)
    }

    fn check(&self, _end: u64) -> io::Result<()> {
        #[cfg(test)]
        if _end > self.room.load(Ordering::SeqCst) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(())
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read(&self, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        self.file.read(offset, len)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn sync_data(&self, eventual: bool) -> io::Result<()> {
        #[cfg(test)]
        self.syncs.fetch_add(1, Ordering::SeqCst);
        self.file.sync_data(eventual)
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.check(offset + data.len() as u64)?;
        self.file.write(offset, data)
    }
}
