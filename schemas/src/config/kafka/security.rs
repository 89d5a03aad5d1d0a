//! How brokers are spoken to, from the keys of `[kafka]` to librdkafka's own.

use std::{fmt, path::Path};

use super::{Kafka, SaslMechanism, SecurityProtocol};
use crate::config::{ConfigError, Secret};

/// How a cluster is spoken to, as an error says it: `SASL_SSL, SCRAM-SHA-512`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Security {
    protocol: SecurityProtocol,
    mechanism: Option<SaslMechanism>,
}

impl fmt::Display for Security {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.protocol.name())?;
        match self.mechanism {
            Some(mechanism) => write!(f, ", {}", mechanism.name()),
            None => Ok(()),
        }
    }
}

impl Kafka {
    /// How the cluster is spoken to.
    #[must_use]
    pub fn security(&self) -> Security {
        let has_tls = [&self.tls_ca_file, &self.tls_certificate_file, &self.tls_key_file]
            .into_iter()
            .any(Option::is_some);
        // Whoever authenticates without a word about encryption gets it: the
        // other choice would show a password to the network.
        let protocol = self.security_protocol.unwrap_or(match (self.sasl_mechanism, has_tls) {
            (Some(_), _) => SecurityProtocol::SaslSsl,
            (None, true) => SecurityProtocol::Ssl,
            (None, false) => SecurityProtocol::Plaintext,
        });
        Security { protocol, mechanism: self.sasl_mechanism }
    }

    pub(super) fn validate_security(&self) -> Result<(), ConfigError> {
        let Security { protocol, mechanism } = self.security();
        match (protocol.is_authenticated(), mechanism) {
            (true, None) => {
                let names = SaslMechanism::ALL.map(SaslMechanism::name).join(", ");
                return wrong(
                    "sasl_mechanism",
                    format!("is missing, and {} needs it: one of {names}", protocol.name()),
                );
            }
            (false, Some(mechanism)) => {
                return wrong(
                    "sasl_mechanism",
                    format!(
                        "is {}, but security_protocol is {}; set SASL_SSL or remove it",
                        mechanism.name(),
                        protocol.name()
                    ),
                );
            }
            _ => {}
        }
        self.validate_tls(protocol)?;
        self.validate_credentials(mechanism)?;
        self.validate_oauth(mechanism)
    }

    fn validate_tls(&self, protocol: SecurityProtocol) -> Result<(), ConfigError> {
        let files = [
            ("tls_ca_file", &self.tls_ca_file),
            ("tls_certificate_file", &self.tls_certificate_file),
            ("tls_key_file", &self.tls_key_file),
            ("oauth_ca_file", &self.oauth_ca_file),
        ];
        for (key, file) in files {
            let Some(file) = file else { continue };
            if !protocol.is_encrypted() && key.starts_with("tls_") {
                return wrong(
                    key,
                    format!(
                        "is set, but security_protocol {} does not encrypt; set SSL or SASL_SSL",
                        protocol.name()
                    ),
                );
            }
            readable(key, file)?;
        }
        match (&self.tls_certificate_file, &self.tls_key_file) {
            (Some(_), None) => wrong("tls_certificate_file", "is set without kafka.tls_key_file"),
            (None, Some(_)) => wrong("tls_key_file", "is set without kafka.tls_certificate_file"),
            (None, None) if !self.tls_key_password.is_empty() => {
                wrong("tls_key_password", "is set without kafka.tls_key_file")
            }
            _ => Ok(()),
        }
    }

