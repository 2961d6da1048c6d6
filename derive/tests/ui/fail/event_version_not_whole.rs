use es_core::Event;
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Serialize, Deserialize, Event)]
#[event(aggregate = "account")]
enum AccountEvent {
    #[event(name = "opened", version = -1)]
    Opened,
    #[event(name = "closed", version = 1.5)]
    Closed,
    #[event(name = "frozen", version = NEXT)]
    Frozen,
    #[event(name = "thawed", version = 2u8)]
    Thawed,
}

fn main() {}
