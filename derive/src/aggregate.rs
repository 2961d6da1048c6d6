//! `#[derive(Aggregate)]`.

use proc_macro2::{Span, TokenStream};
use quote::{ToTokens, quote, quote_spanned};
use syn::ext::IdentExt;
use syn::spanned::Spanned;
use syn::{Data, DeriveInput, Type};

use crate::attr::Attrs;
use crate::names;
use crate::place::{Place, Takes};
use crate::refusals::{self, Refusals};
use crate::shape;
use crate::text;

const STRUCT: Place = Place {
    attribute: "aggregate",
    on: "the struct",
    keys: &[
        ("context", Takes::Name),
        ("name", Takes::Name),
        ("id", Takes::Type),
        ("command", Takes::Type),
        ("event", Takes::Type),
        ("error", Takes::Type),
        ("snapshot", Takes::Version),
        ("codec", Takes::Type),
    ],
};

/// Those that have no default.
const REQUIRED: [&str; 4] = ["context", "name", "command", "event"];

pub(crate) fn expand(input: &DeriveInput) -> TokenStream {
    let mut refusals = Refusals::default();
    let attrs = Attrs::read(&input.attrs, &STRUCT, &mut refusals);
    let Data::Struct(data) = &input.data else {
        return refused(input, &attrs, refusals::not_a_struct(input));
    };
    let required = STRUCT.keys.iter().copied().filter(|(key, _)| REQUIRED.contains(key));
    let missing: Vec<_> = required.filter(|(key, _)| attrs.lacks(key)).collect();
    if !missing.is_empty() {
        refusals.add(refusals::missing_keys(input, attrs.span, &missing));
    }
    for name in ["context", "name"].into_iter().filter_map(|key| attrs.name(key)) {
        refusals::check_name(name, &names::TOPIC, &mut refusals);
    }
    for (key, ty) in ["id", "command", "event", "error"].into_iter().filter_map(|key| Some((key, attrs.ty(key)?))) {
        refusals::check_owned_type(key, ty, &mut refusals);
    }
    refusals::check_lifetimes(input, &mut refusals);
    for field in &data.fields {
        refusals::check_not_here(&field.attrs, &STRUCT, "a field", &mut refusals);
    }
    let shape = shape::node(input, &mut refusals);
    match refusals.into_error() {
        None => implement(input, &attrs, Some(&shape)).into_token_stream(),
        Some(error) => refused(input, &attrs, error),
    }
}

fn refused(input: &DeriveInput, attrs: &Attrs, error: syn::Error) -> TokenStream {
    let error = error.to_compile_error();
    let fallback = refusals::can_fall_back(input).then(|| implement(input, attrs, None)).flatten();
    quote!(#error #fallback)
}

/// The implementation; nothing where a type is not known. Without a shape it is a fallback after a mistake, which does
/// not ask whether the events are its own: the mistake may be in the name.
fn implement(input: &DeriveInput, attrs: &Attrs, shape: Option<&TokenStream>) -> Option<TokenStream> {
    // One that borrows was refused.
    let owned = |key| attrs.ty(key).filter(|ty| !matches!(ty, Type::Reference(_)));
    let (command, event) = (owned("command")?, owned("event")?);
    let id = owned("id").map_or_else(|| quote!(::std::string::String), Type::to_token_stream);
    let error = owned("error").map_or_else(|| quote!(::es_core::Rejection), Type::to_token_stream);
    let codec = attrs.ty("codec").map_or_else(|| quote!(::es_core::Json), Type::to_token_stream);
    let context = attrs.name("context").map(|name| name.value()).unwrap_or_default();
    let name = attrs.name("name").map(|name| name.value()).unwrap_or_default();
    let snapshot = attrs.version("snapshot").unwrap_or(1);
    let check = shape.map(|_| events_are_its_own(input, event, &name));
    let shape = shape.cloned().unwrap_or_else(shape::nothing_known);
    let shape = shape::implement(input, &input.generics, &shape);
    // A generic aggregate's check can only stand where its parameters are known.
    let (inside, outside) = match input.generics.params.is_empty() {
        true => (None, check.map(|check| quote!(const _: () = { #check };))),
        false => (check, None),
    };
    let ident = &input.ident;
    let (impl_generics, ty_generics, where_clause) = input.generics.split_for_impl();
    Some(quote! {
        #[automatically_derived]
        impl #impl_generics ::es_core::Aggregate for #ident #ty_generics #where_clause {
            type Id = #id;
            type Command = #command;
            type Event = #event;
            type Error = #error;
            type Codec = #codec;
            const CONTEXT: &'static str = #context;
            const NAME: &'static str = { #inside #name };
            const SNAPSHOT_VERSION: u32 = #snapshot;
        }
        #shape
        #outside
    })
}

/// Statements that refuse to compile when the event enum says that it belongs to another aggregate.
fn events_are_its_own(input: &DeriveInput, event: &Type, name: &str) -> TokenStream {
    let message = format!(
        "the aggregate `{}` is named {name:?}, but its events say that they belong to another: write \
         `#[event(aggregate = {name:?})]` on `{}`, or give the aggregate the name that stands there",
        input.ident.unraw(),
        text::of(event),
    );
    let at = Span::call_site().located_at(event.span());
    let assert = quote_spanned! {at=>
        // Empty only where the event's own derive refused something, which is message enough.
        ::core::assert!(theirs.is_empty() || same(theirs, ours), "{}", #message)
    };
    let (ident, (_, ty_generics, _)) = (&input.ident, input.generics.split_for_impl());
    quote! {
        // Through a function, so that a type that is no event is an error of the implementation alone.
        const fn aggregate_of_events<A: ::es_core::Aggregate>() -> &'static str {
            <A::Event as ::es_core::Event>::AGGREGATE
        }
        const fn same(a: &[u8], b: &[u8]) -> bool {
            let mut at = 0;
            while at < a.len() && at < b.len() && a[at] == b[at] {
                at += 1;
            }
            at == a.len() && at == b.len()
        }
        let theirs = aggregate_of_events::<#ident #ty_generics>().as_bytes();
        let ours = #name.as_bytes();
        #assert;
    }
}
