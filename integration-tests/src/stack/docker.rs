//! The services as containers, of the images that docker-compose.yml names.
//!
//! testcontainers makes them, marked for reuse: such a container outlives the
//! process that made it, and is found again by its name. Its ports on the host
//! are fixed and its data is inside it, so it keeps both until it is removed.

use std::{path::Path, time::Duration};

use anyhow::{Context, Result, anyhow};
use testcontainers::{
    ContainerRequest, GenericImage, Image, ImageExt, ReuseDirective,
    bollard::{
        Docker,
        errors::Error as EngineError,
        models::HostConfig,
        query_parameters::{
            KillContainerOptionsBuilder, RemoveContainerOptionsBuilder, StopContainerOptionsBuilder,
        },
    },
    core::{IntoContainerPort, client::docker_client_instance},
    runners::AsyncRunner,
};
use testcontainers_modules::{
    kafka::apache::{KAFKA_PORT, Kafka},
    postgres::Postgres,
};
use tokio::time::timeout;

use super::{
    layout::fingerprint,
    ports::Ports,
    progress::Step,
    service::Kind,
    settings,
    versions::{CLICKHOUSE_IMAGE, KAFKA_IMAGE, POSTGRES_IMAGE},
};

/// How long an engine that is there may take to say so.
const ENGINE_PATIENCE: Duration = Duration::from_secs(3);
/// How long a service may take to end by itself, in seconds.
const STOP_PATIENCE: i32 = 20;

#[derive(Clone)]
pub(super) struct DockerService {
    kind: Kind,
    /// The container's, unique to the service and its stack's directory.
    name: String,
    ports: Ports,
    fsync: bool,
}

impl DockerService {
    pub(super) fn new(kind: Kind, dir: &Path, ports: &Ports, fsync: bool) -> Self {
        let name = format!("outpour-{}-{}", fingerprint(dir), kind.name());
        Self { kind, name, ports: ports.clone(), fsync }
    }

    pub(super) async fn start(&self, step: &Step) -> Result<()> {
        let container = engine().await?.inspect_container(&self.name, None).await;
        let state = container.ok().and_then(|container| container.state);
        if state.is_some_and(|state| state.paused == Some(true)) {
            return self.resume().await;
        }
        step.doing(format!("starting the container {}", self.name));
        match self.kind {
            Kind::Postgres => self.run(self.postgres()).await,
            Kind::Kafka => self.run(self.kafka()).await,
            Kind::ClickHouse => self.run(self.clickhouse()).await,
        }
    }

    async fn run<I: Image>(&self, request: ContainerRequest<I>) -> Result<()> {
        // The stack asks the services themselves whether they are ready.
        request
            .with_container_name(&self.name)
            .with_ready_conditions(Vec::new())
            .with_host_config_modifier(bind_to_loopback)
            .with_reuse(ReuseDirective::Always)
            .start()
            .await
            .map(drop)
            .with_context(|| format!("cannot run the container {}", self.name))
    }

    fn postgres(&self) -> ContainerRequest<Postgres> {
        let fsync = if self.fsync { "fsync=on" } else { "fsync=off" };
        let set = settings::POSTGRES.map(|(name, value)| format!("{name}={value}"));
        let set = set.into_iter().chain([fsync.to_owned()]);
        Postgres::default()
            .with_user(settings::USER)
            .with_password(settings::PASSWORD)
            .with_db_name(settings::DATABASE)
            .with_tag(POSTGRES_IMAGE.1)
            .with_cmd(set.flat_map(|setting| ["-c".to_owned(), setting]))
            .with_mapped_port(self.ports.postgres, 5432.tcp())
    }

    fn kafka(&self) -> ContainerRequest<Kafka> {
        let request = Kafka::default()
            .with_jvm_image()
            .with_tag(KAFKA_IMAGE.1)
            .with_mapped_port(self.ports.kafka, KAFKA_PORT);
        settings::KAFKA.into_iter().fold(request, |request, (name, value)| {
            request.with_env_var(kafka_variable(name), value)
        })
    }

    fn clickhouse(&self) -> ContainerRequest<GenericImage> {
        let (name, tag) = CLICKHOUSE_IMAGE;
        GenericImage::new(name, tag)
            // Else the default user is closed to all but the container itself.
            .with_env_var("CLICKHOUSE_SKIP_USER_SETUP", "1")
            .with_copy_to(
                "/etc/clickhouse-server/users.d/tests.xml",
                settings::CLICKHOUSE_USERS.as_bytes().to_vec(),
            )
            .with_mapped_port(self.ports.clickhouse, 8123.tcp())
            .with_mapped_port(self.ports.clickhouse_native, 9000.tcp())
    }

    pub(super) async fn stop(&self) -> Result<()> {
        let options = StopContainerOptionsBuilder::new().t(STOP_PATIENCE).build();
        done(engine().await?.stop_container(&self.name, Some(options)).await)
    }

    pub(super) async fn kill(&self) -> Result<()> {
        let options = KillContainerOptionsBuilder::new().signal("SIGKILL").build();
        done(engine().await?.kill_container(&self.name, Some(options)).await)
    }

    pub(super) async fn pause(&self) -> Result<()> {
        Ok(engine().await?.pause_container(&self.name).await?)
    }

    pub(super) async fn resume(&self) -> Result<()> {
        Ok(engine().await?.unpause_container(&self.name).await?)
    }

