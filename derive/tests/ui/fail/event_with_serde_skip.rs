use es_core::Event;
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Serialize, Deserialize, Event)]
#[event(aggregate = "account")]
enum AccountEvent {
    #[event(name = "opened")]
    #[serde(skip)]
    Opened,
    #[event(name = "closed")]
    #[serde(rename = "c", skip_serializing)]
    Closed,
    #[event(name = "frozen")]
    #[serde(skip_deserializing)]
    Frozen,
}

fn main() {}
