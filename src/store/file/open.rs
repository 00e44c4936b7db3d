//! The file: made once, opened by one process, looked over before it is used, never replaced.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use redb::{Builder, Database, DatabaseError};

use super::disk::Disk;
use super::fault::Fault;
use super::tables;

/// Memory for pages of the file; what is used often is read from the disk once.
const CACHE: usize = 64 << 20;

/// The file cannot be used. Nothing was done to it.
#[derive(Debug, thiserror::Error)]
pub enum FileStoreError {
    /// The file system refuses.
    #[error("store.path {0}: {1}")]
    Io(PathBuf, io::Error),
    /// Its lock is taken.
    #[error("store.path {0}: another process holds the lock on this file; only one can use it at a time")]
    InUse(PathBuf),
    /// It is not what was written.
    #[error(
        "store.path {0}: the file is damaged or is no session store ({1}). It was left as it is: put a copy back, or move \
         it away to begin without sessions"
    )]
    Damaged(PathBuf, String),
    /// A newer version of this program has written it.
    #[error("store.path {0}: the file has format {1}, and this program knows {known}", known = tables::FORMAT)]
    Newer(PathBuf, u64),
}

/// Opens the file, makes it if there is none, and reads all of it once.
pub(super) fn open(path: &Path) -> Result<(Disk, Database), FileStoreError> {
    let file = match private().open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => make(path)?,
        other => other.map_err(|error| FileStoreError::Io(path.to_owned(), error))?,
    };
    if file.metadata().is_ok_and(|about| about.len() == 0) {
        // `make` never leaves such a one behind.
        return Err(FileStoreError::Damaged(path.to_owned(), "it is empty".to_owned()));
    }
    let disk = Disk::new(file).map_err(|error| refused(path, error))?;
    // Pages are believed while the database runs, and a torn one could do anything to it, a panic included.
    let checked = catch_unwind(AssertUnwindSafe(|| {
        let mut database = reopen(&disk)?;
        if !database.check_integrity()? {
            return Err(Fault::Damaged("its lists of pages contradict each other".to_owned()));
        }
        let format = tables::prepare(&database)?;
        Ok((database, format))
    }));
    let damaged = |reason: String| FileStoreError::Damaged(path.to_owned(), reason);
    match checked {
        Ok(Ok((database, tables::FORMAT))) => Ok((disk, database)),
        Ok(Ok((_, newer))) => Err(FileStoreError::Newer(path.to_owned(), newer)),
        Ok(Err(Fault::Damaged(reason))) => Err(damaged(reason)),
        Ok(Err(Fault::Disk(reason))) => Err(FileStoreError::Io(path.to_owned(), io::Error::other(reason))),
        Err(_) => Err(damaged("it cannot be read".to_owned())),
    }
}

/// The database in a file that was looked over before.
pub(super) fn reopen(disk: &Disk) -> Result<Database, Fault> {
    let mut builder = Builder::new();
    builder.set_cache_size(CACHE).create_with_file_format_v3(true);
    Ok(builder.create_with_backend(disk.clone())?)
}

/// Whole or not at all: a crash in between leaves no half of one, and a file that another process has made meanwhile
/// stays.
fn make(path: &Path) -> Result<File, FileStoreError> {
    let fail = |error| FileStoreError::Io(path.to_owned(), error);
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.new", std::process::id()));
    let new = path.with_file_name(name);
    let _ = fs::remove_file(&new);
    let file = private().create_new(true).open(&new).map_err(fail)?;
    let filled = Disk::new(file).map_err(Fault::from).and_then(|disk| {
        tables::prepare(&reopen(&disk)?)?;
        Ok(())
    });
    // Not a rename, which would replace what is there.
    let placed = match filled {
        Ok(()) => match fs::hard_link(&new, path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            other => other,
        },
        Err(fault) => Err(io::Error::other(fault.text().to_owned())),
    };
    let _ = fs::remove_file(&new);
    placed.map_err(fail)?;
    if let Some(folder) = path.parent() {
        // The file's name has to last as long as the file.
        let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(fail)?;
    }
    private().open(path).map_err(fail)
}

fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(0o600);
    options
}

fn refused(path: &Path, error: DatabaseError) -> FileStoreError {
    match error {
        DatabaseError::DatabaseAlreadyOpen => FileStoreError::InUse(path.to_owned()),
        other => FileStoreError::Io(path.to_owned(), io::Error::other(other.to_string())),
    }
}
