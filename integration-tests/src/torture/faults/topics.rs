//! What is done to a topic.

use std::time::{Duration, Instant};

use anyhow::Result;
use rdkafka::{
    ClientConfig,
    admin::{AdminClient, AdminOptions, AlterConfig, ResourceSpecifier},
    client::DefaultClientContext,
};
use tokio::time::sleep;

use crate::torture::{
    event::{KINDS, TINY_BYTES},
    world::World,
};

pub(super) async fn tiny_records(world: &World, lasts: Duration, whom: usize) -> Result<Instant> {
    let topic = format!("outbox.event.{}", KINDS[whom % KINDS.len()]);
    let began = Instant::now();
    largest_record(world, &topic, TINY_BYTES).await?;
    sleep(lasts).await;
    largest_record(world, &topic, 1_048_588).await?;
    Ok(began)
}

async fn largest_record(world: &World, topic: &str, bytes: u32) -> Result<()> {
    const PATIENCE: Duration = Duration::from_secs(60);
    const ONE_TRY: Duration = Duration::from_secs(5);
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", world.stack.kafka.url()).create()?;
    let bytes = bytes.to_string();
    crate::eventually(PATIENCE, async || {
        let change =
            AlterConfig::new(ResourceSpecifier::Topic(topic)).set("max.message.bytes", &bytes);
        let options = AdminOptions::new().request_timeout(Some(ONE_TRY));
        for result in admin.alter_configs([&change], &options).await? {
            result.map_err(|(_, code)| anyhow::anyhow!("{topic}: {code}"))?;
        }
        Ok(())
    })
    .await
}
