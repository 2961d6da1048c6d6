#![deny(warnings)]
use std::fmt::Debug;

use es_core::{Aggregate, Command, Event};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

pub trait Value: Debug + Clone + Default + Serialize + DeserializeOwned + Send + Sync + 'static {}

impl Value for u64 {}

#[derive(Debug, Clone, Serialize, Deserialize, Event)]
#[serde(bound = "")]
#[event(aggregate = "purse")]
pub enum PurseEvent<V: Value, W = u64, const N: usize = 3>
where
    W: Value,
{
    #[event(name = "filled")]
    Filled { with: V, and: Vec<W> },
}

#[derive(Debug, Clone, Serialize, Deserialize, Command)]
#[serde(bound = "")]
pub enum PurseCommand<V>
where
    V: Value,
{
    Fill(V),
}

#[derive(Debug, Serialize, Deserialize, thiserror::Error)]
#[error("the purse is full")]
pub struct Full;

#[derive(Debug, Clone, Default, Serialize, Deserialize, Aggregate)]
#[serde(bound = "")]
#[aggregate(
    context = "bank",
    name = "purse",
    id = String,
    command = PurseCommand<V>,
    event = PurseEvent<V, u64, 3>,
    error = Full,
)]
pub struct Purse<V: Value> {
    pub content: V,
}

fn main() {
    assert_eq!(PurseEvent::<u64>::Filled { with: 5, and: vec![6] }.type_index(), 0);
    assert_eq!(PurseCommand::<u64>::TYPES[0].name, "fill");
    assert_eq!(Purse::<u64>::NAME, "purse");
}
