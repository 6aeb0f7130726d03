//! The architecture is what is absent: who may know whom, and what the pure crates never do.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Crates that do no I/O, read no clock, start no thread, draw no entropy and print nothing.
const PURE: [&str; 3] = ["base", "policies", "sim"];

/// What the pure crates may use from outside the workspace: each is pure itself.
const PURE_DEPENDENCIES: [&str; 8] =
    ["flate2", "libm", "rand_xoshiro", "rustc-hash", "serde", "serde_json", "slab", "twox-hash"];

/// Words and paths that never stand in a pure crate, and why.
const NEVER: [(&str, &[&str]); 6] = [
    (
        "I/O",
        &[
            "std::io",
            "std::fs",
            "std::net",
            "std::env",
            "std::process",
            "std::os",
            "println!",
            "eprintln!",
            "print!",
            "eprint!",
            "dbg!",
        ],
    ),
    ("a clock", &["Instant", "SystemTime", "std::time", "core::time"]),
    ("threads", &["std::thread", "std::sync", "rayon", "tokio", "thread_local!"]),
    ("entropy", &["RandomState", "getrandom", "OsRng", "SysRng", "thread_rng", "from_os_rng"]),
    ("random order", &["HashMap", "HashSet", "hash_map", "hash_set"]),
    (
        "std's transcendental functions",
        &[
            ".ln()",
            ".log(",
            ".log2()",
            ".log10()",
            ".ln_1p()",
            ".exp()",
            ".exp2()",
            ".exp_m1()",
            ".powf(",
            ".powi(",
            ".cbrt()",
            ".hypot(",
            ".sin()",
            ".cos()",
            ".tan()",
            ".sin_cos()",
            ".asin()",
            ".acos()",
            ".atan()",
            ".atan2(",
            ".sinh()",
            ".cosh()",
            ".tanh()",
            "f64::ln",
            "f64::log",
            "f64::exp",
            "f64::pow",
            "f64::sin",
            "f64::cos",
            "f64::tan",
            "f64::cbrt",
        ],
    ),
];
/// Hides what it imports from the search above.
const GROUPED: &str = "std::{";

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Normal dependencies of every package of the workspace, by package name.
fn dependencies() -> BTreeMap<String, BTreeSet<String>> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--offline", "--no-deps", "--format-version", "1"])
        .current_dir(root())
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value =
        serde_json::from_slice(&output.stdout).expect("cargo metadata is JSON");
    let name = |value: &serde_json::Value| value["name"].as_str().expect("it is named").to_owned();
    let list = |value: &serde_json::Value| value.as_array().expect("it is a list").clone();
    list(&metadata["packages"])
        .iter()
        .map(|package| {
            let normal = |dependency: &&serde_json::Value| dependency["kind"].is_null();
            let known = list(&package["dependencies"]).iter().filter(normal).map(name).collect();
            (name(package), known)
        })
        .collect()
}

/// The package that ARCHITECTURE.md calls `short`.
fn package(short: &str) -> String {
    match short {
        "plimsoll" => "plimsoll".into(),
        "policies" => "plimsoll-policy".into(),
        "scenarios" => "plimsoll-scenario".into(),
        "reports" => "plimsoll-report".into(),
        other => format!("plimsoll-{other}"),
    }
}

