//! A listener with TLS: certificate by name, scheme of redirects and forwarded headers, sessions over HTTP/2 and
//! HTTP/1.1.

use reqwest::{Client, Method, StatusCode, Version};

use crate::harness::{SESSION, Wishes, World};
use crate::tls_kit::{certificate, client, pair};

#[tokio::test(flavor = "multi_thread")]
async fn a_session_over_tls_has_https_everywhere() {
    let folder = tempfile::tempdir().expect("a folder");
    let here = certificate(folder.path(), "here", &["127.0.0.1"]);
    let app = certificate(folder.path(), "app", &["app.test"]);
    let pair = |file: &str| pair(folder.path(), file);
    let world = World::with(Wishes {
        listener: format!(", tls: {{ certificates: [{}, {}] }}", pair("here"), pair("app")),
        hosts: "[127.0.0.1, app.test]".into(),
        ..Wishes::default()
    })
    .await;
    world.proxy.knows_provider().await;
    let recorder = world.demo.upstream.recorder();

    for (http1, version) in [(false, Version::HTTP_2), (true, Version::HTTP_11)] {
        let mut browser = world.browser();
        browser.scheme = "https";
        let plain = browser.client.clone();
        browser.client = client(&here, browser.home, http1);
        let start = browser.navigate("/api/x").await;
        let location: reqwest::Url = start.location().parse().expect("a URL");
        let redirect = location.query_pairs().find(|(name, _)| name == "redirect_uri").expect("a redirect URI").1;
        assert_eq!(redirect, format!("{}/auth/callback", browser.origin()));

        let tls = std::mem::replace(&mut browser.client, plain);
        let back = browser.navigate(location.as_str()).await.location().to_owned();
        browser.client = tls;
        let page = browser.navigate(&back).await;
        assert_eq!(page.status, StatusCode::OK, "{page:?}");
        assert!(browser.cookie(SESSION).is_some());
        let answer = browser.write(Method::POST, "/api/x", "body").await;
        assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
        let received = recorder.last().expect("a request");
        assert_eq!(received.header("x-forwarded-proto"), Some("https"));
        assert_eq!(received.header("x-forwarded-host"), Some(browser.home.to_string().as_str()));
        assert!(received.bearer().is_some());
        let origin = format!("http://{}", browser.home);
        let draft = browser.draft(Method::POST, "/api/x").header("origin", &origin).header("x-xsrf-token", "x");
        assert_eq!(browser.send(draft).await.status, StatusCode::FORBIDDEN, "plain HTTP is another origin");

        // By SNI: only a client that trusts the other certificate gets through under the other name.
        let url = format!("https://app.test:{}/open/x", world.proxy.address.port());
        let answer = client(&app, browser.home, http1).get(&url).send().await.expect("an answer");
        assert_eq!((answer.status(), answer.version()), (StatusCode::OK, version));
        assert_eq!(recorder.last().expect("a request").header("x-forwarded-proto"), Some("https"));
        assert!(client(&here, browser.home, http1).get(&url).send().await.is_err());
        let unknown = url.replace("app.test", "other.test");
        assert!(client(&app, browser.home, http1).get(&unknown).send().await.is_err(), "no certificate of that name");
    }
    // The plain protocol is not spoken on this port.
    let plain = Client::builder().no_proxy().build().expect("client");
    assert!(plain.get(format!("http://{}/open/x", world.proxy.address)).send().await.is_err());
    assert!(world.metric("cloakroom_requests_rejected_total{reason=\"tls_handshake\"}").await >= 1.0);
}
