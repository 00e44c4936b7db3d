//! Reads the settings again on SIGHUP, and when the file or one it was completed from has changed.
//!
//! The files are looked at once a second. That sees every way of changing them: written over, renamed into place, or behind
//! a symbolic link that is turned, as Kubernetes does with a ConfigMap.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use pingora::server::ShutdownWatch;
use pingora::services::background::BackgroundService;
use tokio::signal::unix::{SignalKind, signal};

use super::reload::Reloader;
use crate::config::{self, Diagnostics, Env};
use crate::telemetry::Metrics;

/// Pause between two looks at the files.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// After so many looks in a row that each find another state it is told that nothing is read.
const LONGEST_WRITE: u32 = 10;

/// Watches the settings file.
pub(super) struct Watch {
    pub(super) path: PathBuf,
    /// Files that the settings were completed from.
    pub(super) files: Vec<PathBuf>,
    pub(super) env: Env,
    pub(super) reloader: Arc<Reloader>,
    pub(super) metrics: Arc<Metrics>,
}

impl Watch {
    /// Reads and applies the file; returns the files to watch from now on, if it could be read.
    async fn reload(&self) -> Option<Vec<PathBuf>> {
        let file = self.path.display().to_string();
        let loaded = match config::load(&self.path, &self.env) {
            Ok(loaded) => loaded,
            Err(mistakes) => {
                tell(&mistakes);
                tracing::error!(file, mistakes = mistakes.errors(), "settings not reloaded: the old ones stay");
                self.count(false);
                return None;
            }
        };
        tell(&loaded.warnings);
        match self.reloader.apply(loaded.settings).await {
            Ok(outcome) => {
                let applied = outcome.applied.join(", ");
                tracing::info!(file, applied, "settings reloaded");
                if !outcome.needs_restart.is_empty() {
                    let sections = outcome.needs_restart.join(", ");
                    tracing::warn!(
                        file,
                        sections,
                        "changed settings hold after the next start only: restart to apply them"
                    );
                }
                self.count(true);
            }
            Err(error) => {
                tracing::error!(file, %error, "settings not reloaded: the old ones stay");
                self.count(false);
            }
        }
        Some(loaded.files)
    }

    fn count(&self, good: bool) {
        self.metrics.config_reloads_total.with_label_values(&[if good { "ok" } else { "error" }]).inc();
        loaded(&self.metrics, good);
    }
}

/// Notes that settings were read just now, and whether they hold.
pub(super) fn loaded(metrics: &Metrics, good: bool) {
    metrics.config_last_reload_successful.set(i64::from(good));
    if good {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        metrics.config_last_reload_success_timestamp_seconds.set(i64::try_from(now).unwrap_or(i64::MAX));
    }
}

/// Mistakes and warnings, a line each. They show no secret.
fn tell(found: &Diagnostics) {
    for one in found.iter() {
        let (file, line, column) = (found.file(), one.span.line, one.span.column);
        let (code, setting, help) = (one.code.as_str(), &one.setting, one.help.as_deref().unwrap_or_default());
        tracing::warn!(file, line, column, code, setting, help, "{}", one.message);
    }
}

#[async_trait]
impl BackgroundService for Watch {
    async fn start(&self, mut shutdown: ShutdownWatch) {
        let mut hangups = signal(SignalKind::hangup()).ok();
        let mut files = Files::new(&self.path, &self.files);
        loop {
            let hangup = async {
                match &mut hangups {
                    Some(hangups) => hangups.recv().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                _ = hangup => tracing::info!("SIGHUP: reading the settings again"),
                () = files.changed() => tracing::info!("the settings have changed: reading them again"),
                _ = shutdown.wait_for(|down| *down) => return,
            }
            // Before reading: what is written meanwhile is seen as the next change.
            files.note();
            if let Some(read) = self.reload().await {
                files.watch(&self.path, &read);
            }
        }
    }
}

/// What tells one state of a file from another; `None` = it is not there.
type Mark = Option<(u64, u64, u64, i64, i64)>;

/// Files, and how they were when they were read.
struct Files {
    paths: Vec<PathBuf>,
    read: Vec<Mark>,
}

impl Files {
    fn new(path: &Path, others: &[PathBuf]) -> Self {
        let mut files = Self { paths: Vec::new(), read: Vec::new() };
        files.watch(path, others);
        files
    }

    fn watch(&mut self, path: &Path, others: &[PathBuf]) {
        let (paths, read) = (std::mem::take(&mut self.paths), std::mem::take(&mut self.read));
        self.paths = std::iter::once(path.to_path_buf()).chain(others.iter().cloned()).collect();
        let known = |path: &PathBuf| paths.iter().zip(&read).find(|(known, _)| *known == path).map(|(_, mark)| *mark);
        self.read = self.paths.iter().map(|path| known(path).unwrap_or_else(|| mark(path))).collect();
    }

    fn note(&mut self) {
        self.read = self.marks();
    }

    fn marks(&self) -> Vec<Mark> {
        self.paths.iter().map(|path| mark(path)).collect()
    }

    /// Waits until a file is not as it was read, and stays like that for a second: somebody may still be writing, and half a
    /// file may be a good one that says something else.
    async fn changed(&self) {
        let mut before = self.read.clone();
        let mut changing = 0;
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let now = self.marks();
            changing = if now == self.read { 0 } else { changing + 1 };
            if changing > 0 && now == before {
                return;
            }
            if changing == LONGEST_WRITE {
                let help = "write it in one step (a new file, then `rename`), or send SIGHUP when it is whole";
                tracing::warn!(help, "the settings are being written again and again: not read yet");
            }
            before = now;
        }
    }
}

fn mark(path: &Path) -> Mark {
    let of = |data: Metadata| (data.dev(), data.ino(), data.len(), data.mtime(), data.mtime_nsec());
    std::fs::metadata(path).ok().map(of)
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn every_way_of_changing_a_file_is_seen() {
        let folder = tempfile::tempdir().unwrap();
        let (file, link) = (folder.path().join("a"), folder.path().join("link"));
        let write = |path: &Path, text: &str| std::fs::write(path, text).unwrap();
        write(&file, "1");
        write(&folder.path().join("b"), "2");
        std::os::unix::fs::symlink(&file, &link).unwrap();
        let mut files = Files::new(&link, std::slice::from_ref(&file));
        let turn = || {
            let next = folder.path().join("next");
            std::os::unix::fs::symlink(folder.path().join("b"), &next).unwrap();
            std::fs::rename(&next, &link).unwrap();
        };
        let renamed = || {
            let next = folder.path().join("next");
            write(&next, "1");
            std::fs::rename(&next, &file).unwrap();
        };
        let changes: [&dyn Fn(); 4] =
            [&|| write(&file, "longer"), &renamed, &turn, &|| std::fs::remove_file(&file).unwrap()];
        for (index, change) in changes.iter().enumerate() {
            let quiet = tokio::time::timeout(LOOK_EVERY * 5, files.changed());
            assert!(quiet.await.is_err(), "{index}: nothing has changed");
            change();
            files.changed().await;
            files.note();
        }
        assert!(files.changed().now_or_never().is_none());

        let writing = async {
            for text in 1..=2 * LONGEST_WRITE {
                write(&file, &"x".repeat(text as usize));
                tokio::time::sleep(LOOK_EVERY / 2).await;
            }
        };
        tokio::select! {
            () = files.changed() => panic!("half a file is none"),
            () = writing => {}
        }
        files.changed().await;
    }
}
