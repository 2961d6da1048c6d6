#[derive(serde::Serialize, es_core::Shape)]
pub struct Name<'a> {
    name: &'a str,
}

fn main() {}
