use es_core::Event;
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Serialize, Deserialize, Event)]
#[event(aggregate = "account")]
enum AccountEvent {
    OverdraftLimitChanged { limit: u64 },
    #[event(version = 2)]
    Closed,
}

fn main() {
    let _ = AccountEvent::Closed.type_index();
}
