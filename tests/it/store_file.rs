//! Sessions in a file: the whole program, which is killed and started again.

use std::net::SocketAddr;
use std::path::Path;

use cloakroom::app::App;
use cloakroom::config::{self, Env};
use cloakroom::primitives::clock::Clock;
use reqwest::{Method, StatusCode};

use crate::harness::{Browser, Wishes, World, eventually};
use crate::kit::*;
use crate::process::{Process, free_address};

const KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

/// The program at an address of its own, beside the provider and upstream of a world.
struct Program {
    yaml: String,
    address: SocketAddr,
    process: Option<Process>,
}

impl Program {
    async fn start(world: &World, path: &Path) -> Self {
        let [address, admin] = [free_address(), free_address()];
        let store = format!("store: {{ kind: file, path: \"{}\" }}", path.display());
        let yaml = world.yaml.replace("store: { kind: memory }", &store);
        let yaml = yaml.replace("@PROXY@", &address.to_string()).replace("@ADMIN@", &admin.to_string());
        let mut program = Self { yaml, address, process: None };
        program.run().await;
        program
    }

    fn spawn(&self) -> Process {
        Process::start(&self.yaml, &[("TEST_KEY", KEY), ("TEST_SECRET", cloakroom::demo::CLIENT_SECRET)])
    }

    async fn run(&mut self) {
        let process = self.process.insert(self.spawn());
        eventually("it is ready", || async { process.output().contains("ready") }).await;
        let mut browser = Browser::new(self.address);
        eventually_login(&mut browser).await;
    }

    /// SIGKILL, and once more from the beginning.
    async fn kill_and_run(&mut self) {
        self.process = None;
        self.run().await;
    }
}

/// Until the provider is known as well.
async fn eventually_login(browser: &mut Browser) {
    let until = std::time::Instant::now() + crate::harness::PATIENCE;
    while browser.navigate("/").await.status != StatusCode::SEE_OTHER {
        assert!(std::time::Instant::now() < until, "no login begins");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn f1_sessions_logouts_and_logins_under_way_survive_kill_9() {
    let folder = tempfile::tempdir().expect("a folder");
    let world = world(Wishes::default()).await;
    let mut program = Program::start(&world, &folder.path().join("sessions")).await;
    let mut browsers = Vec::new();
    for _ in 0..4 {
        let mut browser = Browser::new(program.address);
        browser.log_in("/").await;
        browsers.push(browser);
    }
    let mut gone = browsers.pop().expect("a browser");
    for _ in 0..3 {
        if gone.fetch("/api/whoami").await.status == StatusCode::OK {
            assert_eq!(log_out(&mut gone).await.status, StatusCode::SEE_OTHER);
        }
        let mut under_way = Browser::new(program.address);
        let callback = under_way.authorize("/deep").await;
        program.kill_and_run().await;
        for browser in &mut browsers {
            assert_eq!(browser.fetch("/api/whoami").await.status, StatusCode::OK);
            assert_eq!(browser.write(Method::POST, "/api/whoami", "").await.status, StatusCode::OK);
        }
        assert_eq!(gone.fetch("/api/whoami").await.status, StatusCode::UNAUTHORIZED, "who logged out stays so");
        let page = under_way.navigate(&callback).await;
        assert_eq!(page.status, StatusCode::OK, "{page:?}");
        assert_eq!(under_way.fetch("/api/whoami").await.status, StatusCode::OK);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_process_does_not_start_and_names_the_lock() {
    let folder = tempfile::tempdir().expect("a folder");
    let world = world(Wishes::default()).await;
    let program = Program::start(&world, &folder.path().join("sessions")).await;
    let mut browser = Browser::new(program.address);
    browser.log_in("/").await;
    let [address, admin] = [free_address(), free_address()];
    let yaml = program.yaml.replace(&program.address.to_string(), &address.to_string());
    let old = yaml.lines().find(|line| line.starts_with("admin:")).expect("an admin listener").to_owned();
    let yaml = yaml.replace(&old, &format!("admin: {{ address: \"{admin}\" }}"));
    let second = Program { yaml, address, process: None }.spawn();
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
    let env = Env::fixed([("K", KEY)]);
    let loaded = config::load_str("test.yaml", &yaml, &env).unwrap_or_else(|found| panic!("{}", found.plain()));
    let error = App::new(&loaded.settings, &Clock::system()).err().expect("it does not start").to_string();
    assert!(error.contains("damaged") && error.contains(path.to_str().expect("text")), "{error}");
    assert_eq!(std::fs::read(&path).expect("it is still there"), b"not a session store");
}
