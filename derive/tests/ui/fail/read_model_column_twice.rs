include!("../read_models.rs");

#[derive(Debug, Clone, ReadModel)]
#[read_model(name = "accounts")]
struct AccountRow {
    #[key]
    id: String,
    owner: String,
    #[column(name = "owner")]
    holder: String,
    #[column(name = "note")]
    remark: String,
    note: String,
}

fn main() {}
