//! Every public error says what failed, and its cause once.

use std::error::Error;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use es_core::doc::{Account, AccountError};
use es_core::log::memory::MemoryLog;
use es_core::log::{AppendError, LogError, LogErrorKind};
use es_core::seal::{InvalidKey, NotProven, NotSealed, PublicKey, SigningKey};
use es_core::shape::Unwritable;
use es_core::testing::errors_tell_their_cause;
use es_core::{
    AggregateKey, DecodeError, Engine, EngineConfig, EventId, ExpectedVersion, InvalidCommand, InvalidId, NotDone,
    Position, Rejection, RetryError, SendError, StartError, StoreError, Version, with_causes,
};
use es_projections::{DamagedRow, Error as ProjectionError, PartitionLag, Unwell};
use uuid::Uuid;

fn sources(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(name).join("src")
}

fn log_error() -> LogError {
    LogError::new(LogErrorKind::Unavailable, "appending to bank.account.events/3")
        .with_source(io::Error::other("the broker hung up"))
}

fn invalid_id() -> InvalidId {
    AggregateKey::new("").expect_err("an id has a character")
}

/// Where the folder of the local state is a file.
async fn store_error() -> StoreError {
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    let config = EngineConfig { state_dir: Some(file.path().into()), ..EngineConfig::default() };
    match Engine::new(Arc::new(MemoryLog::new(1)), config).start::<Account>().await {
        Err(StartError::Store { source, .. }) => source,
        outcome => panic!("{outcome:?}"),
    }
}

type Known<'a> = Vec<(&'a str, Box<dyn Error>)>;

fn all(name: &str, known: Known<'_>) {
    let known: Vec<(&str, &dyn Error)> = known.iter().map(|(name, error)| (*name, &**error as &dyn Error)).collect();
    errors_tell_their_cause(&sources(name), &known);
}

#[tokio::test]
async fn the_errors_of_the_engine_tell_their_cause() {
    let sending = |error: SendError<AccountError>| ("SendError", Box::new(error) as Box<dyn Error>);
    let starting = |error: StartError| ("StartError", Box::new(error) as Box<dyn Error>);
    let not_done = |error: NotDone| ("NotDone", Box::new(error) as Box<dyn Error>);
    let invalid = |error: InvalidCommand| ("InvalidCommand", Box::new(error) as Box<dyn Error>);
    let decoding = |error: DecodeError| ("DecodeError", Box::new(error) as Box<dyn Error>);
    let proving = |error: NotProven| ("NotProven", Box::new(error) as Box<dyn Error>);
    let retrying = |error: RetryError| ("RetryError", Box::new(error) as Box<dyn Error>);
    let sealing = |error: NotSealed| ("NotSealed", Box::new(error) as Box<dyn Error>);
    let key = |error: InvalidKey| ("InvalidKey", Box::new(error) as Box<dyn Error>);
    let name = || String::from("deposited");
    let known: Known<'_> = vec![
        ("InvalidId", Box::new(invalid_id())),
        ("Rejection", Box::new(Rejection::from("the van has no room"))),
        ("LogError", Box::new(log_error())),
        ("AppendError", Box::new(AppendError::Refused(log_error()))),
        ("AppendError", Box::new(AppendError::Unknown(log_error()))),
        ("StoreError", Box::new(store_error().await)),
        (
            "Unwritable",
            Box::new(<Unwritable as serde::ser::Error>::custom("a key of a map must be a text or a number")),
        ),
        decoding(DecodeError::UnknownType { name: name() }),
        decoding(DecodeError::UnknownSchemaVersion { name: name(), stored: 2, known: 1 }),
        decoding(DecodeError::UnknownField { name: name(), field: "lines.0.note".into() }),
        decoding(DecodeError::Payload { name: name(), reason: "it has no amount".into() }),
        sending(SendError::Refused(AccountError::InsufficientFunds { balance: 5 })),
        sending(SendError::Conflict { expected: ExpectedVersion::NoStream, actual: Version::new(3) }),
        sending(SendError::NotDone(NotDone::Stopped)),
        sending(SendError::OutcomeUnknown { waited: Duration::from_secs(30), reason: None }),
        sending(SendError::CommandIdReused),
        sending(SendError::Invalid(InvalidCommand::Encoding("a NaN".into()))),
        sending(SendError::Panicked("index out of bounds".into())),
        sending(SendError::Parked { aggregate: AggregateKey::new("7").unwrap(), reason: "it is too large".into() }),
        not_done(NotDone::NotReady { reason: "reading the log".into() }),
        not_done(NotDone::Overloaded { retry_after: Duration::from_millis(5) }),
        not_done(NotDone::NotInLog),
        not_done(NotDone::Expired),
        not_done(NotDone::Misrouted { reason: "it belongs in partition 3".into() }),
        not_done(NotDone::Stopped),
        invalid(InvalidCommand::Id(invalid_id())),
        invalid(InvalidCommand::Encoding("a NaN".into())),
        invalid(InvalidCommand::TooLarge { what: "event", bytes: 2, limit: 1 }),
        invalid(InvalidCommand::TooManyEvents { count: 2, limit: 1 }),
        invalid(InvalidCommand::Elsewhere("it has no amount".into())),
        starting(StartError::Log { aggregate: "account", source: log_error() }),
        starting(StartError::Store { aggregate: "account", source: store_error().await }),
        starting(StartError::Bound("round_max")),
        starting(StartError::Started { aggregate: "account" }),
        starting(StartError::Namespace("Bank".into())),
        starting(StartError::Release("it has a control character".into())),
        retrying(RetryError::NotServed { partition: 3, reason: "reading the log".into() }),
        retrying(RetryError::Overtaken { partition: 3, aggregate: AggregateKey::new("7").unwrap() }),
        retrying(RetryError::Log { aggregate: AggregateKey::new("7").unwrap(), source: log_error() }),
        proving(NotProven::Malformed("it has no note".into())),
        proving(NotProven::Note(NotSealed::Forged("example.com/bank".into()))),
        proving(NotProven::Differs { index: 7 }),
        proving(NotProven::NotSealed),
        proving(NotProven::Log(log_error())),
        sealing(NotSealed::Malformed("it has no root")),
        sealing(NotSealed::UnknownKey("example.com/bank".into())),
        sealing(NotSealed::Forged("example.com/bank".into())),
        key(SigningKey::from_pem("example.com/bank", "").expect_err("no key")),
        key(PublicKey::from_pem("").expect_err("no key")),
        key(InvalidKey::Name("a+b".into())),
    ];
    all("es-core", known);
}

