include!("../read_models.rs");

type Maybe = Option<u8>;

#[derive(Debug, Clone, ReadModel)]
#[read_model(name = "accounts")]
struct AccountRow {
    #[key]
    id: Option<String>,
}

#[derive(Debug, Clone, ReadModel)]
#[read_model(name = "others")]
struct OtherRow {
    #[key]
    id: Maybe,
}

fn main() {}
