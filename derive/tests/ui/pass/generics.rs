#![deny(warnings)]
use std::fmt::Debug;

use es_core::{Aggregate, Command, Event, Shape};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

pub trait Value: Shape + Debug + Clone + Default + Serialize + DeserializeOwned + Send + Sync {}

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

/// What is inside has a shape, which the derive asks for.
#[derive(Serialize, Deserialize, Shape)]
pub struct Pair<A, B = u64, const N: usize = 1>
where
    B: Clone,
{
    pub a: A,
    #[serde(default)]
    pub b: Option<B>,
}

fn main() {
    assert_eq!(es_core::shape::text::<Pair<String>>(), "#0{a: text, #[serde(default)] b: option<u64> = null}");
    assert_eq!(PurseEvent::<u64>::Filled { with: 5, and: vec![6] }.type_index(), 0);
    assert_eq!(PurseCommand::<u64>::TYPES[0].name, "fill");
    assert_eq!(Purse::<u64>::NAME, "purse");
}
