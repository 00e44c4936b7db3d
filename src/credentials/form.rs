//! The form that a page posts. It goes to the backend as it came, so it must mean the same to every reader: an account
//! that we count and another one that the backend logs in would make the limit worthless.

use std::collections::HashSet;
use std::fmt;

use bytes::Bytes;
use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

use super::alike::counted;
use super::fold::fold;
use crate::config::settings::ClaimPath;

/// A form that can be sent.
#[derive(Clone)]
pub struct Form {
    /// As it came.
    body: Bytes,
    account: String,
}

/// Why a form is not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FormError {
    /// No JSON, or a name twice in an object, whatever its case and spelling.
    #[error("The form is no JSON object that can be read in one way only.")]
    Malformed,
    /// There is no text where the account should stand.
    #[error("The form names no account.")]
    NoAccount,
    /// A name that some backends take for that of the account, and others do not.
    #[error("The form names the account by a field that is spelt in another way than the settings have it.")]
    OtherSpelling,
}

impl Form {
    /// Reads a form. The account is looked for where `path` says. A name that merely resembles one on this path is refused:
    /// some backends would take it for the account's.
    ///
    /// # Errors
    /// [`FormError`]
    pub fn read(body: Bytes, path: &ClaimPath) -> Result<Self, FormError> {
        let Strict(value) = serde_json::from_slice(&body).map_err(|_| FormError::Malformed)?;
        if !value.is_object() {
            return Err(FormError::Malformed);
        }
        let mut found = &value;
        for name in &path.0 {
            let object = found.as_object().ok_or(FormError::NoAccount)?;
            // No other name in the object means the same: then it would be there twice.
            found = match object.get(name) {
                Some(value) => value,
                None if object.keys().any(|key| fold(key) == fold(name)) => return Err(FormError::OtherSpelling),
                None => return Err(FormError::NoAccount),
            };
        }
        let account = match found {
            // Some backends read no further than the first NUL.
            Value::String(text) if !text.trim().chars().any(char::is_control) => counted(text),
            // Fractions are cut off by some, so that there would be any number of ways to write one account.
            Value::Number(number) if number.is_i64() || number.is_u64() => number.to_string(),
            _ => String::new(),
        };
        if account.is_empty() { Err(FormError::NoAccount) } else { Ok(Self { body, account }) }
    }

    /// The bytes to send.
    #[must_use]
    pub fn body(&self) -> &Bytes {
        &self.body
    }

    /// The account, [coarser than any backend has it](counted): what is counted. Not what a user is called: the backend may read the form in another
    /// way.
    #[must_use]
    pub fn account(&self) -> &str {
        &self.account
    }
}

/// It holds a password.
impl fmt::Debug for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Form(…)")
    }
}

/// JSON in which no object has two names that differ in case or spelling alone, or not at all: of two, one reader takes the
/// first and another the last (RFC 8259 §4).
struct Strict(Value);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(StrictVisitor).map(Self)
    }
}

struct StrictVisitor;

impl<'de> Visitor<'de> for StrictVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(Strict(item)) = items.next_element()? {
            list.push(item);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let (mut object, mut names) = (serde_json::Map::new(), HashSet::new());
        while let Some((name, Strict(value))) = entries.next_entry::<String, Strict>()? {
            if !names.insert(fold(&name)) {
                return Err(A::Error::custom("a name twice"));
            }
            object.insert(name, value);
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(json: &str, path: &str) -> Result<String, FormError> {
        let path = ClaimPath(path.split('.').map(str::to_owned).collect());
        Form::read(Bytes::copy_from_slice(json.as_bytes()), &path).map(|form| form.account().to_owned())
    }

    #[test]
    fn the_account_is_the_same_however_it_is_written() {
        for json in [
            r#"{"username":"alice","password":"x"}"#,
            r#"{"password":"x","username":" Alice "}"#,
            r#"{"username":"\u00c1LICE\u200b"}"#,
            r#"{"username":"\uff21l\u0131ce"}"#,
            r#"{"username":"al\u20ddi\ud83c\udf63ce"}"#,
            r#"{"username":"a\u0142ice"}"#,
            r#"{"\u0075sername":"ALICE"}"#,
            r#"{"username":"alice","more":[{"username":"bob"}]}"#,
        ] {
            assert_eq!(account(json, "username").as_deref(), Ok("alice"), "{json}");
        }
        assert_eq!(account(r#"{"login":{"id":7}}"#, "login.id").as_deref(), Ok("7"));
    }

    #[test]
    fn what_two_readers_would_read_in_two_ways_is_refused() {
        for json in [
            r#"{"username":"alice","username":"bob"}"#,
            r#"{"username":"alice","Username":"bob"}"#,
            r#"{"username":"alice","\u0055SERNAME":"bob"}"#,
            r#"{"username":"alice","u\u017fername":"bob"}"#,
            r#"{"username":"alice","a":{"b":1,"B":2}}"#,
            r#"{"username":"alice","a":{"k":1,"\u212a":2}}"#,
            r#"{"username":"alice","a":[{"b":1,"b":2}]}"#,
            r#"{"username":"alice"} {"username":"bob"}"#,
            r#"{"username":"alice",}"#,
            r#"{'username':'alice'}"#,
            "{\"username\":\"al\u{1}ice\"}",
            r#"["alice"]"#,
            r#""alice""#,
            "",
            "username=alice",
        ] {
            assert_eq!(account(json, "username"), Err(FormError::Malformed), "{json}");
        }
        let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
        assert_eq!(account(&format!("{{\"username\":\"a\",\"x\":{deep}}}"), "username"), Err(FormError::Malformed));
    }

    #[test]
    fn a_name_that_only_some_backends_take_for_the_accounts_is_refused() {
        for (json, path) in [
            (r#"{"u\u017fername":"alice","password":"x"}"#, "username"),
            (r#"{"Username":"alice"}"#, "username"),
            (r#"{"user\u200bname":"alice"}"#, "username"),
            (r#"{"to\u212aen":"alice"}"#, "token"),
            (r#"{"Login":{"email":"a"},"email":"b"}"#, "login.email"),
            (r#"{"login":{"EMA\u0130L":"a"}}"#, "login.email"),
        ] {
            assert_eq!(account(json, path), Err(FormError::OtherSpelling), "{json}");
        }
    }

    #[test]
    fn a_form_without_account_is_refused_and_none_is_shown() {
        for json in [
            "{}",
            r#"{"username":""}"#,
            r#"{"username":"  "}"#,
            r#"{"username":null}"#,
            r#"{"username":["a"]}"#,
            r#"{"username":"alice\u0000bob"}"#,
            r#"{"username":7.5}"#,
            r#"{"username":7.0}"#,
            r#"{"username":70e-1}"#,
        ] {
            assert_eq!(account(json, "username"), Err(FormError::NoAccount), "{json}");
        }
        let form = Form::read(Bytes::from_static(br#"{"u":"canary"}"#), &ClaimPath(vec!["u".into()])).unwrap();
        assert!(!format!("{form:?}").contains("canary"));
    }
}
