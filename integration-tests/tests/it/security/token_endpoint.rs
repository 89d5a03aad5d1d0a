//! A small identity provider: client credentials in, an unsigned token out.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};

use base64::{
    Engine,
    prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

pub(super) const CLIENT_ID: &str = "outpour-client";
pub(super) const CLIENT_SECRET: &str = "oauth-Jd5rB8";

/// How long its tokens are good for.
const LIFETIME_SECONDS: u64 = 30;

pub(super) struct TokenEndpoint {
    pub(super) url: String,
    issued: Arc<AtomicUsize>,
    serving: JoinHandle<()>,
}

impl TokenEndpoint {
    pub(super) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/token", listener.local_addr().unwrap());
        let issued = Arc::<AtomicUsize>::default();
        let count = Arc::clone(&issued);
        let serving = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(answer(stream, Arc::clone(&count)));
            }
        });
        Self { url, issued, serving }
    }

    /// How many tokens it has given.
    pub(super) fn issued(&self) -> usize {
        self.issued.load(Ordering::Relaxed)
    }
}

impl Drop for TokenEndpoint {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn answer(mut stream: TcpStream, issued: Arc<AtomicUsize>) {
    let mut request = Vec::new();
    // The body says what is known anyway: the credentials are in the head.
    while !request.windows(4).any(|window| window == b"\r\n\r\n") {
        if stream.read_buf(&mut request).await.unwrap_or(0) == 0 {
            return;
        }
    }
    let credentials = BASE64_STANDARD.encode(format!("{CLIENT_ID}:{CLIENT_SECRET}"));
    let (status, body) = if String::from_utf8_lossy(&request).contains(&credentials) {
        issued.fetch_add(1, Ordering::Relaxed);
        let token = token();
        let body = format!(
            r#"{{"access_token":"{token}","token_type":"bearer","expires_in":{LIFETIME_SECONDS}}}"#
        );
        ("200 OK", body)
    } else {
        ("401 Unauthorized", r#"{"error":"invalid_client"}"#.to_owned())
    };
    let response = format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n{body}",
        body.len()
    );
    // A client that has gone away has its reasons.
    stream.write_all(response.as_bytes()).await.ok();
}

/// An unsecured JSON Web Token, which Kafka takes where it has no keys.
fn token() -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let part = |json: String| BASE64_URL_SAFE_NO_PAD.encode(json);
    let header = part(r#"{"alg":"none","typ":"JWT"}"#.to_owned());
    let claims = part(format!(
        r#"{{"sub":"relay","scope":"kafka","iat":{now},"exp":{}}}"#,
        now + LIFETIME_SECONDS
    ));
    format!("{header}.{claims}.")
}
