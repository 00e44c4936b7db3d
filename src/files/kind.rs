//! What a file is, by its name.

use http::header::HeaderValue;
use mime_guess::mime;

/// The media type; text is UTF-8 here.
pub(super) fn content_type(name: &str) -> HeaderValue {
    let kind = match extension(name) {
        // What the list does not know, or not yet (RFC 9239).
        Some("map") => mime::APPLICATION_JSON,
        Some("mjs") => mime::TEXT_JAVASCRIPT,
        _ => mime_guess::from_path(name).first_or_octet_stream(),
    };
    let text = kind.type_() == mime::TEXT && kind.get_param(mime::CHARSET).is_none();
    let value = if text { format!("{kind}; charset=utf-8") } else { kind.to_string() };
    HeaderValue::from_str(&value).unwrap_or(HeaderValue::from_static("application/octet-stream"))
}

/// Whether the name is that of a page.
pub(super) fn is_html(name: &str) -> bool {
    matches!(extension(name), Some("html" | "htm" | "xhtml"))
}

/// Whether the name is that of a file, rather than of a view that an application makes up: its extension is a known
/// one. `/users/jane.doe` and `/releases/v1.2` are views.
pub(super) fn is_asset(name: &str) -> bool {
    extension(name).is_some_and(|extension| extension == "map" || mime_guess::from_ext(extension).first().is_some())
}

/// Whether the name holds a hash of what is in the file, as bundlers write it: the last part of the stem, behind `-` or
/// `.`, is hexadecimal of eight digits or more, or eight signs of base 32 or 64. It takes a digit and a letter, a
/// capital unless it is hexadecimal, so that no word and no date passes for one; a hash that looks like a word is asked
/// for again each time, which is slower and never wrong.
pub(super) fn is_fingerprinted(name: &str) -> bool {
    let Some((stem, _)) = name.rsplit_once('.') else { return false };
    // `app.3f2a91bc.js.map` and `app.3f2a91bc.min.js` are named after the same hash.
    let stem = [".js", ".mjs", ".css", ".min"].iter().fold(stem, |stem, end| stem.strip_suffix(end).unwrap_or(stem));
    let Some((_, hash)) = stem.rsplit_once(['-', '.']) else { return false };
    let has = |test: fn(&u8) -> bool| hash.as_bytes().iter().any(test);
    let mixed = has(u8::is_ascii_digit) && has(u8::is_ascii_alphabetic);
    let hexadecimal = hash.len() >= 8 && hash.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let base64 = hash.len() == 8
        && has(u8::is_ascii_uppercase)
        && hash.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    mixed && (hexadecimal || base64)
}

fn extension(name: &str) -> Option<&str> {
    name.rsplit_once('.').map(|(_, extension)| extension).filter(|extension| !extension.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_that_browsers_are_strict_about() {
        for (name, expected) in [
            ("index.html", "text/html; charset=utf-8"),
            ("a.js", "text/javascript; charset=utf-8"),
            ("a.mjs", "text/javascript; charset=utf-8"),
            ("a.css", "text/css; charset=utf-8"),
            ("a.json", "application/json"),
            ("a.js.map", "application/json"),
            ("a.svg", "image/svg+xml"),
            ("a.wasm", "application/wasm"),
            ("a.woff2", "font/woff2"),
            ("a.webp", "image/webp"),
            ("a.avif", "image/avif"),
            ("a.ico", "image/x-icon"),
            ("a.webmanifest", "application/manifest+json"),
            ("a.pdf", "application/pdf"),
            ("a.txt", "text/plain; charset=utf-8"),
            ("a.unheard-of", "application/octet-stream"),
            ("LICENSE", "application/octet-stream"),
        ] {
            assert_eq!(content_type(name), expected, "{name}");
        }
    }

    #[test]
    fn hashes_are_told_from_words() {
        for name in [
            "index-DiwrgT4a.js",
            "index-D1_rgTda.css",
            "main.3f2a91bc.js",
            "main.3f2a91bc0d1e2f3a4b5c.js",
            "chunk-K7QFZ2AB.js",
            "app.3f2a91bc.js.map",
            "app.3f2a91bc.min.js",
            "logo.0a1b2c3d.svg",
        ] {
            assert!(is_fingerprinted(name), "{name}");
        }
        for name in [
            "index.js",
            "jquery-3.6.0.min.js",
            "background.js",
            "my-component.js",
            "jquery-dataTables.js",
            "report-20261128.csv",
            "theme-material2.css",
            "foo-version2.js",
            "vendor-deadbeef.js",
            "3f2a91bc.js",
            "3f2a91bc",
        ] {
            assert!(!is_fingerprinted(name), "{name}");
        }
    }

    #[test]
    fn views_are_told_from_files() {
        for name in ["app.js", "x.png", "favicon.ico", "a.js.map", "data.json", "index.html"] {
            assert!(is_asset(name), "{name}");
        }
        for name in ["", "users", "jane.doe", "v1.2", "."] {
            assert!(!is_asset(name), "{name}");
        }
    }
}
