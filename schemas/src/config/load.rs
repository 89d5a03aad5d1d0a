//! Reading the configuration: file, then `.env`, then environment.

use std::path::Path;

use figment::{
    Figment,
    providers::{Format, Toml},
};

use super::{Config, ConfigError, environment};

/// The file that is read when none is named.
const DEFAULT_FILE: &str = "outpour.toml";

/// Reads `file`, or `outpour.toml` in the working directory if there is one,
/// the `.env` beside it, and the environment.
///
/// # Errors
/// Names the key and the file or variable it stands in.
pub fn load(file: Option<&Path>) -> Result<Config, ConfigError> {
    let path = file.unwrap_or(Path::new(DEFAULT_FILE));
    let mut figment = Figment::new();
    match std::fs::read_to_string(path) {
        Ok(text) => {
            // Parsed here first, since only the parser can tell line and column.
            text.parse::<toml::Table>()
                .map_err(|error| ConfigError::Value(describe_toml(path, &text, &error)))?;
            figment = figment.merge(Toml::file_exact(path));
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && file.is_none() => {}
        Err(source) => {
            return Err(ConfigError::File { path: path.to_owned(), source });
        }
    }
    let dot_env = path.parent().unwrap_or(Path::new("")).join(".env");
    let mut pairs = dot_env_pairs(&dot_env)?;
    pairs.extend(
        std::env::vars_os()
            .filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?))),
    );
    for variable in
        environment::variables(pairs).map_err(|error| ConfigError::Value(error.to_string()))?
    {
        figment = figment.merge(variable);
    }
    let config: Config = figment.extract().map_err(|error| ConfigError::Value(describe(error)))?;
    config.checked()
}

fn dot_env_pairs(path: &Path) -> Result<Vec<(String, String)>, ConfigError> {
    if !path.is_file() {
        return Ok(Vec::new());
    }
    let wrong = |error: dotenvy::Error| {
        let reason = match error {
            // Its own message quotes what may be a password, and counts no lines.
            dotenvy::Error::LineParse(part, _) => {
                let text = std::fs::read_to_string(path).unwrap_or_default();
                let line =
                    text.lines().position(|line| line.contains(&part)).map_or(0, |at| at + 1);
                format!("line {line} is not NAME=value; a value with spaces or # needs quotes")
            }
            other => one_line(&other.to_string()),
        };
        ConfigError::DotEnv { path: path.to_owned(), reason }
    };
    dotenvy::from_path_iter(path).map_err(wrong)?.map(|pair| pair.map_err(wrong)).collect()
}

fn describe(error: figment::Error) -> String {
    // Only the first: the others are usually its consequences.
    let Some(first) = error.into_iter().next() else {
        return "invalid configuration".to_owned();
    };
    let source = first.metadata.as_ref().map(|metadata| {
        match metadata.source.as_ref().and_then(figment::Source::file_path) {
            Some(path) => path.display().to_string(),
            None => metadata.name.to_string(),
        }
    });
    let key = first.path.join(".");
    let mut line = String::new();
    if let Some(source) = source {
        line.push_str(&source);
        line.push_str(": ");
    }
    if !key.is_empty() {
        line.push_str(&key);
        line.push_str(": ");
    }
    line.push_str(&one_line(&first.kind.to_string()));
    line
}

