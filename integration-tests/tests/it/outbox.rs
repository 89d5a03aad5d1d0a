//! The call that a service makes.

use integration_tests::{
    pipeline::{PATIENCE, Pipeline, order},
    stack::Stack,
};
use outpour_producer::{Outbox, OutboxError};
use outpour_schemas::{Envelope, Event, Money};
use sqlx::{Acquire, PgPool};

#[derive(serde::Serialize)]
struct InvoicePaid {
    invoice: u32,
    amount: Money,
}

impl Event for InvoicePaid {
    const AGGREGATE_TYPE: &'static str = "invoice";

    fn aggregate_id(&self) -> String {
        self.invoice.to_string()
    }
}

fn event(invoice: u32) -> InvoicePaid {
    InvoicePaid { invoice, amount: "123456789012.3456".parse().unwrap() }
}

async fn count(client: &tokio_postgres::Client, table: &str) -> i64 {
    client.query_one(&format!("SELECT count(*) FROM {table}"), &[]).await.unwrap().get(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_is_in_the_outbox_exactly_when_the_business_transaction_commits() {
    let pipeline = Pipeline::new(Stack::shared().await.unwrap(), "").await.unwrap();
    let mut client = pipeline.postgres().await.unwrap();
    let watcher = pipeline.postgres().await.unwrap();
    client.batch_execute("CREATE TABLE invoices (id int PRIMARY KEY)").await.unwrap();
    let outbox = Outbox::default();

    for (invoice, commits) in [(1_i32, true), (2, false), (3, true)] {
        let before = (count(&watcher, "invoices").await, count(&watcher, "outbox").await);
        let tx = client.transaction().await.unwrap();
        tx.execute("INSERT INTO invoices VALUES ($1)", &[&invoice]).await.unwrap();
        let id = outbox.append(&tx, &event(invoice.unsigned_abs())).await.unwrap();
        let open = (count(&watcher, "invoices").await, count(&watcher, "outbox").await);
        assert_eq!(open, before, "visible before its transaction committed");
        if commits {
            tx.commit().await.unwrap();
        } else {
            tx.rollback().await.unwrap();
        }
        let rows = watcher.query("SELECT 1 FROM outbox WHERE id = $1", &[&id]).await.unwrap();
        assert_eq!(rows.len(), usize::from(commits));
        assert_eq!(count(&watcher, "invoices").await, count(&watcher, "outbox").await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_keeps_its_name_key_and_exact_amount() {
    let pipeline = Pipeline::new(Stack::shared().await.unwrap(), "").await.unwrap();
    let mut client = pipeline.postgres().await.unwrap();
    let tx = client.transaction().await.unwrap();
    let id = Outbox::default().append(&tx, &event(7)).await.unwrap();
    tx.commit().await.unwrap();

    let row = client
        .query_one(
            "SELECT aggregatetype, aggregateid, type, payload ->> 'amount', schema_version,
                    occurred_at <= clock_timestamp() FROM outbox WHERE id = $1",
            &[&id],
        )
        .await
        .unwrap();
    assert_eq!(row.get::<_, &str>(0), "invoice");
    assert_eq!(row.get::<_, &str>(1), "7");
    assert_eq!(row.get::<_, &str>(2), "invoice_paid");
    assert_eq!(row.get::<_, &str>(3), "123456789012.3456");
    assert_eq!(row.get::<_, i32>(4), 1);
    assert!(row.get::<_, bool>(5));
}

#[tokio::test(flavor = "multi_thread")]
async fn with_sqlx_too_the_event_shares_the_fate_of_its_transaction() {
    let pipeline = Pipeline::new(Stack::shared().await.unwrap(), "").await.unwrap();
    let watcher = pipeline.postgres().await.unwrap();
    let pool = PgPool::connect(&pipeline.postgres_url).await.unwrap();
    let outbox = Outbox::default();

    for commits in [true, false] {
        let before = count(&watcher, "outbox").await;
        let mut tx = pool.begin().await.unwrap();
        outbox.append(&mut tx, &event(1)).await.unwrap();
        // Any connection inside the transaction will do.
        outbox.append(&mut *tx, &event(2)).await.unwrap();
        assert_eq!(count(&watcher, "outbox").await, before, "visible before the commit");
        if commits {
            tx.commit().await.unwrap();
        } else {
            drop(tx);
        }
        let expected = before + if commits { 2 } else { 0 };
        assert_eq!(count(&watcher, "outbox").await, expected);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn with_sqlx_too_a_savepoint_takes_back_what_was_appended_after_it() {
    let pipeline = Pipeline::new(Stack::shared().await.unwrap(), "").await.unwrap();
    let watcher = pipeline.postgres().await.unwrap();
    let pool = PgPool::connect(&pipeline.postgres_url).await.unwrap();
    let outbox = Outbox::default();

    let mut tx = pool.begin().await.unwrap();
    let before = outbox.append(&mut tx, &event(1)).await.unwrap();
    let mut savepoint = tx.begin().await.unwrap();
    outbox.append(&mut savepoint, &event(2)).await.unwrap();
    savepoint.rollback().await.unwrap();
    let mut savepoint = tx.begin().await.unwrap();
    let kept = outbox.append(&mut savepoint, &event(3)).await.unwrap();
    savepoint.commit().await.unwrap();
    let after = outbox.append(&mut tx, &event(4)).await.unwrap();
    tx.commit().await.unwrap();

    let rows = watcher.query("SELECT id FROM outbox ORDER BY id", &[]).await.unwrap();
    let ids: Vec<uuid::Uuid> = rows.iter().map(|row| row.get(0)).collect();
    assert_eq!(ids, [before, kept, after]);
}

/// Every column as text, in the order of appending.
async fn rows(client: &tokio_postgres::Client) -> Vec<Vec<Option<String>>> {
    let columns = "aggregatetype, aggregateid, type, payload::text, occurred_at::text,
                   schema_version::text, traceparent";
    let rows = client.query(&format!("SELECT {columns} FROM outbox ORDER BY id"), &[]).await;
    rows.unwrap().iter().map(|row| (0..7).map(|at| row.get(at)).collect()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn both_drivers_write_the_same_rows() {
    let pipeline = Pipeline::new(Stack::shared().await.unwrap(), "").await.unwrap();
    let mut client = pipeline.postgres().await.unwrap();
    let pool = PgPool::connect(&pipeline.postgres_url).await.unwrap();
    let outbox = Outbox::default();
    let prepared = || {
        let mut rows: Vec<_> = (0..4).map(order).collect();
        for row in &mut rows {
            row.id = outpour_schemas::identity::new_event_id();
            row.occurred_at = Some("1999-12-31T23:59:59.999999999Z".parse().unwrap());
        }
        rows[1].payload = None;
        rows[2].traceparent =
            Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into());
        rows[2].schema_version = 7;
        rows[3].aggregate_id = "Grüße, \"{}\" \\".into();
        rows
    };

    let tx = client.transaction().await.unwrap();
    outbox.append_all(&tx, &prepared()).await.unwrap();
    tx.commit().await.unwrap();
    let mut tx = pool.begin().await.unwrap();
    outbox.append_all(&mut tx, &prepared()).await.unwrap();
    tx.commit().await.unwrap();

    let rows = rows(&client).await;
    let (by_tokio_postgres, by_sqlx) = rows.split_at(4);
    assert_eq!(by_tokio_postgres, by_sqlx);
    assert_eq!(by_sqlx[0][4].as_deref(), Some("1999-12-31 23:59:59.999999+00"));
    assert_eq!(by_sqlx[1][3], None);
    assert_eq!(by_sqlx[3][1].as_deref(), Some("Grüße, \"{}\" \\"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_logged_event_is_committed_when_the_call_returns() {
    let pipeline = Pipeline::new(Stack::shared().await.unwrap(), "").await.unwrap();
    let client = pipeline.postgres().await.unwrap();
    let watcher = pipeline.postgres().await.unwrap();
    let pool = PgPool::connect(&pipeline.postgres_url).await.unwrap();
    let outbox = Outbox::default();
    for (logged, id) in [
        outbox.log_event(&client, &event(1)).await.unwrap(),
        outbox.log_event(&pool, &event(2)).await.unwrap(),
    ]
    .into_iter()
    .enumerate()
    {
        let rows = watcher.query("SELECT 1 FROM outbox WHERE id = $1", &[&id]).await.unwrap();
        assert_eq!(rows.len(), 1, "event {logged}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_logged_twice_is_there_once_and_the_error_says_so() {
    let pipeline = Pipeline::new(Stack::shared().await.unwrap(), "").await.unwrap();
    let client = pipeline.postgres().await.unwrap();
    let pool = PgPool::connect(&pipeline.postgres_url).await.unwrap();
    let outbox = Outbox::default();
    let rows: Vec<Envelope> = (0..3).map(order).collect();

    outbox.log_events(&pool, &rows).await.unwrap();
    for error in [
        outbox.log_events(&pool, &rows).await.unwrap_err(),
        outbox.log_events(&client, &rows).await.unwrap_err(),
    ] {
        assert!(error.is_duplicate() && !error.is_outcome_unknown(), "{error:?}");
    }
    assert_eq!(count(&client, "outbox").await, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_does_not_answer_is_waited_for_no_longer_than_was_said() {
    let pipeline = Pipeline::new(Stack::shared().await.unwrap(), "").await.unwrap();
    let mut blocker = pipeline.postgres().await.unwrap();
    let client = pipeline.postgres().await.unwrap();
    let pool = PgPool::connect(&pipeline.postgres_url).await.unwrap();
    let outbox = Outbox::default().with_log_timeout(std::time::Duration::from_millis(200));

    let lock = blocker.transaction().await.unwrap();
    lock.batch_execute("LOCK TABLE outbox").await.unwrap();
    for error in [
        outbox.log_event(&client, &event(1)).await.unwrap_err(),
        outbox.log_event(&pool, &event(2)).await.unwrap_err(),
    ] {
        assert!(matches!(error, OutboxError::TimedOut { .. }), "{error:?}");
        assert!(error.is_outcome_unknown());
        assert!(error.to_string().contains("0.2 s"), "{error}");
    }
    lock.rollback().await.unwrap();
}

/// Cancellation: nothing half-done, and no transaction left open.
#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_call_logs_its_events_together_or_not_at_all() {
    let pipeline = Pipeline::new(Stack::shared().await.unwrap(), "").await.unwrap();
    let client = pipeline.postgres().await.unwrap();
    let watcher = pipeline.postgres().await.unwrap();
    let pool = PgPool::connect(&pipeline.postgres_url).await.unwrap();
    let outbox = Outbox::default();

    let mut ids = 0..;
    let mut batches = Vec::new();
    // Dropped before anything is sent, and at later and later moments.
    for delay in (0..20).map(|step| std::time::Duration::from_micros(step * 200)) {
        for through_pool in [false, true] {
            let rows: Vec<_> = ids.by_ref().take(5).map(order).collect();
            let outcome = if through_pool {
                tokio::time::timeout(delay, outbox.log_events(&pool, &rows)).await
            } else {
                tokio::time::timeout(delay, outbox.log_events(&client, &rows)).await
            };
            batches.push((rows, outcome.is_ok_and(|logged| logged.is_ok())));
        }
    }
    assert!(batches.iter().any(|(_, logged)| !logged), "nothing was ever dropped");

    // The connections serve on, and once they are idle nothing changes any more.
    outbox.log_event(&client, &event(1)).await.unwrap();
    outbox.log_event(&pool, &event(2)).await.unwrap();
    integration_tests::eventually(PATIENCE, async || {
        let open: i64 = watcher
            .query_one(
                "SELECT count(*) FROM pg_stat_activity
                 WHERE datname = current_database() AND state <> 'idle' AND pid <> pg_backend_pid()",
                &[],
            )
            .await?
            .get(0);
        anyhow::ensure!(open == 0, "{open} connections are in the middle of something");
        Ok(())
    })
    .await
    .unwrap();
    for (rows, logged) in batches {
        let ids: Vec<_> = rows.iter().map(|row| row.id).collect();
        let there =
            watcher.query("SELECT 1 FROM outbox WHERE id = ANY($1)", &[&ids]).await.unwrap();
        assert!([0, 5].contains(&there.len()), "{} of 5", there.len());
        assert!(!logged || there.len() == 5, "accepted, and not there");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_gone_is_a_clear_error() {
    let pipeline = Pipeline::new(Stack::shared().await.unwrap(), "").await.unwrap();
    let client = pipeline.postgres().await.unwrap();
    let watcher = pipeline.postgres().await.unwrap();
    let pid: i32 = client.query_one("SELECT pg_backend_pid()", &[]).await.unwrap().get(0);
    watcher.execute("SELECT pg_terminate_backend($1)", &[&pid]).await.unwrap();
    let error = Outbox::default().log_event(&client, &event(1)).await.unwrap_err();
    assert!(matches!(error, OutboxError::Database(_)), "{error:?}");
    assert!(error.is_outcome_unknown());
    assert_eq!(count(&watcher, "outbox").await, 0);
}
