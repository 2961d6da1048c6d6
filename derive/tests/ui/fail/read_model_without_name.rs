include!("../read_models.rs");

#[derive(Debug, Clone, ReadModel)]
#[read_model(version = 2)]
struct OpenAccountRow {
    #[key]
    id: String,
}

fn main() {}
