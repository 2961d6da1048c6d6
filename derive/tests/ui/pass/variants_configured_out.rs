#![deny(warnings)]
use es_core::Event;
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Serialize, Deserialize, Event)]
#[event(aggregate = "account")]
enum AccountEvent {
    #[cfg(any())]
    #[event(name = "opened")]
    Opened(NoSuchType),
    #[cfg(not(any()))]
    #[cfg_attr(not(any()), event(name = "opened"))]
    #[cfg_attr(any(), event(nonsense))]
    OpenedAnew,
}

fn main() {
    assert_eq!(AccountEvent::OpenedAnew.type_index(), 0);
    assert_eq!(AccountEvent::TYPES.len(), 1);
}
