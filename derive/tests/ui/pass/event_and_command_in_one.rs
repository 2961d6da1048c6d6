#![deny(warnings)]
// Odd, but nothing forbids it: each derive reads its own attribute.
use es_core::{Command, Event};
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Serialize, Deserialize, Event, Command)]
#[event(aggregate = "lamp")]
enum Lamp {
    #[event(name = "switched_on")]
    #[command(name = "switch_on")]
    On,
}

fn main() {
    assert_eq!((Event::type_index(&Lamp::On), Command::type_index(&Lamp::On)), (0, 0));
    assert_eq!(<Lamp as Event>::TYPES[0].name, "switched_on");
    assert_eq!(<Lamp as Command>::TYPES[0].name, "switch_on");
}
