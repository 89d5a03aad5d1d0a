//! Values that must never reach a log, an error or a metric.

use std::{fmt, path::PathBuf};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::ConfigError;

/// A password or token. It prints as `***`.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The value itself, for handing to the client that needs it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The secret of a key: read from `file` where one is given.
    pub(super) fn resolve(
        &mut self,
        key: &'static str,
        file: Option<&PathBuf>,
    ) -> Result<(), ConfigError> {
        let Some(path) = file else { return Ok(()) };
        if !self.0.is_empty() {
            return Err(ConfigError::invalid(
                key,
                format!("both `{key}` and `{key}_file` are set; keep one"),
            ));
        }
        let text = std::fs::read_to_string(path).map_err(|error| {
            ConfigError::invalid(
                key,
                format!("cannot read `{key}_file` {}: {error}", path.display()),
            )
        })?;
        // Editors and `echo` end a file with a newline that is no part of it.
        self.0 = text.trim_end_matches(['\r', '\n']).to_owned();
        Ok(())
    }
}

impl From<String> for Secret {
    fn from(value: String) -> Self {
        Secret(value)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// The library's own message for a value of another type quotes the value.
struct SecretText;

impl de::Visitor<'_> for SecretText {
    type Value = Secret;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text in quotes")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Secret, E> {
        Ok(Secret(text.to_owned()))
    }

    fn visit_bool<E: de::Error>(self, _: bool) -> Result<Secret, E> {
        Err(E::custom("expected a text: put the value in quotes"))
    }

    fn visit_i64<E: de::Error>(self, _: i64) -> Result<Secret, E> {
        self.visit_bool(false)
    }

    fn visit_u64<E: de::Error>(self, _: u64) -> Result<Secret, E> {
        self.visit_bool(false)
    }

    fn visit_f64<E: de::Error>(self, _: f64) -> Result<Secret, E> {
        self.visit_bool(false)
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(SecretText)
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str("***")
    }
}

/// A URL fit to be shown: its passwords, if any, replaced by `***`.
#[must_use]
pub fn redact_url(url: &str) -> String {
    const HIDDEN: &str = "***";
    let Ok(mut parsed) = url::Url::parse(url) else {
        return HIDDEN.to_owned();
    };
    // Fails only for URLs that cannot have a password.
    if parsed.password().is_some() && parsed.set_password(Some(HIDDEN)).is_err() {
        return HIDDEN.to_owned();
    }
    let hidden = |pair: &str| {
        let name = pair.split('=').next().unwrap_or_default();
        if name.to_ascii_lowercase().contains("password") {
            format!("{name}={HIDDEN}")
        } else {
            pair.to_owned()
        }
    };
    if let Some(query) = parsed.query() {
        let query = query.split('&').map(hidden).collect::<Vec<_>>().join("&");
        parsed.set_query(Some(&query));
    }
    if parsed.as_str().contains(HIDDEN) { parsed.to_string() } else { url.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_does_not_show_itself() {
        let secret = Secret::from("hunter2".to_owned());
        assert_eq!(format!("{secret:?}"), "***");
        assert_eq!(serde_json::to_string(&secret).unwrap(), "\"***\"");
        let url = redact_url("postgres://app:hunter2@db:5432/shop");
        assert_eq!(url, "postgres://app:***@db:5432/shop");
        assert_eq!(redact_url("not a url hunter2"), "***");
        let url = redact_url("postgres://app@db/shop?sslmode=require&password=hunter2");
        assert_eq!(url, "postgres://app@db/shop?sslmode=require&password=***");
    }
}
