//! Rust tokens as text, the same for every compiler and however the source was laid out.
//!
//! The text of a field's type ends up in schemas and in the fingerprint of stored states, so it must not follow the
//! compiler's own printer, which promises nothing about blanks.

use proc_macro2::{Delimiter, Spacing, TokenStream, TokenTree};
use quote::ToTokens;

/// The text of a type or attribute: `Option<Vec<u8>>`, `&'static [u8; 4]`, `dyn Fn(A) -> B + Send`.
pub(crate) fn of(tokens: &impl ToTokens) -> String {
    let mut pieces = Vec::new();
    flatten(tokens.to_token_stream(), &mut pieces);
    drop_last_commas(&mut pieces);
    let mut text = String::new();
    let mut last: Option<&Piece> = None;
    for piece in &pieces {
        if last.is_some_and(|last| blank_between(last, piece)) {
            text.push(' ');
        }
        text.push_str(&piece.text);
        last = Some(piece);
    }
    text
}

struct Piece {
    kind: Kind,
    text: String,
}

#[derive(PartialEq)]
enum Kind {
    /// An identifier, a literal or a lifetime.
    Word,
    Punct,
    Open,
    Close,
}

fn flatten(tokens: TokenStream, pieces: &mut Vec<Piece>) {
    let mut tokens = tokens.into_iter().peekable();
    while let Some(token) = tokens.next() {
        let (kind, text) = match token {
            TokenTree::Ident(ident) => (Kind::Word, ident.to_string()),
            TokenTree::Literal(literal) => (Kind::Word, literal.to_string()),
            TokenTree::Group(group) => {
                let (open, close) = match group.delimiter() {
                    Delimiter::Parenthesis => ("(", ")"),
                    Delimiter::Bracket => ("[", "]"),
                    Delimiter::Brace => ("{", "}"),
                    // Invisible: what a `macro_rules!` fragment is wrapped in.
                    Delimiter::None => {
                        flatten(group.stream(), pieces);
                        continue;
                    }
                };
                pieces.push(Piece { kind: Kind::Open, text: open.into() });
                flatten(group.stream(), pieces);
                (Kind::Close, close.into())
            }
            TokenTree::Punct(punct) => match (punct.as_char(), punct.spacing(), tokens.peek()) {
                ('\'', _, Some(TokenTree::Ident(name))) => {
                    let lifetime = format!("'{name}");
                    tokens.next();
                    (Kind::Word, lifetime)
                }
                (first @ (':' | '-'), Spacing::Joint, Some(TokenTree::Punct(second)))
                    if matches!((first, second.as_char()), (':', ':') | ('-', '>')) =>
                {
                    let both = format!("{first}{}", second.as_char());
                    tokens.next();
                    (Kind::Punct, both)
                }
                (single, ..) => (Kind::Punct, single.into()),
            },
        };
        pieces.push(Piece { kind, text });
    }
}

/// `Option<A,>` over several lines is `Option<A>`.
fn drop_last_commas(pieces: &mut Vec<Piece>) {
    for at in (1..pieces.len()).rev() {
        if pieces[at].text == ">" && pieces[at - 1].text == "," {
            pieces.remove(at - 1);
        }
    }
}

fn blank_between(left: &Piece, right: &Piece) -> bool {
    let closes = right.kind == Kind::Close || right.text == ">";
    match (left.text.as_str(), right.text.as_str()) {
        ("{", "}") => false,
        ("{", _) | (_, "}") => true,
        ("," | ";", _) => !closes,
        (_, "," | ";") => false,
        ("+" | "=" | "->", _) | (_, "+" | "=" | "->") => true,
        (":" | "as" | "dyn" | "mut" | "const" | "impl", _) => !closes,
        (")" | "]" | ">", _) => right.kind == Kind::Word,
        _ => left.kind == Kind::Word && right.kind == Kind::Word,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_type_is_written_as_a_formatter_would() {
        for text in [
            "u64",
            "()",
            "(A,)",
            "(A, B)",
            "Option<Vec<u8>>",
            "std::collections::BTreeMap<String, Vec<(u8, u8)>>",
            "::std::string::String",
            "&'static str",
            "&'a mut [u8]",
            "[u8; 4]",
            "[[u8; N]; 2]",
            "Box<dyn Fn(A, &B) -> C + Send + 'static>",
            "Box<dyn for<'a> Fn(&'a A)>",
            "<Vec<T> as IntoIterator>::Item",
            "<T as ::a::B<C>>::D",
            "impl Iterator<Item = u8>",
            "*const T",
            "fn(A) -> !",
            "r#type::r#fn",
            "Money<{ N + 1 }>",
            "Wrapping<-1>",
            "amounts![EUR, USD]",
            "serde(rename = \"b\", default)",
        ] {
            let tokens: TokenStream = text.parse().expect("the cases are Rust tokens");
            assert_eq!(of(&tokens), text);
        }
    }

    #[test]
    fn the_layout_of_the_source_does_not_show() {
        let tokens: TokenStream = "Option <\n Vec  < ( u8 , String ) > , >".parse().expect("Rust tokens");
        assert_eq!(of(&tokens), "Option<Vec<(u8, String)>>");
    }
}
