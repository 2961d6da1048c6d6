//! Says which release this is.

fn main() {
    println!("cargo::rustc-cfg=next_release");
    println!("cargo::rerun-if-changed=build.rs");
}
