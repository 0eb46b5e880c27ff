//! Instructions for a request, whatever else the machine does: `cargo bench -p harness --bench instructions`.
//!
//! Runs itself in valgrind (`apt-get install valgrind`) with few and with many requests, and takes the difference.
//! `-- NAME` measures one chain or hostcall; `-- --profile FILE NAME` keeps what callgrind found, for `callgrind_annotate`.
//! Of a hostcall the figure is for one, the loop around it included.

#![expect(clippy::print_stdout, clippy::expect_used, reason = "a benchmark prints, or fails")]

#[path = "common/callgrind.rs"]
mod callgrind;
mod common;

use callgrind::{INSIDE, counted};
use common::{CALLS, CHAINS, Filters, HOSTCALLS, Resolved, request, serve};
use harness::engine::{Engine, Limits};

const FEW: u32 = 50;

fn main() {
    let given: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    match given.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [INSIDE, name, requests] => inside(name, requests.parse().expect("a number")),
        ["--profile", file, name] => {
            counted(name, many(name), file);
        }
        [name] => print(name),
        _ => {
            println!("| | instructions |\n|---|---|");
            for name in CHAINS.iter().map(|(name, _)| name).chain(HOSTCALLS.iter().map(|(name, ..)| name)) {
                print(name);
            }
        }
    }
}

fn filters(name: &str) -> Filters {
    let chain = CHAINS.iter().find(|(known, _)| *known == name).map(|(_, filters)| *filters);
    let hostcall = HOSTCALLS.iter().find(|(known, ..)| *known == name).map(|(known, ..)| Filters::Hostcall(known));
    chain.or(hostcall).expect("a known chain or hostcall")
}

fn inside(name: &str, requests: u32) {
    let filters = filters(name);
    let body = matches!(filters, Filters::Hostcall(_));
    let local = Resolved::new(filters).start(&Engine::new(Limits::default()).expect("an engine"));
    let request = request(body);
    for _ in 0..requests {
        serve(&local, &request);
    }
}

fn many(name: &str) -> u32 {
    if matches!(filters(name), Filters::Hostcall(_)) { FEW + 20 } else { FEW + 1000 }
}

fn print(name: &str) {
    let (few, many) = (FEW, many(name));
    let difference = counted(name, many, "/dev/null") - counted(name, few, "/dev/null");
    let each = difference / u64::from(many - few);
    match filters(name) {
        Filters::Hostcall(_) => println!("| hostcall: {name} | {} |", each / u64::from(CALLS)),
        _ => println!("| request: {name} | {each} |"),
    }
}
