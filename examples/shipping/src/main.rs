//! Parcels that vans take to their receivers: two aggregates, one read model, HTTP.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::{get, post};
use axum::{Json, Router};
use es_core::log::embedded::{EmbeddedConfig, EmbeddedLog};
use es_core::{
    Aggregate, Apply, Bus, Command, Context, Engine, EngineConfig, Event, Handle, Recorded, Rejection, SendError,
};
use es_projections::{Database, Fold, Model, ProjectionError, ReadModel, Rows, Worker};
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Event)]
#[event(aggregate = "parcel")]
enum ParcelEvent {
    #[event(name = "registered")]
    Registered { to: String },
    #[event(name = "delivered")]
    Delivered { signed_by: String },
}

#[derive(Debug, Clone, Serialize, Deserialize, Command)]
enum ParcelCommand {
    Register { to: String },
    Deliver { signed_by: String },
}

#[derive(Debug, PartialEq, Serialize, Deserialize, thiserror::Error)]
enum ParcelError {
    #[error("the parcel was registered before")]
    Registered,
    #[error("the parcel is not on its way")]
    NotOnItsWay,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize, Aggregate)]
#[aggregate(context = "shipping", name = "parcel")]
#[aggregate(command = ParcelCommand, event = ParcelEvent, error = ParcelError)]
struct Parcel {
    registered: bool,
    delivered: bool,
}

impl Handle for Parcel {
    fn handle(&self, command: ParcelCommand, _: &Context) -> Result<Vec<ParcelEvent>, ParcelError> {
        match command {
            ParcelCommand::Register { .. } if self.registered => Err(ParcelError::Registered),
            ParcelCommand::Register { to } => Ok(vec![ParcelEvent::Registered { to }]),
            ParcelCommand::Deliver { .. } if !self.registered || self.delivered => Err(ParcelError::NotOnItsWay),
            ParcelCommand::Deliver { signed_by } => Ok(vec![ParcelEvent::Delivered { signed_by }]),
        }
    }
}

