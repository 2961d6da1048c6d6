//! Asking an audit trail of many events.

use std::time::Instant;

use chrono::{DateTime, TimeDelta, Utc};
use es_core::{AggregateKey, StreamId};
use es_projections::audit::{AuditTrail, LIMIT_MAX, Order, Query};
use es_projections::{Database, Projection};

use crate::Failure;
use crate::figure::{Figure, detail};

/// Rows of a statement that makes some.
const PART: i64 = 250_000;
/// Whose events are spread evenly, one hundred each; one more has a fiftieth of all.
const AGGREGATES: i64 = 99_991;
const HOT: i64 = 50;
const FIRST: &str = "2026-01-01T00:00:00Z";
/// Twenty events are recorded at once, and then none for a minute: a trail of a year.
const AT_ONCE: i64 = 20;
const PAUSE_S: i64 = 60;
/// What may a page of so many take, in milliseconds.
const LIMIT_MS: f64 = 20.0;
const PAGE: u32 = 50;
/// How many questions of each kind, and how often each is put: cold, then warm.
const QUESTIONS: i64 = 40;
const ROUNDS: usize = 2;

/// The longest that a page of 50 takes, the 99th of a hundred of the worst kind of question, first pages and later ones; without
/// a floor.
pub(crate) async fn queries(name: &'static str, url: &str, events: i64) -> Result<Figure, Failure> {
    let database = Database::connect(url, "bank").await?;
    let started = Instant::now();
    fill(&database, events).await?;
    detail(|| format!("{name}: {events} events in {:.0} s", started.elapsed().as_secs_f64()));
    let mut worst: f64 = 0.0;
    for (kind, ask) in KINDS {
        worst = worst.max(measure(&database, kind, *ask).await?);
    }
    database.close().await;
    detail(|| format!("{name}: {worst:.1} ms of at most {LIMIT_MS:.0}"));
    Ok(Figure { name, unit: "ms p99", value: worst, floor: None })
}

type Ask = fn(i64) -> Query;

/// The 99th of a hundred, in milliseconds.
async fn measure(database: &Database, kind: &str, ask: Ask) -> Result<f64, Failure> {
    let (mut all, mut found) = (Vec::new(), 0);
    let mut told = Vec::new();
    for round in 0..ROUNDS {
        let mut took = Vec::new();
        for number in 0..QUESTIONS {
            let order = if number % 2 == 0 { Order::NewestFirst } else { Order::OldestFirst };
            let mut query = Query { order, limit: PAGE, ..ask(number) };
            let started = Instant::now();
            let first = query.run(database).await?;
            took.push(started.elapsed().as_secs_f64() * 1_000.0);
            found += first.entries.len();
            // A page far on, found by a cursor that was got with a large one.
            let far = Query { limit: LIMIT_MAX, ..query.clone() }.run(database).await?;
            query.cursor = far.next.or(first.next);
            if query.cursor.is_some() {
                let started = Instant::now();
                query.run(database).await?;
                took.push(started.elapsed().as_secs_f64() * 1_000.0);
            }
        }
        took.sort_by(f64::total_cmp);
        let at = |share: f64| took[((took.len() - 1) as f64 * share) as usize];
        let when = if round == 0 { "cold" } else { "warm" };
        told.push(format!("{when} p50 {:6.2} p99 {:6.2} max {:6.2} ms", at(0.5), at(0.99), at(1.0)));
        all.extend(took);
    }
    all.sort_by(f64::total_cmp);
    let per_page = found as f64 / (QUESTIONS as usize * ROUNDS) as f64;
    detail(|| format!("{kind:38} {}  {per_page:4.1} a page", told.join("  ")));
    Ok(all[((all.len() - 1) as f64 * 0.99) as usize])
}

