use es_core::Event;
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Serialize, Deserialize, Event)]
#[event(aggregate = "account")]
pub enum AccountEvent {
    #[event(name = "deposited")]
    #[shape(opaque = "money-1")]
    Deposited { amount: u64 },
}

fn main() {}
