//! `#[derive(Shape)]`, and the shapes that the other derives say with it.

use proc_macro2::{Span, TokenStream};
use quote::{quote, quote_spanned};
use syn::ext::IdentExt;
use syn::spanned::Spanned;
use syn::{Attribute, Data, DeriveInput, Field, Fields, Variant, parse_quote};

use crate::attr::Attrs;
use crate::names;
use crate::place::{Place, Takes};
use crate::refusals::{self, Refusals};
use crate::serde_attr::{DefaultOf, Rule, SerdeAttrs};

const TYPE: Place = Place { attribute: "shape", on: "the type", keys: &[("opaque", Takes::Name)] };

const FIELD: Place = Place { attribute: "shape", on: "a field", keys: &[("opaque", Takes::Name)] };

pub(crate) fn expand(input: &DeriveInput) -> TokenStream {
    let mut refusals = Refusals::default();
    refusals::check_lifetimes(input, &mut refusals);
    let node = node(input, &mut refusals);
    // Whatever is inside of it has a shape of its own.
    let mut generics = input.generics.clone();
    for parameter in generics.type_params_mut() {
        parameter.bounds.push(parse_quote!(::es_core::Shape));
        // Defaults are written, to be told apart.
        parameter.bounds.push(parse_quote!(::es_core::shape::Serialize));
    }
    match refusals.into_error() {
        None => implement(input, &generics, &node),
        Some(error) => {
            let error = error.to_compile_error();
            let fallback = refusals::can_fall_back(input).then(|| implement(input, &generics, &nothing_known()));
            quote!(#error #fallback)
        }
    }
}

/// A shape after a mistake, so that users of the type get no errors of their own.
pub(crate) fn nothing_known() -> TokenStream {
    quote!(::es_core::shape::Node::opaque(""))
}

pub(crate) fn implement(input: &DeriveInput, generics: &syn::Generics, node: &TokenStream) -> TokenStream {
    let ident = &input.ident;
    let (impl_generics, ty_generics, where_clause) = generics.split_for_impl();
    quote! {
        #[automatically_derived]
        impl #impl_generics ::es_core::Shape for #ident #ty_generics #where_clause {
            fn shape(shapes: &mut ::es_core::shape::Shapes) -> ::es_core::shape::Node {
                let _ = &shapes;
                #node
            }
        }
    }
}

