//! How much of this process lies in memory.

use std::fs::File;
use std::os::unix::fs::FileExt as _;

/// The seven numbers of the file are never longer.
const ROOM: usize = 256;

/// `/proc/self/statm`, kept open: it is read many times a second, and opening it costs more than all the rest.
pub(super) struct Resident(File);

impl Resident {
    /// `None` where there is no such file.
    pub(super) fn open() -> Option<Self> {
        File::open("/proc/self/statm").ok().map(Self)
    }

    /// Bytes of this process that lie in memory.
    pub(super) fn bytes(&self) -> Option<u64> {
        let mut text = [0; ROOM];
        let length = self.0.read_at(&mut text, 0).ok()?;
        let pages: u64 =
            std::str::from_utf8(text.get(..length)?).ok()?.split_ascii_whitespace().nth(1)?.parse().ok()?;
        Some(pages * rustix::param::page_size() as u64)
    }
}

#[cfg(test)]
mod tests {
    use std::hint::black_box;

    use super::*;

    #[test]
    fn each_reading_is_a_new_one() {
        let resident = Resident::open().unwrap();
        let before = resident.bytes().unwrap();
        assert!(before > 1 << 20);
        let grown = black_box(vec![1_u8; 128 << 20]);
        assert!(resident.bytes().unwrap() > before + (64 << 20));
        drop(grown);
    }
}
