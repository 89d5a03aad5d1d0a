//! Who runs the services.

use std::{env, fmt, str::FromStr};

use anyhow::{Context, Error, Result, bail};
use serde::{Deserialize, Serialize};

use super::docker;

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

impl fmt::Display for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Native => "native",
            Self::Docker => "docker",
        })
    }
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

/// What it is going to be, said on stderr with the reason.
pub(super) async fn choose(asked: Option<Provider>) -> Result<Provider> {
    if let Some(provider) = asked {
        eprintln!("stack: {provider}, as asked for");
        if provider == Provider::Docker {
            docker::obtain_images().await?;
        }
        return Ok(provider);
    }
    Ok(match docker::obtain_images().await {
        Ok(()) => {
            eprintln!("stack: docker, for an engine answers and has the images");
            Provider::Docker
        }
        Err(reason) => {
            eprintln!("stack: native, for {reason:#}");
            Provider::Native
        }
    })
}
