use es_core::Event;
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Serialize, Deserialize, Event)]
#[serde(from = "String", into = "String")]
#[event(aggregate = "account")]
enum AccountEvent {
    #[event(name = "opened")]
    Opened,
}

impl From<String> for AccountEvent {
    fn from(_: String) -> Self {
        Self::Opened
    }
}

impl From<AccountEvent> for String {
    fn from(_: AccountEvent) -> Self {
        Self::new()
    }
}

fn main() {}
