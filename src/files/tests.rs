//! The room on a real folder.

use std::fs;
use std::os::unix::fs::symlink;
use std::time::Duration;

use super::*;

struct Folder {
    outside: tempfile::TempDir,
    root: PathBuf,
}

impl Folder {
    fn new() -> Self {
        let outside = tempfile::tempdir().unwrap();
        let root = outside.path().join("app");
        fs::create_dir_all(root.join("assets")).unwrap();
        fs::create_dir_all(root.join("docs")).unwrap();
        fs::create_dir_all(root.join("empty")).unwrap();
        let folder = Self { outside, root };
        folder.put("index.html", "<!doctype html>");
        folder.put("docs/index.html", "docs");
        folder.put("assets/app-DiwrgT4a.js", "plain");
        folder.put("logo.svg", "<svg/>");
        folder.put("with space é.txt", "odd");
        folder
    }

    fn put(&self, name: &str, content: impl AsRef<[u8]>) {
        fs::create_dir_all(self.root.join(name).parent().unwrap()).unwrap();
        fs::write(self.root.join(name), content).unwrap();
    }

    fn files(&self, fallback: bool) -> Files {
        self.with(|settings| settings.fallback = fallback.then(|| "index.html".to_owned()))
    }

    fn with(&self, change: impl FnOnce(&mut settings::Files)) -> Files {
        let mut settings = settings::Files {
            root: self.root.clone(),
            fallback: None,
            precompressed: true,
            fingerprinted: Duration::from_secs(3600),
            max_age: Duration::ZERO,
        };
        change(&mut settings);
        Files::new(&settings, true)
    }
}

struct Got {
    status: u16,
    headers: HeaderMap,
    body: Vec<u8>,
}