const KINDS: &[(&str, Ask)] = &[
    ("no filter", |_| Query::default()),
    ("aggregate", |n| Query { aggregate: aggregate(n), ..Query::default() }),
    ("aggregate, of 200,000 events", |_| Query { aggregate: stream("hot"), ..Query::default() }),
    ("actor, of most events", |_| Query { actor: id("actor-1"), ..Query::default() }),
    ("actor, of few events", |n| Query { actor: actor(n), ..Query::default() }),
    ("actor, of none", |_| Query { actor: id("nobody"), ..Query::default() }),
    ("correlation, of ten events", |n| Query { correlation: talk(n), ..Query::default() }),
    ("correlation, of 1,000,000", |_| Query { correlation: id("import"), ..Query::default() }),
    ("causation", |n| Query { causation: id(&command(root(n))), ..Query::default() }),
    ("causation, of 100,000 events", |_| Query { causation: id("plan"), ..Query::default() }),
    ("tree of a command", |n| Query { caused_by: id(&command(root(n))), ..Query::default() }),
    ("command", |n| Query { command: id(&command(some(n))), ..Query::default() }),
    ("type, of half of all", |_| Query { event_type: Some("deposited".into()), ..Query::default() }),
    ("type, of 1,000 events", |_| Query { event_type: Some("closed".into()), ..Query::default() }),
    ("time of recording", |n| recorded(n, Query::default())),
    ("business time, long ago", |n| long_ago(n, Query::default())),
    ("business time, as recorded", |n| occurred(n, Query::default())),
    ("payload field, of one in a thousand", |_| Query { fields: field("amount=7"), ..Query::default() }),
    ("payload field, of none", |_| Query { fields: field("amount=-1"), ..Query::default() }),
    ("aggregate + recorded", |n| recorded(n, Query { aggregate: aggregate(n), ..Query::default() })),
    ("aggregate + business", |n| long_ago(n, Query { aggregate: aggregate(n), ..Query::default() })),
    ("large aggregate + recorded", |n| recorded(n, Query { aggregate: stream("hot"), ..Query::default() })),
    ("large aggregate + business", |n| long_ago(n, Query { aggregate: stream("hot"), ..Query::default() })),
    ("frequent actor + recorded", |n| recorded(n, Query { actor: id("actor-1"), ..Query::default() })),
    ("frequent actor + business", |n| long_ago(n, Query { actor: id("actor-1"), ..Query::default() })),
    ("rare actor + recorded", |n| recorded(n, Query { actor: actor(n), ..Query::default() })),
    ("rare actor + business", |n| long_ago(n, Query { actor: actor(n), ..Query::default() })),
    ("frequent type + recorded", |n| recorded(n, Query { event_type: Some("deposited".into()), ..Query::default() })),
    ("frequent type + business", |n| long_ago(n, Query { event_type: Some("deposited".into()), ..Query::default() })),
    ("rare type + recorded", |n| recorded(n, Query { event_type: Some("closed".into()), ..Query::default() })),
    ("rare type + business", |n| long_ago(n, Query { event_type: Some("closed".into()), ..Query::default() })),
    ("correlation + recorded", |n| recorded(n, Query { correlation: id("import"), ..Query::default() })),
    ("correlation + business", |n| long_ago(n, Query { correlation: id("import"), ..Query::default() })),
    ("frequent actor + frequent type", |_| Query { event_type: Some("deposited".into()), ..of_actor("actor-1") }),
    ("frequent actor + rare type", |_| Query { event_type: Some("closed".into()), ..of_actor("actor-1") }),
    ("rare actor + rare type", |n| Query { event_type: Some("closed".into()), actor: actor(n), ..Query::default() }),
    ("rare actor + frequent type", |n| Query {
        event_type: Some("deposited".into()),
        actor: actor(n),
        ..Query::default()
    }),
];

fn id<T: std::str::FromStr<Err: std::fmt::Debug>>(text: &str) -> Option<T> {
    Some(text.parse().expect("a short text"))
}

fn of_actor(name: &str) -> Query {
    Query { actor: id(name), ..Query::default() }
}

fn stream(aggregate: &str) -> Option<StreamId> {
    Some(StreamId { category: "account".into(), id: AggregateKey::new(aggregate).expect("a short text") })
}

fn field(text: &str) -> Vec<es_projections::audit::PayloadField> {
    vec![text.parse().expect("path=value")]
}

/// Some event's number, another one for each question, spread over 10,000,000.
fn some(question: i64) -> i64 {
    (question + 1) * 238_307
}

/// That of an event which others were caused by.
fn root(question: i64) -> i64 {
    some(question) / 10 * 10
}

fn aggregate(question: i64) -> Option<StreamId> {
    stream(&format!("account-{}", some(question) % AGGREGATES))
}

fn actor<T: std::str::FromStr<Err: std::fmt::Debug>>(question: i64) -> Option<T> {
    id(&format!("actor-{}", 600 + question))
}

