//! A real PostgreSQL, Kafka and ClickHouse for whoever needs them.
//!
//! ```text
//! Stack::shared()      one per checkout, left running: tests keep apart by names
//! Stack::private(name) its own, to be killed and paused, gone with its owner
//! Stack::secured(name) the same, with TLS and passwords; native only
//! Stack::launch(..)    anywhere, for as long as wanted: `stack up`, benches
//!      │
//!      ├─ provider   native (processes) or docker (containers)
//!      ├─ layout     ports and provider, chosen once per directory: stack.json
//!      └─ service    start, stop, kill, pause, resume, restart; a ready probe
//! ```
//!
//! What is known about a stack lies in its directory, so that every process
//! that names the directory speaks of the same services.

pub mod certificates;
mod control;
mod docker;
mod layout;
mod lock;
mod names;
pub(crate) mod native;
mod ports;
mod private;
pub(crate) mod progress;
mod provider;
mod ready;
pub mod secured;
mod service;
mod settings;
pub mod versions;

use std::{
    env, fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

use anyhow::{Context, Result, ensure};
use tokio::{sync::OnceCell, task::spawn_blocking, try_join};

use self::{
    certificates::Certificates,
    control::Control,
    layout::Layout,
    lock::Lock,
    ports::{Listeners, ProxiedPorts},
    private::Tenancy,
    progress::Progress,
};
pub use self::{
    provider::Provider,
    secured::Secured,
    service::{Kind, Service},
};

/// Where and how a stack is to run.
#[derive(Debug, Clone)]
pub struct StackOptions {
    /// Holds everything of it: data, logs, what is running.
    pub dir: PathBuf,
    /// Remove the data that an earlier stack left in `dir`.
    pub fresh: bool,
    /// Else `OUTPOUR_STACK`, else whichever can be had.
    pub provider: Option<Provider>,
    /// Whether PostgreSQL outlives a loss of power. A `kill -9` it survives
    /// either way; without, commits cost no disk.
    pub fsync: bool,
    /// Whether there are listeners that ask for passwords and certificates.
    /// Only processes have them, not containers.
    pub secured: bool,
    /// Whether Kafka has a listener that is meant to be come to through a proxy.
    /// Only processes have it, not containers.
    pub proxied: bool,
}

impl StackOptions {
    pub fn at(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            fresh: false,
            provider: None,
            fsync: true,
            secured: false,
            proxied: false,
        }
    }
}

/// Three services that run. They go on running when this is dropped, unless
/// the stack is private.
pub struct Stack {
    pub postgres: Service,
    pub kafka: Service,
    pub clickhouse: Service,
    secured: Option<Secured>,
    proxied: Option<ProxiedPorts>,
    dir: PathBuf,
    /// Ends the services of a private stack when it is dropped.
    _tenancy: Option<Tenancy>,
}

impl Stack {
    /// Brings the services up, or finds them running; returns when each answers.
    pub async fn launch(options: StackOptions) -> Result<Self> {
        let dir = std::path::absolute(&options.dir)?;
        let lock = dir.join("lock");
        let _lock = spawn_blocking(move || {
            Lock::acquire_noting(&lock, || {
                eprintln!("stack: waiting for another process that brings it up");
            })
        })
        .await??;
        let provider = match options.secured || options.proxied {
            true => Some(Provider::Native),
            false => provider::asked(options.provider)?,
        };
        let listeners = Listeners { secured: options.secured, proxied: options.proxied };
        let layout = Layout::for_launch(&dir, provider, listeners).await?;
        let mut stack = Self::of(&layout, &dir, options.fsync);
        if options.secured {
            let certificates = Certificates::in_dir(certificates_dir(&dir))?;
            stack.secured = Secured::of(&layout, certificates);
        }
        if options.fresh {
            for service in stack.services() {
                service.control().discard().await?;
            }
        } else if stack.is_ready().await {
            return Ok(stack);
        }
        let was_down = !stack.runs_in_part().await;
        stack.start(was_down).await?;
        Ok(stack)
    }

