//! What Nomad's docker driver tells of a task by its environment and labels, and how its groups share a network. Pure; must
//! never guess: a container that says nothing is none of Nomad's.

use selvedge_registry::name::Name;

/// The label that the driver writes on all that it makes.
pub const ALLOC: &str = "com.hashicorp.nomad.alloc_id";
/// What the driver calls the container that holds a group's network: this, and the allocation's id.
const PAUSE: &str = "nomad_init_";
/// The namespace of all that named none.
const DEFAULT_NAMESPACE: &str = "default";

/// A task, as its environment tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Task {
    task: String,
    group: String,
    job: String,
    namespace: Option<String>,
}

impl Task {
    /// The task that a container runs, if it is one of Nomad's.
    pub fn of<'a>(env: impl Fn(&str) -> Option<&'a str>) -> Option<Self> {
        let given = |key: &str| env(key).filter(|value| !value.is_empty());
        given("NOMAD_ALLOC_ID")?;
        // What a periodic or parameterized job launches has a new name each time; the job has one.
        let job = given("NOMAD_JOB_PARENT_ID").or_else(|| given("NOMAD_JOB_NAME"));
        Some(Self {
            task: given("NOMAD_TASK_NAME")?.to_owned(),
            group: given("NOMAD_GROUP_NAME")?.to_owned(),
            job: job.or_else(|| given("NOMAD_JOB_ID"))?.to_owned(),
            namespace: given("NOMAD_NAMESPACE").map(str::to_owned),
        })
    }

    /// `TASK.GROUP.JOB`, each of them one label whatever it contains.
    pub fn name(&self) -> Option<Name> {
        let [job, group, task] = [&self.job, &self.group, &self.task].map(|part| part.replace('/', "-"));
        Name::from_app_id(&format!("{job}/{group}/{task}")).ok()
    }

    /// Whose it is: the namespace, or the job where the namespace is the one that every job is in by itself.
    pub fn owner(&self) -> &str {
        let named = self.namespace.as_deref().filter(|namespace| *namespace != DEFAULT_NAMESPACE);
        named.unwrap_or(&self.job)
    }
}

/// Whether a container of this name holds the network of this allocation.
pub fn holds_network(name: &str, alloc: &str) -> bool {
    !alloc.is_empty() && name.strip_prefix(PAUSE) == Some(alloc)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(pairs: &[(&str, &'static str)]) -> Option<Task> {
        Task::of(|key| pairs.iter().find(|(name, _)| *name == key).map(|(_, value)| *value))
    }

    const WEB: [(&str, &str); 4] = [
        ("NOMAD_ALLOC_ID", "5b1c"),
        ("NOMAD_TASK_NAME", "web"),
        ("NOMAD_GROUP_NAME", "front"),
        ("NOMAD_JOB_NAME", "shop"),
    ];

    fn with(more: &[(&'static str, &'static str)]) -> Task {
        of(&[&WEB[..], more].concat()).unwrap()
    }

    #[test]
    fn a_task_is_named_from_the_inside_out() {
        let name = |task: &Task| task.name().unwrap().to_string();
        assert_eq!(name(&with(&[])), "web.front.shop");
        assert_eq!(name(&with(&[("NOMAD_JOB_PARENT_ID", "nightly")])), "web.front.nightly");
        let odd = of(&[WEB[0], ("NOMAD_TASK_NAME", "a/b.c"), WEB[2], WEB[3]]).unwrap();
        assert_eq!(name(&odd), "a-b-c.front.shop");
    }

    #[test]
    fn it_belongs_to_its_namespace_or_else_to_its_job() {
        assert_eq!(with(&[]).owner(), "shop");
        assert_eq!(with(&[("NOMAD_NAMESPACE", "default")]).owner(), "shop");
        assert_eq!(with(&[("NOMAD_NAMESPACE", "bank")]).owner(), "bank");
    }

    #[test]
    fn half_of_it_is_no_task_of_nomad_s() {
        assert_eq!(of(&WEB[1..]), None);
        assert_eq!(of(&WEB[..3]), None);
        assert_eq!(of(&[WEB[0], ("NOMAD_TASK_NAME", ""), WEB[2], WEB[3]]), None);
    }

    #[test]
    fn a_group_s_network_is_held_by_the_pause_container_of_its_allocation() {
        assert!(holds_network("nomad_init_5b1c", "5b1c"));
        assert!(!holds_network("nomad_init_5b1c", "77") && !holds_network("web-5b1c", "5b1c"));
        assert!(!holds_network("nomad_init_", ""));
    }
}
