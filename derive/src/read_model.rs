//! `#[derive(ReadModel)]`.

use std::collections::HashMap;

use proc_macro2::TokenStream;
use quote::{ToTokens, format_ident, quote, quote_spanned};
use syn::ext::IdentExt;
use syn::spanned::Spanned;
use syn::{
    Attribute, Data, DeriveInput, Field, Fields, FieldsNamed, GenericArgument, Ident, Meta, PathArguments, Type,
};

use crate::attr::Attrs;
use crate::names;
use crate::place::{Index, Place, Takes};
use crate::refusals::{self, Refusals, read_model as refused};

const STRUCT: Place = Place {
    attribute: "read_model",
    on: "the struct",
    keys: &[("name", Takes::Name), ("version", Takes::Version), ("index", Takes::Indexes)],
};

const KEY: Place = Place { attribute: "key", on: "a field", keys: &[] };

const COLUMN: Place = Place {
    attribute: "column",
    on: "a field",
    keys: &[("name", Takes::Name), ("json", Takes::Nothing), ("text", Takes::Nothing)],
};

/// A field and the column that holds it.
struct Column<'a> {
    ident: &'a Ident,
    ty: &'a Type,
    name: String,
    /// Where the name stands.
    at: TokenStream,
    in_key: bool,
    kept: Kept,
}

/// What a column holds of its field.
#[derive(Clone, Copy, PartialEq)]
enum Kept {
    /// What the type says.
    Value,
    Json,
    Text,
}

pub(crate) fn expand(input: &DeriveInput) -> TokenStream {
    let mut refusals = Refusals::default();
    let attrs = Attrs::read(&input.attrs, &STRUCT, &mut refusals);
    let Some(fields) = named_fields(input) else {
        return fall_back(input, &attrs, &[], Some(&refused::no_named_fields(input)));
    };
    if attrs.lacks("name") {
        refusals.add(refused::missing_name(input, attrs.span));
    }
    if let Some(name) = attrs.name("name") {
        refusals::check_name(name, &names::TABLE, &mut refusals);
    }
    for place in [&KEY, &COLUMN] {
        refusals::check_not_here(&input.attrs, place, "the struct", &mut refusals);
    }
    if !input.generics.params.is_empty() {
        refusals.add(refused::parameters(input));
    }
    let columns = columns(fields, &mut refusals);
    if !columns.iter().any(|column| column.in_key) {
        refusals.add(refused::missing_key(input, likely_key(&columns).map(|column| column.ident)));
    }
    check_indexes(&attrs, &columns, &mut refusals);
    match refusals.into_error() {
        None if columns.iter().any(|column| matches!(column.ty, Type::Reference(_))) => {
            // The compiler refuses it: there is no lifetime that it could name.
            fall_back(input, &attrs, &columns, None)
        }
        None => implement(input, &attrs, columns),
        Some(error) => fall_back(input, &attrs, &columns, Some(&error)),
    }
}

fn named_fields(input: &DeriveInput) -> Option<&FieldsNamed> {
    match &input.data {
        Data::Struct(data) => match &data.fields {
            Fields::Named(fields) => Some(fields),
            _ => None,
        },
        _ => None,
    }
}

fn columns<'a>(fields: &'a FieldsNamed, refusals: &mut Refusals) -> Vec<Column<'a>> {
    let mut names: HashMap<String, &Ident> = HashMap::new();
    let mut columns = Vec::new();
    for field in &fields.named {
        let Some(column) = column(field, refusals) else { continue };
        match names.get(&column.name) {
            Some(first) => refusals.add(refused::repeated_column(&column.at, &column.name, first)),
            None => _ = names.insert(column.name.clone(), column.ident),
        }
        columns.push(column);
    }
    columns
}

fn column<'a>(field: &'a Field, refusals: &mut Refusals) -> Option<Column<'a>> {
    let ident = field.ident.as_ref()?;
    refusals::check_not_here(&field.attrs, &STRUCT, "a field", refusals);
    let in_key = is_key(&field.attrs, refusals);
    let attrs = Attrs::read(&field.attrs, &COLUMN, refusals);
    refusals::check_owned(field, refusals);
    let kept = match (attrs.given("json"), attrs.given("text")) {
        (Some(_), Some(text)) => {
            let second = attrs.last_given(&["json", "text"]).unwrap_or(text);
            refusals.add(refused::json_and_text(second));
            Kept::Json
        }
        (Some(json), None) => {
            if in_key {
                refusals.add(refused::json_in_key(json));
            }
            Kept::Json
        }
        (None, Some(_)) => Kept::Text,
        (None, None) => Kept::Value,
    };
    if let Some(inner) = in_key.then(|| inside_option(&field.ty)).flatten() {
        refusals.add(refused::optional_key(&field.ty, inner));
    }
    let (name, at) = match attrs.name("name") {
        Some(name) => {
            refusals::check_name(name, &names::COLUMN, refusals);
            (name.value(), name.to_token_stream())
        }
        None => {
            let name = ident.unraw().to_string();
            if let Some(wrong) = names::COLUMN.wrong_with(&name).filter(|_| attrs.lacks("name")) {
                refusals.add(refused::not_a_column(ident, &wrong));
            }
            (name, ident.to_token_stream())
        }
    };
    Some(Column { ident, ty: &field.ty, name, at, in_key, kept })
}

