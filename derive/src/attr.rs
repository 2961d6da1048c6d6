//! Reads the attributes of the derives, such as `#[event(…)]`: keys with values of known kinds.

use proc_macro2::{Span, TokenStream};
use quote::ToTokens;
use syn::ext::IdentExt;
use syn::parse::discouraged::Speculative;
use syn::parse::{ParseStream, Parser};
use syn::spanned::Spanned;
use syn::{Attribute, Expr, Ident, Lit, LitStr, Meta, Token, Type, bracketed, parenthesized, token};

use crate::place::{Index, Place, Takes, rest_to_comma, skip_to_comma};
use crate::refusals::{self, Refusals};

/// What one attribute says, or all of its name on the same item.
pub(crate) struct Attrs {
    given: Vec<Given>,
    /// Where the first attribute stands.
    pub(crate) span: Option<Span>,
    /// Something could not be read at all, so a key that is missing may only be hidden.
    broken: bool,
}

struct Given {
    key: &'static str,
    /// The key as it is written.
    at: Ident,
    value: Option<Value>,
}

enum Value {
    Name(LitStr),
    Version(u32),
    Type(Box<Type>),
    Nothing,
    Indexes(Vec<Index>),
}

impl Attrs {
    /// Reads all attributes of the place's name; what can't be understood goes to `refusals`.
    pub(crate) fn read(attributes: &[Attribute], place: &Place, refusals: &mut Refusals) -> Self {
        let mut attrs = Self { given: Vec::new(), span: None, broken: false };
        for attribute in attributes.iter().filter(|attribute| attribute.path().is_ident(place.attribute)) {
            attrs.span.get_or_insert(attribute.path().span());
            match &attribute.meta {
                Meta::List(list) if !list.tokens.is_empty() => {
                    let entries = |input: ParseStream<'_>| {
                        attrs.entries(input, place, refusals);
                        Ok(())
                    };
                    // `entries` takes all tokens, so this has nothing left to refuse.
                    let _ = entries.parse2(list.tokens.clone());
                }
                _ => {
                    attrs.broken = true;
                    refusals.add(refusals::empty_attribute(attribute, place));
                }
            }
        }
        attrs
    }

    pub(crate) fn name(&self, key: &str) -> Option<&LitStr> {
        match self.value(key)? {
            Value::Name(name) => Some(name),
            _ => None,
        }
    }

    pub(crate) fn version(&self, key: &str) -> Option<u32> {
        match self.value(key)? {
            Value::Version(version) => Some(*version),
            _ => None,
        }
    }

    pub(crate) fn ty(&self, key: &str) -> Option<&Type> {
        match self.value(key)? {
            Value::Type(ty) => Some(ty),
            _ => None,
        }
    }

    pub(crate) fn indexes(&self) -> impl Iterator<Item = &Index> {
        self.given.iter().flat_map(|given| match &given.value {
            Some(Value::Indexes(indexes)) => indexes.as_slice(),
            _ => &[],
        })
    }

    /// Where a key that stands alone is given.
    pub(crate) fn given(&self, key: &str) -> Option<&Ident> {
        self.given.iter().find(|given| given.key == key).map(|given| &given.at)
    }

    /// Where the last of these keys is given.
    pub(crate) fn last_given(&self, keys: &[&str]) -> Option<&Ident> {
        self.given.iter().rfind(|given| keys.contains(&given.key)).map(|given| &given.at)
    }

    /// Whether a key is missing for sure: not given, and not hidden by a mistake that was already refused.
    pub(crate) fn lacks(&self, key: &str) -> bool {
        !self.broken && !self.given.iter().any(|given| given.key == key)
    }

    fn value(&self, key: &str) -> Option<&Value> {
        self.given.iter().find(|given| given.key == key)?.value.as_ref()
    }

    fn entries(&mut self, input: ParseStream<'_>, place: &Place, refusals: &mut Refusals) {
        while !input.is_empty() {
            if let Err(error) = self.entry(input, place) {
                refusals.add(error);
                skip_to_comma(input);
            }
            if !input.is_empty() && input.parse::<Token![,]>().is_err() {
                refusals.add(refusals::missing_comma(input));
                skip_to_comma(input);
                let _ = input.parse::<Token![,]>();
            }
        }
    }

    fn entry(&mut self, input: ParseStream<'_>, place: &Place) -> syn::Result<()> {
        let Ok(key) = input.call(Ident::parse_any) else {
            self.broken = true;
            return Err(refusals::not_a_key(input, place));
        };
        let Some(&(name, takes)) = place.keys.iter().find(|(name, _)| key == name) else {
            // Who misspells a key has not forgotten it.
            let meant = refusals::nearest(&key, place.keys.iter().map(|(known, _)| *known));
            self.given.extend(meant.map(|meant| Given { key: meant, at: key.clone(), value: None }));
            return Err(refusals::unknown_key(&key, place, meant));
        };
        let repeated = takes != Takes::Indexes && self.given.iter().any(|given| given.key == name);
        let index = self.given.len();
        self.given.push(Given { key: name, at: key.clone(), value: None });
        if repeated {
            return Err(refusals::repeated_key(&key));
        }
        let has_value = !matches!(takes, Takes::Nothing | Takes::Indexes);
        if has_value && input.parse::<Token![=]>().is_err() {
            return Err(refusals::missing_value(&key, takes));
        }
        let value = match takes {
            Takes::Name => Value::Name(name_literal(&key, input)?),
            Takes::Version => Value::Version(version_literal(&key, input)?),
            Takes::Type => Value::Type(Box::new(a_type(&key, input)?)),
            Takes::Nothing => nothing(&key, input, place)?,
            Takes::Indexes => Value::Indexes(indexes(&key, input)?),
        };
        self.given[index].value = Some(value);
        Ok(())
    }
}

