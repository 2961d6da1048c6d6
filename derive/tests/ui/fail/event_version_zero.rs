use es_core::Event;
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Serialize, Deserialize, Event)]
#[event(aggregate = "account")]
enum AccountEvent {
    #[event(name = "opened", version = 0)]
    Opened,
}

fn main() {}
