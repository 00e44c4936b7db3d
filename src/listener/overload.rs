//! The overload guard: work is refused before memory ends, for a process that the kernel ends loses everybody's.
//!
//! Resident memory is read many times a second in the background. From the high-water mark on, requests are answered
//! with 503, and connections are cut that hold memory or will: on HTTP/2 those with many requests under way, for what they
//! were let in with may fill buffers for some time to come, and whichever take nothing of what is read ahead for them
//! (`held.rs`). From half way between there and the end on, connections are not even taken, for a handshake costs memory too.
//! A request costs one relaxed load of this.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::sync::futures::Notified;
use tokio::time::Instant;

use super::give_back;
use super::resident::Resident;
use crate::config::settings::Most;
use crate::telemetry::metrics::Metrics;

/// Pause between two readings: short, for what a few clients do not take can grow by hundreds of megabytes a second. A reading
/// takes some ten microseconds.
const READ_EVERY: Duration = Duration::from_millis(25);
/// Share of the memory there is, in per cent, from which on work is refused unless the settings say otherwise.
const HIGH_WATER: u64 = 85;
/// Work is taken again below this share of the high-water mark, in per cent.
const LOW_WATER: u64 = 95;

/// While memory stays short, connections are looked over each time that so many readings have passed.
const SHED_EVERY: u32 = 10;

/// Whether there is too much to do. Clones share the state.
#[derive(Clone, Debug, Default)]
pub struct Overload(Arc<State>);

#[derive(Debug, Default)]
struct State {
    level: AtomicU8,
    shed: Notify,
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum Level {
    Calm = 0,
    /// No new requests.
    High = 1,
    /// No new connections either.
    Critical = 2,
}

impl Overload {
    /// Whether a new request must be refused.
    #[must_use]
    pub fn refuses_requests(&self) -> bool {
        self.0.level.load(Ordering::Relaxed) >= Level::High as u8
    }

    /// Whether a new connection must be refused.
    #[must_use]
    pub(super) fn refuses_connections(&self) -> bool {
        self.0.level.load(Ordering::Relaxed) >= Level::Critical as u8
    }

    /// Comes when memory runs short: who holds much of it should end.
    pub(super) fn runs_short(&self) -> Notified<'_> {
        self.0.shed.notified()
    }

    pub(crate) fn set(&self, level: Level) {
        self.0.level.store(level as u8, Ordering::Relaxed);
        if level >= Level::High {
            self.0.shed.notify_waiters();
        }
    }
}

/// Bytes of resident memory from which on new requests are refused; `None` = never.
#[must_use]
pub fn mark(most: Most) -> Option<u64> {
    Some(Marks::new(most, available())?.high)
}

/// Where the marks lie, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Marks {
    high: u64,
    critical: u64,
}

impl Marks {
    /// `None`: no limit, or it is not known how much memory there is.
    pub(super) fn new(most: Most, available: Option<u64>) -> Option<Self> {
        let high = match most {
            Most::Unlimited => return None,
            Most::Given(bytes) => bytes,
            Most::Fitting => available? / 100 * HIGH_WATER,
        };
        let end = available.filter(|end| *end > high).unwrap_or(high / 100 * 110);
        Some(Self { high, critical: high + (end - high) / 2 })
    }

    /// How bad so much memory is, given how bad it was.
    fn level(self, used: u64, before: Level) -> Level {
        if used >= self.critical {
            Level::Critical
        } else if used >= self.high || (before > Level::Calm && used >= self.high / 100 * LOW_WATER) {
            Level::High
        } else {
            Level::Calm
        }
    }
}

/// Reads memory and raises the flag, as long as it is polled.
pub(super) struct Watch {
    marks: Option<Marks>,
    overload: Overload,
    level: Level,
    /// Readings since memory ran short.
    short: u32,
}

impl Watch {
    /// Tells the limit in the log and in the metrics.
    pub(super) fn new(most: Most, overload: Overload, metrics: &Metrics) -> Self {
        let marks = Marks::new(most, available());
        match marks {
            Some(marks) => tracing::info!(bytes = marks.high, "new work is refused from this much resident memory on"),
            None => tracing::info!("no limit on memory"),
        }
        metrics.memory_limit_bytes.set(marks.map_or(0, |marks| signed(marks.high)));
        Self { marks, overload, level: Level::Calm, short: 0 }
    }

    pub(super) async fn run(mut self, metrics: &Metrics) {
        let mut nudged = Instant::now();
        let mut resident = None;
        loop {
            if nudged.elapsed() >= give_back::EVERY {
                give_back::nudge();
                nudged = Instant::now();
            }
            if resident.is_none() {
                resident = Resident::open();
            }
            if let Some(used) = resident.as_ref().and_then(Resident::bytes) {
                metrics.memory_bytes.set(signed(used));
                self.note(used);
            }
            tokio::time::sleep(READ_EVERY).await;
        }
    }

