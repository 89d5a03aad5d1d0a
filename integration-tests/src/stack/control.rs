//! What either provider can do to a service.

use std::{path::Path, sync::Arc};

use anyhow::{Result, ensure};
use tokio::task::spawn_blocking;

use super::{
    docker::DockerService, layout::Layout, native::NativeService, progress::Step,
    provider::Provider, service::Kind,
};

#[derive(Clone)]
pub(super) enum Control {
    Native(NativeService),
    Docker(DockerService),
}

impl Control {
    pub(super) fn new(kind: Kind, dir: &Path, layout: &Layout, fsync: bool) -> Self {
        match layout.provider {
            Provider::Native => Self::Native(NativeService::new(kind, dir, &layout.ports, fsync)),
            Provider::Docker => Self::Docker(DockerService::new(kind, dir, &layout.ports, fsync)),
        }
    }

    pub(super) async fn start(&self, step: Arc<Step>) -> Result<()> {
        match self {
            Self::Native(native) => blocking(native, move |native| native.start(&step)).await,
            Self::Docker(docker) => docker.start(&step).await,
        }
    }

    pub(super) async fn stop(&self) -> Result<()> {
        match self {
            Self::Native(native) => blocking(native, NativeService::stop).await,
            Self::Docker(docker) => docker.stop().await,
        }
    }

    pub(super) async fn kill(&self) -> Result<()> {
        match self {
            Self::Native(native) => blocking(native, NativeService::kill).await,
            Self::Docker(docker) => docker.kill().await,
        }
    }

    pub(super) async fn pause(&self) -> Result<()> {
        match self {
            Self::Native(native) => blocking(native, NativeService::pause).await,
            Self::Docker(docker) => docker.pause().await,
        }
    }

    pub(super) async fn resume(&self) -> Result<()> {
        match self {
            Self::Native(native) => blocking(native, NativeService::resume).await,
            Self::Docker(docker) => docker.resume().await,
        }
    }

    /// Kills it and removes its data.
    pub(super) async fn discard(&self) -> Result<()> {
        match self {
            Self::Native(native) => blocking(native, NativeService::discard).await,
            Self::Docker(docker) => docker.discard().await,
        }
    }

    /// The same for a destructor, which cannot await.
    pub(super) fn discard_blocking(&self) -> Result<()> {
        match self {
            Self::Native(native) => native.discard(),
            Self::Docker(docker) => docker.discard_blocking(),
        }
    }

    /// Whether it runs, answering or not.
    pub(super) async fn is_alive(&self) -> bool {
        match self {
            Self::Native(native) => native.process().is_some(),
            Self::Docker(docker) => docker.is_running().await,
        }
    }

    /// Fails if what should be running has ended.
    pub(super) async fn check_alive(&self) -> Result<()> {
        ensure!(self.is_alive().await, "it has ended");
        Ok(())
    }

    pub(super) fn pids(&self) -> Vec<i32> {
        match self {
            Self::Native(native) => native.pids(),
            Self::Docker(_) => Vec::new(),
        }
    }

    /// What to read when it does not do what it should.
    pub(super) fn log_end(&self) -> String {
        match self {
            Self::Native(native) => native.log_end(),
            Self::Docker(docker) => docker.log_command(),
        }
    }
}

async fn blocking(
    native: &NativeService,
    act: impl FnOnce(&NativeService) -> Result<()> + Send + 'static,
) -> Result<()> {
    let native = native.clone();
    spawn_blocking(move || act(&native)).await?
}
