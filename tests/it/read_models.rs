//! Read models of the bank, built by processes that are killed all the time.

use std::time::Duration;

use es_projections::Database;
use es_tests::{Postgres, Proc, eventually, transactions};

use crate::bank::{Bank, LONG};

const KILLS: usize = 100;
/// The tables of all read models.
const TABLES: [&str; 5] = ["accounts", "branches", "statements", "daily", "audit"];

/// Shows: wherever a process is killed, read models become what they are when nothing happens, to the last column.
#[tokio::test]
#[ignore = "needs the bank binary: run scripts/test"]
async fn read_models_of_killed_processes_equal_undisturbed_ones_embedded() {
    let bank = Bank::embedded();
    killed(bank, async |bank| {
        for end in ["", "-wal", "-shm"] {
            let _ = std::fs::remove_file(bank.data().join(format!("bank.db{end}")));
        }
        bank
    })
    .await;
}

/// The same on Kafka and PostgreSQL.
#[tokio::test]
#[ignore = "needs Kafka and PostgreSQL: run scripts/test"]
async fn read_models_of_killed_processes_equal_undisturbed_ones_on_servers() {
    let bank = Bank::on_servers().await;
    killed(bank, async |bank| bank.with_database(&Postgres::shared().await.database().await)).await;
}

async fn killed(mut bank: Bank, without_read_models: impl AsyncFn(Bank) -> Bank) {
    let file = transactions();
    bank.import(&file, &[]);
    let undisturbed = everything(&bank).await;
    let all = folded(&bank).await.expect("they are there");
    let (mut built, mut in_the_midst) = (0, 0);
    let mut rng = fastrand::Rng::new();
    bank = without_read_models(bank).await;
    for kill in 0..KILLS {
        let before = folded(&bank).await.unwrap_or(0);
        let mut serving = Proc::spawn(bank.command(&["serve", "--listen", "127.0.0.1:0"]));
        // Most die while they fold, some while they start.
        if kill % 5 > 0 {
            moved(&bank, before).await;
        }
        tokio::time::sleep(Duration::from_millis(rng.u64(0..300))).await;
        serving.kill9();
        match folded(&bank).await {
            Some(events) if events == all => {
                assert!(everything(&bank).await == undisturbed, "build {built} differs");
                built += 1;
                bank = without_read_models(bank).await;
            }
            Some(events) if events > before => in_the_midst += 1,
            _ => {} // killed before it did anything
        }
    }
    println!("{built} builds, {in_the_midst} kills in their midst");
    assert!(in_the_midst > KILLS / 10, "too few kills met a build: {in_the_midst}");
    // The last one is finished by an import that changes nothing.
    bank.import(&file, &[]);
    assert!(everything(&bank).await == undisturbed, "the last build differs");
}

/// Waits until more events are folded in than before.
async fn moved(bank: &Bank, before: i64) {
    let more = async || (folded(bank).await.unwrap_or(0) > before).then_some(());
    eventually("the read models to move", LONG, more).await;
}

/// How many events are folded in, in all read models together; none where there are no tables yet.
async fn folded(bank: &Bank) -> Option<i64> {
    let database = bank.connect().await;
    let sql = format!("SELECT sum(events) AS n FROM {}", database.table_name("es_checkpoints"));
    let folded = database.fetch(&sql, &[]).await.expect("the table is there")[0].get("n").expect("a number");
    database.close().await;
    folded
}

/// All rows of all tables, as text.
async fn everything(bank: &Bank) -> Vec<String> {
    let database: Database = bank.connect().await;
    let mut all = Vec::new();
    for table in TABLES {
        let sql = format!("SELECT * FROM {} ORDER BY 1, 2, 3", database.table_name(table));
        for row in database.fetch(&sql, &[]).await.expect("the read model is there") {
            all.push(row.values().iter().map(ToString::to_string).collect::<Vec<_>>().join(" "));
        }
    }
    database.close().await;
    all
}
