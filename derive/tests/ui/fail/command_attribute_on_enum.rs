use es_core::Command;
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Serialize, Deserialize, Command)]
#[command(name = "account")]
enum AccountCommand {
    Open,
}

fn main() {}
