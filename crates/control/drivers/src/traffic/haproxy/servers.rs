//! What HAProxy says of a backend's servers.

/// `srv_op_state` of a server that takes new clients; 1 is one that warms up.
const RUNNING: [&str; 2] = ["1", "2"];
/// `srv_check_state`: a check is configured, and runs.
const CHECKED: u32 = 0x02 | 0x04;

/// One server of a backend.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Server {
    pub name: String,
    /// HAProxy sends clients there, as far as health is concerned.
    pub is_healthy: bool,
    /// Somebody put it into maintenance, or drains it.
    pub is_held: bool,
    /// HAProxy asks its agent.
    pub is_checked: bool,
}

impl Server {
    /// Whether clients get there.
    pub(super) fn is_up(&self) -> bool {
        self.is_healthy && !self.is_held
    }
}

/// Reads the answer to `show servers state BACKEND`: a version, a line of column names, a line a
/// server. Later versions append columns.
pub(super) fn read(answer: &str) -> Result<Vec<Server>, String> {
    let mut lines = answer.lines();
    let version = lines.next().unwrap_or_default().trim();
    let columns: Vec<_> =
        lines.next().unwrap_or_default().trim_start_matches('#').split_whitespace().collect();
    if version != "1" {
        let said = answer.lines().find(|line| !line.trim().is_empty());
        return Err(said.unwrap_or("it says nothing").chars().take(200).collect());
    }
    let column = |name: &str| {
        let place = columns.iter().position(|column| *column == name);
        place.ok_or_else(|| format!("it does not tell {name}"))
    };
    let (name, state) = (column("srv_name")?, column("srv_op_state")?);
    let (admin, check) = (column("srv_admin_state")?, column("srv_check_state")?);
    let server = |line: &str| {
        let fields: Vec<_> = line.split_whitespace().collect();
        let bits = |place: usize| fields.get(place)?.parse::<u32>().ok();
        Some(Server {
            name: (*fields.get(name)?).to_owned(),
            is_healthy: RUNNING.contains(fields.get(state)?),
            is_held: bits(admin)? != 0,
            is_checked: bits(check)? & CHECKED == CHECKED,
        })
    };
    let lines = lines.filter(|line| !line.trim().is_empty());
    lines.map(|line| server(line).ok_or_else(|| "a line of another form".to_owned())).collect()
}

/// Reads the answer to `get var NAME`: `NAME: type=str value=<TEXT>`; none if it was never set.
pub(super) fn variable(answer: &str) -> Result<Option<String>, String> {
    let line = answer.trim();
    if line == "Variable not found." || line.ends_with("undefined value") {
        return Ok(None);
    }
    let value = line.split_once("value=<").and_then(|(_, value)| value.strip_suffix('>'));
    let strange = || line.chars().take(200).collect();
    value.map(|value| Some(value.to_owned())).ok_or_else(strange)
}