/// Line, column and reason. The parser's own message quotes the line, which may
/// hold a password.
fn describe_toml(path: &Path, text: &str, error: &toml::de::Error) -> String {
    let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    let reason = one_line(error.message());
    format!("{}: line {line}, column {column}: {reason}", path.display())
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    #![expect(clippy::result_large_err, reason = "the error type is figment's")]

    use figment::Jail;

    use super::*;
    use crate::config::Delivery;

    /// What loading says with this file and this environment.
    fn outcome(toml: &str, env: &[(&str, &str)]) -> Result<Config, String> {
        let mut outcome = Err("did not run".to_owned());
        Jail::expect_with(|jail| {
            jail.create_file("outpour.toml", toml)?;
            for (name, value) in env {
                jail.set_env(name, value);
            }
            outcome = load(None).map_err(|error| error.to_string());
            Ok(())
        });
        outcome
    }

    #[test]
    fn the_environment_wins_over_the_file_and_the_file_over_defaults() {
        let config = outcome(
            "[relay]\nslot = \"a\"\ndelivery = \"at-least-once\"\n[batch]\nmax_bytes = \"1MiB\"",
            &[("OUTPOUR_RELAY_SLOT", "b"), ("OUTPOUR_BATCH_MAX_ROWS", "7")],
        )
        .unwrap();
        assert_eq!(config.relay.slot, "b");
        assert_eq!(config.relay.delivery, Delivery::AtLeastOnce);
        assert_eq!(config.batch.max_rows, 7);
        assert_eq!(config.batch.max_bytes.as_u64(), 1 << 20);
        assert_eq!(config.relay.publication, "outpour");
    }

    #[test]
    fn a_dot_env_beside_the_file_is_read_and_loses_to_the_environment() {
        Jail::expect_with(|jail| {
            jail.create_file(
                ".env",
                "OUTPOUR_RELAY_SLOT=c\nOUTPOUR_CONSUMER_GROUP=\"g h\"\nPATH=x\n",
            )?;
            jail.set_env("OUTPOUR_RELAY_SLOT", "d");
            let config = load(None).unwrap();
            assert_eq!(config.relay.slot, "d");
            assert_eq!(config.consumer.group, "g h");
            Ok(())
        });
    }

    #[test]
    fn a_password_of_digits_stays_text_and_may_come_from_a_file() {
        Jail::expect_with(|jail| {
            jail.create_file("pw", "s3cret\n")?;
            jail.set_env("OUTPOUR_POSTGRES_PASSWORD", "0123");
            jail.set_env("OUTPOUR_CLICKHOUSE_PASSWORD_FILE", "pw");
            let config = load(None).unwrap();
            assert_eq!(config.postgres.password.expose(), "0123");
            assert_eq!(config.clickhouse.password.expose(), "s3cret");
            Ok(())
        });
    }

    #[test]
    fn every_mistake_is_one_line_with_its_place() {
        /// A file, an environment, and what the message has to name.
        type Case<'a> = (&'a str, &'a [(&'a str, &'a str)], &'a [&'a str]);
        let cases: &[Case<'_>] = &[
            ("[relay]\nsolt = \"a\"", &[], &["outpour.toml", "relay", "solt"]),
            ("[rellay]\nslot = \"a\"", &[], &["outpour.toml", "rellay"]),
            ("[relay]\ntopic_partitions = \"many\"", &[], &["relay.topic_partitions", "many"]),
            ("[relay]\nslot = ", &[], &["outpour.toml", "line 2"]),
            ("[batch]\nmax_delay = \"5\"", &[], &["batch.max_delay", "250ms"]),
            ("[relay]\nslot = \"My-Slot\"", &[], &["relay.slot", "My-Slot"]),
            ("[relay]\nroute_topic_regex = \"(\"", &[], &["relay.route_topic_regex", "unclosed"]),
            (
                "[relay]\nadditional_fields = \"type\"",
                &[],
                &["relay.additional_fields", "`type`", "column:header"],
            ),
            (
                "[relay]\nadditional_fields = \"\"",
                &[],
                &["relay.additional_fields", "column:header"],
            ),
            ("[relay]\nadditional_fields = 1", &[], &["relay.additional_fields", "list of texts"]),
            (
                "",
                &[("OUTPOUR_RELAY_ADDITIONAL_FIELDS", "type:body")],
                &["OUTPOUR_RELAY_ADDITIONAL_FIELDS", "`body`"],
            ),
            ("[relay]\ncompat = \"kafka\"", &[], &["relay.compat", "kafka", "debezium"]),
            (
                "[relay]\nop_invalid_behavior = \"stop\"",
                &[],
                &["relay.op_invalid_behavior", "stop", "fatal"],
            ),
            ("[relay]\nsnapshot = \"always\"", &[], &["relay.snapshot", "always", "initial"]),
            ("[relay]\nretention = \"0s\"", &[], &["relay.retention", "at least 1s"]),
            ("", &[("OUTPOUR_RELAY_RETENTION", "7")], &["OUTPOUR_RELAY_RETENTION", "7d"]),
            ("[relay]\ntimestamp_column = \"\"", &[], &["relay.timestamp_column"]),
            ("[relay]\nhttp_listen = \"9464\"", &[], &["relay.http_listen", "host:port"]),
            ("[relay]\nmode = \"push\"", &[], &["relay.mode", "push", "poll"]),
            ("[relay]\nmode = \"poll\"\nretention = \"7d\"", &[], &["relay.retention", "wal"]),
            (
                "[relay]\nmode = \"poll\"\npoll_interval = \"1m\"",
                &[],
                &["relay.poll_interval", "stall_after"],
            ),
            ("[relay]\npoll_batch_rows = 0", &[], &["relay.poll_batch_rows"]),
            ("[outbox]\ntable = \"\"\n[relay]\nmode = \"poll\"", &[], &["outbox.table"]),
            ("[relay]\nmessage_prefix = \"\"", &[], &["relay.message_prefix"]),
            ("[relay]\nstall_after = \"1s\"", &[], &["relay.stall_after", "5s"]),
            ("[postgres]\nurl = \"mysql://x\"", &[], &["postgres.url", "mysql"]),
            ("[kafka]\nbrokers = \"localhost\"", &[], &["kafka.brokers", "host:port"]),
            ("[kafka.properties]\nacks = \"1\"", &[], &["kafka.properties.acks", "remove"]),
            ("[kafka]\nsasl_mechanism = \"X\"", &[], &["kafka.sasl_mechanism", "X", "PLAIN"]),
            ("", &[("OUTPOUR_POSTGRES_TLS", "on")], &["POSTGRES_TLS", "verify-full"]),
            ("[clickhouse]\nurl = \"127.0.0.1:8123\"", &[], &["clickhouse.url"]),
            ("[[routes]]\ntopic = \"t\"", &[], &["routes", "table"]),
            (
                "[[routes]]\ntopic = \"t\"\ntable = \"t\"\nunknown_fields = \"collect\"",
                &[],
                &["routes.0.unknown_fields", "{ collect = \"column\" }"],
            ),
            (
                "[[routes]]\ntopic = \"t\"\ntable = \"t\"\nunknown_fields = { collect = \"a\" }\n\
                 columns = { a = \"b\" }",
                &[],
                &["route 1, unknown_fields", "`a`", "routes.columns"],
            ),
            ("[consumer]\npayload_format = \"avro\"", &[], &["payload_format", "avro", "escaped"]),
            (
                "",
                &[("OUTPOUR_CONSUMER_PAYLOAD_FORMAT", "avro")],
                &["OUTPOUR_CONSUMER_PAYLOAD_FORMAT", "avro"],
            ),
            ("", &[("OUTPOUR_RELAY_SOLT", "x")], &["OUTPOUR_RELAY_SOLT"]),
            ("", &[("OUTPOUR_BATCH_MAX_ROWS", "ten")], &["OUTPOUR_BATCH_MAX_ROWS", "whole number"]),
            ("", &[("OUTPOUR_BATCH_MAX_DELAY", "5")], &["OUTPOUR_BATCH_MAX_DELAY", "250ms"]),
            (
                "",
                &[("OUTPOUR_POSTGRES_PASSWORD_FILE", "nope")],
                &["postgres.password_file", "nope"],
            ),
        ];
        for (toml, env, expected) in cases {
            let error = outcome(toml, env).expect_err(toml);
            assert_eq!(error.lines().count(), 1, "{error}");
            for part in *expected {
                assert!(error.contains(part), "`{error}` should name `{part}`");
            }
        }
    }

    #[test]
    fn a_mistake_beside_a_password_does_not_show_it() {
        let cases = [
            ("[kafka]\npassword = hunter2", "line 2, column 12"),
            ("[kafka]\npassword = \"hunter2", "line 2"),
            ("[kafka]\npassword = 7418529630", "kafka.password"),
            ("[kafka]\npassword = [\"hunter2\"]", "kafka.password"),
            ("[kafka.properties]\n\"sasl.password\" = \"hunter2\"", "kafka.password"),
            ("[postgres]\nurl = \"postgres://a:hunter2@db:x/\"", "postgres.url"),
            ("[postgres]\nurl = \"postgres://a:hunter2@db/?sslmode=x\"", "postgres.url"),
        ];
        for (toml, named) in cases {
            let error = outcome(toml, &[]).expect_err(toml);
            assert!(error.contains(named), "{error}");
            assert!(!error.contains("hunter") && !error.contains("7418529630"), "{error}");
        }
        Jail::expect_with(|jail| {
            jail.create_file(".env", "\nOUTPOUR_KAFKA_PASSWORD=hunter2= hunter3\n")?;
            let error = load(None).unwrap_err().to_string();
            assert!(error.contains(".env: line 2"), "{error}");
            assert!(!error.contains("hunter"), "{error}");
            Ok(())
        });
    }

    #[test]
    fn a_file_that_was_named_must_be_there() {
        let error = load(Some(Path::new("/nowhere/outpour.toml"))).unwrap_err();
        assert!(error.to_string().contains("/nowhere/outpour.toml"), "{error}");
    }
}
