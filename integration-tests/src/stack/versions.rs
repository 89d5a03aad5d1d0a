//! The one place that pins what the stack is made of.
//!
//! docker-compose.yml names the same images; a test compares.

/// The oldest PostgreSQL that the native provider accepts.
pub const POSTGRES_OLDEST: u32 = 14;
pub const POSTGRES_IMAGE: (&str, &str) = ("postgres", "15");

/// The oldest Java that Kafka runs on.
pub const JAVA_OLDEST: u32 = 17;
pub const KAFKA: &str = "4.1.1";
pub const KAFKA_IMAGE: (&str, &str) = ("apache/kafka", KAFKA);
/// What `mvn` resolves for [`KAFKA`], in the format of `sha256sum`.
pub const KAFKA_JARS: &str = include_str!("native/kafka-jars.sha256");
/// Pinned, for whichever plugin a Maven defaults to depends on its version.
pub const MAVEN_DEPENDENCY_PLUGIN: &str = "3.6.1";

pub const CLICKHOUSE_IMAGE: (&str, &str) = ("clickhouse/clickhouse-server", "26.9");
/// The Python package that carries the ClickHouse engine of the same version.
pub const CHDB_CORE: &str = "26.9.0";
/// Its wheels: Linux on `x86_64`, then on `aarch64`.
pub const CHDB_CORE_SHA256: [&str; 2] = [
    "707e2ec3fe0f7953bac97942eaeb7a1ed1d66b1e56ecef3f0aa2130f61f6e735",
    "46148d3fc1edd6d6f701922be0f18e2aa6e60349e418b430e69bbb87ab6b95a9",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compose_runs_the_same_images() {
        let compose = include_str!("../../../docker-compose.yml");
        for (name, tag) in [POSTGRES_IMAGE, KAFKA_IMAGE, CLICKHOUSE_IMAGE] {
            let image = format!("image: {name}:{tag}\n");
            assert!(compose.contains(&image), "docker-compose.yml has no {image}");
        }
    }
}
