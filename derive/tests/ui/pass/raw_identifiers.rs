#![deny(warnings)]
#![allow(non_camel_case_types)]
use es_core::{Command, Event, Shape};
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Serialize, Deserialize, Event)]
#[event(aggregate = "type")]
enum r#enum {
    #[event(name = "move")]
    r#Move { r#type: r#struct, r#fn: u8 },
}

#[derive(Debug, Clone, Serialize, Deserialize, Command)]
enum r#match {
    r#try { r#in: u8 },
}

#[derive(Debug, Clone, Serialize, Deserialize, Shape)]
struct r#struct;

fn main() {
    assert_eq!(r#enum::r#Move { r#type: r#struct, r#fn: 1 }.type_index(), 0);
    assert_eq!(r#enum::TYPES[0].fields[0].name, "type");
    assert_eq!(r#enum::TYPES[0].fields[0].rust_type, "r#struct");
    assert_eq!(r#match::r#try { r#in: 1 }.type_index(), 0);
    assert_eq!(r#match::TYPES[0].name, "try");
}
