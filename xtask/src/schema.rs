//! Files that are generated from code and committed.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use lifeboat_telemetry::Code;

/// Writes the generated files.
pub fn write(root: &Path) -> Result<()> {
    for (path, text) in generated()? {
        let path = root.join(path);
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

/// Fails if a committed file differs from what the code says now.
pub fn check(root: &Path) -> Result<()> {
    for (path, text) in generated()? {
        if fs::read_to_string(root.join(path)).ok() != Some(text) {
            bail!("{path} is out of date; run `cargo xtask schema`");
        }
    }
    Ok(())
}

fn generated() -> Result<[(&'static str, String); 2]> {
    let spec = lifeboat_model::schema_json();
    Ok([("docs/schema/lifeboat.schema.json", spec), ("docs/errors.md", errors()?)])
}

/// Every code with its page.
fn errors() -> Result<String> {
    let mut text = String::from(
        "# Errors\n\nEvery error of Lifeboat has a code. `lifeboat explain CODE` prints its page. \
         This list is made by\n`cargo xtask schema`.\n\n| Code | What happened | Exit code |\n\
         |---|---|---|\n",
    );
    for code in Code::ALL {
        let exit = code.kind().exit_code();
        writeln!(text, "| [{code}](errors/{code}.md) | {} | {exit} |", code.title())?;
    }
    Ok(text)
}
