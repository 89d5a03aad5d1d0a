//! From the trace of a record to that of the insert that stores it: W3C's trace
//! context, and ClickHouse's query id. Pure but for the id.
//!
//! ```text
//! record:  traceparent: 00-<trace id>-<span of who wrote it>-<flags>
//! insert:  traceparent: 00-<trace id>-<span of the attempt>-<flags>   query_id: outpour-<uuid>
//! ```

use uuid::Uuid;

/// What a `traceparent` says that outlives the span that wrote it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceContext {
    trace_id: u128,
    flags: u8,
}

impl TraceContext {
    /// Reads a `traceparent`, also of a later version, of which what is known here
    /// is the beginning. `None` for one that W3C has ignored.
    #[must_use]
    pub fn parse(traceparent: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(traceparent).ok()?;
        let mut parts = text.splitn(5, '-');
        let version = hex(parts.next()?, 2)?;
        let trace_id = hex(parts.next()?, 32)?;
        let span_id = hex(parts.next()?, 16)?;
        let flags = hex(parts.next()?, 2)?;
        let has_more = parts.next().is_some();
        if version == 0xff || (version == 0 && has_more) || trace_id == 0 || span_id == 0 {
            return None;
        }
        Some(TraceContext { trace_id, flags: u8::try_from(flags).ok()? })
    }
}

/// A number of so many hexadecimal digits, in lower case as W3C wants them.
fn hex(text: &str, digits: usize) -> Option<u128> {
    let is_hex = |digit: u8| matches!(digit, b'0'..=b'9' | b'a'..=b'f');
    if text.len() != digits || !text.bytes().all(is_hex) {
        return None;
    }
    u128::from_str_radix(text, 16).ok()
}

/// One try at an insert, under names of its own: ClickHouse refuses the id of a
/// query that runs, as one may whose answer was lost.
#[derive(Debug, Clone)]
pub(crate) struct Attempt {
    id: Uuid,
    trace: Option<TraceContext>,
}

impl Attempt {
    /// A new one, in `trace` if there is one.
    pub(crate) fn new(trace: Option<TraceContext>) -> Self {
        Attempt { id: Uuid::now_v7(), trace }
    }

    /// As `system.query_log` has it.
    pub(crate) fn query_id(&self) -> String {
        format!("outpour-{}", self.id)
    }

    /// As a tracing system shows it.
    pub(crate) fn trace_id(&self) -> Option<String> {
        self.trace.map(|trace| format!("{:032x}", trace.trace_id))
    }

    /// What makes the insert part of the trace.
    pub(crate) fn traceparent(&self) -> Option<String> {
        let TraceContext { trace_id, flags } = self.trace?;
        // The random half, which is never all zeros: the variant's bits are in it.
        let (_, span_id) = self.id.as_u64_pair();
        Some(format!("00-{trace_id:032x}-{span_id:016x}-{flags:02x}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn parse(text: &str) -> Option<TraceContext> {
        TraceContext::parse(text.as_bytes())
    }

    #[test]
    fn a_trace_is_continued_with_a_span_of_its_own() {
        let attempts = [Attempt::new(parse(PARENT)), Attempt::new(parse(PARENT))];
        let parents = attempts.each_ref().map(|attempt| attempt.traceparent().unwrap());
        for (attempt, parent) in attempts.iter().zip(&parents) {
            assert_eq!(attempt.trace_id().unwrap(), "0af7651916cd43dd8448eb211c80319c");
            let begin = "00-0af7651916cd43dd8448eb211c80319c-";
            assert!(parent.starts_with(begin) && parent.ends_with("-01"), "{parent}");
            assert_eq!(parse(parent), parse(PARENT), "it is one itself");
            assert!(!parent.contains("b7ad6b7169203331"), "{parent}");
        }
        assert_ne!(parents[0], parents[1]);
        assert_ne!(attempts[0].query_id(), attempts[1].query_id());
    }

    #[test]
    fn flags_stay_as_they_are() {
        let unsampled = Attempt::new(parse(&PARENT.replace("-01", "-00")));
        assert!(unsampled.traceparent().unwrap().ends_with("-00"));
    }

    #[test]
    fn without_a_trace_there_is_an_id_and_nothing_else() {
        let attempt = Attempt::new(None);
        assert_eq!((attempt.traceparent(), attempt.trace_id()), (None, None));
        let id = attempt.query_id();
        assert_eq!(Uuid::parse_str(id.strip_prefix("outpour-").unwrap()).unwrap(), attempt.id);
    }

    #[test]
    fn a_later_version_may_say_more_and_this_one_may_not() {
        assert_eq!(parse(&format!("cc{}-what-else", &PARENT[2..])), parse(PARENT));
        assert_eq!(parse(&format!("cc{}", &PARENT[2..])), parse(PARENT));
        assert_eq!(parse(&format!("{PARENT}-more")), None);
        assert_eq!(parse(&format!("{PARENT}-")), None);
    }

    #[test]
    fn what_w3c_has_ignored_is_ignored() {
        for text in [
            "",
            "00",
            "hello",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319-b7ad6b7169203331-01",
            "00-+af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-1",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01 ",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
        assert_eq!(TraceContext::parse(b"\xff\xfe"), None);
    }
}
