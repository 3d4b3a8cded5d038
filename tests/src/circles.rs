//! Which files of a crate use each other in a circle, by their imports. Must never be certain of more than the text
//! says: what a macro pulls in is not seen, and tests within a file are left out, as they may use what they like.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// A file by its modules' names: `["http", "head"]` is `http/head.rs`; none is the crate's root.
type Module = Vec<String>;

/// The files of one crate and the files that each imports.
#[derive(Debug, Default)]
pub struct Imports {
    files: BTreeMap<Module, PathBuf>,
    uses: BTreeMap<Module, BTreeSet<Module>>,
}

impl Imports {
    /// Reads the sources below a crate's `src`.
    pub fn read(src: &Path) -> Self {
        let mut imports = Self::default();
        imports.find(src, &Vec::new());
        for (module, path) in &imports.files {
            let text = std::fs::read_to_string(path).expect("a source");
            let uses = paths(&code(&text)).iter().filter_map(|path| imports.resolve(module, path)).collect();
            imports.uses.insert(module.clone(), uses);
        }
        imports
    }

    fn find(&mut self, dir: &Path, module: &Module) {
        for entry in std::fs::read_dir(dir).expect("a folder").flatten() {
            let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
            let inner = |stem: &str| [module.as_slice(), &[stem.to_owned()]].concat();
            match name.strip_suffix(".rs") {
                Some("tests") => {}
                Some("lib" | "main") if module.is_empty() => _ = self.files.insert(Vec::new(), path),
                Some(stem) => _ = self.files.insert(inner(stem), path),
                // Programs of their own, each with another root.
                None if module.is_empty() && name == "bin" => {}
                None if path.is_dir() => self.find(&path, &inner(&name)),
                None => {}
            }
        }
    }

    /// The file that a path leads to, read from within `module`; nothing when it leaves the crate.
    fn resolve(&self, module: &Module, path: &[String]) -> Option<Module> {
        let (mut at, mut rest) = match path.first()?.as_str() {
            "crate" => (Module::new(), &path[1..]),
            "super" => (module.clone(), path),
            "self" => (module.clone(), &path[1..]),
            child => {
                let child = [module.as_slice(), &[child.to_owned()]].concat();
                (self.files.contains_key(&child).then_some(module.clone())?, path)
            }
        };
        while rest.first().is_some_and(|word| word == "super") {
            at.pop();
            rest = &rest[1..];
        }
        for word in rest {
            let inner = [at.as_slice(), std::slice::from_ref(word)].concat();
            if !self.files.contains_key(&inner) {
                break;
            }
            at = inner;
        }
        (at != *module && self.files.contains_key(&at)).then_some(at)
    }

    fn reached<'a>(&'a self, from: &'a Module) -> BTreeSet<&'a Module> {
        let (mut found, mut next) = (BTreeSet::new(), vec![from]);
        while let Some(module) = next.pop() {
            next.extend(self.uses[module].iter().filter(|used| found.insert(*used)));
        }
        found
    }

    /// Each circle, as the sorted paths of its files below `src`.
    pub fn circles(&self) -> BTreeSet<Vec<String>> {
        let reached: BTreeMap<&Module, BTreeSet<&Module>> =
            self.files.keys().map(|module| (module, self.reached(module))).collect();
        let of = |module: &Module| {
            let both = |other: &&Module| reached[module].contains(*other) && reached[*other].contains(module);
            self.files.keys().filter(both).map(name).collect::<Vec<_>>()
        };
        self.files.keys().map(of).filter(|circle| circle.len() > 1).collect()
    }
}

fn name(module: &Module) -> String {
    if module.is_empty() { "the root".to_owned() } else { format!("{}.rs", module.join("/")) }
}

/// The text without comments and without the tests at its end.
fn code(text: &str) -> String {
    let text = text.split("\n#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    text.lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n")
}

/// All paths of more than one word in the text, lists in braces taken apart.
fn paths(text: &str) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find("::") {
        let start = rest[..at].rfind(|c: char| !is_word(c)).map_or(0, |before| before + 1);
        let head = &rest[start..at];
        rest = &rest[at + 2..];
        if !head.is_empty() && !rest.is_empty() {
            rest = &rest[tail(rest, &[head.to_owned()], &mut found)..];
        }
    }
    found
}

/// Takes in what follows `path::`; how many bytes of `text` that was.
fn tail(text: &str, path: &[String], found: &mut Vec<Vec<String>>) -> usize {
    if text.starts_with('{') {
        return list(text, path, found);
    }
    let end = text.find(|c: char| !is_word(c)).unwrap_or(text.len());
    let path = [path, &[text[..end].to_owned()]].concat();
    match text[end..].strip_prefix("::") {
        Some(more) => end + 2 + tail(more, &path, found),
        None => {
            found.push(path);
            end
        }
    }
}

/// Takes in `{a, b::c, d::{..}}`.
fn list(text: &str, path: &[String], found: &mut Vec<Vec<String>>) -> usize {
    let mut at = 1;
    while let Some(next) = text[at..].find(|c: char| is_word(c) || c == '}') {
        at += next;
        if text[at..].starts_with('}') {
            return at + 1;
        }
        at += tail(&text[at..], path, found);
    }
    text.len()
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(sources: &[(&str, &str)]) -> BTreeSet<Vec<String>> {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in sources {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        Imports::read(dir.path()).circles()
    }

    #[test]
    fn a_circle_is_found_however_it_is_written() {
        let a_and_b = BTreeSet::from([vec!["a.rs".to_owned(), "b.rs".to_owned()]]);
        for back in
            ["use crate::a::A;", "use super::a;", "use crate::{c, a::{A, B}};", "fn f() { crate::a::f() }"]
        {
            let found = files(&[
                ("lib.rs", "mod a; mod b; mod c;"),
                ("a.rs", "use crate::b::B;"),
                ("b.rs", back),
                ("c.rs", ""),
            ]);
            assert_eq!(found, a_and_b, "{back}");
        }
    }

    #[test]
    fn what_is_no_circle_is_not_taken_for_one() {
        let found = files(&[
            ("lib.rs", "pub mod a; pub mod b;"),
            ("a.rs", "use crate::b::B;\nmod inner;\nuse inner::f;"),
            ("a/inner.rs", "// use super::f;\nuse super::super::b::B;"),
            ("b.rs", "fn b() {}\n#[cfg(test)]\nmod tests {\n    use crate::a::A;\n}\n"),
        ]);
        assert!(found.is_empty(), "{found:?}");
    }

    #[test]
    fn a_parent_and_its_child_can_be_a_circle() {
        let found = files(&[
            ("main.rs", "mod a;"),
            ("a.rs", "mod inner;\nfn f() { inner::g() }"),
            ("a/inner.rs", "use super::f;"),
        ]);
        assert_eq!(found, BTreeSet::from([vec!["a.rs".to_owned(), "a/inner.rs".to_owned()]]));
    }
}
