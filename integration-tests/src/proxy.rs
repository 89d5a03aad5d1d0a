//! A TCP proxy that can hold back what one side sends: answers and
//! acknowledgements that are lost on the way, at a moment of the test's choice.
//!
//! What the server sends it takes at once, however slowly the client reads: a
//! client that stands still finds all of it when it goes on, even if the server
//! has ended the session by then.

use std::{net::SocketAddr, sync::Arc};

use anyhow::{Context, Result};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{mpsc, watch},
    task::JoinSet,
};

/// Forwards to one address until it is dropped; then every connection breaks.
pub struct Proxy {
    address: SocketAddr,
    /// Whether what clients send is held back.
    held: Arc<watch::Sender<bool>>,
    _tasks: JoinSet<()>,
}

impl Proxy {
    /// Listens on a free port of the loopback interface.
    ///
    /// # Errors
    /// When no port can be had.
    pub async fn to(upstream: &str) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.context("cannot listen")?;
        let address = listener.local_addr()?;
        let held = Arc::new(watch::channel(false).0);
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, upstream.to_owned(), Arc::clone(&held)));
        Ok(Self { address, held, _tasks: tasks })
    }

    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on nothing that a client sends arrives; what the server sends
    /// still does.
    pub fn hold_back(&self) {
        self.held.send_replace(true);
    }

    /// What was held back arrives.
    pub fn release(&self) {
        self.held.send_replace(false);
    }
}

async fn accept(listener: TcpListener, upstream: String, held: Arc<watch::Sender<bool>>) {
    // They end with this task.
    let mut connections = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        let Ok(server) = TcpStream::connect(&upstream).await else { continue };
        let ((from_client, to_client), (from_server, to_server)) =
            (client.into_split(), server.into_split());
        let (taken, kept) = mpsc::unbounded_channel();
        connections.spawn(forward(from_client, to_server, held.subscribe()));
        connections.spawn(take(from_server, taken));
        connections.spawn(give(kept, to_client));
    }
}

const CHUNK: usize = 64 * 1024;

/// From client to server, until either is gone.
async fn forward(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut held: watch::Receiver<bool>) {
    let mut buffer = vec![0; CHUNK];
    while let Ok(n @ 1..) = from.read(&mut buffer).await {
        if held.wait_for(|held| !held).await.is_err() || to.write_all(&buffer[..n]).await.is_err() {
            break;
        }
    }
}

/// From the server, until it or the client is gone.
async fn take(mut from: OwnedReadHalf, taken: mpsc::UnboundedSender<Vec<u8>>) {
    let mut buffer = vec![0; CHUNK];
    while let Ok(n @ 1..) = from.read(&mut buffer).await {
        if taken.send(buffer[..n].to_vec()).is_err() {
            break;
        }
    }
}

/// To the client, until everything has been given or it is gone.
async fn give(mut kept: mpsc::UnboundedReceiver<Vec<u8>>, mut to: OwnedWriteHalf) {
    while let Some(chunk) = kept.recv().await {
        if to.write_all(&chunk).await.is_err() {
            break;
        }
    }
}
