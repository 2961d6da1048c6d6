// What the aggregates of these cases are made of.
#[allow(unused_imports)]
use es_core::{Aggregate, Apply, Command, Event};
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Serialize, Deserialize, Command)]
pub enum AccountCommand {
    Open,
}

#[derive(Debug, Clone, Serialize, Deserialize, Event)]
#[event(aggregate = "account")]
pub enum AccountEvent {
    #[event(name = "opened")]
    Opened,
}

#[derive(Debug, Serialize, Deserialize, thiserror::Error)]
#[error("the account is closed")]
pub struct AccountError;

pub trait Value:
    es_core::Shape + std::fmt::Debug + Clone + Default + Serialize + serde::de::DeserializeOwned + Send + Sync
{
}
impl Value for u64 {}
