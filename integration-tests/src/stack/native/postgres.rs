//! PostgreSQL from the system's packages.
//!
//! The server refuses to run as root, so under root it runs as `postgres` or
//! `nobody`, and its data lies where that user can get to.

use std::{
    fs,
    io::Write,
    os::unix::fs::{PermissionsExt, chown},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::OnceLock,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;

use super::{Daemon, Shutdown, install};
use crate::stack::{
    certificates_dir,
    layout::fingerprint,
    ports::Ports,
    progress::Step,
    secured::{MUTUAL, POSTGRES_PASSWORD, RELAY},
    settings,
    versions::POSTGRES_OLDEST,
};

pub(super) struct Postgres {
    dir: PathBuf,
    home: OnceLock<PathBuf>,
    port: u16,
    fsync: bool,
    secured: bool,
}

impl Postgres {
    pub(super) fn new(dir: &Path, ports: &Ports, fsync: bool) -> Self {
        Self {
            dir: dir.to_path_buf(),
            home: OnceLock::new(),
            port: ports.postgres,
            fsync,
            secured: ports.secured.is_some(),
        }
    }

    fn home(&self) -> &Path {
        self.home.get_or_init(|| home(&self.dir))
    }

    fn data(&self) -> PathBuf {
        self.home().join("data")
    }
}

impl Daemon for Postgres {
    fn install(&self, step: &Step) -> Result<()> {
        if binaries().is_none() {
            install::debian_packages(&["postgresql"], step)?;
            ensure!(binaries().is_some(), "no PostgreSQL {POSTGRES_OLDEST} or later was installed");
        }
        Ok(())
    }

    fn prepare(&self, step: &Step) -> Result<()> {
        if !self.home().starts_with(&self.dir) {
            step.doing(format!(
                "no way to {} for its user; data in {}",
                self.dir.display(),
                self.home().display()
            ));
        }
        fs::create_dir_all(self.home())?;
        fs::set_permissions(self.home(), fs::Permissions::from_mode(0o700))?;
        if let Some(user) = unprivileged()? {
            chown(self.home(), Some(user.uid), Some(user.gid))?;
        }
        if self.data().exists() {
            return Ok(());
        }
        step.doing("creating the database cluster");
        // Renamed when it is complete: what exists is whole.
        let new = self.home().join("data.new");
        if new.exists() {
            fs::remove_dir_all(&new)?;
        }
        let password = self.home().join("password");
        fs::write(&password, settings::PASSWORD)?;
        if let Some(user) = unprivileged()? {
            chown(&password, Some(user.uid), Some(user.gid))?;
        }
        let mut initdb = as_unprivileged("initdb")?;
        initdb
            .current_dir(self.home())
            .args(["--encoding=UTF8", "--locale=C.UTF-8", "--auth=scram-sha-256", "--no-sync"])
            .args(["--username", settings::USER, "--pwfile"])
            .arg(&password)
            .arg("--pgdata")
            .arg(&new);
        install::run(&mut initdb, |_| {})?;
        fs::remove_file(&password)?;
        create_database(self.home(), &new, self.secured)?;
        if self.secured {
            self.secure(&new)?;
        }
        fs::rename(&new, self.data())?;
        Ok(())
    }

    fn command(&self) -> Result<Command> {
        let mut command = as_unprivileged("postgres")?;
        command
            .current_dir(self.home())
            .arg("-D")
            .arg(self.data())
            .args(["-p", &self.port.to_string()])
            .args(["-c", "unix_socket_directories="])
            .args(["-c", if self.fsync { "fsync=on" } else { "fsync=off" }]);
        let secured = match self.secured {
            false => [("listen_addresses", "127.0.0.1"), ("ssl", "off")].as_slice(),
            true => &SECURED,
        };
        for (name, value) in settings::POSTGRES.iter().chain(secured) {
            command.arg("-c").arg(format!("{name}={value}"));
        }
        Ok(command)
    }

    fn shutdown(&self) -> Shutdown {
        // SIGTERM would wait for the clients to leave.
        Shutdown { signal: Signal::INT, patience: Duration::from_secs(20) }
    }

    fn data_dirs(&self) -> Vec<PathBuf> {
        vec![self.home().to_path_buf()]
    }
}

/// TLS on the addresses that the certificate is made out to, and one that it is not.
const SECURED: [(&str, &str); 5] = [
    ("listen_addresses", "127.0.0.1,127.0.0.2"),
    ("ssl", "on"),
    ("ssl_cert_file", "server.pem"),
    ("ssl_key_file", "server.key"),
    ("ssl_ca_file", "ca.pem"),
];

impl Postgres {
    /// Who may come, and how.
    fn secure(&self, data: &Path) -> Result<()> {
        let rules = format!(
            "hostnossl all {} 127.0.0.1/32 scram-sha-256\n\
             hostssl all {RELAY} 127.0.0.0/8 scram-sha-256\n\
             hostssl all {MUTUAL} 127.0.0.0/8 scram-sha-256 clientcert=verify-ca\n",
            settings::USER
        );
        fs::write(data.join("pg_hba.conf"), rules)?;
        for name in ["server.pem", "server.key", "ca.pem"] {
            let file = data.join(name);
            fs::copy(certificates_dir(&self.dir).join(name), &file)?;
            // The server refuses a key that others can read.
            fs::set_permissions(&file, fs::Permissions::from_mode(0o600))?;
            if let Some(user) = unprivileged()? {
                chown(&file, Some(user.uid), Some(user.gid))?;
            }
        }
        Ok(())
    }
}

/// Where initdb and postgres are, of the newest version.
fn binaries() -> Option<PathBuf> {
    let packaged = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let version: u32 = entry.file_name().to_str()?.parse().ok()?;
            Some((version, entry.path().join("bin")))
        })
        .filter(|(version, bin)| *version >= POSTGRES_OLDEST && bin.join("postgres").is_file())
        .max();
    match packaged {
        Some((_, bin)) => Some(bin),
        None => Some(install::on_path("initdb")?.parent()?.to_path_buf()),
    }
}