/// The log on Kafka has the errors of every log.
#[test]
fn the_crate_for_kafka_has_no_errors_of_its_own() {
    all("es-kafka", vec![]);
}

#[test]
fn the_errors_of_read_models_tell_their_cause() {
    let error = |error: ProjectionError| ("Error", Box::new(error) as Box<dyn Error>);
    let unwell = |error: Unwell| ("Unwell", Box::new(error) as Box<dyn Error>);
    let (doing, database) = (|| String::from("a query"), || Arc::from("postgres://bank@db/bank"));
    let (projection, stream) = (|| Arc::from("balances"), || String::from("account-7"));
    let cause = || io::Error::other("the server hung up");
    let log = || ProjectionError::Log { projection: projection(), source: log_error() };
    let within = Duration::from_secs(5);
    let lag = PartitionLag { topic: "bank.account.events".into(), partition: 3, records: 7, time: within };
    let known: Known<'_> = vec![
        error(ProjectionError::Unavailable { doing: doing(), database: database(), source: cause().into() }),
        error(ProjectionError::Data { doing: doing(), database: database(), source: cause().into() }),
        error(ProjectionError::Sql { doing: doing(), database: database(), source: cause().into() }),
        error(ProjectionError::Invalid("the name is empty".into())),
        error(ProjectionError::Damaged("the hash differs".into())),
        error(ProjectionError::OtherVersion("it was built by version 2".into())),
        error(ProjectionError::File { doing: "writing", path: "events.jsonl".into(), source: cause() }),
        error(ProjectionError::Fenced { projection: projection(), place: "bank.account.events/3".into() }),
        error(log()),
        error(ProjectionError::Projection {
            projection: projection(),
            events: "version 7 of account-7".into(),
            source: cause().into(),
        }),
        error(ProjectionError::Deadline {
            projection: projection(),
            position: Position { category: "account".into(), partition: 3, offset: 9 },
            next: 7,
            within,
        }),
        error(ProjectionError::Parked { projection: projection(), stream: stream(), reason: "too large".into() }),
        error(ProjectionError::OtherEvent {
            projection: projection(),
            stream: stream(),
            seen: EventId::from(Uuid::from_u128(1)),
            version: Version::new(3),
            event_id: EventId::from(Uuid::from_u128(2)),
        }),
        error(ProjectionError::NoAnswer { projection: projection(), stream: stream(), within }),
        error(ProjectionError::Differs { projection: projection(), difference: "row 7".into() }),
        error(ProjectionError::Stopped { projection: projection(), source: Some(Arc::new(log())) }),
        error(ProjectionError::Stopped { projection: projection(), source: None }),
        unwell(Unwell::Trouble { projection: projection(), source: Arc::new(log()) }),
        unwell(Unwell::Failed { projection: projection(), source: Arc::new(log()) }),
        unwell(Unwell::Stopped { projection: projection() }),
        unwell(Unwell::Behind { projection: projection(), lag, limit: within }),
        unwell(Unwell::Unknown { projection: projection() }),
        ("DamagedRow", Box::new(DamagedRow { row: "row 7".into(), reason: "it has no version".into() })),
    ];
    all("es-projections", known);
}

/// Shows: what failed is told with its reason by those errors that say nothing alone.
#[tokio::test]
async fn an_error_that_says_little_alone_is_told_with_its_cause() {
    let refused: SendError<AccountError> = SendError::Refused(AccountError::InsufficientFunds { balance: 5 });
    assert_eq!(with_causes(&refused), "the command was refused: the balance is 5");
    let starting = StartError::Log { aggregate: "account", source: log_error() };
    assert_eq!(
        with_causes(&starting),
        "starting aggregate account: appending to bank.account.events/3: the broker hung up"
    );
}
