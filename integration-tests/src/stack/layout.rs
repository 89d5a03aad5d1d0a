//! What a stack's directory says about it: `stack.json`.

use std::{
    collections::BTreeSet,
    fs,
    net::{Ipv4Addr, TcpListener},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{
    lock::Lock,
    native::NativeService,
    ports::{Listeners, Ports},
    provider::{self, Provider},
    service::Kind,
    settings::{DATABASE, PASSWORD, USER},
    shared_dir,
};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Layout {
    pub(super) provider: Provider,
    pub(super) ports: Ports,
}

impl Layout {
    pub(super) fn load(dir: &Path) -> Result<Option<Self>> {
        let path = file(dir);
        match fs::read(&path) {
            Ok(json) => {
                let layout = serde_json::from_slice(&json);
                layout
                    .map(Some)
                    .with_context(|| format!("{} is damaged; remove it", path.display()))
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
        }
    }

    /// The one that is there while it runs, else one with free ports.
    pub(super) async fn for_launch(
        dir: &Path,
        asked: Option<Provider>,
        listeners: Listeners,
    ) -> Result<Self> {
        let existing = Self::load(dir)?;
        if let Some(layout) = existing.as_ref().filter(|layout| layout.is_running(dir)) {
            ensure!(
                asked.is_none_or(|asked| asked == layout.provider),
                "the stack in {} runs with the {} provider; bring it down first",
                dir.display(),
                layout.provider
            );
            return Ok(layout.clone());
        }
        let provider = provider::choose(asked).await?;
        // No two stacks of a checkout may choose at the same time.
        let stacks = shared_dir()?;
        let _lock = Lock::acquire(&stacks.join("ports.lock"))?;
        let ports = match existing {
            Some(layout) if layout.ports_are_free() => layout.ports,
            _ => Ports::choose(&taken(&stacks)?, listeners)?,
        };
        let layout = Self { provider, ports };
        // Renamed, so that nobody ever reads half of it.
        let new = dir.join("stack.json.new");
        fs::write(&new, serde_json::to_vec_pretty(&layout)?)?;
        fs::rename(&new, file(dir))?;
        Ok(layout)
    }

    fn is_running(&self, dir: &Path) -> bool {
        match self.provider {
            Provider::Native => Kind::ALL
                .into_iter()
                .any(|kind| NativeService::new(kind, dir, &self.ports, true).process().is_some()),
            Provider::Docker => !self.ports_are_free(),
        }
    }

    fn ports_are_free(&self) -> bool {
        self.ports.all().all(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok())
    }

    pub(super) fn url(&self, kind: Kind) -> String {
        match kind {
            Kind::Postgres => postgres_url(self.ports.postgres, DATABASE),
            Kind::Kafka => format!("127.0.0.1:{}", self.ports.kafka),
            Kind::ClickHouse => format!("http://127.0.0.1:{}", self.ports.clickhouse),
        }
    }
}

pub(super) fn postgres_url(port: u16, database: &str) -> String {
    format!("postgres://{USER}:{PASSWORD}@127.0.0.1:{port}/{database}")
}

fn file(dir: &Path) -> PathBuf {
    dir.join("stack.json")
}

/// The ports of every stack of this checkout, running or not.
fn taken(stacks: &Path) -> Result<BTreeSet<u16>> {
    let private = fs::read_dir(stacks.join("private")).into_iter().flatten().flatten();
    let private = private.map(|entry| entry.path()).filter(|path| path.is_dir());
    let dirs = private.chain([stacks.to_path_buf()]);
    let mut taken = BTreeSet::new();
    for dir in dirs {
        taken.extend(Layout::load(&dir)?.iter().flat_map(|layout| layout.ports.all()));
    }
    Ok(taken)
}

/// A short name for a stack's directory, for what has to lie outside of it.
pub(super) fn fingerprint(dir: &Path) -> String {
    let digest = Sha256::digest(dir.as_os_str().as_encoded_bytes());
    digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}
