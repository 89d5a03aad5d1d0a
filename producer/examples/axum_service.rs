//! A web service that takes orders: `POST /orders` writes the order and the
//! event that tells of it in one transaction. Both are there or neither is, and
//! the request waits for PostgreSQL alone.
//!
//! ```text
//! DATABASE_URL=postgres://… cargo run -p outpour-producer --features sqlx --example axum_service
//! curl -d '{"customer": "ada", "total": "19.99"}' http://127.0.0.1:8080/orders
//! ```
//!
//! The outbox is the one that `outpour-relay init` makes. It ends on SIGINT or
//! SIGTERM, after the requests that are under way.

use std::{env, error::Error};

use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, StatusCode},
    routing::post,
};
use outpour_producer::{Envelope, Event, Money, Outbox};
use serde::{Deserialize, Serialize};
use sqlx::PgPool;
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
};

/// What a customer sends.
#[derive(Deserialize)]
struct NewOrder {
    customer: String,
    total: Money,
}

/// What happened.
#[derive(Serialize)]
struct OrderPlaced {
    order_id: i64,
    customer: String,
    total: Money,
}

impl Event for OrderPlaced {
    const AGGREGATE_TYPE: &'static str = "order";

    fn aggregate_id(&self) -> String {
        self.order_id.to_string()
    }
}

#[derive(Clone)]
struct Shop {
    pool: PgPool,
    outbox: Outbox,
}

async fn place_order(
    State(shop): State<Shop>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<(StatusCode, String), (StatusCode, String)> {
    let order: NewOrder = serde_json::from_slice(&body)
        .map_err(|error| (StatusCode::BAD_REQUEST, format!("{error}\n")))?;
    let traceparent = headers.get("traceparent").and_then(|value| value.to_str().ok());
    match shop.place(order, traceparent).await {
        Ok(order_id) => Ok((StatusCode::CREATED, format!("{order_id}\n"))),
        Err(error) => {
            eprintln!("placing an order failed: {error}");
            Err((StatusCode::SERVICE_UNAVAILABLE, "try again\n".to_owned()))
        }
    }
}

impl Shop {
    /// Dropped half-way, as when the customer hangs up, it rolls back.
    async fn place(
        &self,
        order: NewOrder,
        traceparent: Option<&str>,
    ) -> Result<i64, Box<dyn Error + Send + Sync>> {
        let mut tx = self.pool.begin().await?;
        let order_id: i64 = sqlx::query_scalar(
            "INSERT INTO orders (customer, total) VALUES ($1, $2::text::numeric) RETURNING id",
        )
        .bind(&order.customer)
        .bind(order.total.to_string())
        .fetch_one(&mut *tx)
        .await?;

        let placed = OrderPlaced { order_id, customer: order.customer, total: order.total };
        let mut event = Envelope::of(&placed)?;
        event.traceparent = traceparent.map(str::to_owned);
        self.outbox.append_all(&mut tx, &[event]).await?;
        tx.commit().await?;
        Ok(order_id)
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let database = env::var("DATABASE_URL").map_err(|_| "set DATABASE_URL to postgres://…")?;
    let listen = env::var("LISTEN").unwrap_or_else(|_| "127.0.0.1:8080".to_owned());

    let pool = PgPool::connect(&database).await?;
    sqlx::query(
        "CREATE TABLE IF NOT EXISTS orders (
             id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
             customer text NOT NULL,
             total numeric(20, 4) NOT NULL CHECK (total >= 0)
         )",
    )
    .execute(&pool)
    .await?;

    let shop = Shop { pool: pool.clone(), outbox: Outbox::default() };
    let routes = Router::new().route("/orders", post(place_order)).with_state(shop);
    let listener = TcpListener::bind(listen).await?;
    println!("listening on http://{}", listener.local_addr()?);

    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    axum::serve(listener, routes)
        .with_graceful_shutdown(async move {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
        })
        .await?;
    // There is nothing to flush: an order that was answered is committed, and so
    // is its event.
    pool.close().await;
    Ok(())
}