    pub(super) async fn discard(&self) -> Result<()> {
        let options = RemoveContainerOptionsBuilder::new().force(true).v(true).build();
        done(engine().await?.remove_container(&self.name, Some(options)).await)
    }

    /// A destructor may run inside a runtime, which must not be blocked on.
    pub(super) fn discard_blocking(&self) -> Result<()> {
        let service = self.clone();
        let discarding = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(service.discard())
        });
        discarding.join().map_err(|_| anyhow!("removing {} panicked", self.name))?
    }

    pub(super) async fn is_running(&self) -> bool {
        let Ok(engine) = engine().await else { return false };
        let container = engine.inspect_container(&self.name, None).await;
        let state = container.ok().and_then(|container| container.state);
        state.is_some_and(|state| state.running == Some(true))
    }

    pub(super) fn log_command(&self) -> String {
        format!("see `docker logs {}`", self.name)
    }
}

/// Fails unless an engine answers and has all images, pulled if need be.
pub(super) async fn obtain_images() -> Result<()> {
    let engine = engine().await?;
    let answer = timeout(ENGINE_PATIENCE, engine.ping()).await;
    answer.context("no Docker engine answers")?.context("no Docker engine answers")?;
    for (name, tag) in [POSTGRES_IMAGE, KAFKA_IMAGE, CLICKHOUSE_IMAGE] {
        let image = format!("{name}:{tag}");
        if engine.inspect_image(&image).await.is_err() {
            eprintln!("stack: pulling the image {image}");
            let pulled = GenericImage::new(name, tag).pull_image().await;
            pulled.map(drop).with_context(|| format!("the image {image} cannot be pulled"))?;
        }
    }
    Ok(())
}

async fn engine() -> Result<Docker> {
    docker_client_instance().await.context("no Docker engine can be reached")
}

/// That a container is not there, or not running, is what was wanted.
fn done(outcome: Result<(), EngineError>) -> Result<()> {
    match outcome {
        Err(EngineError::DockerResponseServerError { status_code: 304 | 404 | 409, .. }) => Ok(()),
        outcome => Ok(outcome?),
    }
}

/// By default Docker would publish the ports to the whole network.
fn bind_to_loopback(host: &mut HostConfig) {
    let bindings = host.port_bindings.iter_mut().flat_map(|ports| ports.values_mut());
    for binding in bindings.flatten().flatten() {
        binding.host_ip = Some("127.0.0.1".to_owned());
    }
}

/// How the image takes a setting: `node.id` as `KAFKA_NODE_ID`.
fn kafka_variable(setting: &str) -> String {
    format!("KAFKA_{}", setting.replace('.', "_").to_uppercase())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::BTreeMap;

    use testcontainers::core::ContainerPort;

    use super::*;

    fn service(kind: Kind) -> DockerService {
        let ports = Ports {
            postgres: 1,
            kafka: 2,
            kafka_controller: 3,
            clickhouse: 4,
            clickhouse_native: 5,
            secured: None,
            proxied: None,
        };
        DockerService::new(kind, Path::new("/somewhere"), &ports, true)
    }

    fn environment<I: Image>(request: &ContainerRequest<I>) -> BTreeMap<String, String> {
        let pairs = request.env_vars();
        pairs.map(|(name, value)| (name.into_owned(), value.into_owned())).collect()
    }

    #[test]
    fn the_containers_are_of_the_pinned_images() {
        let image = |(name, tag): (&str, &str)| format!("{name}:{tag}");
        assert_eq!(service(Kind::Postgres).postgres().descriptor(), image(POSTGRES_IMAGE));
        assert_eq!(service(Kind::Kafka).kafka().descriptor(), image(KAFKA_IMAGE));
        assert_eq!(service(Kind::ClickHouse).clickhouse().descriptor(), image(CLICKHOUSE_IMAGE));
    }

    #[test]
    fn the_containers_get_the_settings_of_the_native_services() {
        let postgres = service(Kind::Postgres).postgres();
        let command: Vec<_> = postgres.cmd().map(std::borrow::Cow::into_owned).collect();
        assert!(command.contains(&"wal_level=logical".to_owned()));
        assert!(command.contains(&"fsync=on".to_owned()));
        assert_eq!(environment(&postgres)["POSTGRES_PASSWORD"], settings::PASSWORD);

        let kafka = environment(&service(Kind::Kafka).kafka());
        for (name, value) in settings::KAFKA {
            assert_eq!(kafka[&kafka_variable(name)], value);
        }
        assert_eq!(kafka["KAFKA_AUTO_CREATE_TOPICS_ENABLE"], "false");
    }

    #[test]
    fn the_ports_are_fixed_and_on_loopback() {
        let clickhouse = service(Kind::ClickHouse).clickhouse();
        let ports = clickhouse.ports().unwrap();
        let ports: Vec<_> =
            ports.iter().map(|port| (port.host_port(), port.container_port())).collect();
        assert_eq!(ports, [(4, ContainerPort::Tcp(8123)), (5, ContainerPort::Tcp(9000))]);
    }

    #[test]
    fn two_directories_have_two_sets_of_containers() {
        let there = service(Kind::Kafka);
        let here = DockerService::new(Kind::Kafka, Path::new("/elsewhere"), &there.ports, true);
        assert_ne!(there.name, here.name);
        assert!(there.name.ends_with("-kafka"));
    }
}
