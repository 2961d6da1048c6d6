use es_core::Shape;
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize, Shape)]
pub struct Sums {
    #[shape(opaque = "Money 1")]
    paid: Money,
    #[shape(opaqe = "money-1")]
    taken: Money,
    #[shape]
    left: Money,
}

#[derive(Serialize, Deserialize)]
pub struct Money(u64);

fn main() {}
