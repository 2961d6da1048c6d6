//! `#[derive(ColumnValue)]`.

use proc_macro2::TokenStream;
use quote::{quote, quote_spanned};
use syn::spanned::Spanned;
use syn::{Data, DeriveInput, Field, Member};

use crate::refusals::{self, Refusals, read_model as refused};

pub(crate) fn expand(input: &DeriveInput) -> TokenStream {
    let mut refusals = Refusals::default();
    let inner = inner(input);
    match &inner {
        None => refusals.add(refused::not_a_newtype(input)),
        Some((_, field)) => refusals::check_owned(field, &mut refusals),
    }
    if !input.generics.params.is_empty() {
        refusals.add(refused::newtype_parameters(input));
    }
    match (refusals.into_error(), inner) {
        (None, Some((member, field))) => implement(input, &member, field),
        (error, _) => {
            let error = error.map(|error| error.to_compile_error());
            let fallback = fallback(input);
            quote!(#error #fallback)
        }
    }
}

/// The only field and how it is reached.
fn inner(input: &DeriveInput) -> Option<(Member, &Field)> {
    let Data::Struct(data) = &input.data else { return None };
    let mut fields = data.fields.members().zip(&data.fields);
    fields.next().filter(|_| fields.next().is_none())
}

fn implement(input: &DeriveInput, member: &Member, field: &Field) -> TokenStream {
    let (ident, where_clause, ty) = (&input.ident, &input.generics.where_clause, &field.ty);
    // The only place that asks anything of the type, so that what it lacks is told once.
    let inner = quote_spanned! {ty.span()=>
        const __INNER: ::es_projections::derived::Inner<#ty> = ::es_projections::derived::inner::<#ty>();
    };
    quote! {
        const _: () = {
            #inner

            #[automatically_derived]
            impl ::es_projections::FromValue for #ident #where_clause {
                const WHAT: &'static str = __INNER.what;

                fn from_value(value: &::es_projections::Value) -> ::core::option::Option<Self> {
                    (__INNER.from_value)(value).map(|inner| Self { #member: inner })
                }
            }

            #[automatically_derived]
            impl ::es_projections::ColumnValue for #ident #where_clause {
                const KIND: ::es_projections::Kind = __INNER.kind;
                const OPTIONAL: bool = __INNER.optional;

                fn to_value(
                    &self,
                ) -> ::core::result::Result<::es_projections::Value, ::es_projections::derived::Cause> {
                    (__INNER.to_value)(&self.#member)
                }

                fn settle(&mut self) -> ::core::result::Result<(), ::es_projections::derived::Cause> {
                    (__INNER.settle)(&mut self.#member)
                }
            }
        };
    }
}

/// After a mistake: an implementation, so that fields of this type have no errors of their own.
fn fallback(input: &DeriveInput) -> TokenStream {
    let ident = &input.ident;
    let (impl_generics, ty_generics, where_clause) = input.generics.split_for_impl();
    quote! {
        #[automatically_derived]
        impl #impl_generics ::es_projections::FromValue for #ident #ty_generics #where_clause {
            const WHAT: &'static str = "";

            fn from_value(_: &::es_projections::Value) -> ::core::option::Option<Self> {
                ::core::unreachable!()
            }
        }

        #[automatically_derived]
        impl #impl_generics ::es_projections::ColumnValue for #ident #ty_generics #where_clause {
            const KIND: ::es_projections::Kind = ::es_projections::Kind::Text;

            fn to_value(&self) -> ::core::result::Result<::es_projections::Value, ::es_projections::derived::Cause> {
                ::core::unreachable!()
            }
        }
    }
}
