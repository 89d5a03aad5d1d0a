//! The directories of private stacks, and what is left of dead owners' ones.

use std::{
    fs,
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicU32, Ordering},
};

use anyhow::{Context, Result};

use super::{Stack, lock::Lock, native::Process};

/// A private stack's directory, removed when this is dropped.
pub(super) struct Tenancy {
    dir: PathBuf,
}

impl Tenancy {
    /// A new directory under `private`, which is cleaned of dead owners' first.
    pub(super) fn begin(private: &Path, name: &str) -> Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let _lock = Lock::acquire(&private.join("lock"))?;
        for dir in abandoned(private)? {
            evict(&dir).with_context(|| format!("cannot clean up {}", dir.display()))?;
        }
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let dir = private.join(format!("{name}-{}-{count}", process::id()));
        fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
        Process::me()?.save(&owner(&dir))?;
        Ok(Self { dir })
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }
}

impl Drop for Tenancy {
    fn drop(&mut self) {
        // Also when the launch failed half-way, and no stack came to be.
        if let Err(error) = evict(&self.dir) {
            eprintln!("cannot remove {}: {error:#}", self.dir.display());
        }
    }
}

fn owner(dir: &Path) -> PathBuf {
    dir.join("owner")
}

fn abandoned(private: &Path) -> Result<Vec<PathBuf>> {
    let mut dirs = Vec::new();
    for entry in fs::read_dir(private)? {
        let dir = entry?.path();
        if dir.is_dir() && !Process::load(&owner(&dir)).is_some_and(Process::is_alive) {
            dirs.push(dir);
        }
    }
    Ok(dirs)
}

/// Kills what runs in `dir` and removes it.
fn evict(dir: &Path) -> Result<()> {
    if let Some(stack) = Stack::existing(dir)? {
        for service in stack.services() {
            service.control().discard_blocking()?;
        }
    }
    fs::remove_dir_all(dir)?;
    Ok(())
}
