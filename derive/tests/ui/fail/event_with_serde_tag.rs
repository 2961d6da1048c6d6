use es_core::Event;
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Serialize, Deserialize, Event)]
#[serde(tag = "type", content = "data")]
#[event(aggregate = "account")]
enum AccountEvent {
    #[event(name = "opened")]
    Opened,
}

fn main() {}
