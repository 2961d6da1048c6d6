//! What serde's attributes say of how something is written, as far as its shape needs to know.

use proc_macro2::TokenStream;
use syn::meta::ParseNestedMeta;
use syn::{Attribute, ExprPath, LitStr, Token, Type, parenthesized, token};

use crate::text;

/// The attributes of a type, a variant or a field.
#[derive(Default)]
pub(crate) struct SerdeAttrs {
    /// As they are written.
    pub(crate) text: String,
    pub(crate) rename: Option<String>,
    pub(crate) rename_all: Rule,
    pub(crate) rename_all_fields: Rule,
    pub(crate) default: Option<DefaultOf>,
    /// The function that writes it.
    pub(crate) serialize_with: Option<TokenStream>,
    /// Functions write or read it.
    pub(crate) by_hand: bool,
    pub(crate) flatten: bool,
    skip_writing: bool,
    skip_reading: bool,
    /// The type as which it is written.
    into: Option<Type>,
    /// The type as which it is read.
    from: Option<Type>,
    pub(crate) tag: Option<String>,
    pub(crate) content: bool,
    pub(crate) untagged: bool,
}

/// What a missing field is read as.
pub(crate) enum DefaultOf {
    Type,
    Function(ExprPath),
}

/// How names are changed.
#[derive(Clone, Copy, Default, PartialEq)]
pub(crate) enum Rule {
    #[default]
    None,
    Lower,
    Upper,
    Pascal,
    Camel,
    Snake,
    ScreamingSnake,
    Kebab,
    ScreamingKebab,
}

impl SerdeAttrs {
    /// Reads them. What can't be read serde refuses itself.
    pub(crate) fn read(attributes: &[Attribute]) -> Self {
        let mut attrs = Self::default();
        for attribute in attributes.iter().filter(|attribute| attribute.path().is_ident("serde")) {
            if !attrs.text.is_empty() {
                attrs.text.push(' ');
            }
            attrs.text.push_str(&text::of(attribute));
            let _ = attribute.parse_nested_meta(|meta| attrs.entry(&meta));
        }
        attrs
    }