fn is_key(attributes: &[Attribute], refusals: &mut Refusals) -> bool {
    let mut is_key = false;
    for attribute in attributes.iter().filter(|attribute| attribute.path().is_ident(KEY.attribute)) {
        if !matches!(attribute.meta, Meta::Path(_)) {
            refusals.add(refused::key_with_content(&attribute.meta));
        } else if is_key {
            refusals.add(refused::repeated_attribute(&attribute.meta));
        }
        is_key = true;
    }
    is_key
}

fn check_indexes(attrs: &Attrs, columns: &[Column<'_>], refusals: &mut Refusals) {
    let fields: Vec<_> = columns.iter().map(|column| (column.ident, column.name.as_str())).collect();
    let indexes: Vec<&Index> = attrs.indexes().collect();
    for (place, index) in indexes.iter().enumerate() {
        refused::check_index(index, &indexes[..place], &fields, refusals);
    }
}

/// The column that is the key, as far as names tell.
fn likely_key<'a, 'b>(columns: &'b [Column<'a>]) -> Option<&'b Column<'a>> {
    let named = |name: fn(&str) -> bool| columns.iter().find(|column| name(&column.name));
    named(|name| name == "id").or_else(|| named(|name| name.ends_with("_id")))
}

/// What is inside a type that is written as an `Option`.
fn inside_option(ty: &Type) -> Option<&Type> {
    match ty {
        Type::Group(group) => inside_option(&group.elem),
        Type::Paren(paren) => inside_option(&paren.elem),
        Type::Path(path) => {
            let last = path.path.segments.last().filter(|last| last.ident == "Option")?;
            let PathArguments::AngleBracketed(arguments) = &last.arguments else { return None };
            match arguments.args.first() {
                Some(GenericArgument::Type(inner)) if arguments.args.len() == 1 => Some(inner),
                _ => None,
            }
        }
        _ => None,
    }
}

