//! Everything that the derives refuse, and what they say then: why, and the remedy.
//!
//! One mistake gives one message, at its token; several mistakes in one item are all told at once.

pub(crate) mod read_model;

use proc_macro2::{Span, TokenStream};
use quote::ToTokens;
use syn::ext::IdentExt;
use syn::parse::{ParseStream, Parser};
use syn::{Attribute, Data, DeriveInput, Error, Field, Fields, Ident, LitInt, LitStr, Type, Variant};

use crate::names::{self, Names};
use crate::place::{Place, Takes};
use crate::text;

/// The mistakes of one item, in the order in which they were found.
#[derive(Default)]
pub(crate) struct Refusals(Option<Error>);

impl Refusals {
    pub(crate) fn add(&mut self, error: Error) {
        match &mut self.0 {
            Some(first) => first.combine(error),
            none => *none = Some(error),
        }
    }

    pub(crate) fn into_error(self) -> Option<Error> {
        self.0
    }
}

// The item.

/// Whether an implementation beside the refusals spares errors elsewhere, instead of causing some: what borrows
/// can't implement the traits, and a union none of those that they ask for.
pub(crate) fn can_fall_back(input: &DeriveInput) -> bool {
    let borrows = |field: &Field| matches!(field.ty, Type::Reference(_));
    let owned = match &input.data {
        Data::Struct(_) => true,
        Data::Enum(data) => !data.variants.iter().flat_map(|variant| &variant.fields).any(borrows),
        Data::Union(_) => false,
    };
    owned && input.generics.lifetimes().next().is_none()
}

pub(crate) fn not_an_enum(input: &DeriveInput, derive: &str, what: &str) -> Error {
    let ident = input.ident.unraw();
    Error::new(
        keyword(&input.data),
        format!(
            "`{derive}` is derived on an enum with a variant per {what} type: make `{ident}` an enum, or a variant of one"
        ),
    )
}

pub(crate) fn not_a_struct(input: &DeriveInput) -> Error {
    let message = match &input.data {
        Data::Enum(_) => {
            "`Aggregate` is derived on a struct, whose fields are the fingerprint of stored states: put the enum into a field, \
             for example `struct Account(Status);`"
        }
        _ => "`Aggregate` is derived on a struct, and serde can't store a union: write `struct`",
    };
    Error::new(keyword(&input.data), message)
}

pub(crate) fn shape_of_union(input: &DeriveInput) -> Error {
    Error::new(keyword(&input.data), "serde can't store a union, so it has no shape: write `struct` or `enum`")
}

fn keyword(data: &Data) -> Span {
    match data {
        Data::Struct(data) => data.struct_token.span,
        Data::Enum(data) => data.enum_token.span,
        Data::Union(data) => data.union_token.span,
    }
}

pub(crate) fn no_variants(input: &DeriveInput, what: &str) -> Error {
    Error::new_spanned(
        &input.ident,
        format!("`{}` has no variants, so there is no {what} to store: add one per {what} type", input.ident.unraw()),
    )
}

/// Refuses the item's lifetimes, a message each.
pub(crate) fn check_lifetimes(input: &DeriveInput, refusals: &mut Refusals) {
    let ident = input.ident.unraw();
    for lifetime in input.generics.lifetimes().map(|param| &param.lifetime) {
        refusals.add(Error::new_spanned(
            lifetime,
            format!(
                "what is stored owns its data, so `{ident}` can't borrow for `{lifetime}`: use owned types, such as `String` \
                 for `&str`, `Vec<T>` for `&[T]`, and `Arc<str>` where clones should be cheap"
            ),
        ));
    }
}

/// Refuses the derive's attribute where it means nothing.
pub(crate) fn check_not_here(attributes: &[Attribute], place: &Place, here: &str, refusals: &mut Refusals) {
    for attribute in attributes.iter().filter(|attribute| attribute.path().is_ident(place.attribute)) {
        let name = place.attribute;
        refusals.add(Error::new_spanned(
            attribute,
            format!("`#[{name}]` says nothing on {here}: it goes on {}; remove it here", place.on),
        ));
    }
}

// Variants.

