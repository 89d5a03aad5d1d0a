//! Apache Kafka, one node that is broker and controller, from Maven's jars.

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use sha2::{Digest, Sha256};

use super::{Daemon, Shutdown, install};
use crate::stack::{
    certificates::HOST,
    certificates_dir,
    ports::{Ports, ProxiedPorts, SecuredPorts},
    progress::Step,
    secured::{KAFKA_PASSWORD, KAFKA_READER, KAFKA_USER, KAFKA_WRITER},
    settings,
    versions::{JAVA_OLDEST, KAFKA, KAFKA_JARS, MAVEN_DEPENDENCY_PLUGIN},
};

const POM: &str = include_str!("kafka-pom.xml");
const LOGGING: &str = include_str!("kafka-log4j2.properties");
/// Any would do: the node is alone.
const CLUSTER_ID: &str = "b3V0cG91ci1vdXRwb3VyLg";

pub(super) struct Kafka {
    home: PathBuf,
    ports: Ports,
    certificates: PathBuf,
}

impl Kafka {
    pub(super) fn new(dir: &Path, ports: &Ports) -> Self {
        Self { home: dir.join("kafka"), ports: ports.clone(), certificates: certificates_dir(dir) }
    }

    fn properties(&self) -> String {
        let Ports { kafka: port, kafka_controller: controller_port, secured, proxied, .. } =
            self.ports;
        // Inside and outside alike: the name of the certificate.
        let (mut more, mut advertised) = secured.map_or_else(Default::default, |ports| {
            let SecuredPorts { ssl, sasl_ssl } = ports;
            (
                format!(",SSL://127.0.0.1:{ssl},SASL_SSL://127.0.0.1:{sasl_ssl}"),
                format!(",SSL://{HOST}:{ssl},SASL_SSL://{HOST}:{sasl_ssl}"),
            )
        });
        if let Some(ProxiedPorts { listens, advertised: port }) = proxied {
            write!(more, ",PROXIED://127.0.0.1:{listens}").expect("a string takes all");
            write!(advertised, ",PROXIED://127.0.0.1:{port}").expect("a string takes all");
        }
        let mut text = format!(
            "listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}{more}\n\
             advertised.listeners=PLAINTEXT://127.0.0.1:{port}{advertised}\n\
             controller.quorum.voters=1@127.0.0.1:{controller_port}\n\
             log.dirs={}\n",
            self.home.join("data").display()
        );
        if secured.is_some() {
            text.push_str(&self.security());
        } else if proxied.is_some() {
            text.push_str(
                "listener.security.protocol.map=\
                 PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,PROXIED:PLAINTEXT\n",
            );
        }
        for (name, value) in settings::KAFKA {
            writeln!(text, "{name}={value}").expect("writing to a string cannot fail");
        }
        text
    }

    /// What the secured listeners ask for.
    fn security(&self) -> String {
        const SASL: &str = "listener.name.sasl_ssl";
        const MODULES: &str = "org.apache.kafka.common.security";
        let keystore = self.home.join("keystore.pem");
        let truststore = self.certificates.join("ca.pem");
        format!(
            "listener.security.protocol.map=\
             PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,PROXIED:PLAINTEXT,SSL:SSL,SASL_SSL:SASL_SSL\n\
             ssl.keystore.type=PEM\nssl.keystore.location={}\n\
             ssl.truststore.type=PEM\nssl.truststore.location={}\n\
             listener.name.ssl.ssl.client.auth=required\n\
             sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512,OAUTHBEARER\n\
             {SASL}.plain.sasl.jaas.config={MODULES}.plain.PlainLoginModule required \
             user_{KAFKA_USER}=\"{KAFKA_PASSWORD}\" user_{KAFKA_WRITER}=\"{KAFKA_PASSWORD}\" \
             user_{KAFKA_READER}=\"{KAFKA_PASSWORD}\";\n\
             authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer\n\
             allow.everyone.if.no.acl.found=true\n\
             {SASL}.scram-sha-256.sasl.jaas.config={MODULES}.scram.ScramLoginModule required;\n\
             {SASL}.scram-sha-512.sasl.jaas.config={MODULES}.scram.ScramLoginModule required;\n\
             {SASL}.oauthbearer.sasl.jaas.config=\
             {MODULES}.oauthbearer.OAuthBearerLoginModule required \
             unsecuredLoginStringClaim_sub=\"broker\";\n",
            keystore.display(),
            truststore.display(),
        )
    }

    /// A JVM with one of Kafka's programs, given the properties file.
    fn java(&self, main: &str) -> Result<Command> {
        let mut java = Command::new("java");
        java.current_dir(&self.home)
            .args(["-Xmx512m", "-XX:+UseSerialGC", "-Xshare:auto"])
            .arg(format!(
                "-Dlog4j2.configurationFile={}",
                self.home.join("log4j2.properties").display()
            ))
            .arg("-cp")
            .arg(jars()?.join("*"))
            .arg(main);
        Ok(java)
    }
}

impl Daemon for Kafka {
    fn install(&self, step: &Step) -> Result<()> {
        if java_version().is_none_or(|version| version < JAVA_OLDEST) {
            install::debian_packages(&["default-jre-headless"], step)?;
            let version = java_version().context("java was installed and does not run")?;
            ensure!(
                version >= JAVA_OLDEST,
                "Kafka needs Java {JAVA_OLDEST} or later; the `java` that PATH finds is {version}"
            );
        }
        install::cached(&cache_name(), step, |staging| fetch(staging, step)).map(drop)
    }

