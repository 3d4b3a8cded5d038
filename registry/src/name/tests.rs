//! Tests of names.

use proptest::prelude::*;

use super::*;

fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}

#[test]
fn text_becomes_wire_bytes_in_lower_case() {
    assert_eq!(name("Db.Shop").wire(), b"\x02db\x04shop");
    assert_eq!(name("db.shop.").wire(), b"\x02db\x04shop\0");
    assert_eq!(name(".").wire(), b"\0");
    assert_eq!(name("_http._tcp.web-1").to_string(), "_http._tcp.web-1");
}

#[test]
fn what_dns_cannot_have_is_refused() {
    for text in ["", "..", "a..b", ".a"] {
        assert!(matches!(Name::parse(text), Err(Error::EmptyLabel(_))), "{text:?}");
    }
    assert!(matches!(Name::parse("a b"), Err(Error::Character { character: ' ', .. })));
    assert!(matches!(Name::parse("bücher"), Err(Error::Character { character: 'ü', .. })));
    assert!(Name::parse(&"a".repeat(63)).is_ok());
    assert!(matches!(Name::parse(&"a".repeat(64)), Err(Error::LabelTooLong(_))));
    // 127 labels of one byte are 254 bytes and the root: just what fits.
    assert!(Name::parse(&vec!["a"; 127].join(".")).is_ok());
    assert!(matches!(Name::parse(&vec!["a"; 128].join(".")), Err(Error::NameTooLong(_))));
}

#[test]
fn app_ids_are_turned_round() {
    assert_eq!(Name::from_app_id("/shop/db").unwrap().to_string(), "db.shop");
    assert_eq!(Name::from_app_id("web").unwrap().to_string(), "web");
    assert_eq!(Name::from_app_id("/a/b/c.v2/").unwrap().to_string(), "c-v2.b.a");
    assert_eq!(Name::from_app_id_flat("/shop/db").unwrap().to_string(), "db-shop");
    assert!(Name::from_app_id("/").is_err());
    assert!(Name::from_app_id_flat("//").is_err());
}

#[test]
fn container_names_are_mangled() {
    assert_eq!(Name::mangle("Shop_db.1").unwrap().to_string(), "shop_db.1");
    assert_eq!(Name::mangle("a..b.").unwrap().to_string(), "a.b");
    assert_eq!(Name::mangle("a b/c").unwrap().to_string(), "a-b-c");
    assert!(Name::mangle("...").is_err());
    let long = Name::mangle(&"x".repeat(80)).unwrap();
    let longer = Name::mangle(&"x".repeat(81)).unwrap();
    assert_eq!(long.wire().len(), 64);
    assert_ne!(long, longer);
}

#[test]
fn within_joins_and_is_within_compares_by_label() {
    let domain = name("selvedge.internal");
    let db = name("db").within(&domain).unwrap();
    assert_eq!(db.to_string(), "db.selvedge.internal.");
    assert_eq!(db.within(&domain).unwrap(), db);
    let apex = domain.into_absolute();
    assert!(db.is_within(&apex) && apex.is_within(&apex) && db.is_within(&name(".")));
    assert!(!name("db.notselvedge.internal.").is_within(&apex));
    assert!(name(&vec!["a"; 125].join(".")).within(&apex).is_err());
}

proptest! {
    #[test]
    fn anything_mangles_to_a_name_that_parses_again(text in any::<String>()) {
        if let Ok(mangled) = Name::mangle(&text) {
            prop_assert_eq!(Name::parse(&mangled.to_string()).unwrap(), mangled);
        }
    }

    #[test]
    fn what_parses_prints_itself_in_lower_case(text in "[a-zA-Z0-9_-]{1,63}(\\.[a-zA-Z0-9_-]{1,9}){0,5}\\.?") {
        prop_assert_eq!(name(&text).to_string(), text.to_ascii_lowercase());
    }
}
