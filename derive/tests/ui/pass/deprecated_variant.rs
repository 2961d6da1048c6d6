#![deny(warnings)]
use es_core::Event;
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Serialize, Deserialize, Event)]
#[event(aggregate = "account")]
enum AccountEvent {
    #[event(name = "opened")]
    Opened,
    /// Kept to read what is stored.
    #[deprecated = "record `Opened`"]
    #[event(name = "begun")]
    Begun {
        #[deprecated]
        reason: String,
    },
}

fn main() {
    assert_eq!(AccountEvent::Opened.type_index(), 0);
}