/// An expression: the node of the type.
pub(crate) fn node(input: &DeriveInput, refusals: &mut Refusals) -> TokenStream {
    let attrs = Attrs::read(&input.attrs, &TYPE, refusals);
    if let Some(name) = attrs.name("opaque") {
        refusals::check_name(name, &names::MESSAGE, refusals);
        check_nothing_inside(&input.data, "a type whose shape is a name", refusals);
        return quote!(::es_core::shape::Node::opaque(#name));
    }
    let serde = SerdeAttrs::read(&input.attrs);
    let written = match serde.written_type() {
        Some(other) => {
            check_nothing_inside(&input.data, "a type that is written as another", refusals);
            through(&serde.text, &id_of(other))
        }
        None => own(input, &serde, refusals),
    };
    match serde.read_type().map(id_of) {
        // The type may be asked for in the midst of the expression before.
        Some(id) => quote!({ let read = #id; #written.read_as(read) }),
        None => written,
    }
}

/// An expression: what is written as the type with this id is, by these attributes.
fn through(attributes: &str, id: &TokenStream) -> TokenStream {
    quote!(::es_core::shape::Node::through(#attributes, ::es_core::shape::Link::new("", #id)))
}

/// An expression: the node of a type of which fields or variants are written.
fn own(input: &DeriveInput, serde: &SerdeAttrs, refusals: &mut Refusals) -> TokenStream {
    let attributes = &serde.text;
    match &input.data {
        Data::Struct(data) => match &data.fields {
            Fields::Named(_) => {
                let fields = fields(&data.fields, attributes, serde.rename_all, serde.default.as_ref(), refusals);
                quote!(::es_core::shape::Node::fields(#fields))
            }
            Fields::Unnamed(unnamed) if unnamed.unnamed.len() == 1 => {
                let link = link(&unnamed.unnamed[0], &SerdeAttrs::read(&unnamed.unnamed[0].attrs), refusals);
                quote!(::es_core::shape::Node::through(#attributes, #link))
            }
            Fields::Unnamed(unnamed) => {
                let links = links(unnamed, refusals);
                let tuple = quote!(::es_core::shape::Node::tuple(::std::vec![#(#links),*]));
                if attributes.is_empty() {
                    return tuple;
                }
                through(attributes, &quote!({ let tuple = #tuple; shapes.add(tuple) }))
            }
            Fields::Unit if attributes.is_empty() => quote!(::es_core::shape::Node::opaque("unit")),
            Fields::Unit => through(attributes, &quote!(shapes.opaque("unit"))),
        },
        Data::Enum(data) => {
            let tag = match (&serde.tag, serde.content || serde.untagged) {
                (_, true) => quote!(Unknown),
                (Some(key), false) => quote!(Inside(#key)),
                (None, false) => quote!(Outside),
            };
            let variants: Vec<_> = data.variants.iter().filter_map(|it| variant(it, serde, refusals)).collect();
            quote! {
                ::es_core::shape::Node::variants(
                    #attributes, ::es_core::shape::Tag::#tag, ::std::vec![#(#variants),*],
                )
            }
        }
        Data::Union(_) => {
            refusals.add(refusals::shape_of_union(input));
            nothing_known()
        }
    }
}

fn variant(variant: &Variant, of: &SerdeAttrs, refusals: &mut Refusals) -> Option<TokenStream> {
    let serde = SerdeAttrs::read(&variant.attrs);
    check_not_here(&variant.attrs, "a variant", refusals);
    if serde.is_skipped() {
        check_no_field(&variant.fields, "a skipped variant", refusals);
        return None;
    }
    let name = variant.ident.unraw().to_string();
    let name = serde.rename.clone().unwrap_or_else(|| of.rename_all.variant(&name));
    let (attributes, content) = (&serde.text, content(variant, of, refusals));
    Some(quote!(::es_core::shape::Variant::new(#name, #attributes, #content)))
}

/// An expression: what a variant holds.
pub(crate) fn content(variant: &Variant, of: &SerdeAttrs, refusals: &mut Refusals) -> TokenStream {
    let serde = SerdeAttrs::read(&variant.attrs);
    match &variant.fields {
        _ if serde.by_hand => {
            check_no_field(&variant.fields, "a variant that functions write or read", refusals);
            let attributes = &serde.text;
            quote! {
                ::es_core::shape::Content::One(::es_core::shape::Link::new(#attributes, shapes.opaque("")).written_by_hand())
            }
        }
        Fields::Named(_) => {
            let rule = serde.rename_all.or(of.rename_all_fields);
            let fields = fields(&variant.fields, "", rule, None, refusals);
            quote!(::es_core::shape::Content::Fields(#fields))
        }
        Fields::Unnamed(unnamed) if unnamed.unnamed.len() == 1 => {
            let serde = SerdeAttrs::read(&unnamed.unnamed[0].attrs);
            if is_skipped(&unnamed.unnamed[0], &serde, refusals) {
                return quote!(::es_core::shape::Content::Nothing);
            }
            let link = link(&unnamed.unnamed[0], &serde, refusals);
            quote!(::es_core::shape::Content::One(#link))
        }
        Fields::Unnamed(unnamed) => {
            let links = links(unnamed, refusals);
            quote!(::es_core::shape::Content::Several(::std::vec![#(#links),*]))
        }
        Fields::Unit => quote!(::es_core::shape::Content::Nothing),
    }
}

fn links(unnamed: &syn::FieldsUnnamed, refusals: &mut Refusals) -> Vec<TokenStream> {
    let written = unnamed.unnamed.iter().filter_map(|field| {
        let serde = SerdeAttrs::read(&field.attrs);
        (!is_skipped(field, &serde, refusals)).then(|| link(field, &serde, refusals))
    });
    written.collect()
}

/// Named fields, except those that are neither written nor read.
fn fields(
    fields: &Fields,
    attributes: &str,
    rule: Rule,
    whole: Option<&DefaultOf>,
    refusals: &mut Refusals,
) -> TokenStream {
    let mut shapes = Vec::new();
    for field in fields {
        let serde = SerdeAttrs::read(&field.attrs);
        if is_skipped(field, &serde, refusals) {
            continue;
        }
        let name = field.ident.as_ref().map(|ident| ident.unraw().to_string()).unwrap_or_default();
        let name = serde.rename.clone().unwrap_or_else(|| rule.field(&name));
        let link = link(field, &serde, refusals);
        let default = default(field, &serde, whole);
        let flat = serde.flatten.then(|| quote!(.flat()));
        shapes.push(quote!(::es_core::shape::Field::new(#name, #link) #default #flat));
    }
    quote!(::es_core::shape::Fields::new(#attributes, ::std::vec![#(#shapes),*]))
}

/// What writes the default of a field: its own, or that of the whole struct.
fn default(field: &Field, serde: &SerdeAttrs, whole: Option<&DefaultOf>) -> Option<TokenStream> {
    let (ident, ty) = (field.ident.as_ref()?, &field.ty);
    let (given, value) = match (&serde.default, whole) {
        (Some(DefaultOf::Type), _) => (quote!(#ty = <#ty as ::core::default::Default>::default()), quote!(&default)),
        (Some(DefaultOf::Function(function)), _) => (quote!(#ty = #function()), quote!(&default)),
        (None, Some(DefaultOf::Type)) => {
            (quote!(Self = <Self as ::core::default::Default>::default()), quote!(&default.#ident))
        }
        (None, Some(DefaultOf::Function(function))) => (quote!(Self = #function()), quote!(&default.#ident)),
        (None, None) => return None,
    };
    let write = match &serde.serialize_with {
        Some(function) => quote!(#function(#value, canonical)),
        None => quote!(::es_core::shape::serialize(#value, canonical)),
    };
    Some(quote!(.default(|canonical| { let default: #given; #write })))
}

/// The type of a field, with its attributes.
fn link(field: &Field, serde: &SerdeAttrs, refusals: &mut Refusals) -> TokenStream {
    let attrs = Attrs::read(&field.attrs, &FIELD, refusals);
    let id = match attrs.name("opaque") {
        Some(name) => {
            refusals::check_name(name, &names::MESSAGE, refusals);
            quote!(shapes.opaque(#name))
        }
        None => id_of(&field.ty),
    };
    let attributes = &serde.text;
    let by_hand = serde.by_hand.then(|| quote!(.written_by_hand()));
    quote!(::es_core::shape::Link::new(#attributes, #id) #by_hand)
}

fn id_of(ty: &syn::Type) -> TokenStream {
    // Told at the type; but a type that a `macro_rules!` was given knows no `shapes`.
    let at = Span::call_site().located_at(ty.span());
    quote_spanned!(at=> shapes.of::<#ty>())
}

/// Whether a field is neither written nor read, and has no shape.
fn is_skipped(field: &Field, serde: &SerdeAttrs, refusals: &mut Refusals) -> bool {
    let skipped = serde.is_skipped();
    if skipped {
        check_not_here(&field.attrs, "a skipped field", refusals);
    }
    skipped
}

/// Refuses the attribute on all that is inside of a type whose fields and variants are not looked at.
fn check_nothing_inside(data: &Data, of: &str, refusals: &mut Refusals) {
    match data {
        Data::Struct(data) => check_no_field(&data.fields, of, refusals),
        Data::Enum(data) => {
            for variant in &data.variants {
                check_not_here(&variant.attrs, "a variant", refusals);
                check_no_field(&variant.fields, of, refusals);
            }
        }
        Data::Union(_) => {}
    }
}

fn check_no_field(fields: &Fields, of: &str, refusals: &mut Refusals) {
    for field in fields {
        check_not_here(&field.attrs, &format!("a field of {of}"), refusals);
    }
}

/// Refuses the attribute where it means nothing.
pub(crate) fn check_not_here(attributes: &[Attribute], here: &str, refusals: &mut Refusals) {
    refusals::check_not_here(attributes, &FIELD, here, refusals);
}
