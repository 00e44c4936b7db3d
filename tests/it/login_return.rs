//! Where a login comes back to: never off the site (behaviour L10; F22).

use reqwest::Url;
use url::form_urlencoded::byte_serialize;

use crate::harness::World;
use crate::login_kit::{guarded, onward};

/// Values after the query's own decoding.
const TRICKS: [&str; 40] = [
    "",
    "x",
    "//evil.example",
    "///evil.example",
    "////evil.example/..",
    "/\\evil.example",
    "\\\\evil.example",
    "\\/evil.example",
    "/%5cevil.example",
    "/%2fevil.example",
    "/%252fevil.example",
    "/%255cevil.example",
    "/%09/evil.example",
    "/\t/evil.example",
    "/\r\n/evil.example",
    "\t//evil.example",
    "/\0/evil.example",
    "https:evil.example",
    "https:/evil.example",
    "https://evil.example",
    "HTTPS://evil.example",
    "javascript:alert(1)",
    "data:text/html,<script>alert(1)</script>",
    "//user@evil.example",
    "/.//evil.example",
    "/x/..//evil.example",
    "/%2e%2e//evil.example",
    "app.example.com.evil.example",
    "@evil.example",
    "/\u{ff0f}evil.example",
    "/%EF%BC%8Fevil.example",
    "/\u{3002}evil",
    "/\u{200b}/evil.example",
    " /x",
    "/x ",
    "/auth/login",
    "/auth/logout",
    "/auth/callback?code=x&state=y",
    "/%61uth/logout",
    "/logout",
];

#[tokio::test(flavor = "multi_thread")]
async fn l10_no_trick_leaves_the_site() {
    let world = World::start().await;
    world.proxy.knows_provider().await;
    for trick in TRICKS {
        let encoded: String = byte_serialize(trick.as_bytes()).collect();
        assert_eq!(through(&world, &format!("return_to={encoded}")).await, "/", "{trick:?}");
    }
    // As an attacker writes them into a link, decoded once on the way.
    for raw in ["//evil.example", "/%5cevil.example", "/%2fevil.example", "%2f%2fevil.example", "/%09/evil.example"] {
        assert_eq!(through(&world, &format!("return_to={raw}")).await, "/", "{raw:?}");
    }
    for twice in ["return_to=/x&return_to=//evil.example", "return_to=/x&return_to=/x", "return_to=/x&return%5fto=/y"] {
        assert_eq!(through(&world, twice).await, "/", "{twice:?}");
    }
    let long = format!("return_to=/{}", "a".repeat(4000));
    assert_eq!(through(&world, &long).await, "/");
}

#[tokio::test(flavor = "multi_thread")]
async fn l10_paths_of_the_site_come_back_as_they_were() {
    let world = World::start().await;
    world.proxy.knows_provider().await;
    for path in ["/", "/deep/er/?a=1&b=//evil.example", "/caf%C3%A9", "/a%20b?c=https://evil.example#part", "/%3C'%3E"]
    {
        let encoded: String = byte_serialize(path.as_bytes()).collect();
        let target = through(&world, &format!("return_to={encoded}")).await;
        let home = Url::parse("http://site.invalid").expect("url");
        assert_eq!(home.join(&target).expect("url"), home.join(path).expect("url"));
    }
}

/// A whole login that begins with this query; where its last page goes.
async fn through(world: &World, query: &str) -> String {
    let mut browser = world.browser();
    let page = browser.log_in(&format!("/auth/login?{query}")).await;
    guarded(&page);
    assert!(!page.body.contains("<script>alert"), "{page:?}");
    let target = onward(&page);
    let home = Url::parse(&browser.origin()).expect("url");
    assert_eq!(home.join(&target).expect("url").origin(), home.origin(), "{query}: {target}");
    for link in page.body.split("url=").skip(1) {
        assert!(link.starts_with('/') && !link.starts_with("//"), "{query}: {page:?}");
    }
    target
}