    fn entry(&mut self, meta: &ParseNestedMeta<'_>) -> syn::Result<()> {
        let Some(key) = meta.path.get_ident().map(ToString::to_string) else { return skip_value(meta) };
        match key.as_str() {
            "rename" => self.rename = written(meta)?.map(|name| name.value()),
            "rename_all" => self.rename_all = Rule::of(written(meta)?),
            "rename_all_fields" => self.rename_all_fields = Rule::of(written(meta)?),
            "default" if meta.input.peek(Token![=]) => self.default = Some(DefaultOf::Function(value(meta)?.parse()?)),
            "default" => self.default = Some(DefaultOf::Type),
            "with" => {
                let module: ExprPath = value(meta)?.parse()?;
                self.serialize_with = Some(quote::quote!(#module::serialize));
                self.by_hand = true;
            }
            "serialize_with" => {
                let function: ExprPath = value(meta)?.parse()?;
                self.serialize_with = Some(quote::quote!(#function));
                self.by_hand = true;
            }
            "deserialize_with" => {
                self.by_hand = true;
                skip_value(meta)?;
            }
            "flatten" => self.flatten = true,
            "skip" => (self.skip_writing, self.skip_reading) = (true, true),
            "skip_serializing" => self.skip_writing = true,
            "skip_deserializing" => self.skip_reading = true,
            "into" => self.into = Some(value(meta)?.parse()?),
            "from" | "try_from" => self.from = Some(value(meta)?.parse()?),
            "tag" => self.tag = Some(value(meta)?.value()),
            "content" => {
                self.content = true;
                skip_value(meta)?;
            }
            "untagged" => self.untagged = true,
            _ => skip_value(meta)?,
        }
        Ok(())
    }

    /// Whether it is neither written nor read.
    pub(crate) fn is_skipped(&self) -> bool {
        self.skip_writing && self.skip_reading
    }

    /// The other type that is written in place of this one.
    pub(crate) fn written_type(&self) -> Option<&Type> {
        self.into.as_ref()
    }

    /// The other type that is read in place of this one, where it is not the one that is written.
    pub(crate) fn read_type(&self) -> Option<&Type> {
        let written = self.into.as_ref().map(text::of);
        self.from.as_ref().filter(|from| written != Some(text::of(*from)))
    }
}

/// The literal behind `=`.
fn value(meta: &ParseNestedMeta<'_>) -> syn::Result<LitStr> {
    meta.value()?.parse()
}

/// The name under which it is written: that of `key = "…"` or of `key(serialize = "…")`.
fn written(meta: &ParseNestedMeta<'_>) -> syn::Result<Option<LitStr>> {
    if !meta.input.peek(token::Paren) {
        return value(meta).map(Some);
    }
    let mut name = None;
    meta.parse_nested_meta(|meta| {
        let value = value(&meta)?;
        if meta.path.is_ident("serialize") {
            name = Some(value);
        }
        Ok(())
    })?;
    Ok(name)
}

fn skip_value(meta: &ParseNestedMeta<'_>) -> syn::Result<()> {
    if meta.input.peek(Token![=]) {
        meta.value()?.parse::<syn::Expr>()?;
    } else if meta.input.peek(token::Paren) {
        let inside;
        parenthesized!(inside in meta.input);
        inside.parse::<TokenStream>()?;
    }
    Ok(())
}

impl Rule {
    fn of(name: Option<LitStr>) -> Self {
        match name.map(|name| name.value()).as_deref() {
            Some("lowercase") => Self::Lower,
            Some("UPPERCASE") => Self::Upper,
            Some("PascalCase") => Self::Pascal,
            Some("camelCase") => Self::Camel,
            Some("snake_case") => Self::Snake,
            Some("SCREAMING_SNAKE_CASE") => Self::ScreamingSnake,
            Some("kebab-case") => Self::Kebab,
            Some("SCREAMING-KEBAB-CASE") => Self::ScreamingKebab,
            _ => Self::None,
        }
    }

    /// The first of the two that changes anything.
    pub(crate) fn or(self, other: Self) -> Self {
        if self == Self::None { other } else { self }
    }

    /// As serde names a field, which is in snake case.
    pub(crate) fn field(self, name: &str) -> String {
        match self {
            Self::None | Self::Lower | Self::Snake => name.to_owned(),
            Self::Upper | Self::ScreamingSnake => name.to_ascii_uppercase(),
            Self::Pascal => {
                let mut pascal = String::new();
                let mut upper = true;
                for letter in name.chars() {
                    match letter {
                        '_' => upper = true,
                        letter if upper => {
                            pascal.push(letter.to_ascii_uppercase());
                            upper = false;
                        }
                        letter => pascal.push(letter),
                    }
                }
                pascal
            }
            Self::Camel => lower_first(&Self::Pascal.field(name)),
            Self::Kebab => name.replace('_', "-"),
            Self::ScreamingKebab => Self::Upper.field(name).replace('_', "-"),
        }
    }

    /// As serde names a variant, which is in Pascal case.
    pub(crate) fn variant(self, name: &str) -> String {
        match self {
            Self::None | Self::Pascal => name.to_owned(),
            Self::Lower => name.to_ascii_lowercase(),
            Self::Upper => name.to_ascii_uppercase(),
            Self::Camel => lower_first(name),
            Self::Snake => {
                let mut snake = String::new();
                for (place, letter) in name.char_indices() {
                    if place > 0 && letter.is_uppercase() {
                        snake.push('_');
                    }
                    snake.push(letter.to_ascii_lowercase());
                }
                snake
            }
            Self::ScreamingSnake => Self::Snake.variant(name).to_ascii_uppercase(),
            Self::Kebab => Self::Snake.variant(name).replace('_', "-"),
            Self::ScreamingKebab => Self::ScreamingSnake.variant(name).replace('_', "-"),
        }
    }
}

fn lower_first(name: &str) -> String {
    let mut letters = name.chars();
    letters.next().map_or_else(String::new, |first| first.to_ascii_lowercase().to_string() + letters.as_str())
}