    /// The stack of this checkout, brought up if it is not: what ordinary
    /// tests use. It is left running for the next ones, as `stack up` does.
    pub async fn shared() -> Result<&'static Self> {
        static SHARED: OnceCell<Stack> = OnceCell::const_new();
        SHARED.get_or_try_init(async || Self::launch(Self::shared_options()?).await).await
    }

    /// What [`Stack::shared`] and `stack up` launch.
    ///
    /// # Errors
    /// If the checkout that this was built from is gone.
    pub fn shared_options() -> Result<StackOptions> {
        Ok(StackOptions { fsync: false, ..StackOptions::at(shared_dir()?) })
    }

    /// Services of one's own, for tests that kill and pause. They and their
    /// data go when this is dropped, or else when the next private stack finds
    /// their owner dead.
    pub async fn private(name: &str) -> Result<Self> {
        Self::private_as(name, false).await
    }

    /// The same, with listeners that encrypt and ask who comes. Always of
    /// processes: the containers have no such listeners.
    pub async fn secured(name: &str) -> Result<Self> {
        Self::private_as(name, true).await
    }

    async fn private_as(name: &str, secured: bool) -> Result<Self> {
        let (private, name) = (shared_dir()?.join("private"), name.to_owned());
        let tenancy = spawn_blocking(move || Tenancy::begin(&private, &name)).await??;
        let mut stack =
            Self::launch(StackOptions { secured, ..StackOptions::at(tenancy.dir()) }).await?;
        stack._tenancy = Some(tenancy);
        Ok(stack)
    }

    /// The stack under `dir`, running or not; none if there never was one.
    pub fn existing(dir: &Path) -> Result<Option<Self>> {
        let dir = std::path::absolute(dir)?;
        let layout = Layout::load(&dir)?;
        Ok(layout.map(|layout| Self::of(&layout, &dir, true)))
    }

    fn of(layout: &Layout, dir: &Path, fsync: bool) -> Self {
        let service =
            |kind| Service::new(kind, layout.url(kind), Control::new(kind, dir, layout, fsync));
        Self {
            postgres: service(Kind::Postgres),
            kafka: service(Kind::Kafka),
            clickhouse: service(Kind::ClickHouse),
            secured: None,
            proxied: layout.ports.proxied,
            dir: dir.to_path_buf(),
            _tenancy: None,
        }
    }

    pub fn services(&self) -> [&Service; 3] {
        [&self.postgres, &self.kafka, &self.clickhouse]
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// How to come to the listeners that encrypt and ask who comes.
    ///
    /// # Errors
    /// If this is no secured stack.
    pub fn security(&self) -> Result<&Secured> {
        self.secured.as_ref().context("this stack is not secured; make it with Stack::secured")
    }

    /// Where Kafka listens for a proxy, and the port at which its clients expect
    /// that proxy.
    pub fn kafka_behind_proxy(&self) -> Option<(u16, u16)> {
        self.proxied.map(|ports| (ports.listens, ports.advertised))
    }

    /// `KEY=VALUE` for each service's address.
    pub fn env(&self) -> [(&'static str, &str); 3] {
        self.services().map(|service| (service.kind().env_name(), service.url()))
    }

    /// Whether all three answer now.
    pub async fn is_ready(&self) -> bool {
        let (postgres, kafka, clickhouse) = tokio::join!(
            self.postgres.is_ready(),
            self.kafka.is_ready(),
            self.clickhouse.is_ready()
        );
        postgres && kafka && clickhouse
    }

    async fn runs_in_part(&self) -> bool {
        for service in self.services() {
            if service.control().is_alive().await {
                return true;
            }
        }
        false
    }

    async fn start(&self, was_down: bool) -> Result<()> {
        let began = Instant::now();
        let progress = Progress::on_stderr();
        let [postgres, kafka, clickhouse] =
            Kind::ALL.map(|kind| Arc::new(progress.step(kind.name())));
        try_join!(
            self.postgres.start_showing(postgres),
            self.kafka.start_showing(kafka),
            self.clickhouse.start_showing(clickhouse),
        )?;
        if was_down {
            self.forget_earlier_tests().await.context("cannot remove what earlier tests left")?;
        }
        self.write_env()?;
        eprintln!(
            "{:<10} up in {:.1} s, in {}",
            "stack",
            began.elapsed().as_secs_f32(),
            self.dir.display()
        );
        Ok(())
    }

    fn write_env(&self) -> Result<()> {
        let lines = self.env().map(|(name, url)| format!("{name}={url}\n"));
        let path = self.dir.join("env");
        fs::write(&path, lines.concat()).with_context(|| format!("cannot write {}", path.display()))
    }

    /// Stops all three the way their makers mean it; the data stays.
    pub async fn down(&self) -> Result<()> {
        let lock = self.dir.join("lock");
        let _lock = spawn_blocking(move || Lock::acquire(&lock)).await??;
        try_join!(self.postgres.stop(), self.kafka.stop(), self.clickhouse.stop())?;
        match fs::remove_file(self.dir.join("env")) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }
}

fn certificates_dir(dir: &Path) -> PathBuf {
    dir.join("tls")
}

/// Where the stack of this checkout is.
///
/// # Errors
/// If the checkout that this was built from is gone.
pub fn shared_dir() -> Result<PathBuf> {
    Ok(target_dir()?.join("stack"))
}

fn target_dir() -> Result<PathBuf> {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let workspace = workspace
        .canonicalize()
        .with_context(|| format!("the checkout {} is gone", workspace.display()))?;
    let configured = env::var_os("CARGO_TARGET_DIR").filter(|dir| !dir.is_empty());
    let target = workspace.join(configured.map_or_else(|| PathBuf::from("target"), PathBuf::from));
    ensure!(target.is_absolute(), "{} is not absolute", target.display());
    Ok(target)
}