    /// User and password belong to PLAIN and SCRAM, and to nothing else.
    fn validate_credentials(&self, mechanism: Option<SaslMechanism>) -> Result<(), ConfigError> {
        use SaslMechanism::{OauthBearer, Plain, ScramSha256, ScramSha512};
        let set = [("username", self.username.is_empty()), ("password", self.password.is_empty())];
        for (key, is_empty) in set {
            match mechanism {
                Some(Plain | ScramSha256 | ScramSha512) if is_empty => {
                    return wrong(
                        key,
                        format!("is missing, and {} needs it", mechanism_name(mechanism)),
                    );
                }
                None if !is_empty => {
                    return wrong(
                        key,
                        "is set without kafka.sasl_mechanism, such as \"SCRAM-SHA-512\"",
                    );
                }
                Some(OauthBearer) if !is_empty => {
                    return wrong(
                        key,
                        "is set, but OAUTHBEARER takes kafka.oauth_client_id and \
                         kafka.oauth_client_secret",
                    );
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn validate_oauth(&self, mechanism: Option<SaslMechanism>) -> Result<(), ConfigError> {
        let url = self.oauth_token_url.as_deref().unwrap_or_default();
        let set = [
            ("oauth_token_url", url.is_empty()),
            ("oauth_client_id", self.oauth_client_id.is_empty()),
            ("oauth_client_secret", self.oauth_client_secret.is_empty()),
            ("oauth_scope", self.oauth_scope.is_empty()),
            ("oauth_ca_file", self.oauth_ca_file.is_none()),
        ];
        if mechanism != Some(SaslMechanism::OauthBearer) {
            return match set.into_iter().find(|(_, is_empty)| !is_empty) {
                Some((key, _)) => wrong(key, "is set, but kafka.sasl_mechanism is not OAUTHBEARER"),
                None => Ok(()),
            };
        }
        if let Some((key, _)) = set[..3].iter().find(|(_, is_empty)| *is_empty) {
            return wrong(key, "is missing, and OAUTHBEARER needs it");
        }
        let parsed = url::Url::parse(url)
            .or_else(|error| wrong("oauth_token_url", format!("not a URL: {error}")))?;
        let is_loopback = match parsed.host() {
            Some(url::Host::Domain(name)) => name == "localhost",
            Some(url::Host::Ipv4(address)) => address.is_loopback(),
            Some(url::Host::Ipv6(address)) => address.is_loopback(),
            None => false,
        };
        match parsed.scheme() {
            "https" => Ok(()),
            "http" if is_loopback => Ok(()),
            scheme => wrong(
                "oauth_token_url",
                format!("scheme `{scheme}`: the client secret goes there, so it must be https"),
            ),
        }
    }

    /// The settings of librdkafka.
    pub(super) fn security_properties(&self) -> impl Iterator<Item = (&str, &str)> {
        let Security { protocol, mechanism } = self.security();
        let oauth = mechanism == Some(SaslMechanism::OauthBearer);
        [
            ("security.protocol", Some(protocol.name())),
            ("ssl.ca.location", text(self.tls_ca_file.as_deref())),
            ("ssl.certificate.location", text(self.tls_certificate_file.as_deref())),
            ("ssl.key.location", text(self.tls_key_file.as_deref())),
            ("ssl.key.password", secret(&self.tls_key_password)),
            (
                "ssl.endpoint.identification.algorithm",
                protocol.is_encrypted().then_some(if self.tls_verify_hostname {
                    "https"
                } else {
                    "none"
                }),
            ),
            ("sasl.mechanism", mechanism.map(SaslMechanism::name)),
            ("sasl.username", given(&self.username)),
            ("sasl.password", secret(&self.password)),
            ("sasl.oauthbearer.method", oauth.then_some("oidc")),
            ("sasl.oauthbearer.token.endpoint.url", self.oauth_token_url.as_deref()),
            ("sasl.oauthbearer.client.id", given(&self.oauth_client_id)),
            ("sasl.oauthbearer.client.secret", secret(&self.oauth_client_secret)),
            ("sasl.oauthbearer.scope", given(&self.oauth_scope)),
            ("https.ca.location", text(self.oauth_ca_file.as_deref())),
        ]
        .into_iter()
        .filter_map(|(name, value)| Some((name, value?)))
    }
}

fn mechanism_name(mechanism: Option<SaslMechanism>) -> &'static str {
    mechanism.map_or("SASL", SaslMechanism::name)
}

fn given(text: &str) -> Option<&str> {
    (!text.is_empty()).then_some(text)
}

fn secret(secret: &Secret) -> Option<&str> {
    given(secret.expose())
}

/// It comes out of a text file or variable, so that it is text itself.
fn text(file: Option<&Path>) -> Option<&str> {
    file.and_then(Path::to_str)
}

/// librdkafka would say no more than that something failed.
fn readable(key: &str, file: &Path) -> Result<(), ConfigError> {
    std::fs::File::open(file)
        .map(drop)
        .or_else(|error| wrong(key, format!("cannot read {}: {error}", file.display())))
}

fn wrong<T>(key: &str, reason: impl Into<String>) -> Result<T, ConfigError> {
    Err(ConfigError::invalid(format!("kafka.{key}"), reason))
}

#[cfg(test)]
#[cfg(feature = "program")]
mod tests {
    use super::*;

    /// One that is there, wherever other tests go meanwhile.
    const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");

    fn parse(toml: &str) -> Result<Kafka, String> {
        let kafka: Kafka = toml::from_str(toml).map_err(|error| error.to_string())?;
        kafka.validate().map_err(|error| error.to_string())?;
        Ok(kafka)
    }

    fn properties(toml: &str) -> std::collections::BTreeMap<String, String> {
        let kafka = parse(toml).unwrap();
        kafka.client_properties().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
    }

    #[test]
    fn credentials_alone_mean_an_encrypted_connection_that_is_verified() {
        let set = properties(
            "sasl_mechanism = 'scram-sha-512'\nusername = 'a'\npassword = 'b'\n\
             [properties]\n'client.rack' = 'r1'",
        );
        assert_eq!(set["security.protocol"], "SASL_SSL");
        assert_eq!(set["sasl.mechanism"], "SCRAM-SHA-512");
        assert_eq!((&*set["sasl.username"], &*set["sasl.password"]), ("a", "b"));
        assert_eq!(set["ssl.endpoint.identification.algorithm"], "https");
        assert_eq!(set["client.rack"], "r1");
        assert_eq!(properties("")["security.protocol"], "PLAINTEXT");
        assert_eq!(properties(&format!("tls_ca_file = '{FILE}'"))["security.protocol"], "SSL");
    }

    #[test]
    fn client_credentials_go_to_the_token_endpoint() {
        let set = properties(
            "sasl_mechanism = 'OAUTHBEARER'\noauth_token_url = 'https://id.example/token'\n\
             oauth_client_id = 'a'\noauth_client_secret = 'b'\noauth_scope = 'kafka'",
        );
        assert_eq!(set["sasl.oauthbearer.method"], "oidc");
        assert_eq!(set["sasl.oauthbearer.client.secret"], "b");
        assert_eq!(set["sasl.oauthbearer.scope"], "kafka");
    }

    #[test]
    fn what_contradicts_itself_is_one_line_that_names_the_key() {
        let scram = "sasl_mechanism = 'SCRAM-SHA-256'\n";
        let oauth =
            "sasl_mechanism = 'OAUTHBEARER'\noauth_client_id = 'a'\noauth_client_secret = 'b'\n";
        let cases: [(String, &[&str]); 15] = [
            ("sasl_mechanism = 'GSSAPI'".into(), &["GSSAPI", "OAUTHBEARER"]),
            ("security_protocol = 'TLS'".into(), &["TLS", "SASL_SSL"]),
            ("security_protocol = 'SASL_SSL'".into(), &["kafka.sasl_mechanism", "SCRAM-SHA-512"]),
            (
                format!("{scram}username = 'a'\npassword = 'b'\nsecurity_protocol = 'SSL'"),
                &["kafka.sasl_mechanism", "SASL_SSL"],
            ),
            (scram.into(), &["kafka.username", "SCRAM-SHA-256"]),
            (format!("{scram}username = 'a'"), &["kafka.password", "SCRAM-SHA-256"]),
            ("password = 'b'".into(), &["kafka.password", "kafka.sasl_mechanism"]),
            (
                format!("tls_ca_file = '{FILE}'\nsecurity_protocol = 'PLAINTEXT'"),
                &["kafka.tls_ca_file", "PLAINTEXT"],
            ),
            ("tls_ca_file = 'nowhere.pem'".into(), &["kafka.tls_ca_file", "nowhere.pem"]),
            (format!("tls_key_file = '{FILE}'"), &["kafka.tls_certificate_file"]),
            ("tls_key_password = 'b'".into(), &["kafka.tls_key_password", "kafka.tls_key_file"]),
            (oauth.into(), &["kafka.oauth_token_url"]),
            (
                format!("{oauth}oauth_token_url = 'http://id.example/token'"),
                &["kafka.oauth_token_url", "https"],
            ),
            ("oauth_scope = 'x'".into(), &["kafka.oauth_scope", "OAUTHBEARER"]),
            (
                "[properties]\n'sasl.username' = 'a'".into(),
                &["kafka.properties.sasl.username", "kafka.username"],
            ),
        ];
        for (toml, parts) in cases {
            let error = parse(&toml).expect_err(&toml);
            for part in parts {
                assert!(error.contains(part), "`{error}` should name `{part}`");
            }
        }
    }

    #[test]
    fn no_secret_is_shown() {
        let kafka = parse(
            "sasl_mechanism = 'PLAIN'\nusername = 'a'\npassword = 'hunter2'\n\
             [properties]\n'ssl.keystore.password' = 'hunter3'",
        )
        .unwrap();
        let shown = format!("{kafka:?}{}", serde_json::to_string(&kafka).unwrap());
        assert!(!shown.contains("hunter"), "{shown}");
    }
}
