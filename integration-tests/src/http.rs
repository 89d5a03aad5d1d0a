//! As much of HTTP as it takes to ask a program how it is, and to be a customer.

use std::time::Duration;

use anyhow::{Context, Result};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

/// Status and body of `GET path` at `address`, which is `host:port`.
///
/// # Errors
/// When there is no answer, or none that is HTTP.
pub async fn get(address: &str, path: &str) -> Result<(u16, String)> {
    exchange(address, &format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n")).await
}

/// Status and body of `POST path` with `body`, and with one more header,
/// `name: value`.
///
/// # Errors
/// When there is no answer, or none that is HTTP.
pub async fn post(address: &str, path: &str, header: &str, body: &str) -> Result<(u16, String)> {
    let length = body.len();
    let request = format!(
        "POST {path} HTTP/1.0\r\nHost: {address}\r\n{header}\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    exchange(address, &request).await
}

async fn exchange(address: &str, request: &str) -> Result<(u16, String)> {
    const PATIENCE: Duration = Duration::from_secs(10);
    let exchange = async {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok::<_, std::io::Error>(answer)
    };
    let answer = timeout(PATIENCE, exchange).await.context("no answer in time")??;
    let (head, body) = answer.split_once("\r\n\r\n").context("no end of the headers")?;
    let status = head.split(' ').nth(1).context("no status")?.parse()?;
    Ok((status, body.to_owned()))
}
