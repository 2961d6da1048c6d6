use es_core::Event;
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Serialize, Deserialize, Event)]
#[event(aggregate = "account")]
enum AccountEvent {
    #[event(nmae = "opened")]
    Opened,
    #[event(name = "closed", since = "2024")]
    Closed,
}

fn main() {}
