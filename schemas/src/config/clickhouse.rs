use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{ConfigError, Secret, Span};

/// `[clickhouse]`: where the rows go, over HTTP.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ClickHouse {
    /// That of a server, or of several replicas, separated by commas, of which
    /// one is used for as long as it works.
    pub url: String,
    pub database: String,
    /// The cluster on which `init` creates what it creates, replicated.
    pub cluster: Option<String>,
    pub user: String,
    pub password: Secret,
    pub password_file: Option<PathBuf>,
    /// The life of one insert, sending included.
    pub insert_timeout: Span,
    /// Inserts are on the server's disk when they are confirmed: tables have to be set
    /// so, and the consumer does not start otherwise.
    pub fsync: bool,
    /// Of what is sent. Worth it unless ClickHouse is on this host.
    pub compression: Compression,
    /// Certificates in PEM of the authorities that an `https` server's may come
    /// from, instead of the public ones.
    pub tls_ca_file: Option<PathBuf>,
}

/// How inserts are compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Compression {
    #[default]
    Lz4,
    /// Smaller, for several times the processor time.
    Zstd,
    None,
}

impl Default for ClickHouse {
    fn default() -> Self {
        ClickHouse {
            url: "http://127.0.0.1:8123".to_owned(),
            database: "default".to_owned(),
            cluster: None,
            user: "default".to_owned(),
            password: Secret::default(),
            password_file: None,
            insert_timeout: Span::secs(60),
            fsync: false,
            compression: Compression::Lz4,
            tls_ca_file: None,
        }
    }
}

impl ClickHouse {
    pub(super) fn resolve_secrets(&mut self) -> Result<(), ConfigError> {
        self.password.resolve("clickhouse.password", self.password_file.as_ref())
    }

    /// The servers, in the order in which they are tried.
    pub fn urls(&self) -> impl Iterator<Item = &str> {
        self.url.split(',').map(str::trim)
    }

    /// Whether inserts may go to more than one server.
    #[must_use]
    pub fn has_replicas(&self) -> bool {
        self.urls().nth(1).is_some()
    }

    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        let mut known: Vec<url::Url> = Vec::new();
        for (index, url) in self.urls().enumerate() {
            let wrong = |reason: String| {
                // Which one, without showing it: it may hold a password.
                let which = if self.has_replicas() {
                    format!("URL {}: ", index + 1)
                } else {
                    String::new()
                };
                ConfigError::invalid("clickhouse.url", which + &reason)
            };
            let url = parse(url).map_err(wrong)?;
            if known.contains(&url) {
                return Err(wrong("the same as one before it".to_owned()));
            }
            known.push(url);
        }
        if self.cluster.as_ref().is_some_and(String::is_empty) {
            let reason = "is empty; leave it out where there is no cluster";
            return Err(ConfigError::invalid("clickhouse.cluster", reason));
        }
        Ok(())
    }
}

fn parse(url: &str) -> Result<url::Url, String> {
    let url = url::Url::parse(url).map_err(|error| format!("not a URL: {error}"))?;
    if !matches!(url.scheme(), "http" | "https") {
        let scheme = url.scheme();
        return Err(format!("scheme `{scheme}`: expected http://host:8123 or https://host:8443"));
    }
    if url.password().is_some() {
        return Err("holds a password; use clickhouse.user and clickhouse.password".to_owned());
    }
    if !url.username().is_empty() {
        return Err("holds a user; use clickhouse.user and clickhouse.password".to_owned());
    }
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(url: &str) -> String {
        let config = ClickHouse { url: url.to_owned(), ..ClickHouse::default() };
        config.validate().unwrap_err().to_string()
    }

    #[test]
    fn several_servers_are_separated_by_commas() {
        let url = "http://a:8123, https://b:8443,http://c:8123".to_owned();
        let config = ClickHouse { url, ..ClickHouse::default() };
        config.validate().unwrap();
        let urls: Vec<_> = config.urls().collect();
        assert_eq!(urls, ["http://a:8123", "https://b:8443", "http://c:8123"]);
        assert!(config.has_replicas() && !ClickHouse::default().has_replicas());
    }

    #[test]
    fn each_of_them_is_checked_and_none_shown() {
        assert_eq!(
            refused("ftp://a"),
            "clickhouse.url: scheme `ftp`: expected http://host:8123 or https://host:8443"
        );
        let text = refused("http://a:8123,http://u:hunter2@b:8123");
        assert!(text.starts_with("clickhouse.url: URL 2: holds a password"), "{text}");
        assert!(!text.contains("hunter2"), "{text}");
        let text = refused("http://hunter2@b:8123");
        assert!(text.contains("holds a user") && !text.contains("hunter2"), "{text}");
        let text = refused("http://a:8123,");
        assert!(text.starts_with("clickhouse.url: URL 2: not a URL"), "{text}");
        let text = refused("http://a:8123,http://a:8123/");
        assert_eq!(text, "clickhouse.url: URL 2: the same as one before it");
    }
}
