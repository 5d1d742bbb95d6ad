use super::*;

fn parsed(text: &str) -> (Vec<LossKind>, Option<Name>) {
    let Wanted { kinds, table } = Wanted::parse(text).unwrap();
    (kinds, table)
}

#[test]
fn sql_is_understood() {
    let text = |name: &str| Some(Name::Text(name.to_owned()));
    for sql in ["drop table orders", "DROP TABLE IF EXISTS orders CASCADE;", "drop orders"] {
        assert_eq!(parsed(sql), (vec![LossKind::Dropped], text("orders")), "{sql}");
    }
    let delete = parsed("DELETE FROM only Shop.Orders WHERE true");
    assert_eq!(delete, (vec![LossKind::Deleted], text("shop.orders")));
    assert_eq!(parsed("truncate \"Orders\"").1, text("Orders"));
    assert_eq!(parsed("delete"), (vec![LossKind::Deleted], None));
    let number = Some(Name::Numbers(vec![16402]));
    assert_eq!(parsed("truncate 16402"), (vec![LossKind::Truncated], number.clone()));
    assert_eq!(parsed("drop database 16402"), (vec![LossKind::DatabaseDropped], number));
    assert_eq!(parsed("any"), (ALL.to_vec(), None));
}

#[test]
fn what_loses_nothing_is_refused() {
    for text in ["", "update orders", "orders"] {
        assert_eq!(Wanted::parse(text).unwrap_err().code(), Code::Usage);
    }
}
