#![deny(warnings)]
use es_core::{Aggregate, Event};
use serde::{Deserialize, Serialize};

macro_rules! aggregate {
    ($name:literal, $version:expr, $state:ident: $shape:ty, $event:ident: $($variant:ident = $stored:literal $field:ty),*) => {
        #[derive(Debug, Clone, Serialize, Deserialize, Event)]
        #[event(aggregate = $name)]
        enum $event {
            $(#[event(name = $stored, version = $version)] $variant($field)),*
        }

        #[derive(Debug, Clone, Default, Serialize, Deserialize, Aggregate)]
        #[aggregate(
            context = "bank", name = $name, id = u64, command = Command, event = $event, error = Error, snapshot = $version
        )]
        struct $state($shape);
    };
}

aggregate!("account", 2, Account: Vec<u64>, AccountEvent: Opened = "opened" Option<String>, Closed = "closed" ());

#[derive(Debug, Clone, Serialize, Deserialize, es_core::Command)]
enum Command {
    Open,
}

#[derive(Debug, Serialize, Deserialize, thiserror::Error)]
#[error("no")]
struct Error;

fn main() {
    let _ = (Command::Open, Error, Account::default().0);
    assert_eq!(AccountEvent::Opened(None).type_index(), 0);
    assert_eq!(AccountEvent::Closed(()).type_index(), 1);
    assert_eq!(AccountEvent::TYPES[0].fields[0].rust_type, "Option<String>");
    assert_eq!((AccountEvent::TYPES[0].schema_version, Account::SNAPSHOT_VERSION), (2, 2));
    assert_eq!(es_core::shape::text::<Account>(), "[u64]");
}
