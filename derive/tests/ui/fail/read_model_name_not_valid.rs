include!("../read_models.rs");

#[derive(Debug, Clone, ReadModel)]
#[read_model(name = "Open-Accounts")]
struct Upper {
    #[key]
    id: String,
}

#[derive(Debug, Clone, ReadModel)]
#[read_model(name = "a_name_of_25_characters__")]
struct Long {
    #[key]
    id: String,
}

#[derive(Debug, Clone, ReadModel)]
#[read_model(name = "es_accounts")]
struct Own {
    #[key]
    id: String,
}

#[derive(Debug, Clone, ReadModel)]
#[read_model(name = "2nd")]
struct Digit {
    #[key]
    id: String,
}

fn main() {}
