//! docker-compose.yml and the Dockerfile, held against what they rely on: the
//! images of the tests, the configuration keys, the programs' commands.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use clap::Parser;
use integration_tests::stack::versions::{CLICKHOUSE_IMAGE, KAFKA_IMAGE, POSTGRES_IMAGE};
use outpour_schemas::config;
use serde::Deserialize;
use yaml_serde::Value;

use crate::repository::read;

#[derive(Deserialize)]
struct Compose {
    services: BTreeMap<String, Service>,
    volumes: BTreeMap<String, Value>,
}

#[derive(Deserialize)]
#[serde(default)]
struct Service {
    image: String,
    build: Value,
    command: Vec<String>,
    environment: BTreeMap<String, Value>,
    ports: Vec<String>,
    volumes: Vec<String>,
    healthcheck: Option<HealthCheck>,
    restart: String,
    depends_on: BTreeMap<String, Dependency>,
    deploy: BTreeMap<String, Value>,
}

impl Default for Service {
    fn default() -> Self {
        Service {
            image: String::new(),
            build: Value::Null,
            command: Vec::new(),
            environment: BTreeMap::new(),
            ports: Vec::new(),
            volumes: Vec::new(),
            healthcheck: None,
            // What Compose does when nothing is said.
            restart: "no".to_owned(),
            depends_on: BTreeMap::new(),
            deploy: BTreeMap::new(),
        }
    }
}

#[derive(Deserialize)]
struct HealthCheck {
    test: Vec<String>,
}

#[derive(Deserialize)]
struct Dependency {
    condition: Condition,
}

#[derive(Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Condition {
    ServiceHealthy,
    ServiceCompletedSuccessfully,
}

impl Service {
    fn env(&self, name: &str) -> String {
        match &self.environment[name] {
            Value::String(text) => text.clone(),
            other => yaml_serde::to_string(other).unwrap().trim().to_owned(),
        }
    }

    fn runs_outpour(&self) -> bool {
        !self.build.is_null()
    }

    /// It ends by itself, and is not started again.
    fn is_one_shot(&self) -> bool {
        self.runs_outpour() && self.restart == "no"
    }
}

/// The file as Compose reads it where no variable is set.
fn compose() -> Compose {
    let (text, _) = interpolated(&read("docker-compose.yml"));
    let mut yaml: Value = yaml_serde::from_str(&text).unwrap();
    yaml.apply_merge().unwrap();
    yaml_serde::from_value(yaml).unwrap()
}

/// `text` with each `${NAME:-default}` replaced, and the defaults by name.
fn interpolated(text: &str) -> (String, BTreeMap<String, String>) {
    let mut variables = BTreeMap::new();
    let mut pieces = text.split("${");
    let mut result = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let (variable, rest) = piece.split_once('}').unwrap();
        let (name, default) =
            variable.split_once(":-").unwrap_or_else(|| panic!("{variable} has no default"));
        let earlier = variables.insert(name.to_owned(), default.to_owned());
        assert!(earlier.is_none_or(|earlier| earlier == default), "{name} has two defaults");
        result.push_str(default);
        result.push_str(rest);
    }
    (result, variables)
}

/// A directory of this test's own with these variables in its `.env`.
fn dir_with_env<'a>(name: &str, env: impl Iterator<Item = (&'a str, String)>) -> PathBuf {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::create_dir_all(&dir).unwrap();
    let lines: String = env.map(|(name, value)| format!("{name}='{value}'\n")).collect();
    fs::write(dir.join(".env"), lines).unwrap();
    fs::write(dir.join("outpour.toml"), "").unwrap();
    dir
}

#[test]
fn every_station_of_the_pipeline_is_a_service() {
    let compose = compose();
    let names: Vec<&str> = compose.services.keys().map(String::as_str).collect();
    let expected =
        ["clickhouse", "consumer", "consumer-init", "kafka", "postgres", "relay", "relay-init"];
    assert_eq!(names, expected);
    let replicas = compose.services["consumer"].deploy["replicas"].as_u64();
    assert!(replicas >= Some(2), "one consumer is no group");
}

#[test]
fn the_images_are_those_of_the_tests() {
    let compose = compose();
    for (name, (image, tag)) in
        [("postgres", POSTGRES_IMAGE), ("kafka", KAFKA_IMAGE), ("clickhouse", CLICKHOUSE_IMAGE)]
    {
        assert_eq!(compose.services[name].image, format!("{image}:{tag}"), "{name}");
    }
    for (name, service) in &compose.services {
        let (image, tag) = service.image.split_once(':').unwrap();
        assert!(!tag.is_empty() && tag != "latest", "{name} takes whichever {image} there is");
    }
}

#[test]
fn the_image_is_built_with_the_oldest_rust_that_is_promised() {
    let manifest: toml::Table = read("Cargo.toml").parse().unwrap();
    let version = manifest["workspace"]["package"]["rust-version"].as_str().unwrap();
    let dockerfile = read("Dockerfile");
    assert!(
        dockerfile.contains(&format!("FROM rust:{version}-")),
        "the Dockerfile builds with another Rust than {version}"
    );
}

#[test]
fn a_service_is_watched_or_ends_by_itself() {
    let compose = compose();
    for (name, service) in &compose.services {
        let watched = service.healthcheck.as_ref().is_some_and(|check| {
            check.test.first().is_some_and(|first| first == "CMD") && check.test.len() > 1
        });
        assert!(watched != service.is_one_shot(), "{name} is neither watched nor one-shot");
        if !service.is_one_shot() {
            assert_eq!(service.restart, "unless-stopped", "{name}");
        }
    }
}

