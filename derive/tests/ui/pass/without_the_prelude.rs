#![deny(warnings)]
#![no_implicit_prelude]

// The types have the names of the traits, and of what the generated code could mean by mistake.
#[derive(
    ::std::fmt::Debug, ::std::clone::Clone, ::serde::Serialize, ::serde::Deserialize, ::es_core::Event,
)]
#[event(aggregate = "account")]
enum Event {
    #[event(name = "opened")]
    Field,
    #[event(name = "closed")]
    MessageType,
}

#[derive(
    ::std::fmt::Debug, ::std::clone::Clone, ::serde::Serialize, ::serde::Deserialize, ::es_core::Command,
)]
enum Command {
    Open,
}

#[derive(::std::fmt::Debug, ::serde::Serialize, ::serde::Deserialize, ::thiserror::Error)]
#[error("no")]
struct Error;

#[derive(
    ::std::fmt::Debug, ::std::clone::Clone, ::std::default::Default, ::serde::Serialize, ::serde::Deserialize,
    ::es_core::Aggregate,
)]
#[aggregate(context = "bank", name = "account", id = u64, command = Command, event = Event, error = Error)]
struct Aggregate;

#[derive(::serde::Serialize, ::serde::Deserialize, ::es_core::Shape)]
enum Shape {
    A {
        #[serde(default)]
        field: u8,
    },
    B,
}

fn main() {
    let _ = (Shape::A { field: 0 }, Shape::B);
    let _ = (Command::Open, Error, Aggregate);
    ::std::assert_eq!(::es_core::Event::type_index(&Event::MessageType), 1);
    ::std::assert_eq!(::es_core::Event::type_index(&Event::Field), 0);
    ::std::assert_eq!(::es_core::shape::text::<Aggregate>(), "unit");
    ::std::assert_eq!(::es_core::shape::text::<Shape>(), "#0<A {#[serde(default)] field: u8 = 0}, B>");
}