/// Refuses variants whose content has no names, and fields that can't be read back.
pub(crate) fn check_fields(variant: &Variant, refusals: &mut Refusals) {
    let name = &variant.ident;
    match &variant.fields {
        Fields::Unnamed(fields) if fields.unnamed.is_empty() => refusals.add(Error::new_spanned(
            &variant.fields,
            format!("an empty list of unnamed fields can't be stored: write `{name}` without the parentheses"),
        )),
        Fields::Unnamed(fields) if fields.unnamed.len() > 1 => refusals.add(Error::new_spanned(
            &variant.fields,
            format!(
                "several unnamed fields can't be stored, since a payload is its fields by name: name them, `{name} {{ … }}`, \
                 or put them into one struct"
            ),
        )),
        _ => {}
    }
    for field in &variant.fields {
        check_owned(field, refusals);
    }
}

/// Whether the field is a `&'static T`. Other lifetimes the compiler refuses itself.
pub(crate) fn is_static_reference(ty: &Type) -> bool {
    let Type::Reference(reference) = ty else { return false };
    reference.lifetime.as_ref().is_some_and(|lifetime| lifetime.ident == "static")
}

/// Refuses `&'static T`: serde reads it only from data that lives for ever.
pub(crate) fn check_owned(field: &Field, refusals: &mut Refusals) {
    let is_static = is_static_reference(&field.ty);
    let read_otherwise = has_serde(field, &["with", "deserialize_with", "skip", "skip_deserializing"]);
    if is_static && !read_otherwise {
        refusals.add(Error::new_spanned(
            &field.ty,
            format!(
                "what is stored is read back into owned data, so a field can't be `{}`: use an owned type, such as `String` \
                 for `&str` or `Vec<T>` for `&[T]`",
                text::of(&field.ty)
            ),
        ));
    }
}

/// Refuses a type that borrows, where one is asked for that owns its data.
pub(crate) fn check_owned_type(key: &str, ty: &Type, refusals: &mut Refusals) {
    if let Type::Reference(reference) = ty {
        let instead = match &*reference.elem {
            Type::Path(path) if path.path.is_ident("str") => "String".into(),
            other => text::of(other),
        };
        refusals.add(Error::new_spanned(
            ty,
            format!("what is stored owns its data, so `{key}` can't be `{}`: write `{key} = {instead}`", text::of(ty)),
        ));
    }
}

// Names.

/// Refuses a name that is not one of its kind.
pub(crate) fn check_name(name: &LitStr, names: &Names, refusals: &mut Refusals) {
    let value = name.value();
    if let Some(wrong) = names.wrong_with(&value) {
        let instead = names.instead(&value, &wrong);
        refusals.add(Error::new_spanned(name, format!("{} {wrong}{instead}", names.what)));
    }
}

/// Refuses a variant whose own name in snake case can't be stored.
pub(crate) fn check_default_name(variant: &Variant, name: &str, names: &Names, refusals: &mut Refusals) {
    if names.wrong_with(name).is_some() {
        refusals.add(Error::new_spanned(
            &variant.ident,
            format!(
                "`{}` makes no stored name, which has {}: give one, `#[command(name = \"…\")]`",
                variant.ident.unraw(),
                names.characters()
            ),
        ));
    }
}

pub(crate) fn missing_name(variant: &Variant, names: &Names) -> Error {
    let ident = variant.ident.unraw();
    let name = names.valid_like(&ident.to_string()).unwrap_or_else(|| "…".into());
    Error::new_spanned(
        &variant.ident,
        format!(
            "`{ident}` needs a stored name, which stays when the variant is renamed: write `#[event(name = \"{name}\")]` above it"
        ),
    )
}

pub(crate) fn repeated_name(at: &TokenStream, name: &str, first: &Ident) -> Error {
    Error::new_spanned(
        at,
        format!(
            "the stored name {name:?} is already that of `{}`: every variant needs a name of its own",
            first.unraw()
        ),
    )
}

// Attributes.

/// What the attribute looks like in this place.
fn form(place: &Place) -> String {
    // Of those that stand alone only the first, since they exclude each other.
    let alone = place.keys.iter().filter(|(_, takes)| *takes == Takes::Nothing).skip(1).map(|(key, _)| key);
    let alone: Vec<_> = alone.collect();
    let keys = place.keys.iter().filter(|(key, _)| !alone.contains(&key));
    let keys: Vec<_> = keys.map(|(key, takes)| takes.form(key)).collect();
    format!("`#[{}({})]`", place.attribute, keys.join(", "))
}

impl Takes {
    /// What a key of this kind looks like.
    fn form(self, key: &str) -> String {
        match self {
            Takes::Name => format!("{key} = \"…\""),
            Takes::Version => format!("{key} = 2"),
            Takes::Type => format!("{key} = …"),
            Takes::Nothing => key.to_owned(),
            Takes::Indexes => format!("{key}(by_field = [field])"),
        }
    }
}

