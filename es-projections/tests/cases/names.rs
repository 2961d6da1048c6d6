//! No name means two things: tables, indexes and namespaces that are not one's own are refused.

use async_trait::async_trait;
use es_core::Recorded;
use es_core::doc::{Account, AccountEvent};
use es_projections::{
    Check, Database, Error, Fold, Kind, Model, Projection, ProjectionError, ReadModel, Rows, Table, Tx,
};

use super::support::*;

/// A read model with these tables, and nothing in them.
struct Empty(&'static str, Vec<Table>);

#[async_trait]
impl Projection for Empty {
    fn name(&self) -> &str {
        self.0
    }

    fn tables(&self) -> Vec<Table> {
        self.1.clone()
    }

    async fn project(&self, _: &mut Tx, _: &[Recorded]) -> Result<(), ProjectionError> {
        Ok(())
    }
}

fn table(name: &str) -> Table {
    Table::new(name).key("id", Kind::Text).column("a", Kind::Text).column("b", Kind::Text)
}

/// Shows: what has the name of a read model's table or index already is neither used for one nor passed over.
pub async fn what_is_not_ones_own_is_refused(url: &str) {
    let database = connect(url).await;
    let events = Events::new();
    let refused = async |projection: Empty, reason: &str| {
        let error = events.worker(&database).start(projection).await.unwrap_err();
        assert!(matches!(error, Error::Invalid(_) | Error::OtherVersion(_)), "{error:?}");
        assert!(error.to_string().contains(reason), "{error}");
    };
    let mut tx = database.begin().await.unwrap();
    tx.execute("CREATE TABLE bank_mine (id TEXT PRIMARY KEY)", &[]).await.unwrap();
    tx.execute("CREATE VIEW bank_seen AS SELECT id FROM bank_mine", &[]).await.unwrap();
    tx.commit().await.unwrap();
    refused(Empty("one", vec![table("mine")]), "bank_mine is in the database already, and no read model's").await;
    refused(Empty("one", vec![table("seen")]), "bank_seen is in the database already").await;
    // Of two tables the indexes can have one name.
    let pair = vec![table("orders").index("items_by_a", &["a"]), table("orders_items").index("by_a", &["a"])];
    refused(Empty("one", pair.clone()), r#"is one of table "bank_orders" already"#).await;
    let _one = events.worker(&database).start(Empty("one", vec![pair[0].clone()])).await.unwrap();
    refused(Empty("two", vec![pair[1].clone()]), r#"is one of table "bank_orders" already"#).await;
    refused(Empty("two", vec![table("orders_items_by_a")]), "bank_orders_items_by_a is in the database already").await;
    refused(Empty("two", vec![table("ones").index("i", &["a"]).index("i", &["b"])]), r#"it has two indexes "i""#).await;
    refused(Empty("two", vec![Table::new("ones").key("xmin", Kind::Text)]), "is PostgreSQL's own name").await;
    for namespace in ["bank_eu", "bank_es", "bank_"] {
        let error = Database::connect(url, namespace).await.unwrap_err().to_string();
        assert!(error.contains("is not a valid name: an underscore"), "{error}");
    }
}

/// Shows: an index that is declared otherwise is no silence: a rebuild by a raised version makes it, and nothing else does.
pub async fn declared_indexes_are_part_of_what_a_version_is(url: &str) {
    let database = connect(url).await;
    let events = Events::new();
    let first = || Empty("one", vec![table("ones").index("by_a", &["a"])]);
    events.worker(&database).start(first()).await.unwrap().stop().await.unwrap();
    for other in [table("ones").index("by_a", &["a", "b"]), table("ones"), table("ones").index_present("by_a", &["a"])]
    {
        let error = events.worker(&database).start(Empty("one", vec![other])).await.unwrap_err();
        assert!(matches!(error, Error::OtherVersion(_)), "{error:?}");
        assert!(error.to_string().contains("has other columns or indexes than this program declares"), "{error}");
    }
    // One of the framework's that was removed by hand is made again; one that was made over something else is told.
    for (make, reason) in
        [(None, None), (Some("CREATE INDEX bank_ones_by_a ON bank_ones (b)"), Some("is over b, and declared over a"))]
    {
        let mut tx = database.begin().await.unwrap();
        tx.execute("DROP INDEX bank_ones_by_a", &[]).await.unwrap();
        if let Some(make) = make {
            tx.execute(make, &[]).await.unwrap();
        }
        tx.commit().await.unwrap();
        match (events.worker(&database).start(first()).await, reason) {
            (Ok(worker), None) => worker.stop().await.unwrap(),
            (Err(error), Some(reason)) => assert!(error.to_string().contains(reason), "{error}"),
            (started, _) => panic!("{started:?}"),
        }
    }
}

/// Shows: a read model that lost a table is not gone on with from the middle of the log.
pub async fn a_table_that_is_gone_is_told(url: &str) {
    let database = connect(url).await;
    let mut events = Events::new();
    events.add("a", &[1]);
    let worker = events.worker(&database).start(Balances::default()).await.unwrap();
    caught_up(&worker).await;
    worker.stop().await.unwrap();
    let mut tx = database.begin().await.unwrap();
    tx.execute("DROP TABLE bank_balances", &[]).await.unwrap();
    tx.commit().await.unwrap();
    let error = events.worker(&database).start(Balances::default()).await.unwrap_err();
    assert!(error.to_string().contains("is not there any more: remove the rest with"), "{error}");
    database.remove_projection("balances").await.unwrap();
    let worker = events.worker(&database).start(Balances::default()).await.unwrap();
    caught_up(&worker).await;
    assert_eq!(balances(&database).await, "a 1/1");
}

mod first {
    use super::*;

    #[derive(Debug, Clone, PartialEq, ReadModel)]
    #[read_model(name = "totals")]
    pub struct Total {
        #[key]
        pub id: String,
        pub sum: i64,
    }
}

mod second {
    use super::*;

    #[derive(Debug, Clone, PartialEq, ReadModel)]
    #[read_model(name = "totals", version = 2)]
    pub struct Total {
        #[key]
        pub id: String,
        pub sum: i64,
    }
}

#[derive(Debug, Clone, PartialEq, ReadModel)]
#[read_model(name = "mains", version = 3)]
struct Main {
    #[key]
    id: String,
}

impl Fold<Account> for Main {
    fn fold(_: &AccountEvent, recorded: &Recorded, rows: &mut Rows) -> Result<(), ProjectionError> {
        let id = recorded.envelope.stream.id.to_string();
        rows.change_or_insert(&id, || Self { id: id.clone() }, |_| ())
    }
}

/// Shows: raising the version of the rows beside the first ones raises the model's.
pub async fn the_version_of_all_rows_counts(url: &str) {
    let database = connect(url).await;
    let events = Events::new();
    let before = || Model::<Main>::new().with_rows::<first::Total>().follow::<Account>();
    let after = || Model::<Main>::new().with_rows::<second::Total>().follow::<Account>();
    assert_eq!((Model::<Main>::new().version(), before().version(), after().version()), (3, 3, 4));
    let live = events.worker(&database).share(std::time::Duration::from_secs(5)).start(before()).await.unwrap();
    let error = events.worker(&database).start(after()).await.unwrap_err();
    assert!(matches!(error, Error::OtherVersion(_)), "{error:?}");
    events.worker(&database).rebuild(after(), Check::Nothing, |_| ()).await.unwrap();
    drop(live);
    events.worker(&database).start(after()).await.unwrap();
}
