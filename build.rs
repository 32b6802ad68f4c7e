//! Arguments for the linker of the guest.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if std::env::var("CARGO_CFG_TARGET_ARCH").as_deref() == Ok("wasm32") {
        // rustc reserves 1 MiB of stack by default. The guest needs little, and must fit into 1 MiB as a whole. The
        // last of two such arguments counts. Only the component: the tests' own binaries keep the default.
        println!("cargo::rustc-link-arg-cdylib=-zstack-size=131072");
    }
}