fn name_literal(key: &Ident, input: ParseStream<'_>) -> syn::Result<LitStr> {
    match literal(key, Takes::Name, input)? {
        Ok(Lit::Str(name)) if name.suffix().is_empty() => Ok(name),
        Ok(other) => Err(refusals::not_a_name(key, &other.into_token_stream())),
        Err(other) => Err(refusals::not_a_name(key, &other)),
    }
}

fn version_literal(key: &Ident, input: ParseStream<'_>) -> syn::Result<u32> {
    match literal(key, Takes::Version, input)? {
        Ok(Lit::Int(number)) if matches!(number.suffix(), "" | "u32") => match number.base10_parse() {
            Ok(0) => Err(refusals::version_zero(key, &number)),
            Ok(version) => Ok(version),
            Err(_) => Err(refusals::version_too_large(key, &number)),
        },
        Ok(other) => Err(refusals::not_a_version(key, &other.into_token_stream())),
        Err(other) => Err(refusals::not_a_version(key, &other)),
    }
}

/// The value as a literal, or else the tokens that stand there.
fn literal(key: &Ident, takes: Takes, input: ParseStream<'_>) -> syn::Result<Result<Lit, TokenStream>> {
    if input.is_empty() || input.peek(Token![,]) {
        return Err(refusals::missing_value(key, takes));
    }
    let value = input.fork();
    let Ok(mut expr) = value.parse::<Expr>() else {
        return Ok(Err(rest_to_comma(input)));
    };
    input.advance_to(&value);
    // A value that comes through a `macro_rules!` fragment is wrapped in an invisible group.
    while let Expr::Group(group) = expr {
        expr = *group.expr;
    }
    Ok(match expr {
        Expr::Lit(literal) if literal.attrs.is_empty() => Ok(literal.lit),
        other => Err(other.into_token_stream()),
    })
}

fn a_type(key: &Ident, input: ParseStream<'_>) -> syn::Result<Type> {
    if input.is_empty() || input.peek(Token![,]) {
        return Err(refusals::missing_value(key, Takes::Type));
    }
    let value = input.fork();
    let Ok(ty) = value.parse() else {
        return Err(refusals::not_a_type(key, &rest_to_comma(input)));
    };
    input.advance_to(&value);
    Ok(ty)
}

fn nothing(key: &Ident, input: ParseStream<'_>, place: &Place) -> syn::Result<Value> {
    match input.is_empty() || input.peek(Token![,]) || input.peek(Ident::peek_any) {
        true => Ok(Value::Nothing),
        false => Err(refusals::unwanted_value(key, &rest_to_comma(input), place)),
    }
}

fn indexes(key: &Ident, input: ParseStream<'_>) -> syn::Result<Vec<Index>> {
    if !input.peek(token::Paren) {
        return Err(refusals::missing_value(key, Takes::Indexes));
    }
    let entries;
    parenthesized!(entries in input);
    let mut indexes = Vec::new();
    while !entries.is_empty() {
        indexes.push(index(&entries)?);
        if !entries.is_empty() && entries.parse::<Token![,]>().is_err() {
            return Err(refusals::missing_comma(&entries));
        }
    }
    if indexes.is_empty() {
        return Err(refusals::missing_value(key, Takes::Indexes));
    }
    Ok(indexes)
}

fn index(input: ParseStream<'_>) -> syn::Result<Index> {
    let Ok(name) = input.call(Ident::parse_any) else {
        return Err(refusals::not_an_index(input));
    };
    if input.parse::<Token![=]>().is_err() || input.is_empty() {
        return Err(refusals::index_without_fields(&name, name.to_token_stream()));
    }
    if !input.peek(token::Bracket) {
        return Err(refusals::index_without_fields(&name, rest_to_comma(input)));
    }
    let fields;
    let brackets = bracketed!(fields in input);
    if fields.is_empty() {
        return Err(refusals::index_over_nothing(&name, brackets.span.join()));
    }
    let mut names = Vec::new();
    while !fields.is_empty() {
        let Ok(field) = fields.call(Ident::parse_any) else {
            return Err(refusals::not_a_field(&rest_to_comma(&fields)));
        };
        names.push(field);
        if !fields.is_empty() && fields.parse::<Token![,]>().is_err() {
            return Err(refusals::not_a_field(&rest_to_comma(&fields)));
        }
    }
    Ok(Index { name, fields: names })
}
