//! What an orchestrator and Prometheus ask a running program, over HTTP.
//!
//! ```text
//! /healthz   200 while the process answers
//! /readyz    200, or 503 with the reason, from Observed::readiness
//! /metrics   Prometheus' text format, after Observed::refresh
//! ```

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::IntoResponse,
    routing::get,
};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use serde::Serialize;
use tokio::net::TcpListener;
use tokio_util::task::AbortOnDropHandle;

use super::{error_line, process};

/// Upper bounds, in seconds, of the buckets of every histogram of seconds: from
/// a local commit to the longest time-out.
const SECONDS: [f64; 16] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0,
];

/// Samples of histograms gather until somebody sorts them into buckets.
const UPKEEP: Duration = Duration::from_secs(5);

/// Whether a program does what it is there for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Readiness {
    pub ready: bool,
    /// A stable word for what the program is at.
    pub state: &'static str,
    /// One sentence, where it is not ready.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// A program as seen by those who watch it.
pub trait Observed: Send + Sync + 'static {
    fn readiness(&self) -> Readiness;

    /// Sets the gauges that change by themselves, before they are shown.
    fn refresh(&self);
}

/// Why the program cannot be watched.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    #[error(
        "{key}: cannot listen on {address}; programs that share a host need a port each \
         (0 is any free one), \"\" listens nowhere"
    )]
    Listen { key: &'static str, address: String, source: std::io::Error },
    #[error("another recorder of metrics is installed in this process")]
    Recorder,
}

/// A bound listener; [`Self::spawn`] has it answer.
pub struct HttpServer {
    listener: TcpListener,
    metrics: PrometheusHandle,
}

impl HttpServer {
    /// Listens on `address`, `host:port`, the value of `key`, and records the
    /// metrics of this process from now on.
    ///
    /// # Errors
    /// When the address cannot be had.
    pub async fn bind(key: &'static str, address: &str) -> Result<Self, HttpError> {
        let listen = |source| HttpError::Listen { key, address: address.to_owned(), source };
        let listener = TcpListener::bind(address).await.map_err(listen)?;
        let address = listener.local_addr().map_err(listen)?;
        tracing::info!(%address, "serving /metrics, /healthz and /readyz");
        Ok(HttpServer { listener, metrics: recorder()? })
    }

    /// Answers from now on, until the handle is dropped.
    pub fn spawn(self, observed: Arc<dyn Observed>) -> AbortOnDropHandle<()> {
        AbortOnDropHandle::new(tokio::spawn(async move {
            if let Err(error) = self.serve(observed).await {
                tracing::error!(
                    error = error_line(&error),
                    "metrics and probes are not served any more"
                );
            }
        }))
    }

    async fn serve(self, observed: Arc<dyn Observed>) -> std::io::Result<()> {
        let upkeep = upkeep(self.metrics.clone());
        let router = Router::new()
            .route("/healthz", get(async || "ok\n"))
            .route("/readyz", get(readyz))
            .route("/metrics", get(render))
            .with_state(Shown { metrics: self.metrics, observed });
        tokio::select! {
            served = axum::serve(self.listener, router).into_future() => served,
            () = upkeep => Ok(()),
        }
    }
}

#[derive(Clone)]
struct Shown {
    metrics: PrometheusHandle,
    observed: Arc<dyn Observed>,
}

async fn readyz(State(shown): State<Shown>) -> impl IntoResponse {
    let readiness = shown.observed.readiness();
    let status = if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let body = serde_json::to_string(&readiness).unwrap_or_default() + "\n";
    (status, [(header::CONTENT_TYPE, "application/json")], body)
}

async fn render(State(shown): State<Shown>) -> impl IntoResponse {
    process::record();
    shown.observed.refresh();
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], shown.metrics.render())
}

async fn upkeep(metrics: PrometheusHandle) {
    loop {
        tokio::time::sleep(UPKEEP).await;
        metrics.run_upkeep();
    }
}

/// The recorder of this process; a process has one.
fn recorder() -> Result<PrometheusHandle, HttpError> {
    static RECORDER: Mutex<Option<PrometheusHandle>> = Mutex::new(None);
    let mut installed = RECORDER.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(handle) = &*installed {
        return Ok(handle.clone());
    }
    let recorder = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS)
        // Fails for an empty list of buckets alone.
        .map_err(|_| HttpError::Recorder)?
        .build_recorder();
    let handle = recorder.handle();
    metrics::set_global_recorder(recorder).map_err(|_| HttpError::Recorder)?;
    process::describe();
    *installed = Some(handle.clone());
    Ok(handle)
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpStream,
    };

    use super::*;

    struct Standing(bool);

    impl Observed for Standing {
        fn readiness(&self) -> Readiness {
            let reason = (!self.0).then(|| "Kafka has \"gone\"".to_owned());
            Readiness { ready: self.0, state: "active", reason }
        }

        fn refresh(&self) {
            metrics::gauge!("outpour_test_refreshed").increment(1.0);
        }
    }

    async fn get(address: &str, path: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    async fn serve(ready: bool) -> String {
        let server = HttpServer::bind("relay.http_listen", "127.0.0.1:0").await.unwrap();
        let address = server.listener.local_addr().unwrap().to_string();
        tokio::spawn(server.serve(Arc::new(Standing(ready))));
        address
    }

    #[tokio::test]
    async fn probes_and_metrics_are_answered() {
        let (ready, stalled) = (serve(true).await, serve(false).await);
        assert!(get(&ready, "/healthz").await.starts_with("HTTP/1.1 200"));
        assert!(get(&stalled, "/healthz").await.starts_with("HTTP/1.1 200"));
        let answer = get(&ready, "/readyz").await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert!(answer.contains(r#"{"ready":true,"state":"active"}"#), "{answer}");
        let answer = get(&stalled, "/readyz").await;
        assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
        assert!(answer.contains(r#""reason":"Kafka has \"gone\"""#), "{answer}");
        assert!(get(&ready, "/other").await.starts_with("HTTP/1.1 404"));

        metrics::histogram!("outpour_test_seconds").record(0.002);
        let answer = get(&ready, "/metrics").await;
        assert!(answer.contains("text/plain; version=0.0.4"), "{answer}");
        assert!(answer.contains("outpour_test_refreshed"), "{answer}");
        assert!(answer.contains(r#"outpour_test_seconds_bucket{le="0.0025"} 1"#), "{answer}");
        assert!(answer.contains("process_resident_memory_bytes"), "{answer}");
    }

    #[tokio::test]
    async fn a_port_that_is_taken_is_named_with_the_key_and_the_way_out() {
        let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = taken.local_addr().unwrap().to_string();
        let error = HttpServer::bind("relay.http_listen", &address).await.err().unwrap();
        let line = super::super::error_line(&error);
        for part in ["relay.http_listen", &address, "in use", "a port each"] {
            assert!(line.contains(part), "{line}");
        }
    }
}
