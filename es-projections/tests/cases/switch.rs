//! What users have made on the tables of a read model outlives a rebuild, whatever columns it brings.

use async_trait::async_trait;
use es_core::Recorded;
use es_core::log::memory::MemoryLog;
use es_projections::{Check, Database, Error, Kind, Projection, ProjectionError, Table, Tx, Value, Verdict};

use super::accounts::*;
use super::support::*;

const SILENCE: std::time::Duration = std::time::Duration::from_secs(5);

/// The same database as another role sees it, whose own tables are in another namespace.
async fn connect_as(url: &str, role: &str, namespace: &str) -> Database {
    Database::connect(&url.replace("postgres://postgres@", &format!("postgres://{role}@")), namespace).await.unwrap()
}

async fn run(database: &Database, statements: &[&str]) {
    let mut tx = database.begin().await.unwrap();
    for statement in statements {
        let done = tx.execute(statement, &[]).await;
        done.unwrap_or_else(|error| panic!("{statement}: {}", chain(&error)));
    }
    tx.commit().await.unwrap();
}

async fn texts(database: &Database, sql: &str) -> Vec<String> {
    let rows = database.fetch(sql, &[]).await.unwrap_or_else(|error| panic!("{sql}: {}", chain(&error)));
    rows.iter().map(|row| row.values().iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")).collect()
}

/// All that the server keeps about the read model's tables, a line each.
const MADE: &str = "WITH t AS (SELECT c.* FROM pg_class AS c WHERE relname IN ('bank_accounts', 'bank_banks')) \
    SELECT oid || ' ' || relname || relowner || relrowsecurity || coalesce(relacl::text, '') || coalesce(reloptions::text, '') AS it FROM t \
    UNION ALL SELECT 'column ' || attname || coalesce(attacl::text, '') || attstattarget FROM pg_attribute WHERE attrelid IN (SELECT oid FROM t) AND attnum > 0 \
    UNION ALL SELECT 'policy ' || polname || pg_get_expr(polqual, polrelid) FROM pg_policy WHERE polrelid IN (SELECT oid FROM t) \
    UNION ALL SELECT pg_get_indexdef(indexrelid) FROM pg_index WHERE indrelid IN (SELECT oid FROM t) \
    UNION ALL SELECT pg_get_triggerdef(oid) FROM pg_trigger WHERE tgrelid IN (SELECT oid FROM t) AND NOT tgisinternal \
    UNION ALL SELECT conname || pg_get_constraintdef(oid) FROM pg_constraint WHERE conrelid IN (SELECT oid FROM t) OR confrelid IN (SELECT oid FROM t) \
    UNION ALL SELECT 'comment ' || objsubid || description FROM pg_description WHERE objoid IN (SELECT oid FROM t) \
    UNION ALL SELECT 'publication ' || pubname || tablename FROM pg_publication_tables WHERE tablename LIKE 'bank_%' \
    UNION ALL SELECT 'statistics ' || pg_get_statisticsobjdef(oid) FROM pg_statistic_ext WHERE stxrelid IN (SELECT oid FROM t) \
    ORDER BY 1";

/// Shows: a rebuild by a role that is no superuser mends the rows, and all that its users have made on the tables is what it was:
/// the tables are the same ones. Their triggers see the rows that differ, and no other.
pub async fn what_users_made_outlives_a_rebuild(url: &str) {
    let admin = Database::connect(url, "admin").await.unwrap();
    let on_postgres = url.starts_with("postgres");
    // Roles are of the whole server.
    let name = url.rsplit('/').next().unwrap().replace(['.', '-'], "");
    let (app, reporting) = (format!("app{name}"), format!("rep{name}"));
    let (database, reports) = if on_postgres {
        for role in [&app, &reporting] {
            run(&admin, &[&format!("CREATE ROLE {role} LOGIN"), &format!("GRANT ALL ON SCHEMA public TO {role}")])
                .await;
        }
        (connect_as(url, &app, "bank").await, connect_as(url, &reporting, "reports").await)
    } else {
        (connect(url).await, Database::connect(url, "reports").await.unwrap())
    };
    let mut events = Events::new();
    let live = events.worker(&database).share(SILENCE).start(model()).await.unwrap();
    for id in ["a", "b", "c", "d"] {
        events.move_money(id, 5);
    }
    caught_up(&live).await;
    if on_postgres {
        let granted = [
            &format!("GRANT SELECT ON bank_accounts TO {reporting}") as &str,
            &format!("GRANT SELECT (bank), REFERENCES (bank) ON bank_banks TO {reporting}"),
            "CREATE FUNCTION changed() RETURNS trigger LANGUAGE plpgsql AS \
             'BEGIN INSERT INTO changes VALUES (TG_OP || coalesce(NEW.id, OLD.id)); RETURN NULL; END'",
            "ALTER TABLE bank_accounts ENABLE ROW LEVEL SECURITY",
            &format!("CREATE POLICY mine ON bank_accounts FOR SELECT TO {reporting} USING (balance > 1)"),
            "ALTER TABLE bank_accounts SET (fillfactor = 80)",
            "ALTER TABLE bank_accounts ADD CONSTRAINT counted CHECK (events > 0)",
            "ALTER TABLE bank_accounts ALTER COLUMN bank SET STATISTICS 7",
            "COMMENT ON TABLE bank_accounts IS 'of the reporting team, too'",
            "COMMENT ON COLUMN bank_accounts.bank IS 'its first'",
            "CREATE STATISTICS together ON bank, balance FROM bank_accounts",
            "CREATE MATERIALIZED VIEW banks AS SELECT bank, sum(change) AS held FROM bank_banks GROUP BY bank",
        ];
        run(&database, &["CREATE TABLE changes (what TEXT NOT NULL)"]).await;
        run(&database, &granted).await;
        run(&reports, &["CREATE VIEW rich AS SELECT id, balance FROM bank_accounts WHERE balance > 1"]).await;
        run(&admin, &["CREATE PUBLICATION outside FOR TABLE bank_accounts (id, balance)"]).await;
    } else {
        let changed = |what: &str, row: &str| {
            format!(
                "CREATE TRIGGER t{what} AFTER {what} ON bank_accounts BEGIN INSERT INTO changes VALUES ('{what}' || {row}.id); END"
            )
        };
        run(&database, &["CREATE TABLE changes (what TEXT NOT NULL)"]).await;
        for (what, row) in [("INSERT", "NEW"), ("UPDATE", "NEW"), ("DELETE", "OLD")] {
            run(&database, &[&changed(what, row)]).await;
        }
        run(&reports, &["CREATE VIEW rich AS SELECT id, balance FROM bank_accounts WHERE balance > 1"]).await;
    }
    run(&database, &[
        "CREATE INDEX mine ON bank_accounts (bank)",
        "CREATE TABLE notes (account TEXT NOT NULL REFERENCES bank_accounts (id) ON DELETE CASCADE, note TEXT NOT NULL)",
        "INSERT INTO notes VALUES ('a', 'rings often')",
        "UPDATE bank_accounts SET balance = 6 WHERE id = 'b'",
        "DELETE FROM bank_accounts WHERE id = 'c'",
        "INSERT INTO bank_accounts SELECT 'x', balance, events, bank, es_event_id, es_version, es_recorded_at, es_position \
         FROM bank_accounts WHERE id = 'd'",
        "DELETE FROM changes",
    ])
    .await;
    if on_postgres {
        run(&database, &["CREATE TRIGGER told AFTER INSERT OR UPDATE OR DELETE ON bank_accounts FOR EACH ROW EXECUTE FUNCTION changed()"]).await;
    }
    let made =
        if on_postgres { MADE } else { "SELECT name || coalesce(sql, '') AS it FROM sqlite_schema ORDER BY name" };
    let before = texts(&admin, made).await;
    assert!(before.len() > if on_postgres { 20 } else { 10 }, "{before:?}");
    let rebuilt = events.worker(&database).rebuild(model(), Check::Nothing, |_| ()).await;
    rebuilt.unwrap_or_else(|error| panic!("{}", chain(&error)));
    assert_eq!(texts(&admin, made).await, before);
    assert_eq!(shown(&database).await, "a 5/1, b 5/1, c 5/1, d 5/1");
    let mut changes = texts(&admin, "SELECT what FROM changes").await;
    changes.sort();
    assert_eq!(changes, ["DELETEx", "INSERTc", "UPDATEb"], "what is the same was not touched");
    assert_eq!(texts(&admin, "SELECT account FROM notes").await, ["a"]);
    // It is the one that goes on, and whoever looks through a view sees it.
    let last = events.move_money("e", 7);
    live.wait_for(&last, SOON).await.unwrap();
    assert_eq!(texts(&reports, "SELECT id FROM rich ORDER BY id").await, ["a", "b", "c", "d", "e"]);
    assert!(database.remove_replaced("accounts").await.unwrap());
    assert!(!database.remove_replaced("accounts").await.unwrap());
    let verified = events.worker(&database).verify(model(), |_| ()).await.unwrap();
    assert_eq!(verified.verdict(), Verdict::Equal, "{:?}", verified.differences().next());
}

/// A read model whose tables are given. A row tells in all its columns how many events its account had.
struct Shaped {
    version: u32,
    tables: Vec<Table>,
}

#[async_trait]
impl Projection for Shaped {
    fn name(&self) -> &str {
        "shaped"
    }

    fn version(&self) -> u32 {
        self.version
    }

    fn tables(&self) -> Vec<Table> {
        self.tables.clone()
    }

    async fn project(&self, tx: &mut Tx, events: &[Recorded]) -> Result<(), ProjectionError> {
        for table in &self.tables {
            let row = |event: &Recorded| {
                let (id, version) = (event.envelope.stream.id.to_string(), event.envelope.version);
                let value = |column: &es_projections::Column| match column.kind {
                    Kind::Integer => version.into(),
                    Kind::Text if column.name == "id" => id.clone().into(),
                    Kind::Text => format!("{id} {version}").into(),
                    Kind::Bool => (version.get() % 2 == 0).into(),
                    Kind::Bytes => Value::Bytes(vec![version.get() as u8]),
                    Kind::Json => Value::Json(format!("[{version}]").into()),
                    Kind::Time => event.envelope.recorded_at.into(),
                    Kind::Date => event.envelope.recorded_at.date_naive().into(),
                    Kind::Decimal => Value::Decimal(version.get().into()),
                    Kind::Uuid => event.envelope.event_id.get().into(),
                };
                table.columns().iter().map(value).collect()
            };
            tx.upsert(table, events.iter().map(row).collect()).await?;
        }
        Ok(())
    }
}

fn moves() -> Table {
    Table::new("moves").key("id", Kind::Text)
}

/// Shows: whatever another version declares, columns that come, go or are of another kind, that may be empty or not any more, other
/// indexes, another key, a table more or less: the tables take it over, serve, and are what the log gives.
pub async fn whatever_columns_another_version_has_are_taken_over(url: &str) {
    let database = connect(url).await;
    let mut events = Events::with_partitions("account", MemoryLog::new(1), 1);
    for id in ["a", "b", "a", "c", "a"] {
        events.move_money(id, 1);
    }
    let forms: [Vec<Table>; 11] = [
        vec![moves().column("n", Kind::Integer).index("by_n", &["n"])],
        vec![
            moves()
                .column("n", Kind::Integer)
                .column("more", Kind::Text)
                .optional("on_day", Kind::Date)
                .index("by_n", &["n", "more"]),
        ],
        vec![moves().optional("n", Kind::Integer).column("on_day", Kind::Date).index_present("by_day", &["on_day"])],
        vec![
            moves()
                .column("n", Kind::Decimal)
                .column("json", Kind::Json)
                .column("bytes", Kind::Bytes)
                .column("flag", Kind::Bool),
        ],
        vec![moves().column("n", Kind::Text), Table::new("others").key("n", Kind::Integer).column("id", Kind::Text)],
        vec![
            moves().key("n", Kind::Text).column("at", Kind::Time),
            Table::new("others").key("n", Kind::Integer).column("uuid", Kind::Uuid),
        ],
        vec![Table::new("moves").key("n", Kind::Integer).column("id", Kind::Text).index("by_n", &["id"])],
        // A column leaves the key and may be empty from now on; an index stays over one that becomes another.
        vec![Table::new("moves").key("n", Kind::Integer).key("id", Kind::Text)],
        vec![moves().optional("n", Kind::Integer).index("by_n", &["n"])],
        vec![moves().column("n", Kind::Text).index("by_n", &["n"])],
        vec![moves().column("n", Kind::Integer).index("by_n", &["n"])],
    ];
    let mut live = None;
    for (version, tables) in (1..).zip(forms) {
        let shaped = || Shaped { version, tables: tables.clone() };
        let worker = events.worker(&database).share(SILENCE);
        if live.is_some() {
            let rebuilt = worker.rebuild(shaped(), Check::Nothing, |_| ()).await;
            rebuilt.unwrap_or_else(|error| panic!("version {version}: {}", chain(&error)));
        }
        let started =
            worker.start(shaped()).await.unwrap_or_else(|error| panic!("version {version}: {}", chain(&error)));
        let last = events.move_money("d", 1);
        started.wait_for(&last, SOON).await.unwrap();
        caught_up(&started).await;
        let verified = worker.verify(shaped(), |_| ()).await.unwrap();
        let first = verified.differences().next();
        assert_eq!(verified.verdict(), Verdict::Equal, "version {version}: {first:?}");
        live = Some(started);
    }
    // Nothing is left of what was in between.
    let sql = match url.starts_with("postgres") {
        true => {
            "SELECT relname AS name FROM pg_class WHERE relname LIKE 'bank_moves%' OR relname LIKE 'bank_others%' ORDER BY 1"
        }
        false => {
            "SELECT name FROM sqlite_schema WHERE sql IS NOT NULL AND (name LIKE 'bank_moves%' OR name LIKE 'bank_others%') ORDER BY 1"
        }
    };
    let there = texts(&database, sql).await;
    let expected = ["bank_moves", "bank_moves_by_n"];
    assert_eq!(there.into_iter().filter(|name| !name.ends_with("_pkey")).collect::<Vec<_>>(), expected);
}

/// Shows: what the database would drop without a word together with a column, or a key, is told by its name and stays.
pub async fn what_would_go_with_a_column_is_told(url: &str) {
    let database = connect(url).await;
    let mut events = Events::new();
    events.move_money("a", 1);
    let first = || Shaped { version: 1, tables: vec![moves().column("n", Kind::Integer).column("more", Kind::Text)] };
    caught_up(&events.worker(&database).share(SILENCE).start(first()).await.unwrap()).await;
    let refused = async |tables: Vec<Table>, what: &[&str]| {
        let shaped = Shaped { version: 2, tables };
        let error =
            events.worker(&database).rebuild(shaped, Check::Nothing, |_| panic!("it builds")).await.unwrap_err();
        assert!(matches!(error, Error::Invalid(_)), "{error:?}");
        for what in what {
            assert!(error.to_string().contains(what) && error.to_string().contains("remove that"), "{error}");
        }
    };
    if url.starts_with("postgres") {
        let made = [
            "CREATE INDEX mine ON bank_moves (n, more)",
            "ALTER TABLE bank_moves ADD CONSTRAINT told CHECK (more <> '')",
            "CREATE STATISTICS together ON n, more FROM bank_moves",
            "GRANT SELECT (more) ON bank_moves TO public",
            "COMMENT ON COLUMN bank_moves.more IS 'what else is known'",
            "COMMENT ON COLUMN bank_moves.n IS 'of a column that stays'",
        ];
        run(&database, &made).await;
        let what = ["index mine", "constraint told", "together", "rights to column more", "the comment on column more"];
        refused(vec![moves().column("n", Kind::Integer)], &what).await;
        refused(vec![moves().column("n", Kind::Integer).column("more", Kind::Json)], &what).await;
        let remove = [
            "DROP INDEX mine",
            "ALTER TABLE bank_moves DROP CONSTRAINT told",
            "DROP STATISTICS together",
            "REVOKE SELECT (more) ON bank_moves FROM public",
        ];
        run(&database, &remove).await;
        refused(vec![moves().column("n", Kind::Integer)], &["with them: the comment on column more"]).await;
        run(&database, &["COMMENT ON COLUMN bank_moves.more IS NULL"]).await;
    }
    run(&database, &["ALTER TABLE bank_moves ADD COLUMN remark TEXT"]).await;
    let other_key = vec![Table::new("moves").key("n", Kind::Integer).column("id", Kind::Text)];
    refused(other_key, &["column remark"]).await;
    let without = Shaped { version: 2, tables: vec![moves().column("n", Kind::Integer)] };
    let rebuilt = events.worker(&database).rebuild(without, Check::Nothing, |_| ()).await;
    rebuilt.unwrap_or_else(|error| panic!("{}", chain(&error)));
    assert_eq!(texts(&database, "SELECT remark FROM bank_moves").await, ["null"], "it stays");
    if url.starts_with("postgres") {
        let comment = "SELECT col_description('bank_moves'::regclass, attnum) FROM pg_attribute \
                       WHERE attrelid = 'bank_moves'::regclass AND attname = 'n'";
        assert_eq!(texts(&database, comment).await, ["of a column that stays"]);
        // What is ours goes with another version, and what users said of it.
        let by_n = |version| Shaped { version, tables: vec![moves().column("n", Kind::Integer).index("by_n", &["n"])] };
        events.worker(&database).rebuild(by_n(3), Check::Nothing, |_| ()).await.unwrap();
        let comments = [
            "COMMENT ON INDEX bank_moves_by_n IS 'for the report'",
            "COMMENT ON CONSTRAINT bank_moves_pkey ON bank_moves IS 'one'",
        ];
        run(&database, &comments).await;
        refused(vec![moves().column("n", Kind::Integer)], &["with them: the comment on index bank_moves_by_n"]).await;
        let other_key =
            vec![Table::new("moves").key("n", Kind::Integer).column("id", Kind::Text).index("by_n", &["n"])];
        refused(other_key, &["the comment on constraint bank_moves_pkey"]).await;
    }
}

/// Shows: what users made that another version leaves no place for is told before anything is built, by its name.
pub async fn what_stands_in_the_way_is_told_before_anything_is_built(url: &str) {
    let database = connect(url).await;
    let mut events = Events::new();
    events.move_money("a", 1);
    let first = || Shaped { version: 1, tables: vec![moves().column("n", Kind::Integer).column("more", Kind::Text)] };
    let live = events.worker(&database).share(SILENCE).start(first()).await.unwrap();
    caught_up(&live).await;
    run(&database, &["CREATE VIEW looked_at AS SELECT id, more FROM bank_moves"]).await;
    let without = || Shaped { version: 2, tables: vec![moves().column("n", Kind::Integer)] };
    let refused = async |shaped: Shaped, what: &str| {
        let error =
            events.worker(&database).rebuild(shaped, Check::Nothing, |_| panic!("it builds")).await.unwrap_err();
        assert!(matches!(error, Error::Invalid(_)), "{error:?}");
        assert!(error.to_string().contains(what) && error.to_string().contains("remove that"), "{error}");
        let sql = "SELECT count(*) AS n FROM bank_es_builds";
        assert_eq!(texts(&database, sql).await, ["1"], "nothing was built");
    };
    refused(without(), "looked_at").await;
    run(
        &database,
        &["DROP VIEW looked_at", "CREATE TABLE notes (id TEXT REFERENCES Bank_Moves (id) ON DELETE CASCADE)"],
    )
    .await;
    run(&database, &["INSERT INTO notes VALUES ('a')"]).await;
    // Another key would take all rows out and put them in again, and with them what refers to them.
    let other_key =
        || Shaped { version: 2, tables: vec![Table::new("moves").key("n", Kind::Integer).column("id", Kind::Text)] };
    refused(other_key(), "notes").await;
    assert_eq!(texts(&database, "SELECT id FROM notes").await, ["a"]);
    events.worker(&database).rebuild(without(), Check::Nothing, |_| ()).await.unwrap();
    assert_eq!(texts(&database, "SELECT id FROM notes").await, ["a"]);
    run(&database, &["DROP TABLE notes"]).await;
    let other_key = Shaped { version: 3, ..other_key() };
    events.worker(&database).rebuild(other_key, Check::Nothing, |_| ()).await.unwrap();
    // A policy that binds the one who writes would hide rows from it: told, rather than those passed over.
    if url.starts_with("postgres") {
        let name = url.rsplit('/').next().unwrap();
        run(
            &database,
            &[
                &format!("CREATE ROLE own{name} LOGIN"),
                &format!("GRANT ALL ON ALL TABLES IN SCHEMA public TO own{name}"),
                &format!("GRANT ALL ON SCHEMA public TO own{name}"),
                &format!("ALTER TABLE bank_moves OWNER TO own{name}"),
                "ALTER TABLE bank_moves ENABLE ROW LEVEL SECURITY",
                "ALTER TABLE bank_moves FORCE ROW LEVEL SECURITY",
            ],
        )
        .await;
        let owner = connect_as(url, &format!("own{name}"), "bank").await;
        let same =
            Shaped { version: 3, tables: vec![Table::new("moves").key("n", Kind::Integer).column("id", Kind::Text)] };
        let error = events.worker(&owner).rebuild(same, Check::Nothing, |_| panic!("it builds")).await.unwrap_err();
        assert!(chain(&error).contains("row-level security"), "{}", chain(&error));
    }
}
