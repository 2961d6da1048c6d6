use es_core::Event;
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Serialize, Deserialize, Event)]
#[event(aggregate = "Account")]
enum AccountEvent {
    #[event(name = "opened")]
    Opened,
}

fn main() {}
