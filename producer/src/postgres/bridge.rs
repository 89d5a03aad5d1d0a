//! A replication connection whose server we have verified ourselves.
//!
//! ```text
//! replication library ──socket in a directory of ours──▶ bridge ──TLS──▶ server
//! ```
//!
//! The library makes its connections itself and cannot be handed one. It can be
//! pointed at a socket of this machine, behind which the verified connection
//! already stands.

use std::{
    fs::DirBuilder,
    io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use outpour_schemas::config::PostgresHost;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, copy_bidirectional},
    net::{TcpStream, UnixListener},
    task::JoinHandle,
};
use tokio_postgres::tls::{MakeTlsConnect, TlsConnect};
use uuid::Uuid;

use super::{PostgresError, Target};

/// Names the socket, as a port does everywhere in PostgreSQL.
const PORT: u16 = 5432;

/// The request for TLS: its length, and the code that stands for a version.
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];

/// Carries bytes until either side ends; gone when this is dropped.
pub(crate) struct Bridge {
    dir: PathBuf,
    carrying: JoinHandle<()>,
}

impl Bridge {
    /// Connects to the server first, so that what is wrong there is told here.
    pub(crate) async fn open(target: &Target) -> Result<Self, PostgresError> {
        let mut server = tokio::time::timeout(target.connect_timeout, verified(target))
            .await
            .map_err(|_| target.timed_out(target.host()))??;
        let local = |source| PostgresError::Reach { target: target.to_string(), source };
        let dir = std::env::temp_dir().join(format!("outpour-{}", Uuid::now_v7().simple()));
        // Nobody else may take the place that is kept for the library.
        DirBuilder::new().mode(0o700).create(&dir).map_err(local)?;
        let listener = UnixListener::bind(dir.join(format!(".s.PGSQL.{PORT}")));
        let listener = listener.inspect_err(|_| remove(&dir)).map_err(local)?;
        let carrying = tokio::spawn(async move {
            let Ok((mut library, _)) = listener.accept().await else { return };
            drop(listener);
            if let Err(error) = copy_bidirectional(&mut library, &mut server).await {
                tracing::debug!(%error, "replication connection ended");
            }
        });
        Ok(Bridge { dir, carrying })
    }

    /// The host for the library.
    pub(crate) fn address(&self) -> PostgresHost {
        PostgresHost { name: self.dir.display().to_string(), port: PORT }
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        self.carrying.abort();
        remove(&self.dir);
    }
}

fn remove(dir: &Path) {
    if let Err(error) = std::fs::remove_dir_all(dir) {
        tracing::debug!(%error, dir = %dir.display(), "directory not removed");
    }
}

/// A connection on which the handshake is done and the certificate verified.
async fn verified(
    target: &Target,
) -> Result<impl AsyncRead + AsyncWrite + Unpin + Send + 'static, PostgresError> {
    let failed = |source: io::Error| match target.tls.explain(&source) {
        Some(reason) => PostgresError::Tls { target: target.to_string(), reason },
        None => PostgresError::Reach { target: target.to_string(), source },
    };
    let mut connector = target.tls.connector().map_err(PostgresError::Certificates)?;
    let host = target.host();
    let mut server = TcpStream::connect((host.name.as_str(), host.port)).await.map_err(failed)?;
    server.set_nodelay(true).map_err(failed)?;
    server.write_all(&SSL_REQUEST).await.map_err(failed)?;
    if server.read_u8().await.map_err(failed)? != b'S' {
        return Err(PostgresError::Tls {
            target: target.to_string(),
            reason: "server does not support TLS".to_owned(),
        });
    }
    let Ok(handshake) = MakeTlsConnect::<TcpStream>::make_tls_connect(&mut connector, &host.name);
    handshake.connect(server).await.map_err(failed)
}
