//! ClickHouse: the engine inside the Python package `chdb-core`, serving its
//! own HTTP and native interfaces.
//!
//! Where it is less than the server: no Keeper (so no Replicated tables), the
//! default user cannot create users, and there is no `system.query_log`.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result};
use rustix::process::Signal;

use super::{Daemon, Shutdown, install};
use crate::stack::{
    progress::Step,
    settings::CLICKHOUSE_USERS,
    versions::{CHDB_CORE, CHDB_CORE_SHA256},
};

const SERVE: &str = include_str!("clickhouse-serve.py");
/// Bytes on disk: pip's download, then what it unpacks to.
const FETCHED_BYTES: u64 = 181_500_000 + 559_000_000;

pub(super) struct ClickHouse {
    home: PathBuf,
    port: u16,
    native_port: u16,
}

impl ClickHouse {
    pub(super) fn new(dir: &Path, port: u16, native_port: u16) -> Self {
        let home = dir.join("clickhouse");
        Self { home, port, native_port }
    }
}

impl Daemon for ClickHouse {
    fn install(&self, step: &Step) -> Result<()> {
        install::cached(&cache_name(), step, |staging| fetch(staging, step)).map(drop)
    }

    fn prepare(&self, _: &Step) -> Result<()> {
        // The engine looks for its configuration in its user's home.
        let configuration = self.home.join(".clickhouse-local");
        fs::create_dir_all(&configuration)?;
        let users = configuration.join("users.xml");
        fs::write(
            configuration.join("config.xml"),
            format!(
                "<clickhouse><http_port>{}</http_port><tcp_port>{}</tcp_port>\
                 <listen_host>127.0.0.1</listen_host>\
                 <users_config>{}</users_config></clickhouse>\n",
                self.port,
                self.native_port,
                users.display()
            ),
        )?;
        fs::write(users, with_default_user(CLICKHOUSE_USERS))?;
        fs::write(self.home.join("serve.py"), SERVE)?;
        Ok(())
    }

    fn command(&self) -> Result<Command> {
        let mut python = Command::new(install::cached_dir(&cache_name())?.join("bin/python"));
        python
            .current_dir(&self.home)
            .env("HOME", &self.home)
            .arg("serve.py")
            .arg(self.home.join("data"))
            .arg(format!("http://127.0.0.1:{}", self.port));
        Ok(python)
    }

    fn shutdown(&self) -> Shutdown {
        Shutdown { signal: Signal::TERM, patience: Duration::from_secs(20) }
    }

    fn data_dirs(&self) -> Vec<PathBuf> {
        vec![self.home.clone()]
    }
}

/// The engine takes one file of users, where the server merges several.
fn with_default_user(users: &str) -> String {
    users
        .replace("<profiles>", "<profiles><default></default>")
        .replace(
            "<users>",
            "<users><default><password></password><networks><ip>::/0</ip></networks>\
             <profile>default</profile><quota>default</quota></default>",
        )
        .replace("</clickhouse>", "<quotas><default></default></quotas></clickhouse>")
}

fn cache_name() -> String {
    format!("chdb-core-{CHDB_CORE}-{}", env::consts::ARCH)
}

/// A virtual environment, since a system's own Python often refuses packages.
fn fetch(staging: &Path, step: &Step) -> Result<()> {
    step.doing("creating a Python environment");
    if create_venv(staging).is_err() {
        install::debian_packages(&["python3", "python3-venv"], step)?;
        create_venv(staging)?;
    }
    let requirements = staging.join("requirements.txt");
    let hashes = CHDB_CORE_SHA256.map(|hash| format!(" --hash=sha256:{hash}")).concat();
    fs::write(&requirements, format!("chdb-core=={CHDB_CORE}{hashes}\n"))?;

    step.doing(format!("fetching ClickHouse (chdb-core {CHDB_CORE}, 180 MB) with pip"));
    // pip tells no progress through a pipe; the disk does.
    let downloads = staging.join("downloads");
    fs::create_dir(&downloads)?;
    let mut pip = Command::new(staging.join("bin/python"));
    pip.env("TMPDIR", &downloads)
        .args(["-m", "pip", "install", "--require-hashes", "--no-deps", "--only-binary=:all:"])
        .args(["--no-cache-dir", "--disable-pip-version-check", "--no-compile", "--requirement"])
        .arg(&requirements);
    let total = directory_size(staging) + FETCHED_BYTES;
    install::run_watching(&mut pip, || step.at(directory_size(staging), total))
        .context("pip could not install ClickHouse's engine")?;
    fs::remove_dir_all(downloads)?;
    Ok(())
}

fn create_venv(at: &Path) -> Result<()> {
    install::run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(at), |_| {})
}

fn directory_size(dir: &Path) -> u64 {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| {
            let metadata = entry.metadata().ok()?;
            Some(if metadata.is_dir() { directory_size(&entry.path()) } else { metadata.len() })
        })
        .sum()
}
