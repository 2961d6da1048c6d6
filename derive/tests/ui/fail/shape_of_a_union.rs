#[derive(es_core::Shape)]
pub union Number {
    a: u32,
    b: f32,
}

fn main() {}