    fn prepare(&self, step: &Step) -> Result<()> {
        fs::create_dir_all(&self.home)?;
        let properties = self.home.join("server.properties");
        fs::write(&properties, self.properties())?;
        fs::write(self.home.join("log4j2.properties"), LOGGING)?;
        if self.ports.secured.is_some() {
            let part = |name: &str| fs::read_to_string(self.certificates.join(name));
            let keystore = part("server.key")? + &part("server.pem")?;
            fs::write(self.home.join("keystore.pem"), keystore)?;
        }
        // Only then is the format known to be complete.
        let formatted = self.home.join("formatted");
        if !formatted.exists() {
            step.doing("formatting the storage");
            let mut format = self.java("kafka.tools.StorageTool")?;
            format.args(["format", "--ignore-formatted", "-t", CLUSTER_ID, "-c"]).arg(properties);
            if self.ports.secured.is_some() {
                for mechanism in ["SCRAM-SHA-256", "SCRAM-SHA-512"] {
                    format
                        .arg("--add-scram")
                        .arg(format!("{mechanism}=[name={KAFKA_USER},password={KAFKA_PASSWORD}]"));
                }
            }
            install::run(&mut format, |_| {})?;
            fs::write(formatted, "")?;
        }
        Ok(())
    }

    fn command(&self) -> Result<Command> {
        let mut java = self.java("kafka.Kafka")?;
        java.arg(self.home.join("server.properties"));
        Ok(java)
    }

    fn shutdown(&self) -> Shutdown {
        Shutdown { signal: Signal::TERM, patience: Duration::from_secs(20) }
    }

    fn data_dirs(&self) -> Vec<PathBuf> {
        vec![self.home.clone()]
    }
}

/// The major version of the `java` on PATH, if it runs.
fn java_version() -> Option<u32> {
    let output = Command::new("java").arg("-version").output().ok()?;
    major(&String::from_utf8_lossy(&output.stderr))
}

/// 17 of `openjdk version "17.0.15" 2025-04-15`, 8 of `java version "1.8.0_402"`.
fn major(told: &str) -> Option<u32> {
    let (_, quoted) = told.split_once("version \"")?;
    let mut numbers = quoted.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    match numbers.next()?.ok()? {
        1 => numbers.next()?.ok(),
        version => Some(version),
    }
}

fn cache_name() -> String {
    format!("kafka-{KAFKA}")
}

fn jars() -> Result<PathBuf> {
    install::cached_dir(&cache_name()).map(|dir| dir.join("libs"))
}

fn fetch(staging: &Path, step: &Step) -> Result<()> {
    if install::on_path("mvn").is_none() {
        install::debian_packages(&["maven"], step)?;
    }
    step.doing(format!("fetching Apache Kafka {KAFKA} with mvn"));
    let wanted = KAFKA_JARS.lines().count() as u64;
    let mut fetched = 0;
    fs::write(staging.join("pom.xml"), POM)?;
    let mut mvn = Command::new("mvn");
    mvn.current_dir(staging)
        .arg("--batch-mode")
        .arg(format!(
            "org.apache.maven.plugins:maven-dependency-plugin:{MAVEN_DEPENDENCY_PLUGIN}:copy-dependencies"
        ))
        .arg(format!("-Dkafka.version={KAFKA}"))
        .args(["-DincludeScope=runtime", "-DoutputDirectory=libs"]);
    install::run(&mut mvn, |line| {
        if line.contains("Downloaded from") && is_a_jar_of_kafka(line) {
            fetched += 1;
            step.at(fetched, wanted);
        }
    })?;
    verify(&staging.join("libs"))
}

fn locked_jars() -> impl Iterator<Item = (&'static str, &'static str)> {
    KAFKA_JARS.lines().filter_map(|line| line.split_once("  "))
}

fn is_a_jar_of_kafka(line: &str) -> bool {
    locked_jars().any(|(_, name)| line.contains(&format!("/{name} ")))
}

/// Exactly the jars of the lock file, with exactly its contents.
fn verify(libs: &Path) -> Result<()> {
    for (sha256, name) in locked_jars() {
        let jar = fs::read(libs.join(name)).with_context(|| format!("mvn did not fetch {name}"))?;
        let found = hex(&Sha256::digest(&jar));
        ensure!(found == sha256, "the SHA-256 of {name} is {found}, not {sha256} as pinned");
    }
    let pinned: BTreeSet<_> = locked_jars().map(|(_, name)| name.to_owned()).collect();
    for entry in fs::read_dir(libs)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        ensure!(pinned.contains(&name), "mvn fetched {name}, which is not among the pinned jars");
    }
    Ok(())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::major;

    #[test]
    fn java_version_is_read_from_what_each_vendor_prints() {
        let told = [
            ("openjdk version \"17.0.15\" 2025-04-15\nOpenJDK Runtime Environment", Some(17)),
            ("Picked up JAVA_TOOL_OPTIONS: -Xmx1g\nopenjdk version \"21\" 2023-09-19", Some(21)),
            ("java version \"1.8.0_402\"", Some(8)),
            ("openjdk version \"25-ea\" 2025-09-16", Some(25)),
            ("The operation couldn't be completed. Unable to locate a Java Runtime.", None),
        ];
        for (text, version) in told {
            assert_eq!(major(text), version, "{text}");
        }
    }
}
