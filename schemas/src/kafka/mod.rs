//! How clients of Kafka are set up, and come to their cluster.
//!
//! The client library tries its brokers again and again, and tells only a
//! callback why none of them will do. [`Heard`] remembers what the callback was
//! told, and [`reach`] asks for a first answer until there is one, or until
//! something was heard that no trying again will mend:
//!
//! ```text
//! client ──error, log──▶ ClientContext ──▶ Heard ──▶ reach ──▶ one clear line
//! ```

mod describe;
mod topics;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use rdkafka::{
    ClientConfig, ClientContext,
    config::RDKafkaLogLevel,
    consumer::{BaseConsumer, Consumer, ConsumerContext},
    error::{KafkaError, RDKafkaErrorCode},
};

pub use self::{
    describe::{
        Described, KEEPS_ALL, Settings, alter_to_keep_all, alter_topic, describe, is_unclean,
        removes, setting, settings,
    },
    topics::new_topic,
};
use crate::config::{ConfigError, Kafka, Security};

/// No broker could be worked with.
#[derive(Debug, thiserror::Error)]
pub enum ReachError {
    /// The other side, or its certificate, does not suit.
    #[error("Kafka at {brokers} ({security}) cannot be used: {reason}")]
    Refused { brokers: String, security: Security, reason: String },
    #[error("Kafka at {brokers} ({security}) does not answer: {reason}")]
    Silent { brokers: String, security: Security, reason: String },
}

/// The settings that every Kafka client starts from, secrets among them.
///
/// # Errors
/// Names the property that the client library does not know or take.
pub fn client_config(kafka: &Kafka) -> Result<ClientConfig, ConfigError> {
    let mut client = ClientConfig::new();
    // By default ten seconds: a broker that is back would wait for its clients.
    client.set("reconnect.backoff.max.ms", "1000");
    for (key, value) in kafka.client_properties() {
        client.set(key, value);
    }
    // What is heard does not depend on what is logged.
    client.set_log_level(match tracing::enabled!(target: "librdkafka", tracing::Level::DEBUG) {
        true => RDKafkaLogLevel::Debug,
        false => RDKafkaLogLevel::Info,
    });
    match client.create_native_config() {
        Ok(_) => Ok(client),
        // Its own text quotes the value: of a misspelt password, too.
        Err(KafkaError::ClientConfig(_, reason, key, _)) => {
            Err(ConfigError::invalid(format!("kafka.properties.{key}"), reason))
        }
        Err(_) => Err(ConfigError::invalid("kafka.properties", "holds a NUL character")),
    }
}

/// What a client has said about its connections.
#[derive(Clone, Debug, Default)]
pub struct Heard(Arc<Mutex<Said>>);

#[derive(Debug, Default)]
struct Said {
    /// What will not pass by itself.
    refusal: Option<String>,
    last: Option<String>,
    /// How often a broker has ended a connection at the first request.
    turned_away: u32,
    /// Whether a broker has answered: from then on nobody waits for the outcome
    /// of the first attempt, and what is said goes to the log.
    reached: bool,
    /// Whether a partition's leader was lost from sight.
    lost_leader: bool,
}

impl Heard {
    /// For [`ClientContext::error`].
    pub fn note(&self, error: &KafkaError, reason: &str) {
        let code = error.rdkafka_error_code();
        let mut said = self.said();
        if code == Some(RDKafkaErrorCode::AllBrokersDown) {
            if said.reached {
                tracing::warn!("no broker of Kafka can be reached; waiting");
            }
            return;
        }
        let is_refusal = is_refusal(code, reason);
        let reason = in_our_words(reason);
        if said.reached && is_refusal {
            tracing::warn!(reason, "a broker of Kafka cannot be used; trying again");
        } else {
            tracing::debug!(reason, "kafka client");
        }
        if is_refusal {
            said.refusal = Some(reason.clone());
        }
        said.last = Some(reason);
    }

