//! Derive macros of es-core.
use proc_macro::TokenStream;

/// Derives `es_core::Event`.
#[proc_macro_derive(Event, attributes(event))]
pub fn event(_: TokenStream) -> TokenStream {
    TokenStream::new()
}

/// Derives `es_core::Command`.
#[proc_macro_derive(Command, attributes(command))]
pub fn command(_: TokenStream) -> TokenStream {
    TokenStream::new()
}

/// Derives `es_core::Aggregate`.
#[proc_macro_derive(Aggregate, attributes(aggregate))]
pub fn aggregate(_: TokenStream) -> TokenStream {
    TokenStream::new()
}
