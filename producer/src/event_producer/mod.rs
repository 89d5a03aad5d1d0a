//! Events straight into Kafka, for services without a database.
//!
//! ```text
//! event ─▶ record ─▶ topic there? ─▶ room in the queue ─▶ Kafka client ─▶ brokers
//!          envelope   topics.rs       queue.rs                               │
//!          of schemas                    ▲                               acks=all
//!                                        └──── delivery.rs ◀── Published ────┘
//! ```
//!
//! The record is the one that the relay publishes, but for the header
//! `outpour-lsn`, and that the payload is the service's own JSON text.
//!
//! What is accepted is bounded in bytes. When the brokers are slow or away,
//! [`EventProducer::enqueue`] waits and [`EventProducer::try_enqueue`] refuses;
//! every refusal hands the event back.
//!
//! # What can be relied on
//!
//! - An event is in Kafka, on all in-sync replicas, when its [`Delivery`] is `Ok`.
//! - Events of one key have the order in which `enqueue` returned. The client
//!   repeats what was lost on the way without doubling or reordering it.
//! - An event that is not acknowledged in time fails, and is handed back. The ones
//!   after it may arrive nevertheless.
//! - A service that dies loses what was not acknowledged. Where the event must be
//!   as sure as the change it tells of, it belongs into an outbox.

mod delivery;
mod error;
mod queue;
mod settings;
mod topics;

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
pub use outpour_schemas::config::{ConfigError, Kafka};
use outpour_schemas::{Envelope, Event, Record, kafka::Heard, wire};
use rdkafka::{
    error::{KafkaError, RDKafkaErrorCode},
    producer::{Producer, PurgeConfig, ThreadedProducer},
};
use tokio::time::Instant;

use self::{
    delivery::{Deliveries, InFlight, KnownTopics},
    queue::{Place, Queue},
};
pub use self::{
    delivery::{Delivery, Published},
    error::{LogEventError, Refusal, SendError, SettingsError, TopicsError, Undelivered},
    settings::Settings,
};
use crate::kafka;

type Client = ThreadedProducer<Deliveries>;

/// An idempotent producer of events. Cheap to clone; make one for the service,
/// and [`Self::shutdown`] before it ends.
///
/// ```no_run
/// use std::time::Duration;
/// use outpour_producer::{Event, EventProducer, event_producer::{Kafka, Settings}};
///
/// #[derive(serde::Serialize)]
/// struct PageViewed { visitor: String, path: String }
///
/// impl Event for PageViewed {
///     const AGGREGATE_TYPE: &'static str = "visitor";
///     fn aggregate_id(&self) -> String { self.visitor.clone() }
/// }
///
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// let producer = EventProducer::new(Settings {
///     kafka: Kafka { brokers: "kafka:9092".into(), ..Kafka::default() },
///     ..Settings::default()
/// })?;
/// let viewed = PageViewed { visitor: "4711".into(), path: "/".into() };
/// let published = producer.log_event(&viewed).await?;
/// println!("{} is at {}/{}", published.id, published.partition, published.offset);
/// producer.shutdown(Duration::from_secs(10)).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct EventProducer(Arc<Inner>);

struct Inner {
    client: Client,
    queue: Arc<Queue>,
    topics: Arc<KnownTopics>,
    /// What the client says about its brokers.
    heard: Heard,
    /// Held by whoever asks for or makes a topic: one at a time is enough.
    asking: Arc<tokio::sync::Mutex<()>>,
    settings: Settings,
}

impl std::fmt::Debug for EventProducer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EventProducer")
            .field("settings", &self.0.settings)
            .field("queued_bytes", &self.queued_bytes())
            .finish_non_exhaustive()
    }
}