impl Apply for Parcel {
    fn apply(&mut self, event: &ParcelEvent) {
        match event {
            ParcelEvent::Registered { .. } => self.registered = true,
            ParcelEvent::Delivered { .. } => self.delivered = true,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Event)]
#[event(aggregate = "van")]
enum VanEvent {
    #[event(name = "loaded")]
    Loaded { parcel: String },
}

#[derive(Debug, Clone, Serialize, Deserialize, Command)]
enum VanCommand {
    Load { parcel: String },
}

#[derive(Debug, Clone, Default, Serialize, Deserialize, Aggregate)]
#[aggregate(context = "shipping", name = "van", command = VanCommand, event = VanEvent)]
struct Van {
    parcels: Vec<String>,
}

const ROOM: usize = 3;

impl Handle for Van {
    fn handle(&self, VanCommand::Load { parcel }: VanCommand, _: &Context) -> Result<Vec<VanEvent>, Rejection> {
        match self.parcels.len() {
            _ if self.parcels.contains(&parcel) => Ok(vec![]), // it is there already
            ROOM.. => Err("the van has no room".into()),
            _ => Ok(vec![VanEvent::Loaded { parcel }]),
        }
    }
}

impl Apply for Van {
    fn apply(&mut self, VanEvent::Loaded { parcel }: &VanEvent) {
        self.parcels.push(parcel.clone());
    }
}

/// A row of the table `parcels`, of the events of parcels and of vans.
#[derive(Debug, Clone, Default, PartialEq, Serialize, ReadModel)]
#[read_model(name = "parcels", index(by_van = [van]))]
struct ParcelRow {
    #[key]
    id: String,
    receiver: Option<String>,
    van: Option<String>,
    signed_by: Option<String>,
}

impl ParcelRow {
    /// Events of vans and of parcels come in any order.
    fn change(rows: &mut Rows, id: &str, change: impl FnOnce(&mut Self)) -> Result<(), ProjectionError> {
        let id = id.to_owned();
        rows.change_or_insert(&id, || Self { id: id.clone(), ..Self::default() }, change)
    }
}

impl Fold<Parcel> for ParcelRow {
    fn fold(event: &ParcelEvent, recorded: &Recorded, rows: &mut Rows) -> Result<(), ProjectionError> {
        Self::change(rows, recorded.envelope.stream.id.as_str(), |row| match event {
            ParcelEvent::Registered { to } => row.receiver = Some(to.clone()),
            ParcelEvent::Delivered { signed_by } => row.signed_by = Some(signed_by.clone()),
        })
    }
}

impl Fold<Van> for ParcelRow {
    fn fold(VanEvent::Loaded { parcel }: &VanEvent, van: &Recorded, rows: &mut Rows) -> Result<(), ProjectionError> {
        Self::change(rows, parcel, |row| row.van = Some(van.envelope.stream.id.to_string()))
    }
}

#[derive(Clone)]
struct App {
    parcels: Bus<Parcel>,
    vans: Bus<Van>,
    database: Database,
}

type Answer<T> = Result<T, (StatusCode, String)>;

/// Sends a command. A request that comes again with the same `idempotency-key` gets the same answer.
async fn send<A>(bus: &Bus<A>, id: &String, command: A::Command, headers: &HeaderMap) -> Answer<String>
where
    A: Aggregate<Id = String> + Handle + Apply,
{
    let mut sending = bus.send(id, command);
    if let Some(key) = headers.get("idempotency-key").and_then(|key| key.to_str().ok()) {
        sending = sending.command_id(key);
    }
    let receipt = sending.await.map_err(|error| {
        let status = match &error {
            SendError::Refused(_) => StatusCode::UNPROCESSABLE_ENTITY,
            SendError::NotDone(_) => StatusCode::SERVICE_UNAVAILABLE,
            SendError::OutcomeUnknown { .. } => StatusCode::GATEWAY_TIMEOUT,
            _ => StatusCode::BAD_REQUEST,
        };
        (status, es_core::with_causes(&error))
    })?;
    Ok(format!("version {}\n", receipt.version))
}

async fn parcel(State(app): State<App>, Path(id): Path<String>) -> Answer<Json<ParcelRow>> {
    let row = app.database.row::<ParcelRow>(&id).await;
    let row = row.map_err(|error| (StatusCode::SERVICE_UNAVAILABLE, es_core::with_causes(&error)))?;
    row.map(Json).ok_or_else(|| (StatusCode::NOT_FOUND, format!("there is no parcel {id}")))
}

type Request<T> = (State<App>, Path<String>, HeaderMap, Json<T>);

async fn to_parcel((State(app), Path(id), headers, Json(command)): Request<ParcelCommand>) -> Answer<String> {
    send(&app.parcels, &id, command, &headers).await
}

async fn to_van((State(app), Path(id), headers, Json(command)): Request<VanCommand>) -> Answer<String> {
    send(&app.vans, &id, command, &headers).await
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let log = Arc::new(EmbeddedLog::open("shipping-data", EmbeddedConfig::default())?); // or a `KafkaLog`
    let engine = Engine::new(
        log.clone(),
        EngineConfig { state_dir: Some("shipping-data/state".into()), ..EngineConfig::default() },
    );
    let (parcels, vans) = (engine.start::<Parcel>().await?, engine.start::<Van>().await?);

    let database = Database::connect("sqlite:shipping-data/rows.sqlite", "shipping").await?;
    let worker = Worker::new(database.clone(), log, vec![parcels.source().clone(), vans.source().clone()]);
    let rows = worker.start(Model::<ParcelRow>::new().follow::<Parcel>().follow::<Van>()).await?;

    let app = Router::new()
        .route("/parcels/{id}", get(parcel).post(to_parcel))
        .route("/vans/{id}", post(to_van))
        .with_state(App { parcels, vans, database });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:8081").await?;
    println!("listening on http://{}", listener.local_addr()?);
    axum::serve(listener, app).with_graceful_shutdown(async { drop(tokio::signal::ctrl_c().await) }).await?;
    rows.stop().await?;
    engine.shutdown().await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use es_core::testing::{given, given_nothing};
    use es_projections::testing;

    use super::*;

    #[test]
    fn a_parcel_is_delivered_once() {
        let deliver = || ParcelCommand::Deliver { signed_by: "Bob".into() };
        let registered = ParcelEvent::Registered { to: "Ada".into() };
        let delivered = ParcelEvent::Delivered { signed_by: "Bob".into() };
        given_nothing::<Parcel>().when(deliver()).refused(ParcelError::NotOnItsWay);
        given::<Parcel>([registered.clone()]).when(deliver()).then([delivered.clone()]);
        given::<Parcel>([registered, delivered]).when(deliver()).refused(ParcelError::NotOnItsWay);
    }

    #[test]
    fn a_van_takes_three_parcels() {
        let loaded = ["1", "2", "3"].map(|parcel| VanEvent::Loaded { parcel: parcel.into() });
        let load = |parcel: &str| VanCommand::Load { parcel: parcel.into() };
        given::<Van>(loaded.clone()).when(load("4")).refused("the van has no room".into());
        given::<Van>(loaded).when(load("3")).then([]);
    }

    #[tokio::test]
    async fn a_row_tells_where_a_parcel_is() {
        let rows = testing::given::<ParcelRow>()
            .event::<Parcel>("1", ParcelEvent::Registered { to: "Ada".into() })
            .event::<Van>("north", VanEvent::Loaded { parcel: "1".into() });
        let (receiver, van) = (Some("Ada".into()), Some("north".into()));
        assert_eq!(rows.rows().await, [ParcelRow { id: "1".into(), receiver, van, signed_by: None }]);
    }
}
