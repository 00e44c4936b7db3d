//! What of a file is sent, a piece at a time.

use std::fs::File;
use std::io::{self, Read as _};

use bytes::Bytes;

use super::PIECE;

/// The rest of a file, or of a part of it.
#[derive(Debug)]
pub struct Body {
    file: Option<File>,
    /// Read with the opening.
    first: Option<Bytes>,
    /// Bytes that are still in the file.
    left: u64,
}

impl Body {
    /// So many bytes from where the file stands. Blocks while it reads the first piece.
    ///
    /// # Errors
    /// If the file cannot be read, or is shorter.
    pub(super) fn open(mut file: File, length: u64) -> io::Result<Self> {
        let first = read(&mut file, length)?;
        let left = length.saturating_sub(u64::try_from(first.len()).unwrap_or(u64::MAX));
        Ok(Self { file: (left > 0).then_some(file), first: Some(first), left })
    }

    /// The next piece; `None` at the end.
    ///
    /// # Errors
    /// If the file cannot be read, or has become shorter meanwhile: what was promised cannot be sent then.
    pub async fn next(&mut self) -> io::Result<Option<Bytes>> {
        if let Some(first) = self.first.take() {
            return Ok(Some(first));
        }
        let Some(mut file) = self.file.take() else { return Ok(None) };
        let left = self.left;
        let reading = tokio::task::spawn_blocking(move || read(&mut file, left).map(|piece| (file, piece)));
        let (file, piece) = reading.await.map_err(io::Error::other)??;
        self.left = left.saturating_sub(u64::try_from(piece.len()).unwrap_or(u64::MAX));
        self.file = (self.left > 0).then_some(file);
        Ok(Some(piece))
    }

    /// Whether the piece that came last was the last one.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.first.is_none() && self.file.is_none()
    }
}

fn read(file: &mut File, left: u64) -> io::Result<Bytes> {
    let length = usize::try_from(left).unwrap_or(PIECE).min(PIECE);
    let mut piece = vec![0; length];
    file.read_exact(&mut piece)?;
    Ok(piece.into())
}
