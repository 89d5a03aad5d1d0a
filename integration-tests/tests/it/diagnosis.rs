//! What a `doctor` said, of either program, and topics to say it of.

use std::process::Output;

use integration_tests::stack::Stack;
use rdkafka::{
    ClientConfig,
    admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication},
    client::DefaultClientContext,
};
use serde_json::Value;

/// What `doctor --json` found, by check; and how it ended.
pub(crate) struct Diagnosis {
    pub(crate) code: Option<i32>,
    pub(crate) findings: Vec<Value>,
    pub(crate) stderr: String,
}

impl Diagnosis {
    pub(crate) fn of(output: &Output) -> Self {
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        let findings = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
            panic!("{error}: {}{stderr}", String::from_utf8_lossy(&output.stdout))
        });
        Diagnosis { code: output.status.code(), findings, stderr }
    }

    /// The findings of one level.
    pub(crate) fn at(&self, level: &str) -> Vec<&Value> {
        self.findings.iter().filter(|finding| finding["level"] == level).collect()
    }

    /// The one finding of `check` that says `what`, with its level and its fix.
    pub(crate) fn assert(&self, level: &str, check: &str, what: &str) -> &Value {
        let found: Vec<_> = self
            .findings
            .iter()
            .filter(|f| f["check"] == check && f["what"].as_str().unwrap().contains(what))
            .collect();
        assert_eq!(found.len(), 1, "{check}: {what} in {:#?}", self.findings);
        assert_eq!(found[0]["level"], level, "{:#?}", found[0]);
        if level != "ok" {
            assert!(found[0]["why"].is_string(), "{:#?}", found[0]);
        }
        found[0]
    }

    /// The statement that puts it right.
    pub(crate) fn fix(&self, check: &str, what: &str) -> String {
        self.assert("problem", check, what)["fix"].as_str().unwrap().to_owned()
    }
}

pub(crate) fn admin(stack: &Stack) -> AdminClient<DefaultClientContext> {
    ClientConfig::new().set("bootstrap.servers", stack.kafka.url()).create().unwrap()
}

/// A topic of one partition.
pub(crate) async fn create_topic(stack: &Stack, name: &str, settings: &[(&str, &str)]) {
    let topic = NewTopic::new(name, 1, TopicReplication::Fixed(1));
    let topic = settings.iter().fold(topic, |topic, (key, value)| topic.set(key, value));
    let results = admin(stack).create_topics([&topic], &AdminOptions::new()).await.unwrap();
    assert!(results.iter().all(Result::is_ok), "{results:?}");
}

/// What a topic's setting is.
pub(crate) async fn setting(stack: &Stack, topic: &str, name: &str) -> String {
    let asked = [ResourceSpecifier::Topic(topic)];
    let answers = admin(stack).describe_configs(&asked, &AdminOptions::new()).await.unwrap();
    answers[0].as_ref().unwrap().get(name).unwrap().value.clone().unwrap()
}
