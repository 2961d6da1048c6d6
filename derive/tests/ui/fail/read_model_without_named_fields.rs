include!("../read_models.rs");

#[derive(Debug, Clone, ReadModel)]
#[read_model(name = "accounts")]
struct Unnamed(#[key] String, i64);

#[derive(Debug, Clone, ReadModel)]
#[read_model(name = "accounts")]
struct Unit;

#[derive(Debug, Clone, ReadModel)]
#[read_model(name = "accounts")]
struct Empty {}

fn main() {}
