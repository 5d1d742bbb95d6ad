use super::*;

const STATE: &str = "1\n# be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state \
                     srv_uweight srv_iweight srv_time_since_last_change srv_check_status \
                     srv_check_result srv_check_health srv_check_state srv_agent_state\n\
                     3 ledger 1 east 127.0.0.1 0 0 1 1 2 8 2 0 6 0\n\
                     3 ledger 2 west 127.0.0.1 2 1 1 1 2 8 2 0 6 0\n\
                     3 ledger 3 more 127.0.0.1 2 0 1 1 2 8 2 0 0 0\n\n";

fn server(name: &str, is_healthy: bool, is_held: bool, is_checked: bool) -> Server {
    Server { name: name.to_owned(), is_healthy, is_held, is_checked }
}

#[test]
fn the_state_of_servers_is_read() {
    let servers = servers::read(STATE).unwrap();
    assert_eq!(
        servers,
        [
            server("east", false, false, true),
            server("west", true, true, true),
            server("more", true, false, false),
        ]
    );
    let up: Vec<_> = servers.iter().map(Server::is_up).collect();
    assert_eq!(up, [false, false, true]);
}

#[test]
fn what_is_no_state_is_told() {
    for (answer, said) in [
        ("Can't find backend.\n\n", "Can't find backend."),
        ("", "it says nothing"),
        ("1\n# be_id be_name\n", "it does not tell srv_name"),
        ("1\n# srv_name srv_op_state srv_admin_state srv_check_state\neast 2\n", "another form"),
        ("HTTP/1.1 400 Bad request\n", "HTTP/1.1 400"),
    ] {
        let error = servers::read(answer).unwrap_err();
        assert!(error.contains(said), "{answer}: {error}");
    }
}

#[test]
fn a_variable_is_read() {
    let value = |answer: &str| servers::variable(answer);
    assert_eq!(value("proc.x: type=str value=<a b>\n\n"), Ok(Some("a b".to_owned())));
    assert_eq!(value("Variable not found.\n\n"), Ok(None));
    assert!(value("Unknown command\n").is_err());
}

#[test]
fn only_names_get_onto_the_socket() {
    let build = |backend: &str, server: &str| {
        let targets = [("east".parse().unwrap(), [server.to_owned()].into())].into();
        let service = "ledger".parse().unwrap();
        Haproxy::new(Settings { service, backend: backend.to_owned(), targets, sockets: vec![] })
    };
    assert!(build("ledger", "pg-1.east:5").is_ok());
    for bad in ["", "a b", "a;shutdown sessions server x", "a/b", "a\n"] {
        let failure = build(bad, "east").map(|_| ()).unwrap_err();
        assert_eq!(failure.code(), Code::SpecInvalid);
        assert!(build("ledger", bad).is_err());
    }
}

#[test]
fn backends_have_variables_of_their_own() {
    assert_eq!(variable("ledger"), "proc.lifeboat.ledger");
    assert_eq!(variable("a-b"), "proc.lifeboat.a_2db");
    assert_ne!(variable("a-b"), variable("a_2db"));
}
