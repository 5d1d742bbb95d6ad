use super::*;
use crate::tidy::tests::tree;

fn found(files: &[(&str, &str)], rule: impl Fn(&Tree) -> Vec<Finding>) -> Vec<String> {
    let (_directory, tree) = tree(files);
    rule(&tree).into_iter().map(|finding| finding.to_string()).collect()
}

#[test]
fn links_lead_to_files() {
    let good = ("docs/a.md", "[b](b.md#part) [up](../README.md \"title\") [web](https://x.org/)");
    let files = [good, ("docs/b.md", "[here](#part)"), ("README.md", "`[code](none.md)`")];
    assert!(found(&files, links).is_empty());
    let bad = [("docs/a.md", "text\n[b](b.md) and [c](a.md)")];
    assert_eq!(found(&bad, links), ["docs/a.md:2: the link to b.md leads nowhere"]);
    assert_eq!(found(&[("a.md", "[out](../a.md)")], links).len(), 1);
    assert_eq!(found(&[("a.md", "[out](/etc/passwd)")], links).len(), 1);
}

#[test]
fn links_in_code_are_examples() {
    assert!(found(&[("a.md", "```\n[b](b.md)\n```\n")], links).is_empty());
    assert_eq!(found(&[("a.md", "```\n```\n[b](b.md)\n")], links).len(), 1);
}

#[test]
fn error_pages_are_linked() {
    let page = ("docs/errors/LB1001.md", "# LB1001");
    assert_eq!(found(&[page], error_pages).len(), 1);
    assert!(found(&[page, ("docs/x.md", "[LB1001](errors/LB1001.md)")], error_pages).is_empty());
}

#[test]
fn decisions_have_one_number_each() {
    let one = ("docs/adr/0001-a.md", "");
    assert!(found(&[one, ("docs/adr/0002-b.md", "")], decisions).is_empty());
    assert_eq!(found(&[one, ("docs/adr/0001-b.md", "")], decisions).len(), 1);
    assert_eq!(found(&[("docs/adr/first.md", "")], decisions).len(), 1);
}

#[test]
fn architecture_names_every_crate() {
    let manifest = ("crates/storage/audit/Cargo.toml", "");
    assert_eq!(found(&[manifest], architecture).len(), 1);
    assert_eq!(found(&[manifest, ("ARCHITECTURE.md", "audits")], architecture).len(), 1);
    assert!(found(&[manifest, ("ARCHITECTURE.md", "storage/audit")], architecture).is_empty());
    assert!(found(&[manifest, ("ARCHITECTURE.md", "    audit/  log")], architecture).is_empty());
}