impl EventProducer {
    /// Makes the client and starts its threads. Kafka need not be there yet.
    ///
    /// # Errors
    /// Names the setting that makes no sense.
    pub fn new(settings: Settings) -> Result<Self, SettingsError> {
        let settings = settings.checked()?;
        // An event goes out at once, and more while its request is under way.
        let defaults = [("linger.ms", "1"), ("compression.type", "lz4")];
        let largest = settings.max_record_bytes as u64;
        let mut client = kafka::producer_config(&settings.kafka, largest, &defaults)?;
        let kilobytes = (settings.queue_bytes / 1024 + 1).min(i32::MAX as usize);
        client
            .set("client.id", &settings.client_id)
            .set("message.timeout.ms", settings.delivery_timeout.as_millis().to_string())
            // The bound is ours, and tighter.
            .set("queue.buffering.max.messages", "0")
            .set("queue.buffering.max.kbytes", kilobytes.to_string());
        let topics = Arc::<KnownTopics>::default();
        let heard = Heard::default();
        let deliveries = Deliveries { topics: Arc::clone(&topics), heard: heard.clone() };
        let client = client.create_with_context(deliveries).map_err(SettingsError::Client)?;
        let queue = Queue::new(settings.queue_bytes);
        let asking = Arc::default();
        Ok(EventProducer(Arc::new(Inner { client, queue, topics, heard, asking, settings })))
    }

    /// Logs `event`: one call that returns when it is safe.
    ///
    /// `Ok` means that Kafka has acknowledged it on all in-sync replicas, from
    /// where it reaches ClickHouse whatever becomes of this service. ClickHouse
    /// is not waited for. While Kafka is away the call waits, for `delivery_timeout`
    /// to find room in the queue and as long again for the acknowledgement; then
    /// it fails and hands the event back.
    ///
    /// # Errors
    /// When the event cannot be written as JSON, or is not acknowledged.
    /// [`SendError::may_have_arrived`] tells whether it may be in Kafka even so.
    ///
    /// # Cancellation
    /// Dropped before the event is in the queue, the call has done nothing. After
    /// that the event goes on to Kafka without it, once and as a whole; if that
    /// fails, the log says so.
    pub async fn log_event<E: Event>(&self, event: &E) -> Result<Published, LogEventError> {
        Ok(self.send(Envelope::of(event)?).await?)
    }

    /// Sends a prepared event and waits for Kafka's acknowledgement.
    ///
    /// # Errors
    /// As [`Self::log_event`].
    ///
    /// # Cancellation
    /// As [`Self::log_event`].
    pub async fn send(&self, event: Envelope) -> Result<Published, SendError> {
        self.enqueue(event).await?.await
    }

    /// Hands a prepared event to the queue, and waits for room in it if need be,
    /// for `delivery_timeout` at most. The first event of a topic also waits until
    /// the topic is known to be there, or made.
    ///
    /// The returned [`Delivery`] is the acknowledgement. Events of one key are
    /// delivered in the order in which this returned.
    ///
    /// # Errors
    /// When the event makes no record, or there is no room in time.
    ///
    /// # Cancellation
    /// A call that is dropped has not taken the event.
    pub async fn enqueue(&self, event: Envelope) -> Result<Delivery, SendError> {
        let deadline = Instant::now() + self.0.settings.delivery_timeout;
        match self.admit(&event, deadline).await {
            Ok((record, place)) => self.0.hand_over(event, &record, place),
            Err(refusal) => Err(SendError::new(event, refusal)),
        }
    }

    /// The same without waiting: for whoever would rather drop an event, or keep
    /// it elsewhere, than slow down.
    ///
    /// # Errors
    /// As [`Self::enqueue`]; [`Refusal::Full`] where that would wait for room, and
    /// [`Refusal::TopicUnknown`] where it would ask for the topic.
    pub fn try_enqueue(&self, event: Envelope) -> Result<Delivery, SendError> {
        match self.try_admit(&event) {
            Ok((record, place)) => self.0.hand_over(event, &record, place),
            Err(refusal) => Err(SendError::new(event, refusal)),
        }
    }

