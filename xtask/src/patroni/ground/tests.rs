use lifeboat_testkit::haproxy::proxies;

use super::*;

#[test]
fn haproxy_asks_as_patroni_says() {
    let text = as_patroni(&proxies("x", "127.0.0.1:1".parse().unwrap(), &[]), "inter 3s fall 3");
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let wanted = [
        "option httpchk OPTIONS /primary",
        "default-server check inter 3s fall 3 on-marked-down shutdown-sessions",
        "timeout check 5s",
    ];
    for line in wanted {
        assert!(lines.contains(&line), "{text}");
    }
}
