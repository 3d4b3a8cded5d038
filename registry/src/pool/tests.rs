//! Addresses as they are given, kept and freed.

use super::*;

const ANY: Claiming<'static> = &|_| true;

fn of(name: char) -> Holder {
    Holder::Container(name.to_string())
}

fn book() -> AddressBook {
    let mut book = AddressBook::new("10.32.0.0/12".parse().unwrap(), 30);
    book.set_blocks(&["10.32.0.0/30".parse().unwrap()]);
    book
}

#[test]
fn a_freed_address_rests_before_it_is_given_again() {
    let mut book = book();
    let first = book.take_next(&of('a'), ANY).unwrap();
    assert_eq!(first, Ipv4Addr::new(10, 32, 0, 1));
    book.free(first, &of('a'));
    assert_eq!(book.take_next(&of('b'), ANY).unwrap(), Ipv4Addr::new(10, 32, 0, 2));
    assert_eq!(book.take_next(&of('c'), ANY).unwrap(), Ipv4Addr::new(10, 32, 0, 3));
    assert_eq!(book.take_next(&of('d'), ANY).unwrap(), first);
    assert_eq!(book.take_next(&of('e'), ANY), Err(AddressError::Full(vec!["10.32.0.0/30".parse().unwrap()])));
}

#[test]
fn a_fixed_address_is_taken_once_and_only_inside_the_pool() {
    let mut book = book();
    let address = Ipv4Addr::new(10, 40, 7, 7);
    book.take(address, &of('a')).unwrap();
    assert!(matches!(book.take(address, &of('b')), Err(AddressError::Taken { .. })));
    for outside in
        [Ipv4Addr::new(192, 168, 0, 1), Ipv4Addr::new(10, 32, 0, 0), Ipv4Addr::new(10, 47, 255, 255)]
    {
        assert!(matches!(book.take(outside, &of('c')), Err(AddressError::Outside { .. })), "{outside}");
    }
    book.free(address, &of('b'));
    assert!(book.take(address, &of('c')).is_err(), "only the holder gives back");
    book.free(address, &of('a'));
    book.take(address, &of('c')).unwrap();
}

#[test]
fn a_second_block_is_used_when_the_first_is_full_and_can_go_again() {
    let (first, second) = ("10.32.0.0/30".parse().unwrap(), "10.33.0.0/30".parse().unwrap());
    let mut book = book();
    for name in ['a', 'b', 'c'] {
        book.take_next(&of(name), ANY).unwrap();
    }
    book.set_blocks(&[first, second]);
    assert_eq!(book.take_next(&of('d'), ANY).unwrap(), Ipv4Addr::new(10, 33, 0, 1));
    assert_eq!(book.free_by_block(), [(first, 1), (second, 3)]);
    book.set_blocks(&[first]);
    assert!(!book.owns(Ipv4Addr::new(10, 33, 0, 1)));
    assert!(book.take(Ipv4Addr::new(10, 33, 0, 1), &of('e')).is_err(), "who has an address keeps it");
    book.set_blocks(&[first, second]);
    book.free(Ipv4Addr::new(10, 32, 0, 1), &of('a'));
    assert_eq!(book.take_next(&of('f'), ANY).unwrap(), Ipv4Addr::new(10, 33, 0, 2));
}

#[test]
fn a_promised_address_is_given_to_nobody_else_by_chance() {
    let mut book = book();
    let first = Ipv4Addr::new(10, 32, 0, 1);
    book.promise(first, "a");
    book.promise(first, "b");
    assert_ne!(book.take_next(&of('c'), ANY).unwrap(), first);
    book.take(first, &of('a')).unwrap();
    assert!(book.take(first, &of('b')).is_err(), "one at a time");
    book.free(first, &of('a'));
    book.forget_promise(first, "a");
    book.take_next(&of('d'), ANY).unwrap();
    assert!(book.take_next(&of('e'), ANY).is_err(), "b may still ask for it");
    book.forget_promise(first, "b");
    assert_eq!(book.take_next(&of('e'), ANY).unwrap(), first);
}

#[test]
fn what_cannot_be_claimed_is_passed_over() {
    let mut book = book();
    let second = Ipv4Addr::new(10, 32, 0, 2);
    assert_eq!(book.take_next(&of('a'), &|address| address == second).unwrap(), second);
    assert!(book.take_next(&of('b'), &|_| false).is_err());
}
