include!("../read_models.rs");

#[derive(Debug, Clone, ReadModel)]
#[read_model(name = "accounts")]
struct AccountRow {
    #[key]
    id: String,
    #[column(json = true)]
    owner: String,
    #[column(text("{}"))]
    note: String,
    #[column(json, json)]
    twice: String,
    #[column(name = "x" json)]
    comma: String,
}

fn main() {}