/// The type of a key of these columns.
fn key_type(key: &[&Column<'_>]) -> TokenStream {
    let types = key.iter().map(|column| column.ty);
    match key {
        [only] => only.ty.to_token_stream(),
        _ => quote!((#(#types),*)),
    }
}

fn implement(input: &DeriveInput, attrs: &Attrs, mut columns: Vec<Column<'_>>) -> TokenStream {
    let indexes = attrs.indexes().map(|index| {
        let name = index.name.unraw().to_string();
        let column = |field: &Ident| columns.iter().find(|column| column.ident == field).map(|column| &column.name);
        let over: Vec<_> = index.fields.iter().filter_map(column).collect();
        quote!(.index(#name, &[#(#over),*]))
    });
    let indexes: TokenStream = indexes.collect();
    // The order of the table.
    columns.sort_by_key(|column| !column.in_key);
    let key: Vec<_> = columns.iter().filter(|column| column.in_key).collect();

    // A constant for each field is the only place that asks anything of its type, so that what its type lacks is told
    // once, there.
    let constants: Vec<_> = (0..columns.len()).map(|place| format_ident!("__COLUMN_{place}")).collect();
    let definitions = columns.iter().zip(&constants).map(|(column, constant)| {
        let (ty, made) = (column.ty, make(column));
        quote_spanned!(ty.span()=> const #constant: ::es_projections::derived::Field<#ty> = #made;)
    });
    let (key_constants, other_constants) = constants.split_at(key.len());
    let key_idents: Vec<_> = key.iter().map(|column| column.ident).collect();
    let key_clones = quote!(#(::core::clone::Clone::clone(&self.#key_idents)),*);
    let (key_of_row, key_parts) = match key.as_slice() {
        [_] => (key_clones, vec![quote!(key)]),
        _ => {
            let parts = (0..key.len()).map(syn::Index::from);
            (quote!((#key_clones)), parts.map(|part| quote!(&key.#part)).collect())
        }
    };
    let settled_parts = match key.as_slice() {
        [_] => vec![quote!(key)],
        _ => (0..key.len()).map(syn::Index::from).map(|part| quote!(&mut key.#part)).collect(),
    };
    let idents: Vec<_> = columns.iter().map(|column| column.ident).collect();
    let places = 0..columns.len();
    let name = attrs.name("name").map(|name| name.value()).unwrap_or_default();
    let version = attrs.version("version").unwrap_or(1);
    let key_type = key_type(&key);
    let (ident, where_clause) = (&input.ident, &input.generics.where_clause);
    quote! {
        const _: () = {
            #(#definitions)*

            #[automatically_derived]
            impl ::es_projections::ReadModel for #ident #where_clause {
                type Key = #key_type;
                const NAME: &'static str = #name;
                const VERSION: u32 = #version;

                fn table() -> ::es_projections::Table {
                    let table = ::es_projections::Table::new(#name);
                    #(let table = #key_constants.add_key(table);)*
                    #(let table = #other_constants.add(table);)*
                    table #indexes
                }

                fn key(&self) -> #key_type {
                    #key_of_row
                }

                fn key_values(
                    key: &#key_type,
                ) -> ::core::result::Result<::std::vec::Vec<::es_projections::Value>, ::es_projections::Error> {
                    ::core::result::Result::Ok(::std::vec![#(#key_constants.value(#name, #key_parts)?),*])
                }

                fn to_values(
                    &self,
                ) -> ::core::result::Result<::std::vec::Vec<::es_projections::Value>, ::es_projections::Error> {
                    ::core::result::Result::Ok(::std::vec![#(#constants.value(#name, &self.#idents)?),*])
                }

                fn from_row(
                    row: &::es_projections::Row,
                ) -> ::core::result::Result<Self, ::es_projections::Error> {
                    ::core::result::Result::Ok(Self { #(#idents: #constants.read(row, #places)?),* })
                }

                fn settle(&mut self) -> ::core::result::Result<(), ::es_projections::Error> {
                    #(#constants.settle(#name, &mut self.#idents)?;)*
                    ::core::result::Result::Ok(())
                }

                fn settle_key(key: &mut #key_type) -> ::core::result::Result<(), ::es_projections::Error> {
                    #(#key_constants.settle(#name, #settled_parts)?;)*
                    ::core::result::Result::Ok(())
                }
            }
        };
    }
}

/// How the field is kept: what asks of its type what it must have, at the type.
fn make(column: &Column<'_>) -> TokenStream {
    let (name, ty) = (&column.name, column.ty);
    let of_option = if column.kept == Kept::Value { None } else { inside_option(ty) };
    let inner = of_option.unwrap_or(ty);
    let function = match (column.kept, of_option) {
        (Kept::Value, _) if column.in_key => "key",
        (Kept::Value, _) => "column",
        (Kept::Json, None) => "json",
        (Kept::Json, Some(_)) => "optional_json",
        (Kept::Text, None) => "text",
        (Kept::Text, Some(_)) => "optional_text",
    };
    let function = Ident::new(function, inner.span());
    quote_spanned!(inner.span()=> ::es_projections::derived::#function::<#inner>(#name))
}

/// After a mistake: an implementation, so that what uses the read model has no errors of its own.
fn fall_back(input: &DeriveInput, attrs: &Attrs, columns: &[Column<'_>], error: Option<&syn::Error>) -> TokenStream {
    let error = error.map(syn::Error::to_compile_error);
    if !refusals::can_fall_back(input) || !input.generics.params.is_empty() {
        return error.unwrap_or_default();
    }
    let mut key: Vec<_> = columns.iter().filter(|column| column.in_key).collect();
    if key.is_empty() {
        key.extend(likely_key(columns));
    }
    key.retain(|column| !matches!(column.ty, Type::Reference(_)) && inside_option(column.ty).is_none());
    let key_type = key_type(&key);
    let name = attrs.name("name").map(|name| name.value()).unwrap_or_default();
    let (ident, where_clause) = (&input.ident, &input.generics.where_clause);
    quote! {
        #error
        #[automatically_derived]
        impl ::es_projections::ReadModel for #ident #where_clause {
            type Key = #key_type;
            const NAME: &'static str = #name;
            const VERSION: u32 = 1;

            fn table() -> ::es_projections::Table {
                ::core::unreachable!()
            }

            fn key(&self) -> #key_type {
                ::core::unreachable!()
            }

            fn key_values(
                _: &#key_type,
            ) -> ::core::result::Result<::std::vec::Vec<::es_projections::Value>, ::es_projections::Error> {
                ::core::unreachable!()
            }

            fn to_values(
                &self,
            ) -> ::core::result::Result<::std::vec::Vec<::es_projections::Value>, ::es_projections::Error> {
                ::core::unreachable!()
            }

            fn from_row(_: &::es_projections::Row) -> ::core::result::Result<Self, ::es_projections::Error> {
                ::core::unreachable!()
            }
        }
    }
}
