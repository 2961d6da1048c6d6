use std::borrow::Cow;

use es_core::Command;
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Serialize, Deserialize, Command)]
enum AccountCommand<'a, 'b> {
    Open { owner: &'a str, note: Cow<'b, str> },
}

fn main() {}
