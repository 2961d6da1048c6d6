//! `#[derive(Event)]`.

use proc_macro2::TokenStream;
use quote::quote;
use syn::DeriveInput;

use crate::attr::Attrs;
use crate::message::{self, DefaultName};
use crate::names;
use crate::place::{Place, Takes};
use crate::refusals::{self, Refusals};

const ENUM: Place = Place { attribute: "event", on: "the enum", keys: &[("aggregate", Takes::Name)] };

const VARIANT: Place =
    Place { attribute: "event", on: "a variant", keys: &[("name", Takes::Name), ("version", Takes::Version)] };

pub(crate) fn expand(input: &DeriveInput) -> TokenStream {
    let mut refusals = Refusals::default();
    let aggregate = aggregate(input, &mut refusals);
    let types = message::read(input, "Event", &VARIANT, DefaultName::None, &mut refusals);
    match refusals.into_error() {
        None => implement(input, &aggregate, &message::expand(&types)),
        Some(error) => {
            let error = error.to_compile_error();
            let fallback =
                refusals::can_fall_back(input).then(|| implement(input, &aggregate, &message::expand_fallback()));
            quote!(#error #fallback)
        }
    }
}

/// The aggregate's stored name; empty where it is missing, which the check in the aggregate's derive lets pass.
fn aggregate(input: &DeriveInput, refusals: &mut Refusals) -> String {
    let is_enum = matches!(input.data, syn::Data::Enum(_));
    if !is_enum {
        return String::new();
    }
    let attrs = Attrs::read(&input.attrs, &ENUM, refusals);
    if attrs.lacks("aggregate") {
        refusals.add(refusals::missing_aggregate(input));
    }
    let Some(name) = attrs.name("aggregate") else { return String::new() };
    refusals::check_name(name, &names::TOPIC, refusals);
    name.value()
}

fn implement(input: &DeriveInput, aggregate: &str, members: &TokenStream) -> TokenStream {
    let ident = &input.ident;
    let (impl_generics, ty_generics, where_clause) = input.generics.split_for_impl();
    quote! {
        #[automatically_derived]
        impl #impl_generics ::es_core::Event for #ident #ty_generics #where_clause {
            const AGGREGATE: &'static str = #aggregate;
            #members
        }
    }
}
