//! Sessions in a file: one proxy, which may come and go.

use std::path::Path;

use cloakroom::app::App;
use cloakroom::config::{self, Env};
use cloakroom::primitives::clock::Clock;
use reqwest::{Method, StatusCode};

use crate::harness::{Wishes, eventually};
use crate::kit::*;
use crate::process::Process;

fn in_file(path: &Path) -> Wishes {
    Wishes { store: format!("{{ kind: file, path: \"{}\" }}", path.display()), ..ticking() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_outlives_the_proxy() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut world = world(in_file(&folder.path().join("sessions"))).await;
    let mut browsers = Vec::new();
    for _ in 0..3 {
        browsers.push(world.logged_in().await);
    }
    let mut gone = world.logged_in().await;
    assert_eq!(log_out(&mut gone).await.status, StatusCode::SEE_OTHER);
    for _ in 0..2 {
        world = world.restarted().await;
        for browser in &browsers {
            let mut browser = carry(browser, &world.proxy);
            assert_eq!(browser.fetch("/api/whoami").await.status, StatusCode::OK);
            assert_eq!(browser.write(Method::POST, "/api/whoami", "").await.status, StatusCode::OK);
        }
        let answer = carry(&gone, &world.proxy).fetch("/api/whoami").await;
        assert_eq!(answer.code(), "session_expired", "a logout outlives it as well");
    }
    // Tokens that were refreshed outlive it, too.
    world.clock.advance(OVER);
    let mut browser = carry(&browsers[0], &world.proxy);
    assert_eq!(browser.fetch("/api/whoami").await.status, StatusCode::OK);
    let calls = token_calls(&world);
    world = world.restarted().await;
    let mut browser = carry(&browsers[0], &world.proxy);
    assert_eq!(browser.fetch("/api/whoami").await.status, StatusCode::OK);
    assert_eq!((token_calls(&world), relayed(&world)), (calls, newest(&world).access_token));
    assert_shown_once(&world);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_may_begin_before_and_end_after_a_restart() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut world = world(in_file(&folder.path().join("sessions"))).await;
    let mut browser = world.browser();
    let callback = browser.authorize("/deep").await;
    let before = browser.home.to_string();
    world = world.restarted().await;
    let mut browser = carry(&browser, &world.proxy);
    let page = browser.navigate(&callback.replace(&before, &browser.home.to_string())).await;
    assert_eq!(page.status, StatusCode::OK, "{page:?}");
    assert_eq!(browser.fetch("/api/whoami").await.status, StatusCode::OK);
}

/// The whole program, twice over one file: the second one ends, and says why.
#[tokio::test(flavor = "multi_thread")]
async fn a_second_process_does_not_start_and_names_the_lock() {
    let folder = tempfile::tempdir().expect("a folder");
    let world = world(in_file(&folder.path().join("sessions"))).await;
    let mut browser = world.logged_in().await;
    let [address, admin] = [crate::process::free_address(), crate::process::free_address()];
    let yaml = world.yaml.replace("@PROXY@", &address.to_string()).replace("@ADMIN@", &admin.to_string());
    let key = ("TEST_KEY", "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=");
    let second = Process::start(&yaml, &[key, ("TEST_SECRET", cloakroom::demo::CLIENT_SECRET)]);
    eventually("the second one gives up", || async { second.output().contains("holds the lock") }).await;
    assert!(second.output().contains("sessions"), "{}", second.output());
    assert_eq!(browser.fetch("/api/whoami").await.status, StatusCode::OK, "the first one does not mind");
}

#[test]
fn a_damaged_file_stops_the_start_and_stays() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("sessions");
    std::fs::write(&path, b"not a session store").expect("a file");
    let yaml = format!(
        "listeners: [{{ address: \"{}\" }}]\nkeys: [{{ id: k, secret: {{ env: K }} }}]\nstore: {{ kind: file, path: {} }}\n\
         upstreams: [{{ name: a, endpoints: [\"127.0.0.1:1\"] }}]\n\
         sites: [{{ hosts: [localhost], routes: [{{ path: /, upstream: a, access: public }}] }}]\n",
        crate::harness::free_address(),
        path.display()
    );
    let env = Env::fixed([("K", "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=")]);
    let loaded = config::load_str("test.yaml", &yaml, &env).unwrap_or_else(|found| panic!("{}", found.plain()));
    let error = App::new(&loaded.settings, &Clock::system()).err().expect("it does not start").to_string();
    assert!(error.contains("damaged") && error.contains(path.to_str().expect("text")), "{error}");
    assert_eq!(std::fs::read(&path).expect("it is still there"), b"not a session store");
}
