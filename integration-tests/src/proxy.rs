//! A TCP proxy that can hold back what either side sends, and cut connections:
//! requests, answers and acknowledgements that are lost on the way, at a moment of
//! the test's choice.
//!
//! What the server sends it takes at once, however slowly the client reads: a
//! client that stands still finds all of it when it goes on, even if the server
//! has ended the session by then.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context, Result};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{mpsc, watch},
    task::JoinSet,
    time::{sleep, timeout},
};

/// Forwards to one address until it is dropped; then every connection breaks.
pub struct Proxy {
    address: SocketAddr,
    state: Arc<watch::Sender<State>>,
    /// What clients sent, where it is kept.
    heard: Option<Heard>,
    _tasks: JoinSet<()>,
}

type Heard = Arc<Mutex<Vec<u8>>>;

#[derive(Debug, Clone, Copy, Default)]
struct State {
    /// Whether what clients send is held back.
    requests_held: bool,
    /// Whether what the server sends is held back.
    answers_held: bool,
    /// How much later than it was sent every chunk arrives, either way.
    late_by: Duration,
    /// What every request gets instead of the server's answer.
    instead: Option<&'static str>,
    /// How often all connections have been cut.
    cuts: u64,
}

impl Proxy {
    /// Listens on a free port of the loopback interface.
    ///
    /// # Errors
    /// When no port can be had.
    pub async fn to(upstream: &str) -> Result<Self> {
        Self::open(0, upstream, None).await
    }

    /// The same on a port of one's choice.
    ///
    /// # Errors
    /// When another has it.
    pub async fn at(port: u16, upstream: &str) -> Result<Self> {
        Self::open(port, upstream, None).await
    }

    /// The same, and keeps what clients send.
    ///
    /// # Errors
    /// When no port can be had.
    pub async fn recording(upstream: &str) -> Result<Self> {
        Self::open(0, upstream, Some(Heard::default())).await
    }

    async fn open(port: u16, upstream: &str, heard: Option<Heard>) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await;
        let listener = listener.with_context(|| format!("cannot listen on port {port}"))?;
        let address = listener.local_addr()?;
        let state = Arc::new(watch::channel(State::default()).0);
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, upstream.to_owned(), Arc::clone(&state), heard.clone()));
        Ok(Self { address, state, heard, _tasks: tasks })
    }

    /// What clients have sent so far, as far as it is text; nothing unless it is
    /// recording.
    #[must_use]
    pub fn heard(&self) -> String {
        let heard = self.heard.as_ref().map(|heard| {
            let heard = heard.lock().unwrap_or_else(PoisonError::into_inner);
            String::from_utf8_lossy(&heard).into_owned()
        });
        heard.unwrap_or_default()
    }

    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on nothing that a client sends arrives; what the server sends
    /// still does.
    pub fn hold_back(&self) {
        self.state.send_modify(|state| state.requests_held = true);
    }

    /// From now on no client hears an answer; what it sends still arrives.
    pub fn hold_answers(&self) {
        self.state.send_modify(|state| state.answers_held = true);
    }

    /// From now on everything arrives so much later, either way.
    pub fn slow_down(&self, by: Duration) {
        self.state.send_modify(|state| state.late_by = by);
    }

    /// Breaks every connection. Whoever comes with a request from now on gets this
    /// for an answer, and the server hears nothing of it.
    pub fn answer_instead(&self, answer: &'static str) {
        self.cut();
        self.state.send_modify(|state| state.instead = Some(answer));
    }

    /// What was held back arrives.
    pub fn release(&self) {
        self.state.send_modify(|state| *state = State { cuts: state.cuts, ..State::default() });
    }

    /// Breaks every connection; what they held back is lost. New ones are as if
    /// nothing had been held back.
    pub fn cut(&self) {
        self.state.send_modify(|state| {
            *state = State { cuts: state.cuts + 1, ..State::default() };
        });
    }
}

async fn accept(
    listener: TcpListener,
    upstream: String,
    state: Arc<watch::Sender<State>>,
    heard: Option<Heard>,
) {
    // They end with this task.
    let mut connections = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        let instead = state.borrow().instead;
        if let Some(answer) = instead {
            connections.spawn(reply(client, answer));
            continue;
        }
        let Ok(server) = TcpStream::connect(&upstream).await else { continue };
        let ((from_client, to_client), (from_server, to_server)) =
            (client.into_split(), server.into_split());
        let (taken, kept) = mpsc::unbounded_channel();
        let mut watched = state.subscribe();
        let cuts = watched.borrow().cuts;
        let (to, of) = (state.subscribe(), state.subscribe());
        let heard = heard.clone();
        connections.spawn(async move {
            let forwarding = async {
                tokio::join!(
                    forward(from_client, to_server, to, heard),
                    take(from_server, taken),
                    give(kept, to_client, of),
                )
            };
            tokio::select! {
                // First, or what was held back would still arrive.
                biased;
                _ = watched.wait_for(|state| state.cuts > cuts) => {}
                _ = forwarding => {}
            }
        });
    }
}

const CHUNK: usize = 64 * 1024;

/// Answers once the request seems to have come to its end, and listens on until
/// the client has gone: it would take a reset for another fault.
async fn reply(mut client: TcpStream, answer: &'static str) {
    const NOTHING_MORE: Duration = Duration::from_millis(50);
    let mut buffer = vec![0; CHUNK];
    while let Ok(Ok(1..)) = timeout(NOTHING_MORE, client.read(&mut buffer)).await {}
    if client.write_all(answer.as_bytes()).await.is_ok() {
        while let Ok(1..) = client.read(&mut buffer).await {}
    }
}

async fn late(state: &watch::Receiver<State>) {
    let late_by = state.borrow().late_by;
    if !late_by.is_zero() {
        sleep(late_by).await;
    }
}

/// From client to server, until either is gone.
async fn forward(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut state: watch::Receiver<State>,
    heard: Option<Heard>,
) {
    let mut buffer = vec![0; CHUNK];
    let cuts = state.borrow().cuts;
    while let Ok(n @ 1..) = from.read(&mut buffer).await {
        if let Some(heard) = &heard {
            let mut heard = heard.lock().unwrap_or_else(PoisonError::into_inner);
            heard.extend_from_slice(&buffer[..n]);
        }
        late(&state).await;
        let released = state.wait_for(|state| !state.requests_held).await;
        // A cut releases, too, and may be seen here first.
        let released = released.is_ok_and(|state| state.cuts == cuts);
        if !released || to.write_all(&buffer[..n]).await.is_err() {
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
async fn give(
    mut kept: mpsc::UnboundedReceiver<Vec<u8>>,
    mut to: OwnedWriteHalf,
    mut state: watch::Receiver<State>,
) {
    let cuts = state.borrow().cuts;
    while let Some(chunk) = kept.recv().await {
        late(&state).await;
        let released = state.wait_for(|state| !state.answers_held).await;
        let released = released.is_ok_and(|state| state.cuts == cuts);
        if !released || to.write_all(&chunk).await.is_err() {
            break;
        }
    }
}
