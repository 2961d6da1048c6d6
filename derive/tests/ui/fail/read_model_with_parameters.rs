include!("../read_models.rs");

#[derive(Debug, Clone, ReadModel)]
#[read_model(name = "accounts")]
struct Borrowed<'a> {
    #[key]
    id: &'a str,
}

#[derive(Debug, Clone, ReadModel)]
#[read_model(name = "accounts")]
struct Generic<K: Clone, const N: usize> {
    #[key]
    id: K,
    amounts: [u8; N],
}

fn main() {}
