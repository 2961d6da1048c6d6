use es_core::Command;
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Serialize, Deserialize, Command)]
enum AccountCommand {
    OpenURL,
    OpenUrl,
    #[command(name = "open_url")]
    Browse,
}

fn main() {}