    fn note(&mut self, used: u64) {
        let Some(marks) = self.marks else { return };
        let level = marks.level(used, self.level);
        if level != self.level {
            self.overload.set(level);
            match (self.level, level) {
                (Level::Calm, _) => {
                    let help = "give it more memory, raise `limits.memory`, or lower `session.cache.memory`";
                    tracing::error!(used, limit = marks.high, help, "memory runs out: new work is refused");
                }
                (_, Level::Calm) => tracing::info!(used, limit = marks.high, "memory suffices again"),
                _ => {}
            }
            self.level = level;
        }
        self.short = if level >= Level::High { self.short.wrapping_add(1) } else { 0 };
        if self.short > 0 && self.short.is_multiple_of(SHED_EVERY) {
            self.overload.set(level);
        }
    }
}

fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

/// Bytes this process may have: the least of its control groups' limits and the machine's memory.
fn available() -> Option<u64> {
    let machine = fs::read_to_string("/proc/meminfo").ok().and_then(|text| machine_memory(&text));
    let groups = fs::read_to_string("/proc/self/cgroup").ok();
    [machine, groups.and_then(|groups| group_limit(&groups, Path::new("/sys/fs/cgroup")))].into_iter().flatten().min()
}

fn machine_memory(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

/// The least limit on the way from our group to the root, of either version of control groups. In a container the root
/// is often our own group already, whatever its path says.
fn group_limit(groups: &str, root: &Path) -> Option<u64> {
    let read = |file: &Path| fs::read_to_string(file).ok()?.trim().parse::<u64>().ok();
    groups
        .lines()
        .filter_map(|line| {
            let mut parts = line.splitn(3, ':');
            let (_, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
            match controllers {
                "" => Some((root.to_owned(), "memory.max", path)),
                other if other.split(',').any(|name| name == "memory") => {
                    Some((root.join("memory"), "memory.limit_in_bytes", path))
                }
                _ => None,
            }
        })
        .flat_map(|(mount, file, path)| {
            let own = mount.join(path.trim_start_matches('/'));
            let least = own.ancestors().take_while(|folder| folder.starts_with(&mount));
            least.filter_map(|folder| read(&folder.join(file))).collect::<Vec<_>>()
        })
        .min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_lie_below_what_there_is() {
        let gib = 1 << 30;
        let marks = Marks::new(Most::Fitting, Some(gib)).unwrap();
        assert!(marks.high < gib && marks.high > gib / 5 * 4 && marks.critical > marks.high && marks.critical < gib);
        assert_eq!(Marks::new(Most::Given(100), None), Some(Marks { high: 100, critical: 105 }));
        assert_eq!(Marks::new(Most::Given(100), Some(300)), Some(Marks { high: 100, critical: 200 }));
        assert_eq!(Marks::new(Most::Unlimited, Some(gib)), None);
        assert_eq!(Marks::new(Most::Fitting, None), None);
    }

    #[test]
    fn the_flag_goes_up_at_the_mark_and_down_some_way_below_it() {
        let overload = Overload::default();
        let marks = Some(Marks { high: 1000, critical: 1100 });
        let mut watch = Watch { marks, overload: overload.clone(), level: Level::Calm, short: 0 };
        let mut after = |used| {
            watch.note(used);
            (overload.refuses_requests(), overload.refuses_connections())
        };
        assert_eq!(after(999), (false, false));
        assert_eq!(after(1000), (true, false));
        assert_eq!(after(1100), (true, true));
        assert_eq!(after(1099), (true, false));
        assert_eq!(after(960), (true, false), "it does not flutter");
        assert_eq!(after(940), (false, false));
        assert_eq!(after(960), (false, false));
    }

    #[test]
    fn what_there_is_is_read_from_the_kernel() {
        assert_eq!(machine_memory("MemTotal:       16384 kB\nMemFree: 1 kB\n"), Some(16 << 20));
        assert!(available().is_some_and(|bytes| bytes > 1 << 20));
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let file = root.path().join(path);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, text).unwrap();
        };
        write("pod/memory.max", "2000\n");
        write("pod/box/memory.max", "max\n");
        assert_eq!(group_limit("0::/pod/box\n", root.path()), Some(2000), "the parent's limit counts");
        assert_eq!(group_limit("0::/\n", root.path()), None);
        write("memory.max", "1500\n");
        assert_eq!(group_limit("0::/unknown/here\n", root.path()), Some(1500), "in a container the root is ours");
        write("memory/a/memory.limit_in_bytes", "700\n");
        assert_eq!(group_limit("5:cpu:/\n4:memory,hugetlb:/a\n", root.path()), Some(700));
        assert_eq!(group_limit("nonsense\n0::/../../etc\n", root.path()), Some(1500));
    }
}