struct User {
    uid: u32,
    gid: u32,
}

/// The user to run as instead of root; none if this is not root.
fn unprivileged() -> Result<Option<User>> {
    if !install::is_root() {
        return Ok(None);
    }
    let passwd = fs::read_to_string("/etc/passwd").context("cannot read /etc/passwd")?;
    let user = ["postgres", "nobody"].into_iter().find_map(|name| {
        passwd.lines().find_map(|line| {
            let fields: Vec<&str> = line.split(':').collect();
            let [user, _, uid, gid, ..] = fields[..] else {
                return None;
            };
            (user == name).then_some(User { uid: uid.parse().ok()?, gid: gid.parse().ok()? })
        })
    });
    user.context("PostgreSQL does not run as root, and there is neither a user postgres nor nobody")
        .map(Some)
}

fn as_unprivileged(program: &str) -> Result<Command> {
    let path = match program {
        "test" => PathBuf::from("test"),
        _ => binaries().context("PostgreSQL is not installed")?.join(program),
    };
    let Some(User { uid, gid }) = unprivileged()? else {
        return Ok(Command::new(path));
    };
    let mut command = Command::new("setpriv");
    command
        .arg(format!("--reuid={uid}"))
        .arg(format!("--regid={gid}"))
        .arg("--clear-groups")
        .arg(path);
    Ok(command)
}

/// `dir/postgres`; or, where the server's user cannot get there (a checkout
/// below a closed home directory), its stand-in in the temporary directory.
fn home(dir: &Path) -> PathBuf {
    let reachable = as_unprivileged("test")
        .and_then(|mut test| Ok(test.current_dir("/").arg("-x").arg(dir).status()?.success()))
        .unwrap_or(true);
    if reachable {
        return dir.join("postgres");
    }
    std::env::temp_dir().join(format!("outpour-postgres-{}", fingerprint(dir)))
}

/// In single-user mode, so that no half-made server is ever seen on the port.
fn create_database(home: &Path, data: &Path, secured: bool) -> Result<()> {
    let mut postgres = as_unprivileged("postgres")?
        .current_dir(home)
        .args(["--single", "-D"])
        .arg(data)
        .arg("postgres")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let mut input = postgres.stdin.take().context("stdin was not piped")?;
    writeln!(input, "CREATE DATABASE {};", settings::DATABASE)?;
    for role in [RELAY, MUTUAL].into_iter().filter(|_| secured) {
        writeln!(input, "CREATE ROLE {role} LOGIN REPLICATION PASSWORD '{POSTGRES_PASSWORD}';")?;
    }
    drop(input);
    let status = postgres.wait()?;
    ensure!(status.success(), "postgres --single could not create the database ({status})");
    Ok(())
}