impl Got {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

async fn ask(files: &Files, method: Method, path: &str, fields: &[(&'static str, &str)], page: bool) -> Got {
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        headers.append(*name, HeaderValue::from_str(value).unwrap());
    }
    let reply = files.answer(Ask { method: &method, path, headers: &headers, page }).await.unwrap();
    let (status, headers, body) = match reply {
        Reply::File(head, body) => (head.status.as_u16(), head.headers, body),
        Reply::Folder => (307, HeaderMap::new(), None),
        Reply::NotFound => (404, HeaderMap::new(), None),
        Reply::MethodNotAllowed => (405, HeaderMap::new(), None),
    };
    let mut all = Vec::new();
    if let Some(mut body) = body {
        while let Some(piece) = body.next().await.unwrap() {
            assert!(piece.len() <= PIECE && !piece.is_empty());
            all.extend_from_slice(&piece);
            assert_eq!(body.is_done(), body.next_is_none_without_reading());
        }
    }
    Got { status, headers, body: all }
}

async fn get(files: &Files, path: &str, fields: &[(&'static str, &str)]) -> Got {
    ask(files, Method::GET, path, fields, false).await
}

impl Body {
    fn next_is_none_without_reading(&self) -> bool {
        format!("{self:?}").contains("file: None, first: None")
    }
}

#[tokio::test]
async fn files_are_found_and_described() {
    let folder = Folder::new();
    let files = folder.files(false);
    for (path, status, kind, body) in [
        ("", 307, "", ""),
        ("/", 200, "text/html; charset=utf-8", "<!doctype html>"),
        ("/index.html", 200, "text/html; charset=utf-8", "<!doctype html>"),
        ("/docs/", 200, "text/html; charset=utf-8", "docs"),
        ("/docs", 307, "", ""),
        ("/logo.svg", 200, "image/svg+xml", "<svg/>"),
        ("/with%20space%20%C3%A9.txt", 200, "text/plain; charset=utf-8", "odd"),
        ("/logo.svg/", 404, "", ""),
        ("/logo.svg/x", 404, "", ""),
        ("/empty", 404, "", ""),
        ("/empty/", 404, "", ""),
        ("/nothing", 404, "", ""),
    ] {
        let got = get(&files, path, &[]).await;
        assert_eq!((got.status, got.header("content-type")), (status, kind), "{path}");
        assert_eq!(got.body, body.as_bytes(), "{path}");
    }
    let head = ask(&files, Method::HEAD, "/logo.svg", &[], false).await;
    assert_eq!((head.status, head.header("content-length"), head.body.len()), (200, "6", 0));
    for method in [Method::POST, Method::PUT, Method::DELETE, Method::OPTIONS] {
        assert_eq!(ask(&files, method, "/logo.svg", &[], false).await.status, 405);
    }
}

#[tokio::test]
async fn nothing_outside_and_nothing_hidden_is_served() {
    let folder = Folder::new();
    fs::write(folder.outside.path().join("secret.txt"), "secret").unwrap();
    symlink("../secret.txt", folder.root.join("link.txt")).unwrap();
    symlink(folder.outside.path(), folder.root.join("up")).unwrap();
    symlink("/etc/passwd", folder.root.join("passwd.txt")).unwrap();
    symlink("circle", folder.root.join("circle")).unwrap();
    symlink("../secret.txt", folder.root.join("logo.svg.br")).unwrap();
    // A name that begins like the root is not below it.
    fs::create_dir(folder.outside.path().join("app-other")).unwrap();
    fs::write(folder.outside.path().join("app-other/x.txt"), "secret").unwrap();
    symlink("../app-other/x.txt", folder.root.join("other.txt")).unwrap();
    folder.put(".env", "secret");
    folder.put(".git/config", "secret");
    folder.put("docs/.hidden", "secret");
    folder.put("docs/.well-known/x.txt", "secret");
    folder.put(".well-known/security.txt", "Contact: …");
    let files = folder.files(false);
    for path in [
        "/link.txt",
        "/up/secret.txt",
        "/passwd.txt",
        "/other.txt",
        "/circle",
        "/.env",
        "/.git/config",
        "/%2Egit/config",
        "/docs/.hidden",
        "/docs/.well-known/x.txt",
        "/../secret.txt",
        "/%2e%2e/secret.txt",
        "/..%2fsecret.txt",
        "/docs/..%5csecret.txt",
        "/x%00.txt",
        "/docs%00",
        &format!("/{}", "x".repeat(5000)),
    ] {
        assert_eq!(get(&files, path, &[]).await.status, 404, "{path}");
    }
    assert_eq!(get(&files, "/.well-known/security.txt", &[]).await.status, 200);
    assert_eq!(get(&files, "/logo.svg", &[("accept-encoding", "br")]).await.body, b"<svg/>");
}

#[tokio::test]
async fn a_release_may_be_put_in_place_by_turning_links() {
    let folder = Folder::new();
    for release in ["1", "2"] {
        folder.put(&format!("..{release}/index.html"), release);
    }
    fs::remove_file(folder.root.join("index.html")).unwrap();
    symlink("..1", folder.root.join("..data")).unwrap();
    symlink("..data/index.html", folder.root.join("index.html")).unwrap();
    let current = folder.outside.path().join("current");
    symlink("app", &current).unwrap();
    let files = folder.with(|settings| settings.root = current.clone());
    assert_eq!(get(&files, "/", &[]).await.body, b"1");
    fs::remove_file(folder.root.join("..data")).unwrap();
    symlink("..2", folder.root.join("..data")).unwrap();
    assert_eq!(get(&files, "/", &[]).await.body, b"2");
    fs::remove_file(&current).unwrap();
    assert_eq!(get(&files, "/", &[]).await.status, 404);
}

#[tokio::test]
async fn the_fallback_is_for_pages_alone() {
    let folder = Folder::new();
    let files = folder.files(true);
    for (path, page, status) in [
        ("/users/7", true, 200),
        ("/users/jane.doe", true, 200),
        ("/users/7", false, 404),
        ("/assets/old-1.js", true, 404),
        ("/logo.png", true, 404),
        ("/empty/", true, 200),
        ("/.env", true, 404),
    ] {
        let got = ask(&files, Method::GET, path, &[], page).await;
        assert_eq!(got.status, status, "{path} {page}");
        if status == 200 {
            assert_eq!(got.body, b"<!doctype html>");
            assert_eq!(got.header("cache-control"), "no-cache");
            assert_eq!(got.header("content-type"), "text/html; charset=utf-8");
        }
    }
}

#[tokio::test]
async fn names_with_a_hash_are_kept_and_pages_are_asked_for_again() {
    let folder = Folder::new();
    let files = folder.files(false);
    let kept = async |path: &str| get(&files, path, &[]).await.header("cache-control").to_owned();
    assert_eq!(kept("/assets/app-DiwrgT4a.js").await, "public, max-age=3600, immutable");
    assert_eq!(kept("/").await, "no-cache");
    assert_eq!(kept("/logo.svg").await, "no-cache");
    let private = settings::Files {
        root: folder.root.clone(),
        fallback: None,
        precompressed: false,
        fingerprinted: Duration::ZERO,
        max_age: Duration::from_secs(60),
    };
    let private = Files::new(&private, false);
    assert_eq!(get(&private, "/logo.svg", &[]).await.header("cache-control"), "private, max-age=60");
    assert_eq!(get(&private, "/assets/app-DiwrgT4a.js", &[]).await.header("cache-control"), "no-cache");
}

#[tokio::test]
async fn who_has_it_is_told_so() {
    let folder = Folder::new();
    let files = folder.files(false);
    let first = get(&files, "/logo.svg", &[]).await;
    let (tag, date) = (first.header("etag").to_owned(), first.header("last-modified").to_owned());
    assert!(tag.starts_with('"') && !date.is_empty());
    for fields in [[("if-none-match", tag.as_str())], [("if-modified-since", date.as_str())]] {
        let again = get(&files, "/logo.svg", &fields).await;
        assert_eq!((again.status, again.body.len(), again.header("etag")), (304, 0, tag.as_str()));
        assert_eq!(again.header("cache-control"), "no-cache");
        assert!(!again.headers.contains_key("content-length") && !again.headers.contains_key("content-type"));
    }
    folder.put("logo.svg", "<SVG/>");
    assert_eq!(get(&files, "/logo.svg", &[("if-none-match", &tag)]).await.status, 200);
    assert_eq!(get(&files, "/logo.svg", &[("if-match", &tag)]).await.status, 412);
}

#[tokio::test]
async fn a_time_that_every_build_has_says_nothing() {
    let folder = Folder::new();
    let files = folder.files(false);
    let packed = |content: &str| {
        folder.put("index.html", content);
        let file = fs::File::options().write(true).open(folder.root.join("index.html")).unwrap();
        file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(1)).unwrap();
    };
    packed("app-1");
    let first = get(&files, "/", &[]).await;
    assert!(!first.headers.contains_key("last-modified"));
    let tag = first.header("etag").to_owned();
    assert_eq!(get(&files, "/", &[("if-none-match", &tag)]).await.status, 304);
    packed("app-2");
    let second = get(&files, "/", &[("if-none-match", &tag)]).await;
    assert_eq!((second.status, second.body.as_slice()), (200, &b"app-2"[..]));
    assert_eq!(get(&files, "/", &[("if-modified-since", "Sun, 06 Nov 2044 08:49:37 GMT")]).await.status, 200);
}

#[tokio::test]
async fn parts_are_cut_out_of_large_files() {
    let folder = Folder::new();
    let content: Vec<u8> = (0..300_000_u32).flat_map(u32::to_le_bytes).collect();
    folder.put("film.mp4", &content);
    let files = folder.files(false);
    let whole = get(&files, "/film.mp4", &[]).await;
    assert_eq!((whole.status, whole.header("accept-ranges")), (200, "bytes"));
    assert!(whole.body == content);
    for (range, from, to) in
        [("bytes=0-0", 0, 1), ("bytes=5-200000", 5, 200_001), ("bytes=-70000", 1_130_000, 1_200_000)]
    {
        let part = get(&files, "/film.mp4", &[("range", range)]).await;
        assert_eq!(part.status, 206, "{range}");
        assert_eq!(part.header("content-range"), format!("bytes {from}-{}/1200000", to - 1));
        assert_eq!(part.header("content-length"), (to - from).to_string());
        assert!(part.body == content[from..to], "{range}");
    }
    let beyond = get(&files, "/film.mp4", &[("range", "bytes=1200000-")]).await;
    assert_eq!((beyond.status, beyond.header("content-range")), (416, "bytes */1200000"));
    assert!(beyond.body.is_empty());
    let several = get(&files, "/film.mp4", &[("range", "bytes=0-1,5-6")]).await;
    assert_eq!((several.status, several.body.len()), (200, content.len()));
}

#[tokio::test]
async fn what_was_compressed_beforehand_is_sent_to_who_takes_it() {
    let folder = Folder::new();
    for (ending, content) in [("br", "brotli"), ("gz", "gzip"), ("zst", "zstd")] {
        folder.put(&format!("assets/app-DiwrgT4a.js.{ending}"), content);
    }
    let files = folder.files(false);
    let mut tags = Vec::new();
    for (accept, coding, body) in [
        ("gzip, deflate, br, zstd", "br", "brotli"),
        ("gzip;q=1, br;q=0.1", "gzip", "gzip"),
        ("zstd", "zstd", "zstd"),
        ("identity", "", "plain"),
    ] {
        let got = get(&files, "/assets/app-DiwrgT4a.js", &[("accept-encoding", accept)]).await;
        assert_eq!((got.header("content-encoding"), got.body.as_slice()), (coding, body.as_bytes()), "{accept}");
        assert_eq!(got.header("content-type"), "text/javascript; charset=utf-8");
        assert_eq!(got.header("vary"), "accept-encoding");
        assert_eq!(got.header("cache-control"), "public, max-age=3600, immutable");
        tags.push(got.header("etag").to_owned());
    }
    tags.sort();
    tags.dedup();
    assert_eq!(tags.len(), 4, "each coding has a tag of its own");
    // One that was forgotten when the file changed.
    let file = fs::File::options().write(true).open(folder.root.join("assets/app-DiwrgT4a.js.br")).unwrap();
    file.set_modified(SystemTime::now() - Duration::from_secs(3600)).unwrap();
    let got = get(&files, "/assets/app-DiwrgT4a.js", &[("accept-encoding", "br")]).await;
    assert_eq!(got.body, b"plain");
    let off = folder.with(|settings| settings.precompressed = false);
    let got = get(&off, "/assets/app-DiwrgT4a.js", &[("accept-encoding", "gzip")]).await;
    assert_eq!((got.body.as_slice(), got.header("vary")), (&b"plain"[..], ""));
}

#[tokio::test]
async fn an_empty_file_and_a_pipe() {
    let folder = Folder::new();
    folder.put("empty.txt", "");
    let made = std::process::Command::new("mkfifo").arg(folder.root.join("pipe.txt")).status().unwrap();
    assert!(made.success());
    let files = folder.files(false);
    let empty = get(&files, "/empty.txt", &[]).await;
    assert_eq!((empty.status, empty.header("content-length")), (200, "0"));
    assert_eq!(get(&files, "/pipe.txt", &[]).await.status, 404);
}
