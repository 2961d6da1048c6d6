use es_core::Event;
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Money(u64);

#[derive(Debug, Clone, Serialize, Deserialize, Event)]
#[event(aggregate = "account")]
pub enum AccountEvent {
    #[event(name = "deposited")]
    Deposited { amount: Money },
}

fn main() {}
