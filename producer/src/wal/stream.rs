//! The replication connection.
//!
//! Cancellation: [`WalStream::next`] may be dropped at any await without losing
//! an event.

use std::time::Duration;

use outpour_schemas::{
    Lsn,
    config::{Config, Relay},
    postgres::PIN,
};
use pgwire_replication::{
    IdentifySystem, PgWireError, ReplicationClient, ReplicationConfig, ReplicationEvent, TlsConfig,
};

use super::{
    WalEvent,
    charset::Charset,
    slot::SlotError,
    timeline::{self, Switch},
};
use crate::{
    postgres::{Bridge, Replication, Target},
    sql::quoted,
};

/// Microseconds from the Unix epoch to PostgreSQL's, 2000-01-01.
const POSTGRES_EPOCH_US: i64 = 946_684_800_000_000;

/// Events that may wait between the connection and the relay; when full, the
/// connection is not read and PostgreSQL waits. A row may be large, so they are
/// few; the socket's own buffer, which counts in bytes, holds many small ones.
const BUFFERED_EVENTS: usize = 64;

/// PostgreSQL's own limit for a field.
const MAX_MESSAGE_BYTES: usize = 1 << 30;

/// For how long PostgreSQL keeps the slot for a relay that it hears nothing of, be it
/// stopped or cut off: another one waits for it. A living one reports every second,
/// also while Kafka is away; the server's own setting is a minute.
const GIVEN_UP_AFTER: &str = "SET wal_sender_timeout = '10s'";

/// How the replication connection is made, and what carries its bytes where the
/// library cannot.
async fn configuration(
    target: &Target,
    slot: &str,
    publication: &str,
) -> Result<(ReplicationConfig, Option<Bridge>), SlotError> {
    let (tls, bridge) = match Replication::of(target) {
        Replication::Library(tls) => (tls, None),
        Replication::Bridged => (TlsConfig::disabled(), Some(Bridge::open(target).await?)),
    };
    let host = bridge.as_ref().map_or_else(|| target.host().clone(), Bridge::address);
    let mut config = ReplicationConfig::new(
        host.name,
        &target.user,
        &target.password,
        &target.database,
        slot,
        // The server reads a list of names, and lowers what is not quoted.
        quoted(publication),
    )
    .with_port(host.port)
    .with_tls(tls)
    .with_application_name("outpour-relay")
    .with_buffer_size(BUFFERED_EVENTS)
    .with_max_message_size(MAX_MESSAGE_BYTES)
    .with_status_interval(Duration::from_secs(1))
    .with_wakeup_interval(Duration::from_secs(1));
    config.options.clone_from(&target.options);
    Ok((config, bridge))
}

/// Connects, and sets what the session depends on.
async fn connect(config: ReplicationConfig) -> Result<ReplicationClient, PgWireError> {
    let mut client = ReplicationClient::connect_gated(config).await?;
    for settings in [PIN, GIVEN_UP_AFTER] {
        client.simple_query(settings).await?;
    }
    Ok(client)
}

/// A slot held by this process, delivering events. Dropping it lets go.
pub(crate) struct WalStream {
    client: ReplicationClient,
    /// Carries the client's bytes where its library cannot verify the server.
    _bridge: Option<Bridge>,
    pub(crate) system: IdentifySystem,
    /// The timelines that the server has left.
    pub(crate) history: Vec<Switch>,
}

impl WalStream {
    /// Takes the slot and starts where it was last confirmed. Text comes as
    /// `charset` takes it.
    pub(crate) async fn start(
        target: &Target,
        config: &Config,
        charset: &Charset,
    ) -> Result<Self, SlotError> {
        let Relay { slot, publication, .. } = &config.relay;
        let (replication, bridge) = configuration(target, slot, publication).await?;
        let start = async {
            let mut client = connect(replication).await?;
            if charset.is_raw() {
                // No conversion, which the library asks for, and no check.
                client.simple_query("SET client_encoding = 'SQL_ASCII'").await?;
            }
            let system = client.identify_system().await?;
            // The first timeline has no history.
            let history = match system.timeline {
                1 => String::new(),
                timeline => {
                    let file = client.timeline_history(timeline).await?;
                    String::from_utf8_lossy(&file.content).into_owned()
                }
            };
            client.start().await?;
            client.wait_started().await?;
            Ok((client, system, history))
        };
        match tokio::time::timeout(target.connect_timeout, start).await {
            Ok(started) => {
                let (client, system, history) =
                    started.map_err(|error| SlotError::starting(slot, target, error))?;
                let history = timeline::history(&history)?;
                Ok(WalStream { client, _bridge: bridge, system, history })
            }
            Err(_) => Err(SlotError::TimedOut {
                target: target.to_string(),
                seconds: target.connect_timeout.as_secs(),
            }),
        }
    }

    /// Makes sure that the server takes a replication connection, without taking the
    /// slot.
    pub(crate) async fn probe(target: &Target, slot: &str) -> Result<(), SlotError> {
        let (config, _bridge) = configuration(target, slot, "").await?;
        let probe = async { connect(config).await?.identify_system().await };
        match tokio::time::timeout(target.connect_timeout, probe).await {
            Ok(answer) => {
                answer.map(drop).map_err(|error| SlotError::starting(slot, target, error))
            }
            Err(_) => Err(SlotError::TimedOut {
                target: target.to_string(),
                seconds: target.connect_timeout.as_secs(),
            }),
        }
    }

    /// The next event; `None` once the server has ended the stream.
    pub(crate) async fn next(&mut self) -> Result<Option<WalEvent>, SlotError> {
        let event = self.client.recv().await.map_err(SlotError::Stream)?;
        Ok(event.and_then(|event| {
            Some(match event {
                ReplicationEvent::Begin { final_lsn, commit_time_micros, .. } => WalEvent::Begin {
                    commit_lsn: Lsn(final_lsn.as_u64()),
                    committed_at_us: commit_time_micros + POSTGRES_EPOCH_US,
                },
                ReplicationEvent::XLogData { data, .. } => WalEvent::Change(data),
                ReplicationEvent::Commit { end_lsn, .. } => {
                    WalEvent::Commit { end_lsn: Lsn(end_lsn.as_u64()) }
                }
                ReplicationEvent::KeepAlive { wal_end, .. } => {
                    WalEvent::KeepAlive { wal_end: Lsn(wal_end.as_u64()) }
                }
                ReplicationEvent::Message { transactional, prefix, content, .. } => {
                    WalEvent::LogicalMessage { transactional, prefix, content }
                }
                // The end of a stream that was told where to stop; this one never is.
                ReplicationEvent::StoppedAt { .. } => return None,
            })
        }))
    }

    /// Lets PostgreSQL forget everything before `lsn`.
    pub(crate) fn confirm(&self, lsn: Lsn) {
        self.client.update_applied_lsn(pgwire_replication::Lsn::from_u64(lsn.0));
    }

    /// Ends the session and waits until the server has let go of the slot, as
    /// far as it says so in time.
    pub(crate) async fn close(mut self) {
        const PATIENCE: Duration = Duration::from_secs(2);
        if tokio::time::timeout(PATIENCE, self.client.shutdown()).await.is_err() {
            self.client.abort();
        }
    }
}
