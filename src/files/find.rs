//! From a path to an open file that lies within the folder. All of it blocks, and runs where it may.

use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::fs::{self, Metadata};
use std::io::{self, Seek as _, SeekFrom};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::header::HeaderValue;
use sha2::{Digest as _, Sha256};

use super::conditions::{Conditions, Verdict};
use super::{Body, File, PIECE};
use crate::primitives::coding::Coding;
use crate::telemetry::Throttle;

/// The file of a folder.
const INDEX: &str = "index.html";
/// The one name with a dot that is meant for everybody (RFC 8615).
const WELL_KNOWN: &str = ".well-known";
/// Files that are said to be older were given a time by whoever packed them, the same one whatever is in them (1980 is
/// the first year a ZIP knows). Such a time says nothing about a change.
const EARLIEST: Duration = Duration::from_secs(315_619_200);

/// What is asked for, below the root.
#[derive(Debug)]
pub(super) struct Wanted {
    path: PathBuf,
    /// Its last segment, as text as far as it is one.
    pub(super) name: String,
    /// It ends in a slash: a folder is meant.
    folder: bool,
}

/// What a canonical path asks for; `None` if it is nothing that is ever served.
pub(super) fn wanted(path: &str) -> Option<Wanted> {
    // Nothing at all is the route's own path without its final slash.
    let folder = path.ends_with('/');
    let mut relative = PathBuf::new();
    let mut name = String::new();
    for (index, segment) in path.split('/').filter(|segment| !segment.is_empty()).enumerate() {
        let bytes: Vec<u8> = percent_encoding::percent_decode_str(segment).collect();
        let hidden = bytes.starts_with(b".") && !(index == 0 && bytes == WELL_KNOWN.as_bytes());
        // A canonical path holds no such byte; this room does not rely on it.
        if hidden || bytes.iter().any(|byte| matches!(byte, 0 | b'/' | b'\\')) {
            return None;
        }
        relative.push(OsStr::from_bytes(&bytes));
        name = String::from_utf8_lossy(&bytes).into_owned();
    }
    if folder {
        name.clear();
    }
    Some(Wanted { path: relative, name, folder })
}

/// All that is needed to find a file.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) root: Arc<PathBuf>,
    pub(super) wanted: Wanted,
    /// What to take where there is nothing.
    pub(super) fallback: Option<Arc<str>>,
    /// What the client can decode, the best first.
    pub(super) codings: Vec<Coding>,
}

/// What there is.
pub(super) enum Found {
    File(File, Verdict),
    Folder,
    Nothing,
}

/// A file within the folder, by its real name.
struct Place {
    real: PathBuf,
    metadata: Metadata,
}

impl Job {
    /// Looks, opens, judges, and reads the first piece.
    pub(super) fn run(&self, conditions: &Conditions) -> io::Result<Found> {
        // Each time anew: a release may be put in place by turning a link.
        let Some(root) = existing(self.root.canonicalize())? else {
            static GONE: Throttle = Throttle::new();
            if let Some(held_back) = GONE.pass() {
                tracing::warn!(root = %self.root.display(), held_back, "the folder of a route with `files` is gone");
            }
            return Ok(Found::Nothing);
        };
        let path = root.join(&self.wanted.path);
        let found = match place(&root, &path)? {
            Some(place) if place.metadata.is_dir() => {
                let index = path.join(INDEX);
                match place_of_file(&root, &index)? {
                    Some(_) if !self.wanted.folder => return Ok(Found::Folder),
                    Some(place) => Some((index, place)),
                    None => None,
                }
            }
            Some(place) if place.metadata.is_file() && !self.wanted.folder => Some((path, place)),
            _ => None,
        };
        let found = match (found, &self.fallback) {
            (Some(found), _) => Some(found),
            (None, Some(fallback)) => {
                let path = root.join(&**fallback);
                place_of_file(&root, &path)?.map(|place| (path, place))
            }
            (None, None) => None,
        };
        match found {
            Some((path, plain)) => self.open(&root, &path, plain, conditions),
            None => Ok(Found::Nothing),
        }
    }

