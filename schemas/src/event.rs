//! The business event as a service declares it.

use std::borrow::Cow;

use heck::ToSnakeCase;
use serde::Serialize;

/// Something that happened in the business, ready to be logged with one call.
///
/// The payload is the type's own JSON; the rest says where it belongs. Only the
/// aggregate has to be named:
///
/// ```
/// use outpour_schemas::{Event, Money};
///
/// #[derive(serde::Serialize)]
/// struct OrderPlaced { order_id: u64, total: Money }
///
/// impl Event for OrderPlaced {
///     const AGGREGATE_TYPE: &'static str = "order";
///     fn aggregate_id(&self) -> String { self.order_id.to_string() }
/// }
///
/// assert_eq!(OrderPlaced::event_type(), "order_placed");
/// ```
pub trait Event: Serialize {
    /// The kind of thing the event is about. It names the topic:
    /// `outbox.event.<aggregate type>`.
    const AGGREGATE_TYPE: &'static str;

    /// The version of the payload's shape, carried in every record. Raise it
    /// when a reader has to tell old payloads from new ones.
    const SCHEMA_VERSION: i32 = 1;

    /// What the event is about. It is the Kafka key, so events that share it
    /// keep their commit order.
    fn aggregate_id(&self) -> String;

    /// What happened: the type's name in snake_case unless overridden.
    fn event_type() -> Cow<'static, str> {
        Cow::Owned(snake_case_name(std::any::type_name::<Self>()))
    }
}

/// `shop::orders::OrderPlaced<shop::Eur>` → `order_placed`.
fn snake_case_name(path: &str) -> String {
    let without_generics = path.split('<').next().unwrap_or(path);
    let name = without_generics.rsplit("::").next().unwrap_or(path);
    name.to_snake_case()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Serialize)]
    struct HTTPRequestServed<T>(T);

    impl<T: Serialize> Event for HTTPRequestServed<T> {
        const AGGREGATE_TYPE: &'static str = "request";
        fn aggregate_id(&self) -> String {
            "1".into()
        }
    }

    #[derive(Serialize)]
    struct Renamed;

    impl Event for Renamed {
        const AGGREGATE_TYPE: &'static str = "thing";
        const SCHEMA_VERSION: i32 = 3;
        fn aggregate_id(&self) -> String {
            "1".into()
        }
        fn event_type() -> Cow<'static, str> {
            "thing.renamed".into()
        }
    }

    #[test]
    fn the_event_type_is_the_types_name_in_snake_case() {
        assert_eq!(HTTPRequestServed::<Vec<String>>::event_type(), "http_request_served");
    }

    #[test]
    fn a_given_event_type_wins() {
        assert_eq!(Renamed::event_type(), "thing.renamed");
    }
}
