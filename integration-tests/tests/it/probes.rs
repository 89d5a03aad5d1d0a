//! What programs say of themselves over HTTP, as tests ask for it.

use anyhow::{Context, Result, ensure};
use integration_tests::{eventually, http, pipeline::PATIENCE, program::Program};
use serde_json::Value;

/// Where a program serves its probes, as its log tells.
pub(crate) async fn address(program: &Program) -> String {
    program.logged("serving /metrics", PATIENCE).await.unwrap();
    let log = program.log_text();
    let line = log.lines().rfind(|line| line.contains("serving /metrics")).unwrap();
    line.rsplit_once("address=").unwrap().1.trim().to_owned()
}

/// The status of `/readyz` and what it says.
pub(crate) async fn readyz(address: &str) -> Result<(u16, Value)> {
    let (status, body) = http::get(address, "/readyz").await?;
    Ok((status, serde_json::from_str(&body).with_context(|| body)?))
}

pub(crate) async fn comes_to(address: &str, status: u16, state: &str) -> Value {
    eventually(PATIENCE, async || {
        let (found, body) = readyz(address).await?;
        ensure!(found == status && body["state"] == state, "{found}: {body}");
        Ok(body)
    })
    .await
    .unwrap()
}

/// The value of a series, written as Prometheus writes it.
pub(crate) fn sample(metrics: &str, series: &str) -> Option<f64> {
    let line = metrics
        .lines()
        .find(|line| line.strip_prefix(series).is_some_and(|rest| rest.starts_with(' ')))?;
    line.rsplit_once(' ')?.1.parse().ok()
}

pub(crate) async fn metrics(address: &str) -> String {
    let (status, text) = http::get(address, "/metrics").await.unwrap();
    assert_eq!(status, 200, "{text}");
    // The text format: comments, and lines that end with a number.
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let value = line.rsplit_once(' ').map(|(_, value)| value.parse::<f64>());
        assert!(matches!(value, Some(Ok(_))), "{line}");
    }
    text
}
