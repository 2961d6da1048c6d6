//! What events and commands have in common: an enum whose variants are stored under names of their own.

use std::collections::HashMap;

use heck::ToSnakeCase;
use proc_macro2::TokenStream;
use quote::{ToTokens, quote};
use syn::ext::IdentExt;
use syn::{Data, DeriveInput, Ident, Variant};

use crate::attr::Attrs;
use crate::names;
use crate::place::Place;
use crate::refusals::{self, Refusals};
use crate::serde_attr::SerdeAttrs;
use crate::shape;
use crate::text;

/// A variant and how it is stored.
pub(crate) struct MessageType {
    ident: Ident,
    name: String,
    schema_version: u32,
    /// Name and type of each field.
    fields: Vec<(String, String)>,
    /// An expression: the shape of what it holds.
    content: TokenStream,
}

/// Where a variant's stored name comes from when its attribute has none.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum DefaultName {
    /// From nowhere: it is required.
    None,
    /// From the variant, in snake case.
    SnakeCase,
}

/// Reads the variants of an enum; what can't be stored goes to `refusals`.
pub(crate) fn read(
    input: &DeriveInput,
    derive: &str,
    place: &Place,
    default: DefaultName,
    refusals: &mut Refusals,
) -> Vec<MessageType> {
    let Data::Enum(data) = &input.data else {
        refusals.add(refusals::not_an_enum(input, derive, place.attribute));
        return Vec::new();
    };
    refusals::check_lifetimes(input, refusals);
    refusals::check_serde_on_enum(&input.attrs, refusals);
    if data.variants.is_empty() {
        refusals.add(refusals::no_variants(input, place.attribute));
    }
    shape::check_not_here(&input.attrs, "the enum", refusals);
    let (mut names, serde) = (HashMap::new(), SerdeAttrs::read(&input.attrs));
    let read = |variant| read_variant(variant, &serde, place, default, &mut names, refusals);
    data.variants.iter().map(read).collect()
}

fn read_variant<'a>(
    variant: &'a Variant,
    of: &SerdeAttrs,
    place: &Place,
    default: DefaultName,
    names: &mut HashMap<String, &'a Ident>,
    refusals: &mut Refusals,
) -> MessageType {
    let attrs = Attrs::read(&variant.attrs, place, refusals);
    let name = stored_name(variant, &attrs, default, refusals);
    if let Some((name, at)) = &name {
        match names.get(name) {
            Some(first) => refusals.add(refusals::repeated_name(at, name, first)),
            None => _ = names.insert(name.clone(), &variant.ident),
        }
    }
    refusals::check_serde_on_variant(variant, refusals);
    refusals::check_fields(variant, refusals);
    for field in &variant.fields {
        refusals::check_not_here(&field.attrs, place, "a field", refusals);
    }
    shape::check_not_here(&variant.attrs, "a variant", refusals);
    MessageType {
        ident: variant.ident.clone(),
        name: name.map(|(name, _)| name).unwrap_or_default(),
        schema_version: attrs.version("version").unwrap_or(1),
        fields: fields(&variant.fields),
        content: shape::content(variant, of, refusals),
    }
}

/// The stored name and where it is written.
fn stored_name(
    variant: &Variant,
    attrs: &Attrs,
    default: DefaultName,
    refusals: &mut Refusals,
) -> Option<(String, TokenStream)> {
    if let Some(name) = attrs.name("name") {
        refusals::check_name(name, &names::MESSAGE, refusals);
        return Some((name.value(), name.to_token_stream()));
    }
    if !attrs.lacks("name") {
        return None;
    }
    if default == DefaultName::None {
        refusals.add(refusals::missing_name(variant, &names::MESSAGE));
        return None;
    }
    let name = variant.ident.unraw().to_string().to_snake_case();
    refusals::check_default_name(variant, &name, &names::MESSAGE, refusals);
    Some((name, variant.ident.to_token_stream()))
}

/// Names and types of fields as written; unnamed ones are counted from 0.
fn fields(fields: &syn::Fields) -> Vec<(String, String)> {
    let name = |(index, field): (usize, &syn::Field)| match &field.ident {
        Some(ident) => (ident.unraw().to_string(), text::of(&field.ty)),
        None => (index.to_string(), text::of(&field.ty)),
    };
    fields.iter().enumerate().map(name).collect()
}

/// The constant `TYPES` and the functions `type_index` and `shapes`, the same in both traits.
pub(crate) fn expand(types: &[MessageType]) -> TokenStream {
    let descriptions = types.iter().map(|MessageType { name, schema_version, fields, .. }| {
        let fields =
            fields.iter().map(|(name, rust_type)| quote!(::es_core::Field { name: #name, rust_type: #rust_type }));
        quote!(::es_core::MessageType { name: #name, schema_version: #schema_version, fields: &[#(#fields),*] })
    });
    let contents = types.iter().map(|message| &message.content);
    let variants = types.iter().map(|message| &message.ident);
    let indices = 0..types.len();
    quote! {
        const TYPES: &'static [::es_core::MessageType] = &[#(#descriptions),*];

        fn type_index(&self) -> usize {
            match self {
                #(Self::#variants { .. } => #indices,)*
            }
        }

        fn shapes(shapes: &mut ::es_core::shape::Shapes) -> ::std::vec::Vec<::es_core::shape::Content> {
            let _ = &shapes;
            ::std::vec![#(#contents),*]
        }
    }
}

/// The same for an enum with mistakes, so that its users get no errors of their own.
pub(crate) fn expand_fallback() -> TokenStream {
    quote! {
        const TYPES: &'static [::es_core::MessageType] = &[];

        fn type_index(&self) -> usize {
            ::core::unreachable!()
        }

        fn shapes(_: &mut ::es_core::shape::Shapes) -> ::std::vec::Vec<::es_core::shape::Content> {
            ::std::vec::Vec::new()
        }
    }
}
