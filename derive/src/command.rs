//! `#[derive(Command)]`.

use proc_macro2::TokenStream;
use quote::quote;
use syn::DeriveInput;

use crate::message::{self, DefaultName};
use crate::place::{Place, Takes};
use crate::refusals::{self, Refusals};

const VARIANT: Place = Place { attribute: "command", on: "a variant", keys: &[("name", Takes::Name)] };

pub(crate) fn expand(input: &DeriveInput) -> TokenStream {
    let mut refusals = Refusals::default();
    refusals::check_not_here(&input.attrs, &VARIANT, "the enum", &mut refusals);
    let types = message::read(input, "Command", &VARIANT, DefaultName::SnakeCase, &mut refusals);
    match refusals.into_error() {
        None => implement(input, &message::expand(&types)),
        Some(error) => {
            let error = error.to_compile_error();
            let fallback = refusals::can_fall_back(input).then(|| implement(input, &message::expand_fallback()));
            quote!(#error #fallback)
        }
    }
}

fn implement(input: &DeriveInput, members: &TokenStream) -> TokenStream {
    let ident = &input.ident;
    let (impl_generics, ty_generics, where_clause) = input.generics.split_for_impl();
    quote! {
        #[automatically_derived]
        impl #impl_generics ::es_core::Command for #ident #ty_generics #where_clause {
            #members
        }
    }
}