    /// For [`ClientContext::log`].
    pub fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        match facility {
            "FAIL" => self.connection_failed(message),
            "METADATAUPDATE" if message.contains("new leader") => self.said().lost_leader = true,
            _ => {}
        }
        match level {
            RDKafkaLogLevel::Debug => {
                tracing::debug!(target: "librdkafka", "{facility} {message}");
            }
            RDKafkaLogLevel::Info | RDKafkaLogLevel::Notice => {
                tracing::info!(target: "librdkafka", "{facility} {message}");
            }
            RDKafkaLogLevel::Warning => {
                tracing::warn!(target: "librdkafka", "{facility} {message}");
            }
            _ => tracing::error!(target: "librdkafka", "{facility} {message}"),
        }
    }

    /// Whether the client was told, beside an answer, of a leader that it does not
    /// know, which is what a broker says of itself that has just been away. It may
    /// never look for that partition's leader again, whatever it hears later, and
    /// tells no error (librdkafka 2.12, and at least up to 2.14): only a new client
    /// is sure to go on.
    #[must_use]
    pub fn has_lost_a_leader(&self) -> bool {
        self.said().lost_leader
    }

    /// A connection that ends is no error to the library, even if it never came
    /// to anything: a broker that expects TLS just hangs up.
    fn connection_failed(&self, message: &str) {
        let mut said = self.said();
        if said.reached || !message.contains("in state APIVERSION_QUERY") {
            return;
        }
        let message = message.split_once("]: ").map_or(message, |(_thread, message)| message);
        let reason = format!(
            "{}; it may expect another kafka.security_protocol, or a client certificate",
            in_our_words(message)
        );
        said.turned_away += 1;
        // Once may be a broker that is being restarted.
        if said.turned_away > 1 {
            said.refusal = Some(reason.clone());
        }
        said.last = Some(reason);
    }

    fn said(&self) -> MutexGuard<'_, Said> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether trying again is pointless until somebody changes something.
fn is_refusal(code: Option<RDKafkaErrorCode>, reason: &str) -> bool {
    match code {
        Some(RDKafkaErrorCode::Authentication | RDKafkaErrorCode::SSL) => true,
        // The library's guess when one side encrypts and the other does not.
        _ => reason.contains("security.protocol") || reason.contains("PLAINTEXT broker listener"),
    }
}

/// Without the library's bookkeeping, and with our keys for its settings.
fn in_our_words(reason: &str) -> String {
    const KEYS: [(&str, &str); 4] = [
        ("ssl.ca.location", "kafka.tls_ca_file"),
        ("ssl.certificate.location", "kafka.tls_certificate_file"),
        ("ssl.key.location", "kafka.tls_key_file"),
        ("security.protocol", "kafka.security_protocol"),
    ];
    let end = reason.rfind(" (after ").unwrap_or(reason.len());
    KEYS.iter().fold(reason[..end].to_owned(), |text, (theirs, ours)| text.replace(theirs, ours))
}

/// Asks until there is an answer. `ask` is to put one question within the time
/// that it is given, and to let the client's callbacks run. Blocks.
///
/// # Errors
/// At once when something was heard that does not pass by itself, else after
/// `patience`, with what was heard last.
pub fn reach<T>(
    kafka: &Kafka,
    heard: &Heard,
    patience: Duration,
    mut ask: impl FnMut(Duration) -> Result<T, KafkaError>,
) -> Result<T, ReachError> {
    /// Each wait is twice the one before, for answers from far away; but while
    /// one question waits, nobody looks at what was heard.
    const FIRST: Duration = Duration::from_millis(200);
    const LONGEST: Duration = Duration::from_secs(2);
    let (brokers, security) = (kafka.brokers.clone(), kafka.security());
    let until = Instant::now() + patience;
    let mut wait = FIRST;
    loop {
        let asked_at = Instant::now();
        let error = match ask(wait.min(until.saturating_duration_since(asked_at))) {
            Ok(answer) => {
                heard.said().reached = true;
                return Ok(answer);
            }
            Err(error) => error,
        };
        let said = heard.said();
        if let Some(reason) = said.refusal.clone() {
            return Err(ReachError::Refused { brokers, security, reason });
        }
        let last = said.last.clone();
        drop(said);
        if Instant::now() >= until {
            let reason = last.unwrap_or_else(|| error.to_string());
            return Err(ReachError::Silent { brokers, security, reason });
        }
        // Some questions fail at once.
        thread::sleep(FIRST.saturating_sub(asked_at.elapsed()).min(FIRST / 4));
        wait = (wait * 2).min(LONGEST);
    }
}

