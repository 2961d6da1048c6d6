use es_core::Event;
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Serialize, Deserialize, Event)]
#[event(agregate = "account")]
enum AccountEvent {
    Opened,
    #[event(name = "Closed", version = 0)]
    Closed { #[event(skip)] reason: String },
    #[event(name = "moved")]
    Moved(u8, u8),
}

fn main() {
    let _ = AccountEvent::Opened.type_index();
}
