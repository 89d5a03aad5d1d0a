//! A stack that asks who comes, and encrypts.
//!
//! The open listeners stay, for the tests themselves: they make databases and
//! read topics by them. What is under test goes by the secured ones.
//!
//! | | listens | lets in |
//! | --- | --- | --- |
//! | PostgreSQL | TLS on its port, for the roles [`RELAY`] and [`MUTUAL`] alone | SCRAM; the second with a client certificate as well |
//! | Kafka | SSL | client certificates |
//! | Kafka | SASL_SSL | PLAIN, SCRAM and OAUTHBEARER, the latter by unsigned tokens |

use super::{certificates::Certificates, layout::Layout, ports::SecuredPorts};

/// A role of PostgreSQL that must come encrypted. It may replicate, and is no
/// superuser.
pub const RELAY: &str = "relay";
/// The same, with a client certificate.
pub const MUTUAL: &str = "mutual";
pub const POSTGRES_PASSWORD: &str = "pg-Kx3vQ9";

/// Kafka's user, by PLAIN and SCRAM. Everybody may do everything, until a test says
/// who may do what.
pub const KAFKA_USER: &str = "relay";
/// Two more, by PLAIN, with the same password.
pub const KAFKA_WRITER: &str = "writer";
pub const KAFKA_READER: &str = "reader";
pub const KAFKA_PASSWORD: &str = "kafka-Zp7wT2";

/// What a program needs to know of a secured stack.
#[derive(Debug, Clone)]
pub struct Secured {
    pub certificates: Certificates,
    pub postgres_port: u16,
    /// Kafka's listener for client certificates.
    pub kafka_ssl_port: u16,
    /// Kafka's listener for users and tokens.
    pub kafka_sasl_port: u16,
}

impl Secured {
    pub(super) fn of(layout: &Layout, certificates: Certificates) -> Option<Self> {
        let SecuredPorts { ssl, sasl_ssl } = layout.ports.secured?;
        Some(Self {
            certificates,
            postgres_port: layout.ports.postgres,
            kafka_ssl_port: ssl,
            kafka_sasl_port: sasl_ssl,
        })
    }
}
