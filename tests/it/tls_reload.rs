//! Certificates that change while the proxy runs.

use reqwest::{Client, StatusCode};

use crate::harness::{Wishes, World, eventually};
use crate::tls_kit::{certificate, client, pair};

#[tokio::test(flavor = "multi_thread")]
async fn changed_certificates_are_used_and_bad_ones_are_not_and_no_connection_is_dropped() {
    let folder = tempfile::tempdir().expect("a folder");
    let first = certificate(folder.path(), "app", &["app.test"]);
    let world = World::with(Wishes {
        listener: format!(", tls: {{ certificates: [{}] }}", pair(folder.path(), "app")),
        hosts: "[app.test]".into(),
        ..Wishes::default()
    })
    .await;
    world.proxy.knows_provider().await;
    let url = format!("https://app.test:{}/open/x", world.proxy.address.port());
    let ok = |client: Client| {
        let url = url.clone();
        async move { client.get(url).send().await.is_ok_and(|answer| answer.status() == StatusCode::OK) }
    };
    let held = [client(&first, world.proxy.address, true), client(&first, world.proxy.address, false)];
    let still_good = || async {
        for client in &held {
            // Each has one connection, which is used again.
            assert!(ok(client.clone()).await, "a connection was dropped");
        }
    };
    still_good().await;
    let until = |series: &'static str, count: f64| {
        let world = &world;
        eventually(series, move || async move { world.metric(series).await == count })
    };
    let ends = "cloakroom_tls_certificate_not_after_timestamp_seconds";
    assert!(world.metric(ends).await > 1e9);

    std::fs::write(folder.path().join("app.crt"), "nonsense").expect("a file");
    let (good, bad) = (
        format!("cloakroom_tls_reloads_total{{listener=\"{}\",result=\"ok\"}}", world.proxy.address).leak(),
        format!("cloakroom_tls_reloads_total{{listener=\"{}\",result=\"error\"}}", world.proxy.address).leak(),
    );
    until(bad, 1.0).await;
    assert!(ok(client(&first, world.proxy.address, false)).await, "the old certificate stays");
    still_good().await;

    let second = certificate(folder.path(), "app", &["app.test"]);
    until(good, 1.0).await;
    assert!(ok(client(&second, world.proxy.address, false)).await);
    assert!(!ok(client(&first, world.proxy.address, false)).await);
    still_good().await;
    assert_eq!(world.metric(bad).await, 1.0, "told once");
}
