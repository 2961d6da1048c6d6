include!("../read_models.rs");

#[derive(Debug, Clone, ReadModel)]
#[read_model(name = "accounts")]
struct Static {
    #[key]
    id: String,
    owner: &'static str,
}

#[derive(Debug, Clone, ReadModel)]
#[read_model(name = "accounts")]
struct Borrowed {
    #[key]
    id: &str,
}

fn main() {}