fn talk<T: std::str::FromStr<Err: std::fmt::Debug>>(question: i64) -> Option<T> {
    id(&format!("talk-{}", some(question) / 30))
}

fn command(event: i64) -> String {
    format!("command-{:08x}", hash(event))
}

/// Scatters numbers: no two of 32 bits give the same.
fn hash(number: i64) -> i64 {
    number * 2_654_435_761 % 4_294_967_296
}

fn first() -> DateTime<Utc> {
    FIRST.parse().expect("a time")
}

/// Three days of recording.
fn recorded(question: i64, query: Query) -> Query {
    let from = first() + TimeDelta::seconds(some(question) / AT_ONCE * PAUSE_S);
    Query { recorded_from: Some(from), recorded_to: Some(from + TimeDelta::days(3)), ..query }
}

/// The same days by business time.
fn occurred(question: i64, query: Query) -> Query {
    let Query { recorded_from: from, recorded_to: to, .. } = recorded(question, Query::default());
    Query { from, to, ..query }
}

/// Three days of business time that have nothing to do with when events were recorded.
fn long_ago(question: i64, query: Query) -> Query {
    let from = "1993-01-01T00:00:00Z".parse::<DateTime<Utc>>().expect("a time") + TimeDelta::days(question * 40);
    Query { from: Some(from), to: Some(from + TimeDelta::days(3)), ..query }
}

/// How the databases differ in what makes rows.
struct Dialect {
    numbers: fn(i64, i64) -> String,
    hex8: fn(&str) -> String,
    hex12: fn(&str) -> String,
    time: fn(&str) -> String,
    bytes: fn(usize) -> String,
    uuid: &'static str,
    json: &'static str,
    /// Asks for the table's indexes but that of its key, and the statements that make them.
    indexes: &'static str,
}

const SQLITE: Dialect = Dialect {
    numbers: |from, to| {
        format!(
            "(WITH RECURSIVE n(i) AS (SELECT {from} UNION ALL SELECT i + 1 FROM n WHERE i + 1 < {to}) SELECT i FROM n)"
        )
    },
    hex8: |number| format!("printf('%08x', {number})"),
    hex12: |number| format!("printf('%012x', {number})"),
    time: |seconds| format!("strftime('%Y-%m-%dT%H:%M:%S.000000Z', {seconds}, 'unixepoch')"),
    bytes: |count| format!("zeroblob({count})"),
    uuid: "TEXT",
    json: "TEXT",
    indexes: "SELECT name, sql FROM sqlite_schema WHERE type = 'index' AND tbl_name = 'bank_audit' AND sql IS NOT NULL",
};

const POSTGRES: Dialect = Dialect {
    numbers: |from, to| format!("(SELECT generate_series(CAST({from} AS BIGINT), {}) AS i)", to - 1),
    hex8: |number| format!("lpad(to_hex({number}), 8, '0')"),
    hex12: |number| format!("lpad(to_hex({number}), 12, '0')"),
    time: |seconds| format!("to_timestamp({seconds})"),
    bytes: |count| format!("decode('{}', 'hex')", "00".repeat(count)),
    uuid: "UUID",
    json: "JSON",
    indexes: "SELECT indexname AS name, indexdef AS sql FROM pg_indexes \
              WHERE tablename = 'bank_audit' AND indexname NOT LIKE '%pkey'",
};

/// Makes the rows where they are, and then the indexes: through a log it would take an hour.
async fn fill(database: &Database, events: i64) -> Result<(), Failure> {
    let sqlite = database.url().starts_with("sqlite:");
    let dialect = if sqlite { SQLITE } else { POSTGRES };
    let mut tx = database.begin().await?;
    tx.create(&AuditTrail::new(&[]).tables().remove(0)).await?;
    let table = tx.table_name("audit");
    let indexes = tx.fetch(dialect.indexes, &[]).await?;
    for index in &indexes {
        tx.execute(&format!("DROP INDEX \"{}\"", index.get::<String>("name")?), &[]).await?;
    }
    if sqlite {
        tx.execute("PRAGMA cache_size = -1000000", &[]).await?; // the key's pages are written all over
    }
    tx.commit().await?;
    for from in (0..events).step_by(PART as usize) {
        let mut tx = database.begin().await?;
        tx.execute(&insert(&table, &dialect, from, events.min(from + PART)), &[]).await?;
        tx.commit().await?;
    }
    for index in &indexes {
        let mut tx = database.begin().await?;
        tx.execute(&index.get::<String>("sql")?, &[]).await?;
        tx.commit().await?;
    }
    if !sqlite {
        database.fetch(&format!("VACUUM ANALYZE {table}"), &[]).await?;
    }
    Ok(())
}

