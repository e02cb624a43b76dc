//! The first seeds of the simulation, in parts that run beside each other.

#![cfg(target_os = "linux")]

use std::{collections::BTreeMap, process::Command};

const PROGRAM: &str = env!("CARGO_BIN_EXE_troupe-simulation");

/// What the program says; whether it found nothing.
fn simulate(arguments: &[&str]) -> (bool, String) {
    let output = Command::new(PROGRAM).args(arguments).output().expect("the program starts");
    (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
}

fn hold(seeds: &str) {
    let (fine, said) = simulate(&["--jobs", "1", "--seeds", seeds]);
    assert!(fine, "{said}");
}

#[test]
fn seeds_to_128_keep_every_promise() {
    hold("0..128");
}

#[test]
fn seeds_to_256_keep_every_promise() {
    hold("128..256");
}

#[test]
fn seeds_to_384_keep_every_promise() {
    hold("256..384");
}

#[test]
fn seeds_to_512_keep_every_promise() {
    hold("384..512");
}

#[test]
fn seeds_to_640_keep_every_promise() {
    hold("512..640");
}

#[test]
fn seeds_to_768_keep_every_promise() {
    hold("640..768");
}

#[test]
fn seeds_to_896_keep_every_promise() {
    hold("768..896");
}

#[test]
fn seeds_to_1024_keep_every_promise() {
    hold("896..1024");
}

fn hashes(jobs: &str) -> BTreeMap<u64, String> {
    let (fine, said) = simulate(&["--jobs", jobs, "--seeds", "5000..5020", "--hashes"]);
    assert!(fine, "{said}");
    let line = |line: &str| line.split_once(' ').and_then(|(seed, hash)| Some((seed.parse().ok()?, hash.to_owned())));
    // The last line is the sum.
    said.lines().filter_map(line).filter(|(seed, _)| *seed >= 5000).collect()
}

#[test]
fn a_seed_is_the_same_simulation_each_time() {
    let (first, second) = (hashes("1"), hashes("3"));
    assert_eq!(first.len(), 20, "{first:?}");
    assert_eq!(first, second);
}

/// What the checks say of a journal that is broken on purpose.
fn broken(how: &str, seeds: &str) -> String {
    let (fine, said) = simulate(&["--jobs", "1", "--seeds", seeds, "--break-on-purpose", how]);
    assert!(!fine, "nothing was noticed:\n{said}");
    said
}

#[test]
fn a_journal_that_forgets_is_noticed() {
    let said = broken("forgetful", "0..4");
    assert!(said.contains("does not exist") || said.contains("it has not ended"), "{said}");
    assert!(said.contains("--seed"), "a seed that fails tells how to run it again: {said}");
}

#[test]
fn a_journal_that_takes_what_overtaken_owners_write_is_noticed() {
    let said = broken("stale-epochs", "0..64");
    assert!(said.contains("was taken while the newest was"), "{said}");
}
