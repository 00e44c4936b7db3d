//! What the scripts publish, and the connection that hears it.

use std::sync::Arc;
use std::time::Duration;

use fred::error::Error;
use fred::interfaces::{ClientLike as _, EventInterface as _, PubsubInterface as _};
use fred::types::Value;
use futures::future::select_all;
use tokio::sync::{broadcast, watch};
use tokio::time::{Instant, sleep, timeout};

use super::super::record::SessionKey;
use super::super::{CHANGES_WAITING, Change};
use super::causes;
use super::link::{Connection, Link, Shared};
use super::nodes::Known;

/// How often the connection is asked for a sign of life, and how long it may take for one.
const PULSE: Duration = Duration::from_secs(1);

/// Wait before another attempt, for a server that lets nobody listen should not be asked in a tight loop.
const PAUSE: Duration = Duration::from_millis(250);

/// Those who listen in this process.
pub(super) struct Hub {
    channel: String,
    sender: broadcast::Sender<Change>,
    wanted: watch::Sender<bool>,
}

impl Hub {
    pub(super) fn new(channel: String) -> Self {
        Self { channel, sender: broadcast::Sender::new(CHANGES_WAITING), wanted: watch::Sender::new(false) }
    }

    pub(super) fn channel(&self) -> &str {
        &self.channel
    }

    /// From now on there is somebody to listen for.
    pub(super) fn subscribe(&self) -> broadcast::Receiver<Change> {
        let receiver = self.sender.subscribe();
        self.wanted.send_replace(true);
        receiver
    }

    /// Nobody listening is no error.
    fn tell(&self, change: Change) {
        let _ = self.sender.send(change);
    }
}

/// The message that says so.
pub(super) fn message(change: &Change) -> String {
    match change {
        Change::Replaced(key, version) => format!("r:{}:{version}", key.to_text()),
        Change::Ended(key) => format!("e:{}", key.to_text()),
        Change::Missed => "m".to_owned(),
    }
}

/// The inverse of [`message`]. What cannot be read comes from a version that knows more: something has changed.
fn parse(message: &[u8]) -> Change {
    let read = || {
        let (kind, rest) = message.split_at_checked(2)?;
        match kind {
            b"e:" => SessionKey::from_text(rest).map(Change::Ended),
            b"r:" => {
                let (key, version) = rest.split_at_checked(43)?;
                let version = std::str::from_utf8(version.strip_prefix(b":")?).ok()?.parse().ok()?;
                SessionKey::from_text(key).map(|key| Change::Replaced(key, version))
            }
            _ => None,
        }
    };
    read().unwrap_or(Change::Missed)
}

/// Keeps a subscription up beside a connection for commands, from the first time that somebody wants it; never returns.
/// It ends with that connection, for both are to be of the same server. In a cluster any node will do: all tell all.
pub(super) async fn listen(known: &Known) {
    let mut wanted = known.hub.wanted.subscribe();
    let mut told = false;
    loop {
        // The sender lives as long as `known`.
        let _ = wanted.wait_for(|wanted| *wanted).await;
        let Some((link, connection)) = a_connection(known).await else { continue };
        let reason = match subscribed(known, link.shared(), &connection, &mut told).await {
            Ok(reason) => reason.to_owned(),
            Err(error) => causes::cause(&error),
        };
        // Once an outage; the loss of the connection itself has its own line.
        if !connection.is_over() && !std::mem::replace(&mut told, true) {
            tracing::warn!(reason, "cannot listen for changes in Redis; trying on");
        }
        sleep(PAUSE).await;
    }
}

/// The first connection that is there, if it comes in time.
async fn a_connection(known: &Known) -> Option<(Arc<Link>, Arc<Connection>)> {
    let deadline = Instant::now() + PULSE;
    // For a cluster whose layout is not known yet.
    if known.node_of(0, deadline).await.is_err() {
        sleep(PAUSE).await;
    }
    let connecting = known.links().into_iter().map(|link| {
        Box::pin(async move {
            link.wake_keeper(deadline);
            let connection = link.shared().connected().await;
            (link, connection)
        })
    });
    let connecting: Vec<_> = connecting.collect();
    if connecting.is_empty() {
        return None;
    }
    timeout(PULSE, select_all(connecting)).await.ok().map(|(first, ..)| first)
}

/// Subscribes and passes changes on until the subscription ends; then says why.
async fn subscribed(
    known: &Known,
    shared: &Shared,
    beside: &Arc<Connection>,
    told: &mut bool,
) -> Result<&'static str, Error> {
    let hub = &known.hub;
    let mut over = beside.over();
    let (client, mut router) = tokio::select! {
        opened = shared.way.open(CHANGES_WAITING) => opened?,
        _ = over.wait_for(|over| *over) => return Ok("the connection was lost"),
    };
    let mut messages = client.message_rx();
    client.subscribe(hub.channel.clone()).await?;
    // fred does not wait for the answer to SUBSCRIBE. This one comes after it, or is the refusal.
    client.ping::<Value>(None).await?;
    *told = false;
    tracing::debug!("listening for changes in Redis");
    // Whatever was told before this moment went unheard.
    hub.tell(Change::Missed);
    let pulse = async {
        loop {
            sleep(PULSE).await;
            match timeout(PULSE, client.ping::<Value>(None)).await {
                Ok(Ok(_)) => {}
                _ => break,
            }
        }
    };
    let mut pulse = std::pin::pin!(pulse);
    loop {
        tokio::select! {
            biased;
            message = messages.recv() => match message {
                Ok(message) => match message.value.as_bytes() {
                    // A probe, to see whether it may be sent.
                    Some([]) => {}
                    text => hub.tell(text.map_or(Change::Missed, parse)),
                },
                Err(broadcast::error::RecvError::Lagged(_)) => hub.tell(Change::Missed),
                Err(broadcast::error::RecvError::Closed) => return Ok("the connection was closed"),
            },
            _ = router.ended() => return Ok("the connection was closed"),
            _ = over.wait_for(|over| *over) => return Ok("the connection was lost"),
            () = &mut pulse => return Ok("no sign of life"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_read_as_they_are_written() {
        let key = SessionKey::from_bytes([7; 32]);
        for change in [Change::Replaced(key, 1), Change::Replaced(key, u64::MAX), Change::Ended(key), Change::Missed] {
            assert_eq!(parse(message(&change).as_bytes()), change);
        }
        for odd in ["", "r", "r:", "e:short", "x:1", "r:Bwc:1", "\u{fc}\u{fc}"] {
            assert_eq!(parse(odd.as_bytes()), Change::Missed);
        }
        let key = key.to_text();
        for odd in [format!("r:{key}"), format!("r:{key}:"), format!("r:{key}:-1"), format!("e:{key}:")] {
            assert_eq!(parse(odd.as_bytes()), Change::Missed);
        }
    }
}
