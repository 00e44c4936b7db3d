//! The lines that a process writes. Whoever has one hands it over and goes on: no lock that others wait on, no I/O. A
//! thread of its own makes text of them and writes it, many lines at a time. What it cannot write fast enough is dropped
//! and counted, each stream for itself, so that a flood of requests takes no line of the audit log with it.

use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use crossbeam_queue::ArrayQueue;
use prometheus::IntCounter;

use super::Metrics;
use super::access::{Entry, Format, Now};

/// Most requests that wait to be written.
const REQUESTS: usize = 8192;
/// Most lines of each other stream that wait to be written.
const LINES: usize = 4096;
/// Bytes of a chunk from which on no more is added to it.
const CHUNK: usize = 64 * 1024;
/// How long lines gather before they are written, once there are some: a thread that was woken for each would cost more
/// than the writing.
const GATHER: Duration = Duration::from_millis(5);
/// How long the thread sleeps at most, should nobody wake it.
const NAP: Duration = Duration::from_secs(1);
/// Pause between two looks whether all is written.
const LOOK_EVERY: Duration = Duration::from_millis(1);

/// What a line belongs to: its field `stream`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// One line a request.
    Access,
    /// Who did what to whose session.
    Audit,
    /// What the program has to say.
    App,
}

impl Stream {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Access, Self::Audit, Self::App];

    /// The word in the field and in the metric.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Access => "access",
            Self::Audit => "audit",
            Self::App => "app",
        }
    }
}

/// Takes lines. Clones write to the same place.
#[derive(Clone)]
pub struct Lines(Arc<Shared>);

struct Shared {
    requests: ArrayQueue<Box<Entry>>,
    audit: ArrayQueue<Box<[u8]>>,
    app: ArrayQueue<Box<[u8]>>,
    /// How requests are written down; set before the first one comes.
    format: OnceLock<Format>,
    writer: OnceLock<Thread>,
    /// The writer has found nothing and wants to be woken.
    asleep: AtomicBool,
    /// The writer has lines in hand.
    busy: AtomicBool,
    /// By [`Stream`].
    dropped: [IntCounter; Stream::ALL.len()],
}

impl Lines {
    /// Writes to `out` from a thread of its own, as long as the process lives.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn to(out: impl Write + Send + 'static, metrics: &Metrics) -> io::Result<Self> {
        let dropped = Stream::ALL.map(|stream| metrics.log_lines_dropped_total.with_label_values(&[stream.as_str()]));
        let shared = Arc::new(Shared {
            requests: ArrayQueue::new(REQUESTS),
            audit: ArrayQueue::new(LINES),
            app: ArrayQueue::new(LINES),
            format: OnceLock::new(),
            writer: OnceLock::new(),
            asleep: AtomicBool::new(false),
            busy: AtomicBool::new(false),
            dropped,
        });
        let of_writer = Arc::clone(&shared);
        let writer = thread::Builder::new().name("log".to_owned()).spawn(move || of_writer.write_to(out))?;
        let _ = shared.writer.set(writer.thread().clone());
        Ok(Self(shared))
    }

    /// How requests are written down. The first call counts.
    pub fn set_format(&self, format: Format) {
        let _ = self.0.format.set(format);
    }

    /// Takes a whole line, its end included.
    pub fn text(&self, stream: Stream, line: Box<[u8]>) {
        let queue = if stream == Stream::Audit { &self.0.audit } else { &self.0.app };
        let taken = queue.push(line).is_ok();
        self.0.handed_over(stream, taken);
    }

    /// Takes a request that is over.
    pub fn request(&self, entry: Box<Entry>) {
        let taken = self.0.requests.push(entry).is_ok();
        self.0.handed_over(Stream::Access, taken);
    }

    /// Waits until all that was handed over so far is written, and no longer than `longest`: whoever reads our output may
    /// have stopped.
    pub fn flush(&self, longest: Duration) {
        let until = Instant::now() + longest;
        while !self.0.is_done() && Instant::now() < until {
            self.0.wake();
            thread::sleep(LOOK_EVERY);
        }
    }
}

impl Shared {
    fn handed_over(&self, stream: Stream, taken: bool) {
        if !taken {
            self.count_dropped(stream, 1);
        } else if self.asleep.load(Ordering::SeqCst) && self.asleep.swap(false, Ordering::SeqCst) {
            self.wake();
        }
    }

    fn count_dropped(&self, stream: Stream, lines: u64) {
        if let Some(counter) = self.dropped.get(stream as usize) {
            counter.inc_by(lines);
        }
    }

    fn wake(&self) {
        if let Some(writer) = self.writer.get() {
            writer.unpark();
        }
    }

    fn is_empty(&self) -> bool {
        self.audit.is_empty() && self.app.is_empty() && self.requests.is_empty()
    }

    /// Nothing waits, and the writer has nothing in hand. In this order: it takes before it lets go.
    fn is_done(&self) -> bool {
        self.is_empty() && !self.busy.load(Ordering::SeqCst)
    }

