//! Commands as they stand on the page, run for one pipeline.

use std::time::Duration;

use bytes::Bytes;
use futures_util::SinkExt as _;
use integration_tests::{
    http,
    pipeline::{PATIENCE, Pipeline},
    program::{Binary, Program},
};
use rdkafka::{
    ClientConfig,
    admin::{AdminClient, AdminOptions, AlterConfig, ResourceSpecifier},
    client::DefaultClientContext,
};

/// What a command ended with, and what it said.
#[derive(Debug)]
pub(super) struct Said {
    pub(super) code: Option<i32>,
    pub(super) text: String,
}

pub(super) struct Shell<'s> {
    pipeline: &'s Pipeline<'s>,
    /// Names of the page, and what they are called here.
    names: Vec<(&'static str, String)>,
}

impl<'s> Shell<'s> {
    pub(super) fn of(pipeline: &'s Pipeline<'s>) -> Self {
        let names = vec![
            ("outbox.event.order", pipeline.topic("order")),
            ("'outpour'", format!("'{}'", pipeline.name)),
        ];
        Shell { pipeline, names }
    }

    /// Where something of the page is here.
    pub(super) fn with(mut self, name: &'static str, here: &str) -> Self {
        self.names.push((name, here.to_owned()));
        self
    }

    fn translated(&self, command: &str) -> String {
        let command = command.split("  # ").next().unwrap_or(command).trim_end().to_owned();
        self.names.iter().fold(command, |command, (name, here)| command.replace(name, here))
    }

    /// Runs a command, which has to end well; what it said.
    pub(super) async fn run(&self, command: &str) -> String {
        let said = self.ends(command).await;
        assert_eq!(said.code, Some(0), "{command}: {}", said.text);
        said.text
    }

    /// Runs a command to its end.
    pub(super) async fn ends(&self, command: &str) -> Said {
        let command = self.translated(command);
        if let Some((from, to)) = command.split_once(" | ") {
            let rows = self.rows(argument(from, "clickhouse-client --query")).await;
            return self.copy_in(argument(to, "psql -c"), rows).await;
        }
        let (program, rest) = command.split_once(' ').expect(&command);
        match program {
            "outpour-relay" => output(self.pipeline.relay_output(&words(rest)).await.unwrap()),
            "outpour-consumer" => {
                output(self.pipeline.consumer_output(&words(rest)).await.unwrap())
            }
            "clickhouse-client" => {
                self.pipeline
                    .execute(argument(&command, "clickhouse-client --query"))
                    .await
                    .unwrap();
                done(String::new())
            }
            "psql" => {
                let sql = argument(&command, "psql -c");
                let client = self.pipeline.postgres().await.unwrap();
                done(client.execute(sql, &[]).await.unwrap().to_string())
            }
            "curl" => {
                let (address, path) = rest.trim_start_matches("-s ").split_once('/').expect(rest);
                let (status, body) = http::get(address, &format!("/{path}")).await.unwrap();
                done(format!("{status} {body}"))
            }
            "kafka-configs.sh" => self.configure_topic(&words(rest)).await,
            _ => panic!("{command}: who runs that?"),
        }
    }

    /// Starts what goes on until it is stopped, with its log in `log`.
    pub(super) fn start(&self, command: &str, log: &str) -> Program {
        let command = self.translated(command);
        let (program, rest) = command.split_once(' ').expect(&command);
        let binary = [Binary::Relay, Binary::Consumer].into_iter();
        let binary = binary.into_iter().find(|binary| binary.name() == program).expect(program);
        let (config, log) = (self.pipeline.config(), self.pipeline.file(log));
        binary.spawn(&config, &log, &words(rest), &[]).unwrap()
    }

    async fn rows(&self, sql: &str) -> Bytes {
        let rows = self.pipeline.clickhouse().query(sql).fetch_bytes("TabSeparated");
        rows.unwrap().collect().await.unwrap()
    }

    async fn copy_in(&self, sql: &str, rows: Bytes) -> Said {
        let client = self.pipeline.postgres().await.unwrap();
        let mut sink = Box::pin(client.copy_in(sql).await.unwrap());
        sink.send(rows).await.unwrap();
        done(sink.as_mut().finish().await.unwrap().to_string())
    }

    async fn configure_topic(&self, words: &[&str]) -> Said {
        let after = |option: &str| {
            let at = words.iter().position(|word| *word == option).expect(option);
            words[at + 1]
        };
        let admin: AdminClient<DefaultClientContext> = ClientConfig::new()
            .set("bootstrap.servers", self.pipeline.stack.kafka.url())
            .create()
            .unwrap();
        let topic = ResourceSpecifier::Topic(after("--entity-name"));
        let pairs = after("--add-config").split(',').map(|pair| pair.split_once('=').expect(pair));
        let config = pairs.fold(AlterConfig::new(topic), |all, (key, value)| all.set(key, value));
        let altered = admin.alter_configs([&config], &AdminOptions::new()).await.unwrap();
        altered[0].as_ref().unwrap();
        done(String::new())
    }
}

fn done(text: String) -> Said {
    Said { code: Some(0), text }
}

fn output(output: std::process::Output) -> Said {
    let text = [output.stdout, output.stderr].concat();
    Said { code: output.status.code(), text: String::from_utf8_lossy(&text).into_owned() }
}

fn words(text: &str) -> Vec<&str> {
    text.split_whitespace().collect()
}

/// The quoted text that follows.
fn argument<'a>(command: &'a str, program: &str) -> &'a str {
    let rest = command.strip_prefix(program).expect(command).trim();
    rest.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).expect(command)
}

/// Waits until a program has said so.
pub(super) async fn says(program: &Program, text: &str) {
    const LONGER: Duration = Duration::from_secs(2 * PATIENCE.as_secs());
    program.logged(text, LONGER).await.unwrap();
}
