//! From the kernel's rules to the wanted ones: one transaction as text for nft, and the kernel's rules after it. Pure.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::IpAddr;

use crate::policy::have::{After, Have};
use crate::policy::rules::{self, Base, Chain, FAMILIES, class_name, family_of, group_name};
use crate::policy::strange::Strange;
use crate::policy::wanted::{Touched, Wanted};

/// How many elements one command holds.
const CHUNK: usize = 2000;

/// What is to be sent.
#[derive(Debug, Default)]
pub(super) struct Difference {
    /// For nft; empty when all is right.
    pub(super) text: String,
    /// What is so when it is done.
    pub(super) after: After,
    /// How many things are not right.
    pub(super) count: u64,
    /// The kernel has something that this worker does not know of.
    pub(super) strange: bool,
}

/// The difference in what was noted since the last time, which is then forgotten. What this worker does not know of stays.
pub(super) fn noted(base: &Base, wanted: &mut Wanted, have: &Have) -> Difference {
    let touched = std::mem::take(&mut wanted.touched);
    if touched.all || !have.there {
        return Draft::new(base, wanted, have).whole(false);
    }
    Draft::new(base, wanted, have).touched(&touched)
}

/// The whole difference. `may_remove`: what this worker does not know of goes.
pub(super) fn whole(base: &Base, wanted: &Wanted, have: &Have, may_remove: bool) -> Difference {
    Draft::new(base, wanted, have).whole(may_remove)
}

/// A transaction that is being written, in the order in which nft must read it.
struct Draft<'a> {
    base: &'a Base,
    wanted: &'a Wanted,
    have: &'a Have,
    declared: String,
    filled: String,
    deleted: BTreeMap<String, Vec<String>>,
    added: BTreeMap<String, Vec<String>>,
    dropped_chains: String,
    dropped_sets: String,
    outcome: Difference,
}

impl<'a> Draft<'a> {
    fn new(base: &'a Base, wanted: &'a Wanted, have: &'a Have) -> Self {
        Self {
            base,
            wanted,
            have,
            declared: String::new(),
            filled: String::new(),
            deleted: BTreeMap::new(),
            added: BTreeMap::new(),
            dropped_chains: String::new(),
            dropped_sets: String::new(),
            outcome: Difference::default(),
        }
    }

    fn touched(mut self, touched: &Touched) -> Difference {
        touched.groups.iter().for_each(|group| {
            self.group(*group);
            self.extra_members(*group);
        });
        touched.classes.iter().for_each(|class| self.class(*class));
        touched.members.iter().filter(|(group, _)| !touched.groups.contains(group)).for_each(
            |(group, address)| {
                self.member(*group, *address);
            },
        );
        touched.addresses.iter().for_each(|address| self.address(*address));
        if touched.hosts {
            self.hosts(true);
        }
        self.end()
    }

    fn whole(mut self, may_remove: bool) -> Difference {
        self.skeleton();
        let wanted = self.wanted;
        wanted.groups.keys().for_each(|group| self.group(*group));
        wanted.classes.keys().for_each(|class| self.class(*class));
        wanted.all_addresses().for_each(|address| self.address(address));
        self.hosts(may_remove);
        let strange = Strange::of(wanted, self.have);
        self.outcome.strange = strange.is_some() && !may_remove;
        if may_remove {
            self.remove(strange);
        }
        self.end()
    }

    /// What is not wanted of it goes; of the hosts it has gone already.
    fn remove(&mut self, strange: Strange) {
        strange.addresses.iter().for_each(|address| self.address(*address));
        strange.members.iter().for_each(|(group, address)| self.member(*group, *address));
        strange.classes.iter().for_each(|class| self.class(*class));
        strange.groups.iter().for_each(|group| self.group(*group));
        strange.chains.into_iter().for_each(|name| self.drop_chain(name));
        strange.sets.into_iter().for_each(|name| self.drop_set(name));
    }

    /// The table, and what is always in it.
    fn skeleton(&mut self) {
        if !self.have.there || self.have.dormant {
            self.outcome.count += 1;
            self.declared.push_str(&self.base.wake());
        }
        for (name, declaration) in Base::sets() {
            self.declare(&name, &declaration);
        }
        let chains = self.base.chains();
        for chain in &chains {
            self.chain(chain);
            self.open(chain);
        }
        // Of an earlier worker, with other settings.
        for name in ["input", "output", "published"] {
            if chains.iter().all(|chain| chain.name != name) {
                self.drop_chain(name.to_owned());
            }
        }
    }

    /// What no rule of a chain in a hook speaks of passes.
    fn open(&mut self, chain: &Chain) {
        if let Some(hook) = chain.hook.as_ref().filter(|_| self.have.closed.contains(&chain.name)) {
            let _ = writeln!(self.declared, "add chain {} {} {hook}", self.base.table, chain.name);
            self.outcome.count += 1;
        }
    }

    fn drop_chain(&mut self, name: String) {
        if self.have.chains.contains_key(&name) {
            let table = &self.base.table;
            let _ = write!(self.dropped_chains, "flush chain {table} {name}\ndelete chain {table} {name}\n");
            self.outcome.count += 1;
            self.outcome.after.chains.push((name, None));
        }
    }

    fn drop_set(&mut self, name: String) {
        let kind = if self.have.maps.contains(&name) { "map" } else { "set" };
        let _ = writeln!(self.dropped_sets, "delete {kind} {} {name}", self.base.table);
        self.outcome.count += 1;
        self.outcome.after.sets.push((name, false));
    }

