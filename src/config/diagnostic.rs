//! Mistakes and warnings: what is wrong, where, and what to do about it.

use std::fmt;

use super::source::Span;

/// One mistake or warning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// What kind, stable over versions.
    pub code: Code,
    /// Where.
    pub span: Span,
    /// The setting, for example `sites[0].routes[2].access`; empty for the file as a whole.
    pub setting: String,
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub help: Option<String>,
}

/// Whether the settings can be used in spite of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// They cannot.
    Error,
    /// They can.
    Warning,
}

/// All that was found in one file, in the order of the file. Shows no secret, whatever the file holds.
#[derive(Clone, Debug)]
pub struct Diagnostics {
    /// Name of the file as it was given.
    pub(super) file: String,
    /// The text of the file with everything masked that may be secret.
    pub(super) masked: String,
    pub(super) list: Vec<Diagnostic>,
}

impl Diagnostics {
    /// Every one of them, in the order of the file.
    pub fn iter(&self) -> impl Iterator<Item = &Diagnostic> {
        self.list.iter()
    }

    /// Name of the file.
    #[must_use]
    pub fn file(&self) -> &str {
        &self.file
    }

    /// Number of mistakes, warnings not counted.
    #[must_use]
    pub fn errors(&self) -> usize {
        self.list.iter().filter(|d| d.code.severity() == Severity::Error).count()
    }

    /// Number of warnings.
    #[must_use]
    pub fn warnings(&self) -> usize {
        self.list.len() - self.errors()
    }

    /// Whether there is nothing to say.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }
}

impl std::error::Error for Diagnostics {}

macro_rules! codes {
    ($($variant:ident = $text:literal, $title:literal;)*) => {
        /// The kind of a mistake (`E…`) or warning (`W…`). A number once given keeps its meaning.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Code {
            $(#[doc = $title] $variant,)*
        }

        impl Code {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// For example `E0101`.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }

            /// A few words on it.
            #[must_use]
            pub fn title(self) -> &'static str {
                match self { $(Self::$variant => $title,)* }
            }
        }
    };
}

codes! {
    Unreadable = "E0001", "the settings file cannot be read";
    Syntax = "E0002", "not YAML";
    ManyDocuments = "E0003", "more than one YAML document";
    TooLarge = "E0004", "too large, too deep, or aliases that grow without end";
    DuplicateKey = "E0005", "the same key twice";
    Unsupported = "E0006", "YAML that settings do not use: merge keys, tags, keys that are no text";

    UnknownKey = "E0101", "a key this version does not know";
    MissingKey = "E0102", "a key that must be there is missing";
    WrongType = "E0103", "a value of the wrong type";
    UnknownWord = "E0104", "not one of the words allowed here";
    Empty = "E0105", "empty where something must be";
    Variable = "E0106", "`${…}` that cannot be replaced";

    BadValue = "E0201", "a value that cannot be read as what it should be";
    OutOfRange = "E0202", "a value out of range";
    BadPath = "E0203", "a path that is not canonical";
    BadHeader = "E0204", "a header name that is not valid or not free";
    BadCookie = "E0205", "a cookie name that is not valid or not free";
    BadUrl = "E0206", "a URL, issuer or origin that cannot be used";
    BadHost = "E0207", "a host pattern or endpoint that cannot be used";
    ReservedParameter = "E0208", "a parameter that Cloakroom sets itself";

    SecretMissing = "E0301", "a secret that is missing or empty";
    FileUnreadable = "E0302", "a file that cannot be read";
    FileExposed = "E0303", "a secret file that everyone may read or write";
    BadKey = "E0304", "not a key of 32 bytes in base64";
    BadCertificate = "E0305", "a certificate or private key that cannot be used";

    Duplicate = "E0401", "something that may be there once is there twice";
    UnknownName = "E0402", "a name that nothing has";
    CookieNotSecure = "E0403", "a cookie name that demands `secure: true`";
    IdleOverAbsolute = "E0404", "an idle timeout longer than the absolute one";
    NoProvider = "E0405", "a login is needed and no provider is named";
    InsideAuthPath = "E0406", "a path that belongs to the auth endpoints";
    NotAPrefix = "E0407", "`strip_prefix` is no prefix of the path";
    Contradiction = "E0408", "two settings that exclude each other";

    PlainSecret = "W0001", "a secret stands in the settings file";
    CookieWithoutPrefix = "W0002", "the session cookie does without the protection of `__Host-`";
    CookieNotSecureWarning = "W0003", "cookies travel over plain HTTP";
    CookieLax = "W0004", "the session cookie is sent on navigations from other sites";
    PublicClient = "W0005", "the provider cannot tell this client from another";
    TrustsEveryone = "W0006", "every peer may claim any client address";
    AdminOpen = "W0007", "the admin listener is open to the network";
    CsrfOff = "W0008", "no CSRF check";
    Unused = "W0009", "defined and never used";
    NoEffect = "W0010", "a setting without effect here";
    OriginNotServed = "W0011", "an origin whose host this site does not serve";
    PlainOrigin = "W0012", "an origin over plain HTTP";
    HostWithoutOrigin = "W0013", "a host that no origin of its site names";
    HeaderDecides = "W0014", "a header that anybody may send decides who may pass";
    PlainBackend = "W0015", "passwords go to the login backend over plain HTTP";
    SharedName = "W0016", "a name of the user that another one may have too";
}

impl Code {
    /// Mistake or warning.
    #[must_use]
    pub fn severity(self) -> Severity {
        if self.as_str().starts_with('W') { Severity::Warning } else { Severity::Error }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Error => "error",
            Self::Warning => "warning",
        })
    }
}

/// `did you mean …?` for a word that is close to one of the known ones.
pub(super) fn did_you_mean<'k>(word: &str, known: impl IntoIterator<Item = &'k str>) -> Option<String> {
    // Nothing known is that long, and the comparison takes time.
    if word.len() > 64 {
        return None;
    }
    let lower = word.to_ascii_lowercase().replace('-', "_");
    let (distance, best) = known
        .into_iter()
        .map(|candidate| {
            (strsim::damerau_levenshtein(&lower, &candidate.to_ascii_lowercase().replace('-', "_")), candidate)
        })
        .min()?;
    (distance <= (word.chars().count() / 3).max(1)).then(|| format!("did you mean `{best}`?"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_unique() {
        let mut texts: Vec<_> = Code::ALL.iter().map(|code| code.as_str()).collect();
        texts.sort_unstable();
        texts.dedup();
        assert_eq!(texts.len(), Code::ALL.len());
    }

    #[test]
    fn near_words_are_suggested_and_far_ones_are_not() {
        assert_eq!(did_you_mean("acess", ["path", "access"]).as_deref(), Some("did you mean `access`?"));
        assert_eq!(did_you_mean("maxBody", ["max_body"]).as_deref(), Some("did you mean `max_body`?"));
        assert_eq!(did_you_mean("strip-prefix", ["strip_prefix"]).as_deref(), Some("did you mean `strip_prefix`?"));
        assert_eq!(did_you_mean("retries", ["path", "access"]), None);
    }
}