    fn write_to(&self, mut out: impl Write) {
        let mut text = Vec::with_capacity(CHUNK);
        let mut torn = false;
        loop {
            self.busy.store(true, Ordering::SeqCst);
            if torn {
                // Of the line before only a part may be there.
                text.push(b'\n');
            }
            let begin = text.len();
            let lines = self.gather(&mut text);
            let (some, full) = (text.len() > begin, text.len() >= CHUNK);
            if some {
                torn = out.write_all(&text).and_then(|()| out.flush()).is_err();
            }
            if some && torn {
                for (stream, lines) in Stream::ALL.into_iter().zip(lines) {
                    self.count_dropped(stream, lines);
                }
            }
            self.busy.store(false, Ordering::SeqCst);
            text.clear();
            if full {
                continue;
            }
            if some {
                thread::park_timeout(GATHER);
                continue;
            }
            self.asleep.store(true, Ordering::SeqCst);
            if self.is_empty() {
                thread::park_timeout(NAP);
            }
            self.asleep.store(false, Ordering::SeqCst);
        }
    }

    /// The text of what waits, as far as one chunk holds it, and how many lines of each stream are in it.
    fn gather(&self, text: &mut Vec<u8>) -> [u64; Stream::ALL.len()] {
        let [mut requests, mut audit, mut app] = [0; 3];
        let now = Now::read();
        while text.len() < CHUNK {
            if let Some(line) = self.audit.pop() {
                text.extend_from_slice(&line);
                audit += 1;
            } else if let Some(line) = self.app.pop() {
                text.extend_from_slice(&line);
                app += 1;
            } else if let Some(entry) = self.requests.pop() {
                if let Some(format) = self.format.get() {
                    format.write(&entry, now, text);
                }
                requests += 1;
            } else {
                break;
            }
        }
        [requests, audit, app]
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Condvar, Mutex};

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    /// Keeps what is written; while it is closed, writing waits.
    #[derive(Clone, Default)]
    struct Place(Arc<Inside>);

    #[derive(Default)]
    struct Inside {
        state: Mutex<State>,
        turned: Condvar,
    }

    #[derive(Default)]
    struct State {
        closed: bool,
        written: Vec<u8>,
    }

    impl Place {
        fn set_closed(&self, closed: bool) {
            self.0.state.lock().unwrap().closed = closed;
            self.0.turned.notify_all();
        }

        fn text(&self) -> String {
            String::from_utf8(self.0.state.lock().unwrap().written.clone()).unwrap()
        }
    }

    impl Write for Place {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let state = self.0.state.lock().unwrap();
            self.0.turned.wait_while(state, |state| state.closed).unwrap().written.extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    struct Broken;

    impl Write for Broken {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn line(text: &str) -> Box<[u8]> {
        format!("{text}\n").into_bytes().into()
    }

    #[test]
    fn all_lines_come_in_order_from_many_threads_and_after_sleep() {
        let (metrics, place) = (Metrics::new().unwrap(), Place::default());
        let lines = Lines::to(place.clone(), &metrics).unwrap();
        for round in 0..20 {
            thread::scope(|scope| {
                for name in ["a", "b", "c"] {
                    let lines = lines.clone();
                    scope.spawn(move || {
                        (0..50).for_each(|n| lines.text(Stream::App, line(&format!("{name}{round}.{n}"))))
                    });
                }
            });
            while round % 2 == 0 && !lines.0.asleep.load(Ordering::SeqCst) {
                thread::yield_now();
            }
        }
        lines.flush(LONG);
        let text = place.text();
        assert_eq!(text.lines().count(), 3000);
        for name in ["a", "b", "c"] {
            let seen: Vec<_> = text.lines().filter(|line| line.starts_with(name)).collect();
            let sent: Vec<_> = (0..20).flat_map(|round| (0..50).map(move |n| format!("{name}{round}.{n}"))).collect();
            assert_eq!(seen, sent);
        }
    }

    #[test]
    fn who_writes_never_waits_and_what_is_too_much_is_counted() {
        let (metrics, place) = (Metrics::new().unwrap(), Place::default());
        place.set_closed(true);
        let lines = Lines::to(place.clone(), &metrics).unwrap();
        let sent = 2 * LINES + CHUNK;
        for _ in 0..sent {
            lines.text(Stream::App, line("x"));
        }
        lines.text(Stream::Audit, line("audit"));
        let dropped = |stream: Stream| metrics.log_lines_dropped_total.with_label_values(&[stream.as_str()]).get();
        assert!(dropped(Stream::App) > 0);
        assert_eq!(dropped(Stream::Audit), 0, "a flood of one stream takes none of another");
        place.set_closed(false);
        lines.flush(LONG);
        let text = place.text();
        let written = text.lines().filter(|line| *line == "x").count();
        assert_eq!(u64::try_from(sent - written).unwrap(), dropped(Stream::App));
        assert!(text.lines().any(|line| line == "audit"));
    }

    #[test]
    fn what_cannot_be_written_is_counted_too() {
        let metrics = Metrics::new().unwrap();
        let lines = Lines::to(Broken, &metrics).unwrap();
        for _ in 0..10 {
            lines.text(Stream::Audit, line("x"));
        }
        lines.flush(LONG);
        assert_eq!(metrics.log_lines_dropped_total.with_label_values(&["audit"]).get(), 10);
    }
}
