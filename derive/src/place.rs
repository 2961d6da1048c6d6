//! Where the attributes of the derives stand, and what may be said there.

use proc_macro2::{TokenStream, TokenTree};
use syn::parse::ParseStream;
use syn::{Ident, Token};

/// A place where an attribute stands, and what may be said there.
pub(crate) struct Place {
    /// The attribute's name.
    pub(crate) attribute: &'static str,
    /// What it stands on, for messages.
    pub(crate) on: &'static str,
    /// The keys that it takes there.
    pub(crate) keys: &'static [(&'static str, Takes)],
}

/// The kind of a key's value.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Takes {
    /// A stored name in quotes.
    Name,
    /// A number from 1.
    Version,
    /// A Rust type.
    Type,
    /// Nothing: it stands alone.
    Nothing,
    /// Indexes, each a name and the fields that it is over. It may be given any number of times.
    Indexes,
}

/// An index as it is written: `by_owner = [owner, opened_at]`.
pub(crate) struct Index {
    pub(crate) name: Ident,
    pub(crate) fields: Vec<Ident>,
}

/// Passes over everything up to the next comma of this level.
pub(crate) fn skip_to_comma(input: ParseStream<'_>) {
    rest_to_comma(input);
}

pub(crate) fn rest_to_comma(input: ParseStream<'_>) -> TokenStream {
    let mut skipped = TokenStream::new();
    while !input.is_empty() && !input.peek(Token![,]) {
        match input.parse::<TokenTree>() {
            Ok(token) => skipped.extend([token]),
            Err(_) => break,
        }
    }
    skipped
}