/// Half of the events occurred when they were recorded, the others on some day of six years long before.
fn insert(table: &str, dialect: &Dialect, from: i64, to: i64) -> String {
    let Dialect { numbers, hex8, hex12, time, bytes, uuid, json, indexes: _ } = dialect;
    let start = first().timestamp();
    let long_ago = "1993-01-01T00:00:00Z".parse::<DateTime<Utc>>().expect("a time").timestamp();
    let hash = |number: &str| format!("({number} * 2654435761 % 4294967296)");
    let command = |number: &str| format!("'command-' || {}", hex8(&hash(number)));
    let event = |number: &str| format!("'00000000-0000-7000-8000-' || {}", hex12(number));
    let (recorded, day) =
        (format!("{start} + i / {AT_ONCE} * {PAUSE_S}"), format!("{long_ago} + h / 64 % 2000 * 86400"));
    let columns = [
        ("category", "'account'".into()),
        ("aggregate_id", format!("CASE i % {HOT} WHEN 0 THEN 'hot' ELSE 'account-' || CAST(i % {AGGREGATES} AS TEXT) END")),
        ("version", format!("CASE i % {HOT} WHEN 0 THEN i / {HOT} + 1 ELSE i / {AGGREGATES} + 1 END")),
        ("context", "'bank'".into()),
        ("event_id", format!("CAST({} AS {uuid})", event("i"))),
        (
            "event_type",
            "CASE WHEN h / 8 % 10000 = 0 THEN 'closed' WHEN h / 8 % 100 = 1 THEN 'opened' WHEN h / 8 % 10 = 2 \
             THEN 'frozen' WHEN h / 8 % 10 < 7 THEN 'deposited' ELSE 'withdrawn' END"
                .into(),
        ),
        ("schema_version", "1".into()),
        ("recorded_at", time(&recorded)),
        ("occurred_at", format!("CASE h / 32 % 2 WHEN 0 THEN {} ELSE {} END", time(&recorded), time(&day))),
        ("command_id", command("i")),
        ("command_hash", bytes(17)),
        (
            "correlation_id",
            format!(
                "CASE WHEN i % 10 < 6 THEN {} WHEN i % 10 < 9 THEN 'talk-' || CAST(i / 30 AS TEXT) ELSE 'import' END",
                command("i")
            ),
        ),
        // Of ten, the first command causes three, and their events three more.
        (
            "causation_id",
            format!(
                "CASE WHEN i % 100 = 99 THEN 'plan' WHEN i % 10 IN (1, 2, 3) THEN {} WHEN i % 10 IN (4, 5, 6) THEN {} END",
                command("(i / 10 * 10)"),
                event("(i - 3)")
            ),
        ),
        // One actor has more than a third of all, 60 share another third, 1,000 have 3,000 each.
        (
            "actor",
            "'actor-' || CAST(CASE WHEN h / 16 % 10 < 7 THEN 1000 / (1 + h / 256 % 1000) ELSE h / 256 % 1000 + 1 END AS TEXT)".into(),
        ),
        ("content_type", "'application/json'".into()),
        (
            "payload",
            format!("CAST('{{\"amount\":' || CAST(h / 512 % 1000 AS TEXT) || ',\"reference\":\"salary\"}}' AS {json})"),
        ),
        ("previous_hash", bytes(32)),
        ("hash", bytes(32)),
        ("topic", "'bank.account.events'".into()),
        ("topic_partition", "i % 8".into()),
        ("topic_offset", "i / 8".into()),
    ];
    let names = columns.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
    let values = columns.iter().map(|(_, value)| value.as_str()).collect::<Vec<_>>().join(", ");
    let numbers = numbers(from, to);
    format!(
        "INSERT INTO {table} ({names}) SELECT {values} FROM (SELECT i, {} AS h FROM {numbers} AS n) AS numbered",
        hash("i")
    )
}