    async fn admit(&self, event: &Envelope, deadline: Instant) -> Result<(Record, Place), Refusal> {
        let record = self.0.record(event)?;
        self.topic_is_there(&record.topic, deadline).await?;
        let place = self.0.queue.place(queue::charge(record.wire_size()), deadline).await?;
        Ok((record, place))
    }

    fn try_admit(&self, event: &Envelope) -> Result<(Record, Place), Refusal> {
        let record = self.0.record(event)?;
        if !self.0.topics.contains(&record.topic) {
            return Err(Refusal::TopicUnknown { topic: record.topic });
        }
        let place = self.0.queue.try_place(queue::charge(record.wire_size()))?;
        Ok((record, place))
    }

    /// Waits until everything that was handed over has come to its end, what is
    /// handed over meanwhile included.
    ///
    /// # Errors
    /// When that is not so within the given time, or when events have failed that
    /// nobody waited for. Events on their way stay on their way.
    pub async fn flush(&self, within: Duration) -> Result<(), Undelivered> {
        let queue = &self.0.queue;
        let drained = tokio::time::timeout(within, queue.drained()).await;
        let pending = if drained.is_ok() { 0 } else { queue.events() };
        match (pending, queue.take_unclaimed()) {
            (0, 0) => Ok(()),
            (pending, failed) => Err(Undelivered { pending, failed }),
        }
    }

    /// Takes no event any more, from any clone, and waits for the end of those on
    /// their way. What is left when the time is up is given up: whoever waits for
    /// it gets it back, the log names the others.
    ///
    /// # Errors
    /// Says how many events were given up.
    pub async fn shutdown(&self, within: Duration) -> Result<(), Undelivered> {
        /// The client needs no broker to give up.
        const GIVING_UP: Duration = Duration::from_secs(5);
        self.0.queue.close();
        let flushed = self.flush(within).await;
        if let Err(Undelivered { pending: 1.., .. }) = flushed {
            let inner = Arc::clone(&self.0);
            let purge = move || inner.client.purge(PurgeConfig::default().queue().inflight());
            if tokio::task::spawn_blocking(purge).await.is_ok() {
                tokio::time::timeout(GIVING_UP, self.0.queue.drained()).await.ok();
            }
            // They are in `pending` already.
            self.0.queue.take_unclaimed();
        }
        flushed
    }

    /// Bytes of `queue_bytes` that are in use.
    #[must_use]
    pub fn queued_bytes(&self) -> usize {
        self.0.queue.bytes_in_use()
    }

    /// Events that have been handed over, or wait to be, and have not come to
    /// their end.
    #[must_use]
    pub fn pending_events(&self) -> usize {
        self.0.queue.events()
    }
}

impl Inner {
    fn record(&self, event: &Envelope) -> Result<Record, Refusal> {
        event.validate()?;
        let record = event.record(&self.settings.topic_prefix, Timestamp::now());
        wire::check_event_topic(&record.topic)?;
        let (size, limit) = (record.wire_size(), self.settings.max_record_bytes);
        if size > limit { Err(Refusal::TooLarge { size, limit }) } else { Ok(record) }
    }

    fn hand_over(
        &self,
        event: Envelope,
        record: &Record,
        place: Place,
    ) -> Result<Delivery, SendError> {
        let (in_flight, delivery) = InFlight::new(event, place, &self.queue);
        let Err((error, message)) = self.client.send(kafka::message(record, Box::new(in_flight)))
        else {
            return Ok(delivery);
        };
        let refusal = match error {
            KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull) => {
                Refusal::Full { capacity: self.settings.queue_bytes }
            }
            error => Refusal::NotDelivered(error.into()),
        };
        match message.delivery_opaque.withdraw() {
            Some(event) => Err(SendError::new(event, refusal)),
            // Already answered, which is for the delivery to tell.
            None => Ok(delivery),
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let events = self.queue.events();
        if events > 0 {
            // Dropping the client gives each of them up; the log names them.
            tracing::error!(events, "event producer dropped without shutdown; they may be lost");
        }
    }
}