    fn open(&self, root: &Path, path: &Path, plain: Place, conditions: &Conditions) -> io::Result<Found> {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let mut coding = None;
        let mut place = plain;
        for candidate in &self.codings {
            let mut twin: OsString = path.into();
            twin.push(match candidate {
                Coding::Brotli => ".br",
                Coding::Zstd => ".zst",
                Coding::Gzip => ".gz",
            });
            // One that is older than what it was made of was forgotten.
            if let Some(twin) = place_of_file(root, Path::new(&twin))?
                && twin.metadata.modified()? >= place.metadata.modified()?
            {
                (place, coding) = (twin, Some(*candidate));
                break;
            }
        }
        let Some(mut file) = existing(fs::File::open(&place.real))? else { return Ok(Found::Nothing) };
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Ok(Found::Nothing);
        }
        let size = metadata.len();
        let modified = metadata.modified().ok().filter(|time| {
            let age = time.duration_since(SystemTime::UNIX_EPOCH);
            age.is_ok_and(|since| since >= EARLIEST) && *time <= SystemTime::now()
        });
        let tag = match modified {
            Some(time) => by_time(time, size, coding),
            None if size <= u64::try_from(PIECE).unwrap_or(u64::MAX) => by_content(&mut file, coding)?,
            None => None,
        };
        let verdict = conditions.judge(tag.as_ref(), modified, size);
        let range = match verdict {
            Verdict::Whole => Some((0, size)),
            Verdict::Part(first, last) => Some((first, last - first + 1)),
            _ => None,
        };
        let body = match range.filter(|(_, length)| !conditions.head && *length > 0) {
            Some((first, length)) => {
                file.seek(SeekFrom::Start(first))?;
                Some(Body::open(file, length)?)
            }
            None => None,
        };
        Ok(Found::File(File { name, size, coding, tag, modified, body }, verdict))
    }
}

/// Where a path really lies, if that is within the root: links are followed, and none of them leads out.
fn place(root: &Path, path: &Path) -> io::Result<Option<Place>> {
    let Some(real) = existing(path.canonicalize())? else { return Ok(None) };
    if !real.starts_with(root) {
        static ESCAPES: Throttle = Throttle::new();
        if let Some(held_back) = ESCAPES.pass() {
            tracing::warn!(root = %root.display(), held_back, "a link that leads out of the folder was not followed");
        }
        return Ok(None);
    }
    Ok(existing(fs::metadata(&real))?.map(|metadata| Place { real, metadata }))
}

/// The same for what can be read without waiting: no folder, no pipe, no device.
fn place_of_file(root: &Path, path: &Path) -> io::Result<Option<Place>> {
    Ok(place(root, path)?.filter(|place| place.metadata.is_file()))
}

/// `None` for what is not there, or not ours to read.
fn existing<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    use io::ErrorKind::{InvalidFilename, InvalidInput, NotADirectory, NotFound, PermissionDenied};
    /// Links that lead in a circle.
    const ELOOP: i32 = 40;
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error)
            if matches!(error.kind(), NotFound | NotADirectory | PermissionDenied | InvalidInput | InvalidFilename)
                || error.raw_os_error() == Some(ELOOP) =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// A tag that changes with each write.
fn by_time(modified: SystemTime, size: u64, coding: Option<Coding>) -> Option<HeaderValue> {
    let nanos = modified.duration_since(SystemTime::UNIX_EPOCH).ok()?.as_nanos();
    tag(&format!("{nanos:x}-{size:x}"), coding)
}

/// A tag for a file without a time of its own: a hash of what is in it. Leaves the file at its end.
fn by_content(file: &mut fs::File, coding: Option<Coding>) -> io::Result<Option<HeaderValue>> {
    let mut hash = Sha256::new();
    let mut bytes = Vec::new();
    io::Read::read_to_end(file, &mut bytes)?;
    hash.update(&bytes);
    let mut text = String::new();
    for byte in hash.finalize().iter().take(16) {
        let _ = write!(text, "{byte:02x}");
    }
    Ok(tag(&text, coding))
}

/// Each coding is a representation of its own (RFC 9110 §8.8.3.3).
fn tag(text: &str, coding: Option<Coding>) -> Option<HeaderValue> {
    let suffix = coding.map_or("", Coding::as_str);
    let dash = if coding.is_some() { "-" } else { "" };
    HeaderValue::from_str(&format!("\"{text}{dash}{suffix}\"")).ok()
}
