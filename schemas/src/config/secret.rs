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

/// A URL fit to be shown: nothing of what is between the scheme and the host, nor
/// of a parameter that holds a password.
#[must_use]
pub fn redact_url(url: &str) -> String {
    const HIDDEN: &str = "***";
    let Some((scheme, rest)) = url.split_once("://") else {
        return HIDDEN.to_owned();
    };
    let (authority, tail) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    let (credentials, hosts) = match authority.rsplit_once('@') {
        Some((_, hosts)) => (format!("{HIDDEN}@"), hosts),
        None => (String::new(), authority),
    };
    // Where the credentials end is not sure: they may go on behind the `/`, or the
    // host is missing, and what looks like it is the user.
    let has_port = |host: &str| {
        let port = host.rsplit(']').next().and_then(|end| end.split_once(':'));
        port.is_none_or(|(_, port)| port.bytes().all(|byte| byte.is_ascii_digit()))
    };
    if tail.contains('@') || !scheme.bytes().all(is_of_scheme) || !hosts.split(',').all(has_port) {
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
    let tail = match tail.split_once('?') {
        None => tail.to_owned(),
        Some((path, query)) => {
            format!("{path}?{}", query.split('&').map(hidden).collect::<Vec<_>>().join("&"))
        }
    };
    format!("{scheme}://{credentials}{hosts}{tail}")
}

fn is_of_scheme(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"+-.".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_does_not_show_itself() {
        let secret = Secret::from("hunter2".to_owned());
        assert_eq!(format!("{secret:?}"), "***");
        assert_eq!(serde_json::to_string(&secret).unwrap(), "\"***\"");
    }

    #[test]
    fn a_url_shows_nothing_between_its_scheme_and_its_host() {
        for (url, shown) in [
            ("postgres://app:hunter2@db:5432/shop", "postgres://***@db:5432/shop"),
            ("postgres://pwd:Sec@hunter2@host/db", "postgres://***@host/db"),
            ("postgres://hunter2@a:1,[::1]:2/db", "postgres://***@a:1,[::1]:2/db"),
            (
                "postgres://app@db/shop?sslmode=require&password=hunter2",
                "postgres://***@db/shop?sslmode=require&password=***",
            ),
            ("postgres://u:hunter/2@host/db", "***"),
            ("postgres://u:a@hunter?2@host/db", "***"),
            ("postgres://u:hunter2", "***"),
            ("u:hunter2://x@host", "***"),
            ("not a url hunter2", "***"),
        ] {
            assert_eq!(redact_url(url), shown);
        }
    }
}
