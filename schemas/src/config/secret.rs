//! Values that must never reach a log, an error or a metric.

use std::{fmt, path::PathBuf};

use serde::{Deserialize, Serialize, Serializer};

use super::ConfigError;

/// A password or token. It prints as `***`.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
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

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str("***")
    }
}

/// A URL fit to be shown: its password, if any, replaced by `***`.
#[must_use]
pub fn redact_url(url: &str) -> String {
    match url::Url::parse(url) {
        Ok(mut parsed) if parsed.password().is_some() => {
            // Fails only for URLs that cannot have a password.
            if parsed.set_password(Some("***")).is_err() {
                return "***".to_owned();
            }
            parsed.to_string()
        }
        Ok(_) => url.to_owned(),
        Err(_) => "***".to_owned(),
    }
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
    }
}
