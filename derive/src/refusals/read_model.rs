//! What the derives of read models and of their columns' types refuse.

use proc_macro2::{Span, TokenStream};
use quote::ToTokens;
use syn::ext::IdentExt;
use syn::{Data, DeriveInput, Error, Fields, Ident, Type};

use super::{Refusals, keyword, nearest};
use crate::names::{self, Wrong};
use crate::place::Index;
use crate::text;

// The item.

pub(crate) fn no_named_fields(input: &DeriveInput) -> Error {
    let ident = input.ident.unraw();
    let derived = "`ReadModel` is derived on a struct with named fields, a column each";
    match &input.data {
        Data::Struct(data) => match &data.fields {
            Fields::Unnamed(fields) if !fields.unnamed.is_empty() => {
                Error::new_spanned(fields, format!("{derived}: name them, `struct {ident} {{ … }}`"))
            }
            _ => Error::new_spanned(&input.ident, format!("{derived}, and `{ident}` has none: add them")),
        },
        Data::Enum(_) => Error::new(
            keyword(&input.data),
            format!(
                "{derived}: put what `{ident}` tells apart into a field of one, kept by `#[column(json)]` or `#[column(text)]`"
            ),
        ),
        Data::Union(_) => Error::new(keyword(&input.data), format!("{derived}: write `struct`")),
    }
}

pub(crate) fn parameters(input: &DeriveInput) -> Error {
    let ident = input.ident.unraw();
    Error::new_spanned(
        &input.generics.params,
        format!(
            "a read model is one table, whose columns hold types that are known and own their data, so `{ident}` can't have \
             parameters: write the types themselves, such as `String`"
        ),
    )
}

/// The attribute at `at`, if there is one, does not give the name.
pub(crate) fn missing_name(input: &DeriveInput, at: Option<Span>) -> Error {
    let ident = input.ident.unraw();
    let name = ident.to_string();
    let name = name.strip_suffix("Row").unwrap_or(&name);
    let name = names::TABLE.valid_like(name).unwrap_or_else(|| "…".into());
    match at {
        Some(attribute) => {
            Error::new(attribute, format!("`#[read_model]` must name the table: add `name = \"{name}\"`"))
        }
        None => Error::new_spanned(
            &input.ident,
            format!("`{ident}` must name its table: write `#[read_model(name = \"{name}\")]` above it"),
        ),
    }
}

pub(crate) fn missing_key(input: &DeriveInput, example: Option<&Ident>) -> Error {
    let ident = input.ident.unraw();
    let example = example.map(|field| format!(", for example above `{}`", field.unraw())).unwrap_or_default();
    Error::new_spanned(
        &input.ident,
        format!(
            "`{ident}` has no key, which tells its rows apart: write `#[key]` above the field that does, or above several{example}"
        ),
    )
}

// Fields.

pub(crate) fn key_with_content(at: &impl ToTokens) -> Error {
    Error::new_spanned(
        at,
        "`#[key]` stands alone: write `#[key]`; how the field is kept stands beside it, in `#[column(…)]`",
    )
}

pub(crate) fn repeated_attribute(at: &impl ToTokens) -> Error {
    Error::new_spanned(at, format!("`#[{}]` is given twice: remove one", text::of(at)))
}

/// Both ways to keep a field that its type does not say, the latter at `second`.
pub(crate) fn json_and_text(second: &Ident) -> Error {
    Error::new_spanned(second, "a field is kept as JSON or as text: remove `json` or `text`")
}

pub(crate) fn json_in_key(at: &Ident) -> Error {
    Error::new_spanned(
        at,
        "a key can't be JSON, since one value can be written in several ways: write `text`, or remove `#[key]`",
    )
}

pub(crate) fn optional_key(ty: &Type, inner: &Type) -> Error {
    Error::new_spanned(
        ty,
        format!("a field of the key always holds a value: write `{}`, or remove `#[key]`", text::of(inner)),
    )
}

/// A field whose own name is none of a column.
pub(crate) fn not_a_column(field: &Ident, wrong: &Wrong) -> Error {
    let name = field.unraw().to_string();
    let example = names::COLUMN.valid_like(&name).unwrap_or_else(|| "…".into());
    Error::new_spanned(
        field,
        format!("{} {wrong}: give `{name}` another, `#[column(name = \"{example}\")]`", names::COLUMN.what),
    )
}

pub(crate) fn repeated_column(at: &TokenStream, column: &str, first: &Ident) -> Error {
    Error::new_spanned(
        at,
        format!(
            "the column {column:?} is already that of `{}`: every field needs one of its own, `#[column(name = \"…\")]`",
            first.unraw()
        ),
    )
}

// Indexes.

/// Refuses an index whose name or fields are not what they must be.
pub(crate) fn check_index(index: &Index, earlier: &[&Index], fields: &[(&Ident, &str)], refusals: &mut Refusals) {
    let name = index.name.unraw().to_string();
    if let Some(wrong) = names::INDEX.wrong_with(&name) {
        let instead = names::INDEX.instead(&name, &wrong);
        refusals.add(Error::new_spanned(&index.name, format!("{} {wrong}{instead}", names::INDEX.what)));
    } else if earlier.iter().any(|other| other.name == index.name) {
        refusals.add(Error::new_spanned(
            &index.name,
            format!("there is an index `{name}` already: every index needs a name of its own"),
        ));
    }
    for (place, field) in index.fields.iter().enumerate() {
        if index.fields[..place].contains(field) {
            refusals.add(Error::new_spanned(field, format!("`{field}` is in the index already: remove it here")));
        } else if !fields.iter().any(|(ident, _)| *ident == field) {
            refusals.add(unknown_field(field, fields));
        }
    }
}

/// `fields` are their names and columns.
fn unknown_field(field: &Ident, fields: &[(&Ident, &str)]) -> Error {
    let written = field.unraw().to_string();
    let of_column = fields.iter().find(|(_, column)| *column == written).map(|(ident, _)| ident.to_string());
    let meant = of_column.or_else(|| nearest(field, fields.iter().map(|(ident, _)| ident.unraw().to_string())));
    let hint = match meant {
        Some(meant) => format!("did you mean `{meant}`?"),
        None => "an index is over fields of the struct".into(),
    };
    Error::new_spanned(field, format!("there is no field `{field}`: {hint}"))
}

// Newtypes.

pub(crate) fn not_a_newtype(input: &DeriveInput) -> Error {
    let ident = input.ident.unraw();
    let derived = format!("`ColumnValue` is derived on a struct with one field, such as `struct {ident}(String);`");
    let otherwise = "write `#[column(json)]` or `#[column(text)]` on the fields of this type instead";
    match &input.data {
        Data::Struct(data) => match &data.fields {
            fields if fields.is_empty() => {
                Error::new_spanned(&input.ident, format!("{derived}, and `{ident}` has none: add it"))
            }
            fields => Error::new_spanned(fields, format!("{derived}, and a column can't hold several: {otherwise}")),
        },
        _ => Error::new(keyword(&input.data), format!("{derived}: {otherwise}")),
    }
}

pub(crate) fn newtype_parameters(input: &DeriveInput) -> Error {
    let ident = input.ident.unraw();
    Error::new_spanned(
        &input.generics.params,
        format!(
            "a column holds one type, which is known and owns its data, so `{ident}` can't have parameters: write the type \
             itself, such as `String`"
        ),
    )
}
