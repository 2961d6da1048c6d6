use es_core::Command;
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Serialize, Deserialize, Command)]
enum AccountCommand {
    Überweisen { amount: u64 },
}

fn main() {}