/// [`reach`] for a consumer, which has no thread of its own for its callbacks.
/// It is not to be assigned anything yet.
///
/// # Errors
/// As for [`reach`].
pub fn reach_consumer<T>(
    kafka: &Kafka,
    client: &BaseConsumer<Watched>,
    patience: Duration,
    mut ask: impl FnMut(&BaseConsumer<Watched>, Duration) -> Result<T, KafkaError>,
) -> Result<T, ReachError> {
    const MOMENT: Duration = Duration::from_millis(10);
    reach(kafka, &client.context().0, patience, |wait| {
        let answer = ask(client, wait);
        // Some of what waits there is not for us and not counted: until silence.
        while client.poll(MOMENT).is_some() {}
        answer
    })
}

/// The context of a client that asks questions and has no other callbacks.
#[derive(Clone, Debug, Default)]
pub struct Watched(pub Heard);

impl ClientContext for Watched {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.0.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.0.note(&error, reason);
    }
}

impl ConsumerContext for Watched {}

#[cfg(test)]
#[cfg(feature = "program")]
mod tests {
    use super::*;

    fn kafka(properties: &str) -> Kafka {
        toml::from_str(properties).unwrap()
    }

    #[test]
    fn a_refusal_ends_the_wait_and_other_trouble_does_not() {
        let heard = Heard::default();
        let down = KafkaError::Global(RDKafkaErrorCode::BrokerTransportFailure);
        let mut asked = 0;
        let error = reach(&kafka(""), &heard, Duration::from_secs(3600), |_| -> Result<(), _> {
            asked += 1;
            heard.note(&down, "b:1/bootstrap: Connect failed: Connection refused");
            if asked == 2 {
                let code = KafkaError::Global(RDKafkaErrorCode::Authentication);
                heard.note(&code, "b:1: SASL says no (after 3ms in state AUTH_REQ)");
            }
            Err(down.clone())
        });
        assert_eq!(
            error.unwrap_err().to_string(),
            "Kafka at 127.0.0.1:9092 (PLAINTEXT) cannot be used: b:1: SASL says no"
        );
        assert_eq!(asked, 2);
    }

    #[test]
    fn a_leader_that_is_lost_is_heard_of() {
        let heard = Heard::default();
        let log = |message| heard.log(RDKafkaLogLevel::Warning, "METADATAUPDATE", message);
        log("[thrd:main]: Topic orders not found in cache");
        assert!(!heard.has_lost_a_leader());
        log(
            "[thrd:main]: Partition orders(WxZqD9e0QOqEJfsoXdPSBg)[2]: new leader-1 not found in cache",
        );
        assert!(heard.has_lost_a_leader());
    }

    #[test]
    fn silence_ends_with_what_was_heard_last() {
        let heard = Heard::default();
        let error = reach(&kafka(""), &heard, Duration::ZERO, |_| -> Result<(), _> {
            let down = KafkaError::Global(RDKafkaErrorCode::BrokerTransportFailure);
            heard.note(&down, "Connection refused");
            heard.note(&KafkaError::Global(RDKafkaErrorCode::AllBrokersDown), "1/1 brokers down");
            Err(down)
        });
        let error = error.unwrap_err().to_string();
        assert!(error.ends_with("does not answer: Connection refused"), "{error}");
    }

    #[test]
    fn being_turned_away_twice_is_a_refusal() {
        let heard = Heard::default();
        let mut asked = 0;
        let error = reach(&kafka(""), &heard, Duration::from_secs(3600), |_| -> Result<(), _> {
            asked += 1;
            let message = "[thrd:b:1/bootstrap]: b:1/bootstrap: Disconnected (after 1ms in state \
                           APIVERSION_QUERY)";
            heard.log(RDKafkaLogLevel::Info, "FAIL", message);
            Err(KafkaError::MetadataFetch(RDKafkaErrorCode::BrokerTransportFailure))
        });
        let error = error.unwrap_err().to_string();
        assert!(error.contains("used: b:1/bootstrap: Disconnected; it may expect"), "{error}");
        assert_eq!(asked, 2);
    }

    #[test]
    fn a_property_that_the_library_does_not_know_is_named_without_its_value() {
        let kafka = kafka("[properties]\n'sasl.pasword' = 'hunter2'");
        let error = client_config(&kafka).unwrap_err().to_string();
        assert!(error.contains("kafka.properties.sasl.pasword"), "{error}");
        assert!(!error.contains("hunter2"), "{error}");
    }

    #[test]
    fn settings_go_by_the_names_that_they_were_made_under() {
        let reason = "ssl://b:1: verify that ssl.ca.location is right (after 3ms in state CONNECT)";
        assert_eq!(in_our_words(reason), "ssl://b:1: verify that kafka.tls_ca_file is right");
    }
}
