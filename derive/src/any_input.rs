//! No input makes a derive panic, or write what is not Rust.

use proc_macro2::{Delimiter, Group, TokenStream, TokenTree};
use syn::DeriveInput;

const ITEMS: [&str; 9] = [
    r#"
    #[derive(Event)] #[event(aggregate = "account")] #[serde(tag = "t", rename_all = "snake_case")]
    enum E<'a, T: A<B = u8>, const N: usize> where T: Copy {
        #[event(name = "opened", version = 2)] #[serde(skip)] Opened { #[serde(rename = "x")] owner: &'static str, b: [u8; 4] } = 3,
        #[event(name = "closed")] #[command(name = "close")] Closed(Vec<(T, <T as A>::B)>, fn(&u8) -> u8), Gone, Empty(),
    }
    "#,
    r#"
    #[aggregate(context = "bank", name = "account", id = Id<u8, [u8; 2]>, command = C, event = E<T>, error = (), snapshot = 2, codec = a::B)]
    pub(crate) struct S<T = u8>(#[aggregate(x)] #[serde(with = "x")] T, dyn Fn(u8) -> u8 + 'static);
    "#,
    r#"#[aggregate(name, = 1, snapshot = -0, id = "u8", contxt = {})] #[event()] #[event] #[event = 1] union U { r#type: u8 }"#,
    r#"enum r#enum { #[event(name = 1u32, version = "x", name = b'x', 4 = 4, r#name = 1.0e9, version = 99999999999)] r#fn {}, Ü, _1 }"#,
    r#"
    #[read_model(name = "accounts", version = 2, index(by_balance = [balance, id], by_type = [r#type]), index(by_owner = [owner]))]
    pub struct Row {
        #[key] id: Id<u8>, #[key] #[column(text, name = "part")] part: a::B,
        #[column(name = "x", json)] r#type: Option<Vec<u8>>, #[column(text)] owner: ::std::option::Option<(A, B)>, balance: [u8; 4],
    }
    "#,
    r#"
    #[read_model(name = "es_x", index(a = [x, x], es_ = x, "b"), index, index(), indx(c = ["x"]), index = [x])] #[key] #[read_model]
    struct S<'a, T: A<B = u8>, const N: usize> where T: Copy {
        #[key(x)] #[key] #[column(json, text)] x: Option<u8>, #[column(json = 1, txt)] #[column()] _y: &'static T, #[column(name = "x")] z: &'a [u8; N],
    }
    "#,
    r#"#[read_model(name = "a")] struct Id<T>(#[key] #[column(json)] Option<T>);"#,
    r#"struct Cents where u8: Copy { r#type: i64 }"#,
    r#"
    #[serde(rename_all(serialize = "camelCase"), rename_all_fields = "UPPERCASE", default = "a::b", into = "A<u8>")] #[shape(opaque = "a-1")]
    enum Shape<T: A<B = u8>> {
        #[serde(rename = "x", other, with = "a::b")] A { #[serde(default = "f", flatten, skip_serializing_if = "a")] a: T, #[shape(opaque = "b")] b: B },
        #[serde(skip)] B(#[shape(opaque)] u8, #[serde(with = "1")] [u8; 4]), #[shape(x)] C(),
    }
    "#,
];

fn expand_all(tokens: TokenStream) -> usize {
    let Ok(input) = syn::parse2::<DeriveInput>(tokens) else { return 0 };
    let derives = [
        crate::event::expand,
        crate::command::expand,
        crate::aggregate::expand,
        crate::read_model::expand,
        crate::column_value::expand,
        crate::shape::expand,
    ];
    for expanded in derives.map(|expand| expand(&input)) {
        syn::parse2::<syn::File>(expanded).expect("a derive writes items");
    }
    1
}

/// Leaves out, repeats, exchanges or unwraps a few tokens somewhere.
fn change(tokens: TokenStream, random: &mut fastrand::Rng) -> TokenStream {
    let mut tokens: Vec<TokenTree> = tokens.into_iter().collect();
    if tokens.is_empty() {
        return TokenStream::new();
    }
    // Mostly inside of groups: a change at the top leaves no item to derive on.
    let groups: Vec<_> = (0..tokens.len()).filter(|&at| matches!(tokens[at], TokenTree::Group(_))).collect();
    if let Some(at) = random.choice(groups)
        && let TokenTree::Group(group) = &tokens[at]
        && random.u8(..10) > 0
    {
        let changed = change(group.stream(), random);
        let delimiter = if random.u8(..20) == 0 { Delimiter::None } else { group.delimiter() };
        tokens[at] = Group::new(delimiter, changed).into();
        return tokens.into_iter().collect();
    }
    let at = random.usize(..tokens.len());
    match random.u8(..3) {
        0 => drop(tokens.remove(at)),
        1 => tokens.insert(random.usize(..=tokens.len()), tokens[at].clone()),
        _ => {
            let other = random.usize(..tokens.len());
            tokens.swap(at, other);
        }
    }
    tokens.into_iter().collect()
}

#[test]
fn any_input_gives_rust() {
    let mut random = fastrand::Rng::with_seed(1);
    let mut items = 0;
    for text in ITEMS {
        let item: TokenStream = text.parse().expect("the items are Rust tokens");
        assert_eq!(expand_all(item.clone()), 1, "not an item: {text}");
        for _ in 0..3_000 {
            let changes = random.usize(1..6);
            let changed = (0..changes).fold(item.clone(), |tokens, _| change(tokens, &mut random));
            items += expand_all(changed);
        }
    }
    assert!(items > 3_000, "only {items} of the changed inputs were items: the test shows nothing");
}
