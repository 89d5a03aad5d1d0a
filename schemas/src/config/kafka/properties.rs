//! Which of librdkafka's settings are not for `[kafka.properties]`.

use std::collections::BTreeMap;

use crate::config::{ConfigError, Secret};

/// Settings on which "once, in order" rests, and which the programs set.
const RESERVED: &[&str] = &[
    "acks",
    "auto.offset.reset",
    "bootstrap.servers",
    "enable.auto.commit",
    "enable.auto.offset.store",
    "enable.idempotence",
    "enable.partition.eof",
    "group.id",
    "isolation.level",
    "max.in.flight.requests.per.connection",
    "metadata.broker.list",
    "partitioner",
    "request.required.acks",
    "transactional.id",
];

/// Settings that have a key of `[kafka]`, where they are checked together.
const KEYS: &[(&str, &str)] = &[
    ("enable.sasl.oauthbearer.unsecure.jwt", "oauth_token_url"),
    ("enable.ssl.certificate.verification", "tls_ca_file"),
    ("https.ca.location", "oauth_ca_file"),
    ("https.ca.pem", "oauth_ca_file"),
    ("sasl.mechanism", "sasl_mechanism"),
    ("sasl.mechanisms", "sasl_mechanism"),
    ("sasl.oauthbearer.client.credentials.client.id", "oauth_client_id"),
    ("sasl.oauthbearer.client.credentials.client.secret", "oauth_client_secret"),
    ("sasl.oauthbearer.client.id", "oauth_client_id"),
    ("sasl.oauthbearer.client.secret", "oauth_client_secret"),
    ("sasl.oauthbearer.method", "oauth_token_url"),
    ("sasl.oauthbearer.scope", "oauth_scope"),
    ("sasl.oauthbearer.token.endpoint.url", "oauth_token_url"),
    ("sasl.password", "password"),
    ("sasl.username", "username"),
    ("security.protocol", "security_protocol"),
    ("ssl.ca.location", "tls_ca_file"),
    ("ssl.ca.pem", "tls_ca_file"),
    ("ssl.certificate.location", "tls_certificate_file"),
    ("ssl.certificate.pem", "tls_certificate_file"),
    ("ssl.endpoint.identification.algorithm", "tls_verify_hostname"),
    ("ssl.key.location", "tls_key_file"),
    ("ssl.key.password", "tls_key_password"),
    ("ssl.key.pem", "tls_key_file"),
];

/// # Errors
/// For the first setting that is not to be made here, with what to do instead.
pub(super) fn refuse(properties: &BTreeMap<String, Secret>) -> Result<(), ConfigError> {
    for name in properties.keys() {
        let instead = if RESERVED.contains(&name.as_str()) {
            "is set by Outpour, as its guarantees rest on it; remove it".to_owned()
        } else if let Some((_, key)) = KEYS.iter().find(|(property, _)| property == name) {
            format!("has a key of its own; set kafka.{key} instead")
        } else {
            continue;
        };
        return Err(ConfigError::invalid(format!("kafka.properties.{name}"), instead));
    }
    Ok(())
}
