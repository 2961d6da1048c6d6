use es_core::Command;
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Serialize, Deserialize, Command)]
enum AccountCommand {
    #[command(version = 2)]
    Open,
}

fn main() {}
