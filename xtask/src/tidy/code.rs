//! Rules over Rust source, read with a real parser.

use std::path::Path;

use syn::spanned::Spanned;
use syn::visit::{self, Visit};
use syn::{Attribute, Block, ImplItemFn, ItemFn, ItemMod, Macro, Meta, Signature, TraitItemFn};

use super::{File, Finding, Tree};

const FUNCTION_LINES: usize = 70;
const FILE_LINES: usize = 700;
/// Files named after a flow read top-down; their steps are sibling files.
const FLOW_FILES: [&str; 4] = ["run.rs", "push.rs", "fetch.rs", "restore.rs"];
const FLOW_LINES: usize = 250;
/// Names that say nothing, so that everything ends up in them.
const EMPTY_NAMES: [&str; 4] = ["utils", "common", "types", "helpers"];

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    tree.with_ending(".rs").flat_map(check_file).collect()
}

fn check_file(file: &File) -> Vec<Finding> {
    let mut rules = Rules { path: &file.path, test: is_test(&file.path), findings: Vec::new() };
    rules.file_length(&file.text);
    match syn::parse_file(&file.text) {
        Ok(syntax) => rules.visit_file(&syntax),
        Err(error) => rules.add(error.span().start().line, format!("cannot be parsed: {error}")),
    }
    rules.findings
}

/// Length limits are for what is shipped or kept running, not for lists of test cases.
fn is_test(path: &str) -> bool {
    path.starts_with("tests/") || path.ends_with("/tests.rs") || path.contains("/tests/")
}

struct Rules<'a> {
    path: &'a str,
    test: bool,
    findings: Vec<Finding>,
}

impl Rules<'_> {
    fn add(&mut self, line: usize, message: impl Into<String>) {
        self.findings.push(Finding::new(self.path, line, message));
    }

    fn file_length(&mut self, text: &str) {
        let lines = text.lines().count();
        let name = Path::new(self.path).file_name().and_then(|name| name.to_str());
        let flow = name.is_some_and(|name| FLOW_FILES.contains(&name));
        let limit = if flow { FLOW_LINES } else { FILE_LINES };
        if !self.test && lines > limit {
            self.add(0, format!("{lines} lines; the limit is {limit}"));
        }
    }

    fn function_length(&mut self, signature: &Signature, body: &Block) {
        let first = signature.span().start().line;
        let lines = body.span().end().line.saturating_sub(first).saturating_add(1);
        if !self.test && lines > FUNCTION_LINES {
            let name = &signature.ident;
            self.add(first, format!("fn {name} has {lines} lines; the limit is {FUNCTION_LINES}"));
        }
    }
}

impl<'ast> Visit<'ast> for Rules<'_> {
    fn visit_item_fn(&mut self, item: &'ast ItemFn) {
        self.function_length(&item.sig, &item.block);
        visit::visit_item_fn(self, item);
    }

    fn visit_impl_item_fn(&mut self, item: &'ast ImplItemFn) {
        self.function_length(&item.sig, &item.block);
        visit::visit_impl_item_fn(self, item);
    }

    fn visit_trait_item_fn(&mut self, item: &'ast TraitItemFn) {
        if let Some(body) = &item.default {
            self.function_length(&item.sig, body);
        }
        visit::visit_trait_item_fn(self, item);
    }

    fn visit_item_mod(&mut self, item: &'ast ItemMod) {
        let line = item.ident.span().start().line;
        if EMPTY_NAMES.iter().any(|name| item.ident == name) {
            self.add(line, format!("a module named {} says nothing", item.ident));
        }
        let tests = item.attrs.iter().any(|attribute| names(attribute, "cfg", &["test"]));
        if tests && item.content.is_some() {
            self.add(line, "tests stand in a file of their own, foo/tests.rs beside foo.rs");
        }
        visit::visit_item_mod(self, item);
    }

    fn visit_attribute(&mut self, attribute: &'ast Attribute) {
        let line = attribute.span().start().line;
        if attribute.path().is_ident("allow") || names(attribute, "cfg_attr", &["allow"]) {
            self.add(line, "write #[expect(lint, reason = \"...\")] instead of allow");
        }
        if names(attribute, "serde", &["flatten", "untagged"]) {
            self.add(line, "serde's flatten and untagged spoil error messages");
        }
        visit::visit_attribute(self, attribute);
    }

    fn visit_macro(&mut self, item: &'ast Macro) {
        for name in ["todo", "unimplemented"] {
            if item.path.is_ident(name) {
                self.add(item.span().start().line, format!("{name}! must not be committed"));
            }
        }
        visit::visit_macro(self, item);
    }
}

/// Is it `#[path(...)]` with one of `words` among the words in the parentheses?
fn names(attribute: &Attribute, path: &str, words: &[&str]) -> bool {
    let Meta::List(list) = &attribute.meta else {
        return false;
    };
    let tokens = list.tokens.to_string();
    let mut found = tokens.split(|c: char| !c.is_alphanumeric() && c != '_');
    list.path.is_ident(path) && found.any(|word| words.contains(&word))
}

#[cfg(test)]
mod tests;
