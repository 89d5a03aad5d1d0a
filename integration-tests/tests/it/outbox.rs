//! The call that a service makes.

use integration_tests::{pipeline::Pipeline, stack::Stack};
use outpour_producer::Outbox;
use outpour_schemas::{Event, Money};

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