    /// A set or a map, if it is not there; `declaration` has `{}` where the name is to stand.
    fn declare(&mut self, name: &str, declaration: &str) {
        if self.have.sets.contains(name) {
            return;
        }
        let place = format!("{} {name}", self.base.table);
        let _ = writeln!(self.declared, "add {}", declaration.replacen("{}", &place, 1));
        self.outcome.count += 1;
        self.outcome.after.sets.push((name.to_owned(), true));
    }

    /// A chain, if it differs from the wanted one.
    fn chain(&mut self, chain: &Chain) {
        let marks: Vec<String> = chain.rules.iter().map(|rule| rules::mark(rule)).collect();
        let (table, name) = (&self.base.table, &chain.name);
        match self.have.chains.get(name) {
            Some(have) if *have == marks => return,
            Some(_) => _ = writeln!(self.filled, "flush chain {table} {name}"),
            None => {
                let hook = chain.hook.as_deref().unwrap_or_default();
                let _ = writeln!(self.declared, "add chain {table} {name} {hook}");
            }
        }
        for (rule, mark) in chain.rules.iter().zip(&marks) {
            let _ = writeln!(self.filled, "add rule {table} {name} {rule} comment \"{mark}\"");
        }
        self.outcome.count += 1;
        self.outcome.after.chains.push((name.clone(), Some(marks)));
    }

    fn class(&mut self, class: u64) {
        if let Some(known) = self.wanted.classes.get(&class) {
            return self.chain(&rules::class(&known.grants));
        }
        self.drop_chain(class_name(class));
    }

    /// A group's sets and all that is in them.
    fn group(&mut self, group: u64) {
        let Some(known) = self.wanted.groups.get(&group) else { return self.drop_group(group) };
        let comment = rules::comment(&known.text);
        for (end, _, kind) in FAMILIES {
            let declaration = format!("set {{}} {{ type {kind}; comment \"{comment}\"; }}");
            self.declare(&group_name(group, end), &declaration);
        }
        known.members.iter().for_each(|address| self.member(group, *address));
    }

    fn has(&self, group: u64, address: &IpAddr) -> bool {
        self.have.groups.get(&group).is_some_and(|members| members.contains(address))
    }

    /// Who left the group while no rule spoke of it.
    fn extra_members(&mut self, group: u64) {
        let members: Vec<IpAddr> = self.have.groups.get(&group).into_iter().flatten().copied().collect();
        members.iter().for_each(|address| self.member(group, *address));
    }

    fn drop_group(&mut self, group: u64) {
        for (end, _, _) in FAMILIES {
            let name = group_name(group, end);
            if self.have.sets.contains(&name) {
                self.drop_set(name);
            }
        }
        self.outcome.after.gone_groups.push(group);
    }

    fn member(&mut self, group: u64, address: IpAddr) {
        let Some(known) = self.wanted.groups.get(&group) else { return };
        let want = known.members.contains(&address);
        let have = self.has(group, &address);
        if want != have {
            self.element(&group_name(group, family_of(address)), address.to_string(), want);
            self.outcome.after.members.push((group, address, want));
        }
    }

    fn address(&mut self, address: IpAddr) {
        let want = self.wanted.class_of(address).map(|class| (class, self.base.map_of(address)));
        let have = self.have.called.get(&address).copied();
        if want != have {
            let text = |class: u64| format!("{address} : goto {}", class_name(class));
            have.iter().for_each(|(class, map)| self.element(map, text(*class), false));
            want.iter().for_each(|(class, map)| self.element(map, text(*class), true));
            self.outcome.after.called.push((address, want));
        }
        let known = self.have.known.contains(&address);
        if want.is_some() != known {
            self.element(&format!("known{}", family_of(address)), address.to_string(), want.is_some());
            self.outcome.after.known.push((address, want.is_some()));
        }
    }

    fn hosts(&mut self, may_remove: bool) {
        let (want, have) = (&self.wanted.hosts, &self.have.hosts);
        let gone: Vec<_> = have.difference(want).filter(|_| may_remove).collect();
        let come: Vec<_> = want.difference(have).collect();
        if gone.is_empty() && come.is_empty() {
            return;
        }
        gone.iter().for_each(|host| self.host(**host, false));
        come.iter().for_each(|host| self.host(**host, true));
        let after = have.union(want).filter(|host| !gone.contains(host));
        self.outcome.after.hosts = Some(after.copied().collect());
    }

    fn host(&mut self, address: IpAddr, add: bool) {
        self.element(&format!("hosts{}", family_of(address)), address.to_string(), add);
    }

    fn element(&mut self, set: &str, text: String, add: bool) {
        let lists = if add { &mut self.added } else { &mut self.deleted };
        lists.entry(set.to_owned()).or_default().push(text);
        self.outcome.count += 1;
    }

    fn end(mut self) -> Difference {
        let mut text = std::mem::take(&mut self.declared);
        text.push_str(&self.filled);
        for (verb, lists) in [("delete", &self.deleted), ("add", &self.added)] {
            for (set, elements) in lists {
                self.base.elements(&mut text, verb, (set, elements));
            }
        }
        text.push_str(&self.dropped_chains);
        text.push_str(&self.dropped_sets);
        self.outcome.text = text;
        self.outcome
    }
}

impl Base {
    fn elements(&self, text: &mut String, verb: &str, (set, elements): (&str, &[String])) {
        for chunk in elements.chunks(CHUNK) {
            let _ = writeln!(text, "{verb} element {} {set} {{ {} }}", self.table, chunk.join(", "));
        }
    }
}
