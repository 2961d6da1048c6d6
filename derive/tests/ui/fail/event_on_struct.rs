use es_core::Event;
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Serialize, Deserialize, Event)]
#[event(aggregate = "account")]
struct Opened {
    owner: String,
}

fn main() {
    let _ = Opened { owner: String::new() }.type_index();
}
