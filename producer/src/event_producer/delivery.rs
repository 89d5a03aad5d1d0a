//! From the Kafka client's report back to whoever waits for an event.

use std::{
    collections::HashMap,
    pin::Pin,
    sync::{Arc, PoisonError, RwLock},
    task::{Context, Poll},
};

use outpour_schemas::{Envelope, kafka::Heard};
use rdkafka::{
    ClientContext, Message,
    config::RDKafkaLogLevel,
    error::{KafkaError, RDKafkaErrorCode},
    producer::{DeliveryResult, ProducerContext},
};
use tokio::sync::oneshot;
use uuid::Uuid;

use super::{
    Refusal, SendError,
    queue::{Place, Queue},
};

/// Where an acknowledged event is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    pub id: Uuid,
    pub topic: String,
    pub partition: i32,
    pub offset: i64,
}

type Outcome = Result<Published, SendError>;

/// The end of an event that is on its way: where it is, or why not, with the
/// event handed back.
///
/// Dropping it withdraws nothing. If the event fails then, the log says so and
/// the next `flush` counts it.
#[derive(Debug)]
#[must_use = "a delivery that nobody waits for can fail unnoticed until the next flush"]
pub struct Delivery(oneshot::Receiver<Outcome>);

impl Future for Delivery {
    type Output = Outcome;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Outcome> {
        Pin::new(&mut self.0).poll(context).map(|outcome| match outcome {
            Ok(outcome) => outcome,
            Err(_) => unreachable!("an event in flight answers, at the latest when it is dropped"),
        })
    }
}

/// What the Kafka client holds with a record until its end.
pub(super) struct InFlight {
    // `None` once it is answered.
    waiting: Option<(Envelope, oneshot::Sender<Outcome>, Place)>,
    queue: Arc<Queue>,
}

impl InFlight {
    pub(super) fn new(event: Envelope, place: Place, queue: &Arc<Queue>) -> (Self, Delivery) {
        let (sender, receiver) = oneshot::channel();
        let waiting = Some((event, sender, place));
        (InFlight { waiting, queue: Arc::clone(queue) }, Delivery(receiver))
    }

    /// Takes the event back: it has not been handed to the client after all.
    pub(super) fn withdraw(mut self) -> Option<Envelope> {
        self.waiting.take().map(|(event, ..)| event)
    }

    fn delivered(mut self, topic: &str, partition: i32, offset: i64) {
        let Some((event, sender, place)) = self.waiting.take() else { return };
        // Before anybody hears of it, so that there is room when they do.
        drop(place);
        let published = Published { id: event.id, topic: topic.to_owned(), partition, offset };
        // Whoever does not wait need not know.
        sender.send(Ok(published)).ok();
    }

    fn failed(&mut self, source: KafkaError) {
        let Some((event, sender, place)) = self.waiting.take() else { return };
        let error = SendError::new(event, Refusal::NotDelivered(source.into()));
        if let Err(Err(error)) = sender.send(Err(error)) {
            let SendError { event, refusal } = &error;
            tracing::error!(
                id = %event.id,
                aggregate_type = event.aggregate_type,
                error = %refusal,
                may_have_arrived = error.may_have_arrived(),
                "event not delivered, and nobody waits for it"
            );
            self.queue.count_unclaimed();
        }
        // Last, so that whoever waits for the end of everything finds it counted.
        drop(place);
    }
}

impl Drop for InFlight {
    /// The client is gone and has not reported.
    fn drop(&mut self) {
        self.failed(KafkaError::MessageProduction(RDKafkaErrorCode::PurgeInflight));
    }
}

/// Topics that were there when they were last asked for, and whether they need
/// not be asked for again.
#[derive(Default)]
pub(super) struct KnownTopics(RwLock<HashMap<String, bool>>);

impl KnownTopics {
    pub(super) fn contains(&self, topic: &str) -> bool {
        self.0.read().unwrap_or_else(PoisonError::into_inner).contains_key(topic)
    }

    pub(super) fn is_sure(&self, topic: &str) -> bool {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        known.get(topic).copied().unwrap_or_default()
    }

    pub(super) fn insert(&self, topic: &str) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).insert(topic.to_owned(), true);
    }

    fn doubt(&self, topic: &str) {
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(is_sure) = known.get_mut(topic) {
            *is_sure = false;
        }
    }

    pub(super) fn remove(&self, topic: &str) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).remove(topic);
    }
}

/// Hears from the Kafka client, on a thread of its own.
pub(super) struct Deliveries {
    pub(super) topics: Arc<KnownTopics>,
    pub(super) heard: Heard,
}

impl ClientContext for Deliveries {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.heard.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.heard.note(&error, reason);
    }
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = Box<InFlight>;

    fn delivery(&self, result: &DeliveryResult<'_>, mut in_flight: Box<InFlight>) {
        match result {
            Ok(message) => {
                in_flight.delivered(message.topic(), message.partition(), message.offset());
            }
            Err((error, message)) => {
                match error.rdkafka_error_code() {
                    // Somebody removed it; the next event makes it again.
                    Some(
                        RDKafkaErrorCode::UnknownTopic | RDKafkaErrorCode::UnknownTopicOrPartition,
                    ) => self.topics.remove(message.topic()),
                    // The client goes on trying where a topic is gone.
                    Some(RDKafkaErrorCode::MessageTimedOut) => self.topics.doubt(message.topic()),
                    _ => {}
                }
                in_flight.failed(error.clone());
            }
        }
    }
}