fn known_keys(place: &Place) -> String {
    let keys: Vec<_> = place.keys.iter().map(|(key, _)| format!("`{key}`")).collect();
    match keys.as_slice() {
        [] => String::new(),
        [only] => only.clone(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}

pub(crate) fn empty_attribute(attribute: &Attribute, place: &Place) -> Error {
    Error::new_spanned(
        &attribute.meta,
        format!("this attribute needs keys and values: on {} write {}", place.on, form(place)),
    )
}

pub(crate) fn not_a_key(input: ParseStream<'_>, place: &Place) -> Error {
    Error::new(input.span(), format!("expected a key and its value: on {} write {}", place.on, form(place)))
}

pub(crate) fn unknown_key(key: &Ident, place: &Place, meant: Option<&str>) -> Error {
    let hint = meant.map(|meant| format!("; did you mean `{meant}`?")).unwrap_or_default();
    Error::new_spanned(
        key,
        format!("unknown key `{key}`: `#[{}]` on {} knows {}{hint}", place.attribute, place.on, known_keys(place)),
    )
}

/// The known word that was probably meant.
pub(crate) fn nearest<S: AsRef<str>>(word: &Ident, known: impl Iterator<Item = S>) -> Option<S> {
    let word = word.unraw().to_string();
    let by_likeness = known.map(|known| (strsim::jaro_winkler(&word, known.as_ref()), known));
    by_likeness.filter(|(likeness, _)| *likeness > 0.8).max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, known)| known)
}

pub(crate) fn repeated_key(key: &Ident) -> Error {
    Error::new_spanned(key, format!("`{key}` is given twice: remove one"))
}

pub(crate) fn missing_value(key: &Ident, takes: Takes) -> Error {
    let form = takes.form(&key.to_string());
    Error::new_spanned(key, format!("`{key}` needs a value: write `{form}`"))
}

pub(crate) fn unwanted_value(key: &Ident, value: &TokenStream, place: &Place) -> Error {
    Error::new_spanned(value, format!("`{key}` takes no value: write `#[{}({key})]`", place.attribute))
}

pub(crate) fn missing_comma(input: ParseStream<'_>) -> Error {
    Error::new(input.span(), "expected a comma before the next key")
}

pub(crate) fn not_a_name(key: &Ident, value: &TokenStream) -> Error {
    let written = text::of(value);
    let quoted = if written.chars().all(|c| c.is_alphanumeric() || "_-.".contains(c)) { &written } else { "…" };
    Error::new_spanned(value, format!("`{key}` is a stored name, a string literal: write `{key} = \"{quoted}\"`"))
}

pub(crate) fn not_a_version(key: &Ident, value: &TokenStream) -> Error {
    let number = text::of(value).trim_matches('"').parse::<u32>().unwrap_or(2).max(1);
    Error::new_spanned(value, format!("`{key}` is a whole number from 1, without quotes: write `{key} = {number}`"))
}

pub(crate) fn version_zero(key: &Ident, value: &LitInt) -> Error {
    Error::new_spanned(value, format!("`{key}` counts from 1: write `{key} = 1` or leave it out"))
}

pub(crate) fn version_too_large(key: &Ident, value: &LitInt) -> Error {
    Error::new_spanned(value, format!("`{key}` is at most {}: count up from 1", u32::MAX))
}

pub(crate) fn not_a_type(key: &Ident, value: &TokenStream) -> Error {
    let written = text::of(value);
    let bare = written.trim_matches('"');
    let example = if syn::parse_str::<Type>(bare).is_ok() { bare } else { "…" };
    Error::new_spanned(value, format!("`{key}` is a Rust type, without quotes: write `{key} = {example}`"))
}

pub(crate) fn missing_aggregate(input: &DeriveInput) -> Error {
    let name = input.ident.unraw().to_string();
    let name = names::TOPIC.valid_like(name.strip_suffix("Event").unwrap_or(&name)).unwrap_or_else(|| "…".into());
    Error::new_spanned(
        &input.ident,
        format!(
            "the aggregate whose events these are is missing: write `#[event(aggregate = \"{name}\")]` above the enum, with the \
             aggregate's stored name"
        ),
    )
}

