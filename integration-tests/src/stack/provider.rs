//! Who runs the services.

use std::{env, str::FromStr};

use anyhow::{Context, Error, Result, bail};
use serde::{Deserialize, Serialize};

/// The variable that overrides the choice.
const VARIABLE: &str = "OUTPOUR_STACK";

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Provider {
    /// Processes on loopback.
    Native,
    /// Containers.
    Docker,
}

impl FromStr for Provider {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        match name {
            "native" => Ok(Self::Native),
            "docker" => Ok(Self::Docker),
            other => bail!("{other:?} is no provider; it is native or docker"),
        }
    }
}

/// What was asked for, by an option or else by the environment.
pub(super) fn asked(option: Option<Provider>) -> Result<Option<Provider>> {
    if option.is_some() {
        return Ok(option);
    }
    match env::var(VARIABLE) {
        Ok(name) if !name.is_empty() => name.parse().map(Some).context(VARIABLE),
        _ => Ok(None),
    }
}