/// "Who may know whom" from ARCHITECTURE.md: `a → b c` says that a may depend on b and c.
fn permissions(document: &str) -> BTreeMap<String, BTreeSet<String>> {
    let (_, section) = document.split_once("## Who may know whom").expect("the section exists");
    let block: String = section
        .lines()
        .skip(1)
        .skip_while(|line| line.is_empty())
        .map(|line| format!("{line}\n"))
        .take_while(|line| line.starts_with("    "))
        .collect();
    let spaced = block.replace('→', " → ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut table: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut knower = None;
    for (i, word) in words.iter().enumerate() {
        if words.get(i + 1) == Some(&"→") {
            knower = Some(package(word));
            table.entry(package(word)).or_default();
        } else if *word != "→" {
            let knower = knower.clone().expect("a list begins with a name and an arrow");
            table.entry(knower).or_default().insert(package(word));
        }
    }
    table
}

/// What `dependencies` contains that `permissions` does not allow.
fn trespasses(
    dependencies: &BTreeMap<String, BTreeSet<String>>,
    permissions: &BTreeMap<String, BTreeSet<String>>,
) -> Vec<String> {
    let all = package("all");
    let mut found = Vec::new();
    for (knower, known) in dependencies {
        let Some(allowed) = permissions.get(knower).or_else(|| {
            // The bottom of the table: on its own line it would know nobody.
            (knower == "plimsoll-base").then_some(const { &BTreeSet::new() })
        }) else {
            found.push(format!("{knower} is not in the table"));
            continue;
        };
        for known in known.iter().filter(|known| dependencies.contains_key(*known)) {
            if !allowed.contains(known) && !allowed.contains(&all) {
                found.push(format!("{knower} knows {known}"));
            }
        }
    }
    found
}

#[test]
fn crates_know_only_whom_they_may() {
    let permissions = permissions(&read(&root().join("ARCHITECTURE.md")));
    let dependencies = dependencies();
    assert!(dependencies.len() >= 8, "the whole workspace is seen: {dependencies:?}");
    assert_eq!(trespasses(&dependencies, &permissions), Vec::<String>::new());
    // Promises that no edit of the table may take back.
    for (knower, known) in [
        ("plimsoll-policy", "plimsoll-sim"),
        ("plimsoll-report", "plimsoll-sim"),
        ("plimsoll-gateway", "plimsoll-sim"),
        ("plimsoll-report", "plimsoll-gateway"),
    ] {
        let knows = dependencies.get(knower).is_some_and(|knows| knows.contains(known));
        assert!(!knows, "{knower} knows {known}");
    }
}

#[test]
fn pure_crates_use_only_pure_crates() {
    let dependencies = dependencies();
    for short in PURE {
        let outside = dependencies[&package(short)].iter().filter(|d| !d.starts_with("plimsoll-"));
        let impure: Vec<_> = outside.filter(|d| !PURE_DEPENDENCIES.contains(&d.as_str())).collect();
        assert!(impure.is_empty(), "{short} uses {impure:?}: pure? then say so in this test");
    }
}

#[test]
fn a_trespass_is_found() {
    let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    let table =
        permissions("## Who may know whom\n\n    policies → base    sim → base policies\n\n");
    let known = |knower: &str, known: &[&str]| {
        let mut all = BTreeMap::from(
            ["base", "policy", "sim"].map(|short| (format!("plimsoll-{short}"), BTreeSet::new())),
        );
        all.insert(knower.into(), set(known));
        trespasses(&all, &table)
    };
    assert!(known("plimsoll-sim", &["plimsoll-base", "plimsoll-policy", "libm"]).is_empty());
    assert_eq!(known("plimsoll-policy", &["plimsoll-sim"]), ["plimsoll-policy knows plimsoll-sim"]);
    assert_eq!(known("plimsoll-base", &["plimsoll-sim"]), ["plimsoll-base knows plimsoll-sim"]);
    assert_eq!(known("plimsoll-new", &[]), ["plimsoll-new is not in the table"]);
}

/// Rust source without comments, without the insides of literals, and without what only tests
/// compile.
fn bare(source: &str) -> String {
    without_tests(&without_literals(source))
}

fn without_literals(source: &str) -> String {
    let mut bare = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(first) = rest.chars().next() {
        let skipped = match first {
            '/' if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
            '/' if rest.starts_with("/*") => rest.find("*/").map_or(rest.len(), |end| end + 2),
            'r' if !bare.ends_with(|c: char| c.is_alphanumeric() || c == '_') => raw_string(rest),
            '"' => string(rest),
            '\'' => character(rest),
            _ => 0,
        };
        if skipped == 0 {
            bare.push(first);
            rest = &rest[first.len_utf8()..];
        } else {
            rest = &rest[skipped..];
        }
    }
    bare
}

/// The length of the string literal at the start of `rest`.
fn string(rest: &str) -> usize {
    let mut escaped = false;
    for (i, c) in rest.char_indices().skip(1) {
        match c {
            '"' if !escaped => return i + 1,
            '\\' => escaped = !escaped,
            _ => escaped = false,
        }
    }
    rest.len()
}

/// The length of the raw string literal at the start of `rest`; 0 if there is none.
fn raw_string(rest: &str) -> usize {
    let hashes = rest[1..].chars().take_while(|c| *c == '#').count();
    if !rest[1 + hashes..].starts_with('"') {
        return 0;
    }
    let close = format!("\"{}", "#".repeat(hashes));
    let open = 2 + hashes;
    rest[open..].find(&close).map_or(rest.len(), |end| open + end + close.len())
}

/// The length of the character literal at the start of `rest`; 0 if that is a lifetime.
fn character(rest: &str) -> usize {
    let mut inside = rest.char_indices().skip(1);
    match inside.next() {
        Some((_, '\\')) => rest[3..].find('\'').map_or(0, |end| 3 + end + 1),
        Some((i, c)) if rest[i + c.len_utf8()..].starts_with('\'') => i + c.len_utf8() + 1,
        Some(_) | None => 0,
    }
}

/// Without each item under `#[cfg(test)]`: up to its `;`, or to the brace that closes it.
fn without_tests(source: &str) -> String {
    let Some((before, item)) = source.split_once("#[cfg(test)]") else {
        return source.to_owned();
    };
    let mut depth = 0;
    let end = item.char_indices().find(|(_, c)| match c {
        '{' => {
            depth += 1;
            false
        }
        '}' => {
            depth -= 1;
            depth == 0
        }
        ';' => depth == 0,
        _ => false,
    });
    let after = end.map_or("", |(i, _)| &item[i + 1..]);
    before.to_owned() + &without_tests(after)
}

/// Modules that are files of their own and that only tests compile.
fn test_modules(source: &str) -> Vec<String> {
    let items = source.split("#[cfg(test)]").skip(1);
    items
        .filter_map(|item| Some(item.trim().strip_prefix("mod ")?.split_once(';')?.0.to_owned()))
        .filter(|name| !name.contains('{'))
        .collect()
}

/// What of [`NEVER`] stands in `source`.
fn offences(source: &str) -> Vec<String> {
    let bare = bare(source);
    let word = |c: char| c.is_alphanumeric() || c == '_';
    let stands = |needle: &str| {
        bare.match_indices(needle).any(|(at, _)| {
            let joined_before = needle.starts_with(word) && bare[..at].ends_with(word);
            let joined_after = needle.ends_with(char::is_alphanumeric)
                && bare[at + needle.len()..].starts_with(word);
            let whole = needle.starts_with(char::is_uppercase);
            !(joined_before || joined_after && whole)
        })
    };
    let named = |(what, needles): &(&str, &[&str])| {
        let found = needles.iter().filter(|needle| stands(needle));
        found.map(|needle| format!("{what}: {needle}")).collect::<Vec<_>>()
    };
    let mut found: Vec<String> = NEVER.iter().flat_map(named).collect();
    if stands(GROUPED) {
        found.push(format!("a grouped import: {GROUPED}"));
    }
    found
}

fn sources(folder: &Path, files: &mut Vec<PathBuf>) {
    let entries = std::fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    for path in entries.map(|entry| entry.expect("a folder can be listed").path()) {
        match path.extension() {
            _ if path.is_dir() => sources(&path, files),
            Some(extension) if extension == "rs" => files.push(path),
            Some(_) | None => {}
        }
    }
}

#[test]
fn pure_crates_never_touch_the_world() {
    for crate_folder in PURE {
        let mut files = Vec::new();
        sources(&root().join(crate_folder).join("src"), &mut files);
        assert!(files.len() >= 5, "{crate_folder}: its sources are seen");
        let tests: Vec<PathBuf> = files
            .iter()
            .flat_map(|file| {
                let folder = match file.file_stem().and_then(|stem| stem.to_str()) {
                    Some("mod" | "lib") => file.with_file_name(""),
                    _ => file.with_extension(""),
                };
                let names = test_modules(&without_literals(&read(file)));
                names.into_iter().map(move |name| folder.join(name))
            })
            .collect();
        let is_test = |file: &PathBuf| {
            tests.iter().any(|test| file.starts_with(test) || file.with_extension("") == *test)
        };
        for file in files.iter().filter(|file| !is_test(file)) {
            let found = offences(&read(file));
            assert!(found.is_empty(), "{}: {found:?}", file.display());
        }
    }
}

#[test]
fn every_offence_is_found() {
    for (what, needles) in NEVER {
        for needle in needles {
            let snippet = format!("fn f(x: f64) {{ let _ = x{needle}; {needle}; }}");
            let found = offences(&snippet);
            let expected = format!("{what}: {needle}");
            assert!(found.contains(&expected), "{snippet}: {found:?}");
        }
    }
    let check = |source: &str, guilty: bool| {
        assert_eq!(!offences(source).is_empty(), guilty, "{source}: {:?}", offences(source));
    };
    check("use std::{fs, fmt};", true);
    check("let y = x\n    .powi(2);", true);
    check("fn f<'a>(x: &'a str) { let q = '\"'; println!(\"{x}\"); }", true);
    check("let s = \"a \\\" b\"; let t = Instant::now();", true);
    check("#[cfg(test)]\nmod tests { fn f() {} }\nuse std::fs;", true);
    check("#[cfg(test)]\nmod tests;\nuse std::fs;", true);
    check("let map: FxHashMap<u32, u32> = FxHashMap::default();", false);
    check("//! No HashMap, no `Instant`.\n/* std::fs */ let s = \"std::io\";", false);
    check("let s = r#\"a \" println! \"#; let c = '\\''; let d = \"std::fs\";", false);
    check("#[cfg(test)]\nmod tests {\n    use std::fs;\n    fn f() { x.ln(); }\n}\n", false);
    check("let y = math::ln(x) + self.exp_of(x); struct Instantly;", false);
    assert_eq!(test_modules("#[cfg(test)]\nmod naive;\n#[cfg(test)]\nmod tests { }"), ["naive"]);
}

/// Whether a manifest takes the workspace's lints.
fn takes_workspace_lints(manifest: &str) -> bool {
    let section = manifest.split("\n[").find(|section| section.trim().starts_with("lints]"));
    section.is_some_and(|section| section.lines().any(|line| line.trim() == "workspace = true"))
}

#[test]
fn unsafe_code_is_forbidden_everywhere() {
    let workspace = read(&root().join("Cargo.toml"));
    assert!(workspace.contains("\nunsafe_code = \"forbid\"\n"));
    let members = workspace.split_once("members = [").expect("the workspace has members").1;
    let members = members.split_once(']').expect("the list ends").0;
    let folders = members.split(',').map(|quoted| quoted.trim().trim_matches('"'));
    for folder in folders.filter(|folder| !folder.is_empty()).chain(["."]) {
        let manifest = read(&root().join(folder).join("Cargo.toml"));
        assert!(takes_workspace_lints(&manifest), "{folder}/Cargo.toml: [lints] workspace = true");
    }
    assert!(!takes_workspace_lints("[package]\nname = \"x\"\n\n[dependencies]\n"));
    assert!(!takes_workspace_lints("[package]\n\n[lints]\nrust = {}\n\n[a]\nworkspace = true\n"));
}
