use es_core::Shape;
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize, Shape)]
pub enum Status {
    #[shape(opaque = "open-1")]
    Open,
}

#[derive(Serialize, Deserialize, Shape)]
pub struct Sums {
    paid: u64,
    #[serde(skip)]
    #[shape(opaque = "money-1")]
    taken: u64,
}

#[derive(Shape)]
#[shape(opaque = "money-1")]
pub struct Money {
    #[shape(opaque = "amount-1")]
    amount: u64,
}

fn main() {}
