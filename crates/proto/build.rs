//! Compiles the protos without protoc, and writes the descriptor set that gRPC reflection serves.

use std::{env, error::Error, fs, path::PathBuf};

const SERVICES: [&str; 6] = ["approval", "checkpoint", "common", "executor", "registry", "scheduler"];

fn main() -> Result<(), Box<dyn Error>> {
    let root = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?).join("../../proto");
    println!("cargo:rerun-if-changed={}", root.display());
    let files = SERVICES.map(|service| format!("troupe/{service}/v1/{service}.proto"));
    let descriptors =
        protox::Compiler::new([&root])?.include_source_info(true).include_imports(true).open_files(files)?.file_descriptor_set();
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("troupe.bin"), prost::Message::encode_to_vec(&descriptors))?;
    tonic_prost_build::configure().bytes(".").compile_fds(descriptors)?;
    Ok(())
}