#[test]
fn a_service_waits_for_what_it_needs() {
    let compose = compose();
    for (name, service) in &compose.services {
        for (needed, dependency) in &service.depends_on {
            let needed_service = compose
                .services
                .get(needed)
                .unwrap_or_else(|| panic!("{name} waits for {needed}, which is no service"));
            let expected = if needed_service.is_one_shot() {
                Condition::ServiceCompletedSuccessfully
            } else {
                Condition::ServiceHealthy
            };
            assert_eq!(dependency.condition, expected, "{name} waits for {needed}");
        }
    }
    let needs =
        |name: &str| -> Vec<String> { compose.services[name].depends_on.keys().cloned().collect() };
    assert_eq!(needs("relay"), ["kafka", "postgres", "relay-init"]);
    assert_eq!(needs("consumer"), ["clickhouse", "consumer-init", "kafka"]);
}

#[test]
fn data_lies_in_named_volumes() {
    let compose = compose();
    let mounted: BTreeSet<&str> = compose
        .services
        .values()
        .flat_map(|service| &service.volumes)
        .map(|volume| volume.split_once(':').unwrap().0)
        .collect();
    let declared: BTreeSet<&str> = compose.volumes.keys().map(String::as_str).collect();
    assert_eq!(mounted, declared);
    for name in ["postgres", "kafka", "clickhouse"] {
        assert_eq!(compose.services[name].volumes.len(), 1, "{name} keeps no data");
    }
}

#[test]
fn nothing_listens_beyond_this_machine() {
    for (name, service) in compose().services {
        for port in service.ports {
            assert!(port.starts_with("127.0.0.1:"), "{name} publishes {port}");
        }
    }
}

#[test]
fn the_programs_take_their_environment_and_commands() {
    let compose = compose();
    for (name, service) in &compose.services {
        if !service.runs_outpour() {
            continue;
        }
        let env = service.environment.keys().map(|key| (key.as_str(), service.env(key)));
        let dir = dir_with_env(&format!("compose-{name}"), env);
        config::load(Some(&dir.join("outpour.toml"))).unwrap_or_else(|e| panic!("{name}: {e}"));

        let check = service.healthcheck.as_ref().map(|check| check.test[1..].to_vec());
        for command in [Some(service.command.clone()), check].into_iter().flatten() {
            let parsed = match command[0].as_str() {
                "outpour-relay" => outpour_producer::cli::Cli::try_parse_from(&command).map(drop),
                "outpour-consumer" => {
                    outpour_consumer::cli::Cli::try_parse_from(&command).map(drop)
                }
                other => panic!("{name} runs {other}"),
            };
            parsed.unwrap_or_else(|error| panic!("{name}: {error}"));
        }
    }
}

#[test]
fn the_programs_are_given_what_the_services_were_given() {
    let compose = compose();
    let [postgres, kafka, clickhouse] =
        ["postgres", "kafka", "clickhouse"].map(|name| &compose.services[name]);
    let listeners = kafka.env("KAFKA_ADVERTISED_LISTENERS");
    for service in compose.services.values().filter(|service| service.runs_outpour()) {
        let user = postgres.env("POSTGRES_USER");
        let database = postgres.env("POSTGRES_DB");
        assert_eq!(
            service.env("OUTPOUR_POSTGRES_URL"),
            format!("postgres://{user}@postgres:5432/{database}")
        );
        assert_eq!(service.env("OUTPOUR_POSTGRES_PASSWORD"), postgres.env("POSTGRES_PASSWORD"));
        let brokers = service.env("OUTPOUR_KAFKA_BROKERS");
        assert!(listeners.contains(&format!("//{brokers},")), "{brokers} is not in {listeners}");
        assert_eq!(service.env("OUTPOUR_CLICKHOUSE_URL"), "http://clickhouse:8123");
        for (ours, theirs) in [
            ("OUTPOUR_CLICKHOUSE_USER", "CLICKHOUSE_USER"),
            ("OUTPOUR_CLICKHOUSE_PASSWORD", "CLICKHOUSE_PASSWORD"),
            ("OUTPOUR_CLICKHOUSE_DATABASE", "CLICKHOUSE_DB"),
        ] {
            assert_eq!(service.env(ours), clickhouse.env(theirs), "{ours}");
        }
    }
}

#[test]
fn the_example_environment_is_the_default_one() {
    let example: BTreeMap<String, String> = read(".env.example")
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| line.split_once('=').unwrap())
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();

    let (_, variables) = interpolated(&read("docker-compose.yml"));
    for (name, default) in &variables {
        assert_eq!(example.get(name), Some(default), "{name} in .env.example");
    }
    // Everything else is for the programs on this machine alone, and leads to
    // the ports that the services publish.
    let ours = example.iter().filter(|(name, _)| !variables.contains_key(*name));
    let ours: Vec<_> = ours.map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let port = |name: &str| &variables[name];
    assert_eq!(
        ours,
        [
            ("OUTPOUR_CLICKHOUSE_URL", &*format!("http://127.0.0.1:{}", port("CLICKHOUSE_PORT"))),
            ("OUTPOUR_KAFKA_BROKERS", &*format!("127.0.0.1:{}", port("KAFKA_PORT"))),
            (
                "OUTPOUR_POSTGRES_URL",
                &*format!("postgres://outpour@127.0.0.1:{}/outpour", port("POSTGRES_PORT"))
            ),
        ]
    );
    let dir = dir_with_env(
        "env-example",
        example.iter().map(|(name, value)| (name.as_str(), value.clone())),
    );
    config::load(Some(&dir.join("outpour.toml"))).unwrap();
}
