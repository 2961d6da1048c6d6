use es_core::Event;
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Serialize, Deserialize, Event)]
#[event]
enum AccountEvent {
    #[event()]
    Opened,
    #[event = "closed"]
    Closed,
}

fn main() {}