/// The keys that are missing in the attribute at `at`, or else the whole attribute.
pub(crate) fn missing_keys(input: &DeriveInput, at: Option<Span>, missing: &[(&str, Takes)]) -> Error {
    let entries: Vec<_> = missing.iter().map(|(key, takes)| takes.form(key)).collect();
    let entries = entries.join(", ");
    match at {
        Some(attribute) => Error::new(attribute, format!("`#[aggregate]` must say more: add `{entries}`")),
        None => Error::new_spanned(
            &input.ident,
            format!(
                "`{}` must say what belongs to it and how it is stored: write `#[aggregate({entries})]` above it",
                input.ident.unraw()
            ),
        ),
    }
}

// Indexes.

pub(crate) fn not_an_index(input: ParseStream<'_>) -> Error {
    Error::new(input.span(), "expected the name of an index and its fields: write `index(by_field = [field])`")
}

pub(crate) fn index_without_fields(name: &Ident, at: TokenStream) -> Error {
    let written = text::of(&at);
    let fields = match syn::parse_str::<Ident>(written.trim_matches('"')) {
        Ok(field) if field != *name => field.to_string(),
        _ => "…".into(),
    };
    let at = if at.is_empty() { name.to_token_stream() } else { at };
    Error::new_spanned(
        at,
        format!("index `{name}` needs the fields that it is over, in brackets: write `{name} = [{fields}]`"),
    )
}

pub(crate) fn index_over_nothing(name: &Ident, at: Span) -> Error {
    Error::new(at, format!("index `{name}` is over no field: name some, or remove it"))
}

pub(crate) fn not_a_field(at: &TokenStream) -> Error {
    let written = text::of(at);
    let field = written.trim_matches('"');
    let field = if syn::parse_str::<Ident>(field).is_ok() { field } else { "field" };
    Error::new_spanned(
        at,
        format!("an index is over fields, written without quotes and with commas between: write `{field}`"),
    )
}

// Serde's attributes.

/// Refuses what makes serde write the enum otherwise than as a variant with content. Only the first: what follows
/// belongs to the same choice, as `content` to `tag`.
pub(crate) fn check_serde_on_enum(attributes: &[Attribute], refusals: &mut Refusals) {
    let mut first = None;
    serde_words(attributes, |word, span| {
        let reason = match word {
            "tag" | "content" | "untagged" => "the name stands beside the payload, never in it",
            "from" | "into" | "try_from" | "transparent" | "remote" => "the enum itself is what is stored",
            "variant_identifier" | "field_identifier" => "a name alone is no payload",
            _ => return,
        };
        let message = format!(
            "`#[serde({word})]` can't be used here, since {reason}: remove it; a variant is stored as its fields"
        );
        first.get_or_insert_with(|| Error::new(span, message));
    });
    if let Some(error) = first {
        refusals.add(error);
    }
}

/// Refuses what takes a variant from serde's numbering, by which payloads find their variant.
pub(crate) fn check_serde_on_variant(variant: &Variant, refusals: &mut Refusals) {
    serde_words(&variant.attrs, |word, refused| {
        let remedy = match word {
            "skip" | "skip_serializing" | "skip_deserializing" => {
                "remove it, and the variant too if it is never stored"
            }
            "other" => "remove it; an unknown type is an error that names it",
            "untagged" => "remove it; a variant is stored as its fields anyway",
            _ => return,
        };
        refusals.add(Error::new(
            refused,
            format!(
                "`#[serde({word})]` can't be used on a variant, since each one is stored under its own name: {remedy}"
            ),
        ));
    });
}

fn has_serde(field: &Field, words: &[&str]) -> bool {
    let mut found = false;
    serde_words(&field.attrs, |word, _| found |= words.contains(&word));
    found
}

/// Visits the words of all `#[serde(…)]`. Malformed ones are left to serde, which refuses them itself.
fn serde_words(attributes: &[Attribute], mut visit: impl FnMut(&str, Span)) {
    for attribute in attributes.iter().filter(|attribute| attribute.path().is_ident("serde")) {
        let Ok(list) = attribute.meta.require_list() else { continue };
        let words = syn::punctuated::Punctuated::<SerdeWord, syn::Token![,]>::parse_terminated;
        let Ok(words) = words.parse2(list.tokens.clone()) else { continue };
        for word in words {
            visit(&word.0.to_string(), word.0.span());
        }
    }
}

struct SerdeWord(Ident);

impl syn::parse::Parse for SerdeWord {
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        let word = input.call(Ident::parse_any)?;
        crate::place::skip_to_comma(input);
        Ok(Self(word))
    }
}
