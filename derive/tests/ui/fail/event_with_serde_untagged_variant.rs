use es_core::Event;
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Serialize, Deserialize, Event)]
#[event(aggregate = "account")]
enum AccountEvent {
    #[event(name = "opened")]
    Opened,
    #[event(name = "noted")]
    #[serde(untagged)]
    Noted(String),
}

fn main() {}
